//! Runs the chosen command: one file each. The list of what there is stands in `args.rs`.

pub mod approve;
pub mod audit;
pub mod backend;
pub mod completion;
pub mod grants;
pub mod issue;
pub mod journal;
pub mod lease;
pub mod plugin;
pub mod policy;
pub mod prompt;
pub mod reload;
pub mod revoke;
pub mod run;
pub mod secret;
pub mod session;
pub mod version;
pub mod why;

use clap::CommandFactory;

use crate::args::{Cli, Command};
use crate::client::ConnectionArgs;
use crate::exit::{Exit, Failure};
use crate::print::Printer;

/// What every command gets.
pub struct Context {
    /// Where the broker is.
    pub connection: ConnectionArgs,
    /// Writes the answer.
    pub printer: Printer,
}

/// Runs one command to its end.
pub async fn run(cli: Cli) -> Result<Exit, Failure> {
    let context = Context { connection: cli.connection, printer: Printer { format: cli.output } };
    match cli.command {
        Command::Run(args) => return run::run(&context, &args).await,
        Command::Issue(args) => return issue::run(&context, args).await,
        Command::Audit(command) => return audit::run(&context, *command).await,
        Command::Plugin(command) => return plugin::run(&context, command).await,
        Command::Revoke(args) => return revoke::run(&context, args).await,
        Command::Prompt(command) => return prompt::run(&context, &command),
        Command::Secret(command) => return secret::run(&context, command).await,
        Command::Session(command) => session::run(&context, command).await?,
        Command::Policy(policy::PolicyCommand::List) => policy::policies(&context).await?,
        Command::Role(policy::RoleCommand::List) => policy::roles(&context).await?,
        Command::Approve(command) => approve::run(&context, command).await?,
        Command::Grants => grants::run(&context).await?,
        Command::Lease(command) => lease::run(&context, command).await?,
        Command::Backend(command) => backend::run(&context, command).await?,
        Command::Journal(command) => journal::run(&context, command).await?,
        Command::Why(args) => why::run(&context, &args).await?,
        Command::Reload(args) => return reload::run(&context, args).await,
        Command::Version => version::run(&context)?,
        Command::Completion(args) => completion::run(&context, &args, Cli::command())?,
    }
    Ok(Exit::OK)
}
