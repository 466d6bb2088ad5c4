//! `claviger issue`: one credential, printed or handed to a command. Also mints for `run`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::time::Duration;

use clap::Args;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::{IssueRequest, ReleaseLeaseRequest};
use data_encoding::HEXLOWER;
use tonic::transport::Channel;

use super::Context;
use super::session::{Secrets, message_span};
use crate::child::{self, Signals};
use crate::client::{self, SessionToken};
use crate::environment::{Environment, assignment, variables};
use crate::exit::{Exit, Failure};
use crate::print::{Format, Printer};
use crate::text::{Table, pairs, parse_span, span};
use crate::view::IssuedView;

/// What to issue, and to whom.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct IssueArgs {
    /// The scope, as `claviger grants` lists it: `backend/scope`
    scope: String,
    /// How long the credential should live, as in `30m` [default: one hour, or what limits leave]
    #[arg(long, value_parser = parse_span)]
    ttl: Option<Duration>,
    /// What this is for: recorded, never decides
    #[arg(long)]
    reason: Option<String>,
    /// At most one credential is minted for one key in one session [default: a random one]
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print secrets in the table too
    #[arg(long)]
    show_secrets: bool,
    /// A command to run with the credential's variables; the lease is released after it
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// One credential that is wanted.
pub struct Order {
    /// `backend/scope`.
    pub scope: String,
    /// How long it should live.
    pub ttl: Option<Duration>,
    /// What it is for.
    pub reason: Option<String>,
    /// The idempotency key; a random one if there is none.
    pub key: Option<String>,
}

/// Issues, then prints or runs.
pub async fn run(context: &Context, args: IssueArgs) -> Result<Exit, Failure> {
    let token = SessionToken::from_environment()?;
    let order =
        Order { scope: args.scope, ttl: args.ttl, reason: args.reason, key: args.idempotency_key };
    if !args.command.is_empty() {
        return with_command(context, &token, order, &args.command).await;
    }
    let mut client = client::agent(&context.connection.agent_target()?).await?;
    let issued = mint(&mut client, &token, order).await?;
    show(
        context.printer,
        &issued,
        if args.show_secrets { Secrets::Shown } else { Secrets::Hidden },
    )?;
    Ok(Exit::OK)
}

/// Mints one credential. Tries once more if the broker says that nothing came of the first try.
pub async fn mint(
    client: &mut AgentServiceClient<Channel>,
    token: &SessionToken,
    order: Order,
) -> Result<IssuedView, Failure> {
    let request = IssueRequest {
        scope: order.scope,
        ttl: order.ttl.map(message_span).transpose()?,
        idempotency_key: order.key.map_or_else(random_key, Ok)?,
        claimed_reason: order.reason.unwrap_or_default(),
    };
    let first = issue_once(client, token, request.clone()).await;
    match first {
        Err(failure) if nothing_was_recorded(&failure) => {
            tokio::time::sleep(pause(&failure)).await;
            issue_once(client, token, request).await
        }
        other => other,
    }
}

/// Tells what the agent should know of a credential, beside it and not in it.
pub fn tell_notice(printer: Printer, issued: &IssuedView) {
    if !issued.notice.is_empty() {
        printer.note(&issued.notice);
    }
}

async fn issue_once(
    client: &mut AgentServiceClient<Channel>,
    token: &SessionToken,
    request: IssueRequest,
) -> Result<IssuedView, Failure> {
    let response = client.issue(token.authorize_call(request)?).await?.into_inner();
    let (Some(lease), Some(credential)) = (response.lease, response.credential) else {
        return Err(Failure::other("the broker answered without a lease or a credential"));
    };
    let notice = response.notice;
    Ok(IssuedView { lease: lease.into(), credential: credential.into(), notice })
}

/// The broker itself says that it could not record, and names no lease: nothing was minted. After
/// a connection that merely broke that is not known, and a backend that failed is recorded.
fn nothing_was_recorded(failure: &Failure) -> bool {
    let code = failure.details.code.as_deref();
    code.is_some_and(|code| NOT_RECORDED.contains(&code)) && failure.details.lease_id.is_none()
}

fn pause(failure: &Failure) -> Duration {
    failure.details.retry_after_secs.map_or(PAUSE_MAX, Duration::from_secs).min(PAUSE_MAX)
}

