//! `claviger revoke`: ends what is selected and follows it until the last credential is gone. For
//! operators. Decides nothing: the broker asks its policies.

use std::io::{self, BufRead, IsTerminal};

use clap::{Args, Subcommand};
use claviger_proto::v1::revoke_request::Selector;
use claviger_proto::v1::{Everything, RevokeRequest, RevokeResponse, RevokeStage};
use serde::Serialize;
use tonic::Streaming;

use super::Context;
use crate::client;
use crate::exit::{Exit, Failure};
use crate::print::Printer;
use crate::text::{enum_name, moment};
use crate::view::{SessionRowView, session_table};

/// What is to end.
#[derive(Subcommand)]
pub enum Target {
    /// One session
    Session(Named),
    /// Every session of a role
    Role(Named),
    /// Every session for a requester: what runs for somebody who leaves
    Requester(Named),
    /// Every session of a workload
    Workload(Named),
    /// Every lease on a backend; their sessions go on
    Backend(Named),
    /// Every session that began with these bytes of a prompt file
    Prompt(Named),
    /// Every session
    Everything,
}

/// What a target is called.
#[derive(Args)]
pub struct Named {
    /// Its name, id or digest, as `claviger session list` shows it
    name: String,
}

/// What ends, and how.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RevokeArgs {
    /// What is to end.
    #[command(subcommand)]
    target: Target,
    /// Why: recorded with everything that ends
    #[arg(long, global = true)]
    reason: Option<String>,
    /// Only tell what would end
    #[arg(long, global = true)]
    dry_run: bool,
    /// Do not ask first
    #[arg(long, short = 'y', global = true)]
    yes: bool,
    /// Return once everything has fallen due, without waiting until it is gone
    #[arg(long, global = true)]
    no_wait: bool,
    /// What a second operator granted, where it takes two
    #[arg(long, global = true, value_name = "APPROVAL-ID")]
    approval: Option<String>,
}

/// A revocation as `--output json` shows it.
#[derive(Debug, Serialize)]
struct RevocationView {
    /// `would-end`, `ending`, `following` or `done`.
    stage: String,
    sessions_matched: u64,
    sessions_ended: u64,
    leases_matched: u64,
    leases_gone: u64,
    leases_lapsing: u64,
    leases_stuck: u64,
    leases_failing: u64,
    /// RFC 3339; empty if nothing is lapsing.
    lapsed_at: String,
    /// The last look still found something new: it is not complete.
    still_beginning: bool,
    /// Of a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionRowView>,
}

impl From<RevokeResponse> for RevocationView {
    fn from(told: RevokeResponse) -> Self {
        Self {
            stage: enum_name(told.stage().as_str_name(), "REVOKE_STAGE_"),
            sessions_matched: told.sessions_matched,
            sessions_ended: told.sessions_ended,
            leases_matched: told.leases_matched,
            leases_gone: told.leases_gone,
            leases_lapsing: told.leases_lapsing,
            leases_stuck: told.leases_stuck,
            leases_failing: told.leases_failing,
            lapsed_at: moment(told.lapsed_at),
            still_beginning: told.still_beginning,
            sessions: told.sessions.into_iter().map(SessionRowView::from).collect(),
        }
    }
}

/// Shows what would end, asks, ends it. Exit code 1 if something is not gone at the end, or keeps
/// beginning anew.
pub async fn run(context: &Context, args: RevokeArgs) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let request = request(&args);
    if args.dry_run || !args.yes {
        let dry_run = RevokeRequest { dry_run: true, ..request.clone() };
        let mut told = client.revoke(client::call(dry_run)).await?.into_inner();
        let preview = last_of(&mut told, |_| ()).await?;
        if args.dry_run && is_json {
            context.printer.json(&RevocationView::from(preview))?;
            return Ok(Exit::OK);
        }
        show_preview(context.printer, preview, if args.dry_run { To::Stdout } else { To::Stderr })?;
        if args.dry_run {
            return Ok(Exit::OK);
        }
        confirm(&args.target)?;
    }
    // Without a deadline: it lasts as long as the backends take.
    let mut told = client.revoke(request).await?.into_inner();
    let mut line = ProgressLine::new(context.printer);
    let last = last_of(&mut told, |told| line.show(told)).await?;
    let (exit, done) = (exit_of(&last, &args), last.stage() == RevokeStage::Done);
    if is_json {
        context.printer.json(&RevocationView::from(last))?;
    } else {
        context.printer.text(&outcome(&last))?;
    }
    if done {
        context.printer.note(&advice(&args.target));
    }
    Ok(exit)
}

