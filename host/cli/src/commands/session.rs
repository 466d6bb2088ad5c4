//! `claviger session`: opens, watches and closes a session by hand. `run` does all three.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::{
    CloseSessionRequest, ListSessionsRequest, OpenChildSessionRequest, OpenSessionRequest,
};
use serde_json::json;
use tokio::sync::watch::Sender;
use tonic::transport::Channel;

use super::Context;
use crate::client::{self, SESSION_TOKEN, SessionToken};
use crate::environment::assignment;
use crate::exit::{Exit, Failure};
use crate::print::{Format, Printer};
use crate::proof::ProofArgs;
use crate::renewal::{self, Held};
use crate::text::{pairs, parse_span, span};
use crate::view::{SessionRowView, SessionView, session_table};
use crate::watch::News;

/// The commands on a session.
#[derive(Subcommand)]
pub enum SessionCommand {
    /// Open a session and print its token
    #[command(after_help = OPEN_EXAMPLE)]
    Open(OpenArgs),
    /// Open a session below this one, for a sub-agent, and print its token
    #[command(after_help = CHILD_EXAMPLE)]
    Child(OpenArgs),
    /// Keep the session alive and print its news, until it is over
    #[command(after_help = WATCH_EXAMPLE)]
    Watch,
    /// Name the next certificate of this workload, so that the session outlives its renewal
    #[command(after_help = REBIND_EXAMPLE)]
    Rebind {
        /// The next certificate (PEM); both count until it is first used
        #[arg(value_name = "FILE")]
        next: PathBuf,
    },
    /// End the session; all it holds is revoked
    #[command(after_help = "Example:\n  claviger session close")]
    Close,
    /// The sessions that live, of everybody (operators)
    #[command(after_help = "Example:\n  claviger session list --requester oidc:corp:alice")]
    List(ListArgs),
}

/// Which sessions.
#[derive(Args)]
pub struct ListArgs {
    /// Only those of this role
    #[arg(long)]
    role: Option<String>,
    /// Only those for this requester, as in `unix:1000`
    #[arg(long, value_name = "ID")]
    requester: Option<String>,
    /// Only those of this workload, as in `spiffe://example.org/agent`
    #[arg(long, value_name = "ID")]
    workload: Option<String>,
    /// Only those that began with this prompt file
    #[arg(long, value_name = "DIGEST")]
    prompt: Option<String>,
    /// Also those that have ended
    #[arg(long)]
    all: bool,
}

/// How to open a session.
#[derive(Args)]
pub struct OpenArgs {
    /// The role to run, as its prompt file names it
    #[arg(long)]
    pub role: String,
    /// How long the session may live, as in `2h` [default: the broker's]
    #[arg(long, value_parser = parse_span)]
    pub life: Option<Duration>,
    /// What this is for: recorded, never decides
    #[arg(long)]
    pub reason: Option<String>,
    /// Who runs it and for whom.
    #[command(flatten)]
    pub proof: ProofArgs,
    /// Print the token in the table too
    #[arg(long)]
    pub show_secrets: bool,
}

/// Runs one of them.
pub async fn run(context: &Context, command: SessionCommand) -> Result<(), Failure> {
    if let SessionCommand::List(args) = command {
        return list(context, args).await;
    }
    let target = context.connection.agent_target()?;
    let prepared = target.prepare()?;
    let mut client = prepared.agent().await?;
    match command {
        SessionCommand::List(_) => Ok(()),
        SessionCommand::Open(args) => {
            let show = if args.show_secrets { Secrets::Shown } else { Secrets::Hidden };
            let mut request = open_request(args.role, args.life, args.reason)?;
            args.proof.prove(&mut request).await?;
            show_session(context.printer, &open(&mut client, request).await?, show)
        }
        SessionCommand::Child(args) => {
            let show = if args.show_secrets { Secrets::Shown } else { Secrets::Hidden };
            let request = open_request(args.role, args.life, args.reason)?;
            let parent = SessionToken::from_environment()?;
            let opened = open_child(&mut client, &parent, request).await?;
            show_session(context.printer, &opened, show)
        }
        SessionCommand::Watch => {
            let certificate = prepared.certificate();
            let (token, client) = (SessionToken::from_environment()?, Sender::new(client));
            let held = Held { target: target.clone(), token, client, certificate };
            watch(context.printer, held).await
        }
        SessionCommand::Rebind { next } => {
            let next = client::thumbprint(&next)?;
            renewal::rebind(&mut client, &SessionToken::from_environment()?, next).await?;
            if context.printer.is_json()? {
                return context.printer.json(&json!({ "certificate_sha256": next.to_string() }));
            }
            context.printer.text(&format!("the certificate {next} counts from now on\n"))
        }
        SessionCommand::Close => {
            let leases_due = close(&mut client, &SessionToken::from_environment()?).await?;
            if context.printer.is_json()? {
                return context.printer.json(&json!({ "leases_due": leases_due }));
            }
            context.printer.text(&format!("closed; leases being revoked: {leases_due}\n"))
        }
    }
}

async fn list(context: &Context, args: ListArgs) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let request = ListSessionsRequest {
        role: args.role.unwrap_or_default(),
        requester: args.requester.unwrap_or_default(),
        workload: args.workload.unwrap_or_default(),
        prompt_digest: args.prompt.unwrap_or_default(),
        include_ended: args.all,
    };
    let mut client = client::admin(&context.connection).await?;
    let mut rows = client.list_sessions(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(row) = rows.message().await? {
        let row = SessionRowView::from(row);
        if is_json {
            context.printer.json(&row)?;
        } else {
            all.push(row);
        }
    }
    if is_json { Ok(()) } else { context.printer.table(&session_table(&all)) }
}

