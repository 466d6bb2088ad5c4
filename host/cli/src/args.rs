//! The command line as clap sees it: global options and the list of commands. Runs nothing.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::ConnectionArgs;
use crate::commands::{
    approve, audit, backend, completion, grants, issue, journal, lease, plugin, policy, prompt,
    reload, revoke, run, secret, session, why,
};
use crate::exit::{Exit, Failure};
use crate::print::{Format, Printer};

/// Short-lived credentials for AI agents, from the Claviger broker.
#[derive(Parser)]
#[command(name = "claviger", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// Where the broker is.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// How to write the answer
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, agents' first.
#[derive(Subcommand)]
pub enum Command {
    /// Run a command in a session of its own, which ends with it
    Run(run::RunArgs),
    /// Open, watch and close a session by hand
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// What this session may ask for, and why not the rest
    #[command(after_help = grants::EXAMPLE)]
    Grants,
    /// Issue one credential
    Issue(issue::IssueArgs),
    /// List and give back leases; operators: find and retry them
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// End sessions or leases at once, and follow them until they are gone (operators)
    Revoke(revoke::RevokeArgs),
    /// Grant or refuse what another operator asked for (operators)
    #[command(subcommand)]
    Approve(approve::ApproveCommand),
    /// Read, export and verify the journal (operators)
    #[command(subcommand)]
    Audit(Box<audit::AuditCommand>),
    /// Put the journal under another sealing key (operators)
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Tell what stands behind a refusal (operators)
    Why(why::WhyArgs),
    /// The policies that decide in a broker (operators)
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// The roles of a broker (operators)
    #[command(subcommand)]
    Role(policy::RoleCommand),
    /// Check prompt files, without a broker
    #[command(subcommand)]
    Prompt(prompt::PromptCommand),
    /// Write, check, inspect, test and sign plugins; list those of a broker (operators)
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Replace the root credentials of backends (operators)
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// Have the broker keep secrets for its backends, and forget them (operators)
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Have the broker load configuration, plugins, policies and prompt files again (operators)
    #[command(after_help = "Example:\n  claviger reload && claviger audit tail --last 1")]
    Reload(reload::ReloadArgs),
    /// The version of this command
    Version,
    /// Completions for a shell
    Completion(completion::CompletionArgs),
}

/// What there is to say instead of running a command: help, or what is wrong with the call.
pub struct Answer {
    error: clap::Error,
    wants_json: JsonWanted,
}

/// Whether errors are to be JSON, when the arguments could not be parsed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JsonWanted {
    Yes,
    No,
}

/// Parses the arguments of the process.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Cli, Answer> {
    let args: Vec<OsString> = args.collect();
    let matches = Cli::command().try_get_matches_from(&args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|mut error| {
        if is_about_token(&error) {
            let why = "the session token is taken from CLAVIGER_SESSION_TOKEN only: every local user can read the arguments of every process";
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![why.into()]));
        }
        Answer { error, wants_json: JsonWanted::of(&args) }
    })
}

impl Answer {
    /// Shows it and returns the exit code.
    pub fn show(&self) -> Exit {
        let exit = if self.error.use_stderr() { Exit::USAGE } else { Exit::OK };
        if exit == Exit::USAGE && self.wants_json == JsonWanted::Yes {
            let text = self.error.render().to_string();
            let sentence = text.trim().trim_start_matches("error: ");
            Printer { format: Format::Json }.failure(&Failure::usage(sentence));
        } else {
            // Nothing is left to say it to if the stream is gone.
            let _lost = self.error.print();
        }
        exit
    }
}

impl JsonWanted {
    fn of(args: &[OsString]) -> Self {
        let own: Vec<&str> =
            args.iter().filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--").collect();
        let in_one = own.iter().any(|arg| matches!(*arg, "--output=json" | "-ojson" | "-o=json"));
        let in_two = own.windows(2).any(|pair| matches!(pair, ["--output" | "-o", "json"]));
        if in_one || in_two { Self::Yes } else { Self::No }
    }
}

fn is_about_token(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::UnknownArgument
        && matches!(
            error.get(ContextKind::InvalidArg),
            Some(ContextValue::String(arg)) if arg.contains("token")
        )
}

const AFTER_HELP: &str = "\
Example: psql as the role `support-triage`, with a login that lasts as long as psql does
  claviger run --role support-triage --grant orders-db/readonly -- psql orders