fn request(args: &RevokeArgs) -> RevokeRequest {
    let selector = match &args.target {
        Target::Session(of) => Selector::SessionId(of.name.clone()),
        Target::Role(of) => Selector::Role(of.name.clone()),
        Target::Requester(of) => Selector::Requester(of.name.clone()),
        Target::Workload(of) => Selector::Workload(of.name.clone()),
        Target::Backend(of) => Selector::Backend(of.name.clone()),
        Target::Prompt(of) => Selector::PromptDigest(of.name.clone()),
        Target::Everything => Selector::Everything(Everything {}),
    };
    RevokeRequest {
        selector: Some(selector),
        dry_run: false,
        reason: args.reason.clone().unwrap_or_default(),
        no_wait: args.no_wait,
        approval_id: args.approval.clone().unwrap_or_default(),
    }
}

/// Reads the stream to its end and returns what was told last.
async fn last_of(
    told: &mut Streaming<RevokeResponse>,
    mut each: impl FnMut(&RevokeResponse),
) -> Result<RevokeResponse, Failure> {
    let mut last = None;
    while let Some(message) = told.message().await? {
        each(&message);
        last = Some(message);
    }
    last.ok_or_else(|| Failure::other("the broker ended the answer before it began"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Stdout,
    Stderr,
}

fn show_preview(printer: Printer, preview: RevokeResponse, to: To) -> Result<(), Failure> {
    let (sessions, leases) = (preview.sessions_matched, preview.leases_matched);
    let named = u64::try_from(preview.sessions.len()).unwrap_or(u64::MAX);
    let rows: Vec<_> = preview.sessions.into_iter().map(SessionRowView::from).collect();
    let mut sum = format!("would end: {sessions} sessions, {leases} leases");
    for (leases, what) in [
        (preview.leases_failing, "fail and are tried again"),
        (preview.leases_stuck, "are stuck"),
        (preview.leases_lapsing, "can only expire"),
    ] {
        if leases > 0 {
            sum.push_str(&format!("; {leases} of them {what}"));
        }
    }
    if to == To::Stdout {
        if !rows.is_empty() {
            printer.table(&session_table(&rows))?;
        }
        let more = sessions.saturating_sub(named);
        let more = if more > 0 { format!(" ({more} more than shown)") } else { String::new() };
        return printer.text(&format!("{sum}{more}\n"));
    }
    for row in rows.iter().take(ASKED_ABOUT_MAX) {
        printer.note(&format!(
            "{} role {} for {}, {} leases",
            row.session_id, row.role, row.requester, row.leases
        ));
    }
    printer.note(&sum);
    Ok(())
}

/// Asks on the terminal. Without one nobody can answer, and silence is no yes.
fn confirm(target: &Target) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here, and nothing was ended")
            .with_next("say --yes to end it, or --dry-run to only look"));
    }
    let (question, expect) = match target {
        Target::Everything => ("type `everything` to end it all: ", "everything"),
        _ => ("end this? [y/N] ", "y"),
    };
    crate::print::ask(question);
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|error| Failure::other(format!("no answer can be read: {error}")))?;
    if answer.trim().eq_ignore_ascii_case(expect) {
        return Ok(());
    }
    Err(Failure::other("nothing was ended"))
}

/// Progress on stderr, a line whenever something has changed.
struct ProgressLine {
    printer: Printer,
    said: String,
}

impl ProgressLine {
    const fn new(printer: Printer) -> Self {
        Self { printer, said: String::new() }
    }

    fn show(&mut self, told: &RevokeResponse) {
        if told.stage() == RevokeStage::Done {
            return;
        }
        let mut text = format!(
            "{} sessions ended; {} of {} leases gone",
            told.sessions_ended, told.leases_gone, told.leases_matched
        );
        if told.leases_failing > 0 {
            text.push_str(&format!("; {} fail and are tried again", told.leases_failing));
        }
        if text != self.said {
            self.printer.note(&text);
            self.said = text;
        }
    }
}

fn outcome(told: &RevokeResponse) -> String {
    let mut text = format!(
        "{} sessions ended; {} of {} leases gone\n",
        told.sessions_ended, told.leases_gone, told.leases_matched
    );
    if told.leases_lapsing > 0 {
        text.push_str(&format!(
            "{} leases cannot be ended early and work until {} at the latest\n",
            told.leases_lapsing,
            moment(told.lapsed_at)
        ));
    }
    if told.leases_stuck > 0 {
        text.push_str(&format!(
            "{} leases are stuck and may still work: `claviger lease query --state stuck` lists them\n",
            told.leases_stuck
        ));
    }
    if told.still_beginning {
        text.push_str("not complete: what matches keeps beginning anew, and goes on\n");
    }
    text
}