/// Whether a table shows secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// As they are.
    Shown,
    /// A word in their place.
    Hidden,
}

impl Secrets {
    /// `value`, or what stands in its place.
    pub const fn of(self, value: &str) -> &str {
        match self {
            Self::Shown => value,
            Self::Hidden => "(hidden)",
        }
    }
}

/// The message that opens a session.
pub fn open_request(
    role: String,
    life: Option<Duration>,
    reason: Option<String>,
) -> Result<OpenSessionRequest, Failure> {
    let claimed_reason = reason.unwrap_or_default();
    Ok(OpenSessionRequest {
        role,
        life: life.map(message_span).transpose()?,
        claimed_reason,
        ..Default::default()
    })
}

/// A length of time as a message.
pub fn message_span(span: Duration) -> Result<prost_types::Duration, Failure> {
    span.try_into().map_err(|_| Failure::usage("that is longer than any message can say"))
}

/// Opens a session.
pub async fn open(
    client: &mut AgentServiceClient<Channel>,
    request: OpenSessionRequest,
) -> Result<SessionView, Failure> {
    Ok(client.open_session(client::call(request)).await?.into_inner().into())
}

/// Opens a session below the one of `parent`.
pub async fn open_child(
    client: &mut AgentServiceClient<Channel>,
    parent: &SessionToken,
    request: OpenSessionRequest,
) -> Result<SessionView, Failure> {
    let OpenSessionRequest { role, life, claimed_reason, .. } = request;
    let request = OpenChildSessionRequest { role, life, claimed_reason };
    let request = parent.authorize_call(request)?;
    Ok(client.open_child_session(request).await?.into_inner().into())
}

/// Ends the session and returns how many leases fell due.
pub async fn close(
    client: &mut AgentServiceClient<Channel>,
    token: &SessionToken,
) -> Result<u64, Failure> {
    let request = token.authorize_call(CloseSessionRequest {})?;
    Ok(client.close_session(request).await?.into_inner().leases_due)
}

fn show_session(printer: Printer, session: &SessionView, secrets: Secrets) -> Result<(), Failure> {
    let token = session.session_token.as_str();
    let grace = span(Duration::from_secs(session.heartbeat_grace_secs));
    match printer.format {
        Format::Json => printer.json(session)?,
        Format::Env => printer.text(&assignment(SESSION_TOKEN, token))?,
        Format::Export => {
            printer.text("export ")?;
            printer.text(&assignment(SESSION_TOKEN, token))?;
        }
        Format::Table => printer.text(&pairs(&[
            ("session", session.session_id.as_str()),
            ("token", secrets.of(token)),
            ("ends at", session.ends_at.as_str()),
            ("prompt digest", session.prompt_digest.as_str()),
            ("heartbeat grace", grace.as_str()),
        ]))?,
    }
    if printer.format == Format::Table && secrets == Secrets::Hidden {
        printer.note("the token is hidden: ask with `--output export`, `json` or --show-secrets");
    }
    printer.note(&format!(
        "session {} ends when it is not heard of for {grace}: `claviger session watch` keeps it alive",
        session.session_id
    ));
    Ok(())
}

async fn watch(printer: Printer, held: Held) -> Result<(), Failure> {
    let is_json = printer.is_json()?;
    let cause = held.hold(|news| show_news(printer, news, is_json)).await?;
    if cause == CAUSE_CLOSED {
        return Ok(());
    }
    Err(Failure::new(Exit::EXPIRED, format!("the session is over: {cause}"))
        .with_next("open a new session"))
}

/// A broken stdout shows at the next command; the heartbeat must go on without it.
fn show_news(printer: Printer, news: &News, is_json: bool) {
    let _shown = match (is_json, news.sentence()) {
        (true, _) => printer.json(news),
        (false, Some(sentence)) => printer.text(&format!("{}\n", crate::text::visible(&sentence))),
        (false, None) => Ok(()),
    };
}

/// The session was closed by its own side: the end that a watcher hopes for.
const CAUSE_CLOSED: &str = "closed";

const OPEN_EXAMPLE: &str = "\
Example: a session for this shell, kept alive in the background
  eval \"$(claviger session open --role support-triage --output export)\"
  claviger session watch &";

const CHILD_EXAMPLE: &str = "\
Its reach is never wider than that of this session, and it ends with it. `claviger run --child` does the
same for one command.

Example: a token for a sub-agent
  claviger session child --role order-reader --output json | jq -r .session_token";

const REBIND_EXAMPLE: &str = "\
The session is bound to the certificate that opened it. `run` and `session watch` do this by themselves
when the file of --cert changes; by hand it is needed where nothing of that runs. Called with the current
certificate.

Example: before the files are replaced
  claviger session rebind next.pem && mv next.pem client.pem && mv next.key client.key";

const WATCH_EXAMPLE: &str = "\
Exit code 0 if the session was closed, 5 if it ended otherwise, 6 if the broker stayed away.

Example:
  claviger session watch --output json | jq -r 'select(.event == \"lease-expiring\").lease_id'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_secrets_are_not_in_the_text() {
        assert_eq!(Secrets::Hidden.of("abc"), "(hidden)");
        assert_eq!(Secrets::Shown.of("abc"), "abc");
    }
}