async fn with_command(
    context: &Context,
    token: &SessionToken,
    order: Order,
    command: &[OsString],
) -> Result<Exit, Failure> {
    context.printer.is_json()?;
    let mut signals = Signals::listen()?;
    let mut client = client::agent(&context.connection.agent_target()?).await?;
    let scope = order.scope.clone();
    let (issued, interrupted) = {
        let mut minting = std::pin::pin!(mint(&mut client, token, order));
        tokio::select! {
            issued = &mut minting => (issued?, None),
            // What is being minted must be known before it can be given back.
            signal = signals.next() => (minting.await?, Some(signal)),
        }
    };
    tell_notice(context.printer, &issued);
    let mut environment = Environment::default();
    let result = match (interrupted, environment.grant(&scope, &issued.credential)) {
        (Some(signal), _) => Ok(Exit::of_signal(signal.as_raw())),
        (None, Ok(())) => child::run(command, &environment, &mut signals).await,
        (None, Err(failure)) => Err(failure),
    };
    let lease_id = issued.lease.lease_id;
    let release = token.authorize_call(ReleaseLeaseRequest { lease_id: lease_id.clone() })?;
    if let Err(status) = client.release_lease(release).await {
        let reason = Failure::from(status).sentence;
        context.printer.note(&format!("lease {lease_id} could not be released: {reason}"));
    }
    result
}

fn show(printer: Printer, issued: &IssuedView, secrets: Secrets) -> Result<(), Failure> {
    tell_notice(printer, issued);
    let prefix = match printer.format {
        Format::Json => return printer.json(issued),
        Format::Table => return show_table(printer, issued, secrets),
        Format::Env => "",
        Format::Export => "export ",
    };
    for (name, value) in variables(&issued.credential)? {
        printer.text(prefix)?;
        printer.text(&assignment(name, value))?;
    }
    Ok(())
}

fn show_table(printer: Printer, issued: &IssuedView, secrets: Secrets) -> Result<(), Failure> {
    let lease = &issued.lease;
    let residual = span(Duration::from_secs(lease.residual_exposure_secs));
    printer.text(&pairs(&[
        ("lease", lease.lease_id.as_str()),
        ("scope", lease.scope.as_str()),
        ("expires at", lease.expires_at.as_str()),
        ("revocation", lease.revocation.as_str()),
        ("works on for", residual.as_str()),
        ("kind", issued.credential.kind.as_str()),
    ]))?;
    let mut table = Table::new(&["FIELD", "VALUE", "VARIABLE"]);
    let mut hidden = 0;
    for field in &issued.credential.fields {
        let shown = if field.secret { secrets.of(&field.value) } else { field.value.as_str() };
        hidden += usize::from(field.secret && secrets == Secrets::Hidden);
        table.row([&field.name, shown, &field.env]);
    }
    printer.text("\n")?;
    printer.table(&table)?;
    if hidden > 0 {
        printer.note(&format!(
            "secrets are hidden and cannot be shown later: use `-- COMMAND`, `--output env` or --show-secrets, and give this one back with `claviger lease release {}`",
            lease.lease_id
        ));
    }
    Ok(())
}

/// 128 random bits: two of them never meet in one session.
fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::unreadable("/dev/urandom", &error))?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Reasons that the broker gives before it has an intent. Should one of them come later after all,
/// the second try meets its own idempotency key and mints nothing.
const NOT_RECORDED: [&str; 3] = ["JOURNAL_UNWRITABLE", "OVERLOADED", "POLICIES_UNSETTLED"];

/// What the broker asks for when it is busy; an agent does not notice it. For longer waits it is
/// the agent that decides.
const PAUSE_MAX: Duration = Duration::from_secs(1);

const EXAMPLE: &str = "\
Examples:
  claviger issue orders-db/readonly --ttl 15m -- psql orders
  eval \"$(claviger issue orders-db/readonly --output export)\"
  claviger issue orders-db/readonly --output json | jq -r .lease.lease_id";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn check((code, lease_id): (Option<&str>, Option<&str>), expect: bool) {
        let mut failure = Failure::other("no");
        failure.details.code = code.map(str::to_owned);
        failure.details.lease_id = lease_id.map(str::to_owned);
        assert_eq!(nothing_was_recorded(&failure), expect, "{code:?}");
    }

    #[test]
    fn tries_again_only_where_nothing_can_have_been_minted() {
        check((Some("OVERLOADED"), None), true);
        check((Some("JOURNAL_UNWRITABLE"), None), true);
        check((Some("JOURNAL_UNWRITABLE"), Some("int_1")), false);
        check((Some("BACKEND_UNAVAILABLE"), None), false);
        check((Some("NO_PERMIT"), None), false);
        check((None, None), false);
    }

    #[test]
    fn waits_as_told_but_not_for_long() {
        let mut failure = Failure::other("no");
        for (said, expect) in [(None, 1000), (Some(0), 0), (Some(60), 1000)] {
            failure.details.retry_after_secs = said;
            assert_eq!(pause(&failure).as_millis(), expect, "{said:?}");
        }
    }

    #[test]
    fn random_keys_are_keys_and_differ() {
        let (one, two) = (random_key().unwrap(), random_key().unwrap());
        assert_ne!(one, two);
        assert!(one.parse::<claviger_core::name::IdempotencyKey>().is_ok());
    }
}