Exit codes: 0 ok, 1 failure, 2 usage, 3 denied, 4 needs approval, 5 session over, 6 unreachable;
`run` and `issue … -- COMMAND` end with the code of the command (126 cannot run, 127 not found).";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn parsed(line: &str) -> Result<Cli, Answer> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_guide_parse() {
        for line in [
            "claviger session open --role R --life 2h --reason T-1 -o env",
            "claviger session watch",
            "claviger session close",
            "claviger session rebind next.pem",
            "claviger session child --role R --life 1h -o json",
            "claviger run --child --role R -- true",
            "claviger run --role R --life 2h --grant a/b --grant c/d -- psql -c --output=x",
            "claviger grants --output json",
            "claviger issue a/b --ttl 30m --reason T --idempotency-key k -- make test",
            "claviger session list --role R --requester unix:0 --all -o json",
            "claviger revoke requester oidc:corp:alice --reason left --yes",
            "claviger revoke session ses_1 --dry-run",
            "claviger revoke backend orders-db --no-wait -y -o json",
            "claviger revoke everything",
            "claviger lease list",
            "claviger lease release int_1",
            "claviger lease query --state stuck --state due",
            "claviger lease retry int_1 --admin-socket /a.sock",
            "claviger audit tail --last 5 --follow",
            "claviger audit query --role R --session ses_1 --from 3 --to 9",
            "claviger audit query --requester unix:1 --event denied --code NO_PERMIT --since 2h",
            "claviger audit query --operator unix:1 --action admin::revoke --decision permit",
            "claviger audit query --since 2026-11-23T12:00:00Z --before 2026-11-24T12:00:00Z",
            "claviger policy list",
            "claviger role list -o json",
            "claviger lease query --role R --requester unix:1 --backend b --session ses_1",
            "claviger audit export",
            "claviger audit verify - --expect 1:0000000000000000000000000000000000000000000000000000000000000000",
            "claviger why den_1",
            "claviger prompt lint a.md b.md",
            "claviger prompt digest a.md",
            "claviger plugin list -o json",
            "claviger plugin lift postgres",
            "claviger plugin new tokens --kind sql",
            "claviger plugin check a.wasm --output json",
            "claviger plugin test a.wasm --config c.toml",
            "claviger secret put aws/prod-key --file key.txt",
            "claviger secret list -o json",
            "claviger journal rekey",
            "claviger backend rotate orders-db --connection admin",
            "claviger secret rotate orders/admin",
            "claviger secret delete aws/prod-key --force",
            "claviger reload --approval apr_1",
            "claviger approve list",
            "claviger approve show apr_1 -o json",
            "claviger approve grant apr_1",
            "claviger approve refuse apr_1",
            "claviger revoke everything --yes --approval apr_1",
            "claviger reload",
            "claviger version",
            "claviger completion bash",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_wrong_call_is_usage_and_help_is_not() {
        for (line, expect) in [
            ("claviger --help", Exit::OK),
            ("claviger --version", Exit::OK),
            ("claviger", Exit::USAGE),
            ("claviger run -- true", Exit::USAGE),
            ("claviger run --role R", Exit::USAGE),
            ("claviger issue a/b --ttl soon", Exit::USAGE),
            ("claviger lease query --state lost", Exit::USAGE),
            ("claviger revoke", Exit::USAGE),
            ("claviger revoke role", Exit::USAGE),
        ] {
            let answer = parsed(line).err().unwrap();
            let exit = if answer.error.use_stderr() { Exit::USAGE } else { Exit::OK };
            assert_eq!(exit, expect, "{line}");
        }
    }

    #[test]
    fn a_token_argument_is_refused_with_the_reason() {
        let answer = parsed("claviger grants --session-token abc").err().unwrap();
        let text = answer.error.render().to_string();
        assert!(text.contains("CLAVIGER_SESSION_TOKEN only"), "{text}");
        assert!(!text.contains("abc"), "{text}");
    }

    #[test]
    fn json_is_wanted_by_the_own_arguments_only() {
        for (line, expect) in [
            ("claviger nonsense --output json", JsonWanted::Yes),
            ("claviger -o=json nonsense", JsonWanted::Yes),
            ("claviger run -- cmd --output json", JsonWanted::No),
            ("claviger nonsense", JsonWanted::No),
        ] {
            assert_eq!(parsed(line).err().unwrap().wants_json, expect, "{line}");
        }
    }
}