/// All that matched must be gone, unless nobody waited for it, and nothing may begin anew meanwhile.
fn exit_of(told: &RevokeResponse, args: &RevokeArgs) -> Exit {
    let gone = args.no_wait || told.leases_gone == told.leases_matched;
    let complete = told.stage() == RevokeStage::Done && !told.still_beginning;
    if gone && complete { Exit::OK } else { Exit::FAILURE }
}

/// How to keep it from beginning anew: that is for a policy to say.
fn advice(target: &Target) -> String {
    let condition = match target {
        Target::Requester(of) => {
            format!(" when {{ context.requester == Requester::{:?} }}", of.name)
        }
        Target::Workload(of) => format!(" when {{ principal == Workload::{:?} }}", of.name),
        Target::Role(of) => format!(" when {{ resource == Role::{:?} }}", of.name),
        Target::Everything => String::new(),
        // Policies know neither single sessions nor the bytes of prompt files.
        Target::Session(_) => {
            " when { context.requester == Requester::\"<its requester>\" }".to_owned()
        }
        Target::Prompt(_) => " when { resource == Role::\"<its role>\" }".to_owned(),
        Target::Backend(of) => {
            return format!(
                "new leases may begin: to refuse them, add the policy forbid (principal, action == Action::\"issue\", resource in Backend::{:?});",
                of.name
            );
        }
    };
    format!(
        "new sessions may begin: to refuse them, add the policy forbid (principal, action == Action::\"open_session\", resource){condition};"
    )
}

/// A screenful.
const ASKED_ABOUT_MAX: usize = 20;

const EXAMPLES: &str = "\
Exit code 0 if all that matched is gone, also what had ended before, 1 if something is stuck, can
only expire, or keeps beginning anew.

Examples:
  claviger revoke requester oidc:corp:alice --reason 'has left'
  claviger revoke role support-triage --dry-run
  claviger revoke everything --yes --output json";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(gone: u64, lapsing: u64, stuck: u64) -> RevokeResponse {
        RevokeResponse {
            stage: RevokeStage::Done.into(),
            leases_matched: 10,
            leases_gone: gone,
            leases_lapsing: lapsing,
            leases_stuck: stuck,
            ..RevokeResponse::default()
        }
    }

    fn args() -> RevokeArgs {
        let (target, reason, approval) = (Target::Everything, None, None);
        RevokeArgs { target, reason, dry_run: false, yes: true, no_wait: false, approval }
    }

    #[test]
    fn only_what_is_gone_is_a_success() {
        for (told, expect) in [
            (told(10, 0, 0), Exit::OK),
            (told(9, 1, 0), Exit::FAILURE),
            (told(9, 0, 1), Exit::FAILURE),
            (RevokeResponse { still_beginning: true, ..told(10, 0, 0) }, Exit::FAILURE),
            // The stream ended early: the broker stopped.
            (
                RevokeResponse { stage: RevokeStage::Following.into(), ..told(10, 0, 0) },
                Exit::FAILURE,
            ),
        ] {
            assert_eq!(exit_of(&told, &args()), expect, "{told:?}");
        }
        let hurried = RevokeArgs { no_wait: true, ..args() };
        assert_eq!(exit_of(&told(0, 0, 0), &hurried), Exit::OK);
        let anew = RevokeResponse { still_beginning: true, ..told(0, 0, 0) };
        assert_eq!(exit_of(&anew, &hurried), Exit::FAILURE);
    }

    #[test]
    fn after_every_target_it_says_how_to_refuse_what_comes_next() {
        let named = || Named { name: "x".to_owned() };
        for (target, expect) in [
            (Target::Session(named()), "Requester::\"<its requester>\""),
            (Target::Role(named()), "when { resource == Role::\"x\" };"),
            (Target::Requester(named()), "when { context.requester == Requester::\"x\" };"),
            (Target::Workload(named()), "when { principal == Workload::\"x\" };"),
            (Target::Prompt(named()), "Role::\"<its role>\""),
            (Target::Everything, "Action::\"open_session\", resource);"),
            (Target::Backend(named()), "Action::\"issue\", resource in Backend::\"x\");"),
        ] {
            let advice = advice(&target);
            assert!(advice.contains("may begin") && advice.contains(expect), "{advice}");
        }
    }

    #[test]
    fn the_outcome_names_what_still_works() {
        assert_eq!(outcome(&told(10, 0, 0)), "0 sessions ended; 10 of 10 leases gone\n");
        assert!(outcome(&told(8, 1, 1)).contains("1 leases cannot be ended early"));
        assert!(outcome(&told(8, 1, 1)).contains("1 leases are stuck"));
        let anew = RevokeResponse { still_beginning: true, ..told(10, 0, 0) };
        assert!(outcome(&anew).contains("not complete"));
    }
}
