//! `claviger lease`: the session's own leases, and for operators everybody's.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use claviger_core::lease::LeaseState as CoreState;
use claviger_proto::v1::{
    LeaseState, ListLeasesRequest, QueryLeasesRequest, ReleaseLeaseRequest, RetryLeaseRequest,
};
use serde_json::json;

use super::Context;
use crate::client::{self, SessionToken};
use crate::exit::Failure;
use crate::text::Table;
use crate::view::{LeaseRowView, LeaseView, state};

/// The commands on leases.
#[derive(Subcommand)]
pub enum LeaseCommand {
    /// The leases of this session that may still work
    #[command(after_help = "Example:\n  claviger lease list --output json | jq -r '.[].lease_id'")]
    List,
    /// Give a lease back before its time
    #[command(after_help = "Example:\n  claviger lease release int_01jd…")]
    Release(LeaseId),
    /// Leases of all sessions (operators)
    #[command(
        after_help = "Example: what could not be revoked\n  claviger lease query --state stuck"
    )]
    Query(QueryArgs),
    /// Give a stuck lease another round of attempts (operators)
    #[command(after_help = "Example:\n  claviger lease retry int_01jd…")]
    Retry(LeaseId),
}

/// One lease.
#[derive(Args)]
pub struct LeaseId {
    /// `int_…`, as `lease list` and the journal show it
    #[arg(value_name = "LEASE-ID")]
    id: String,
}

/// Which leases.
#[derive(Args)]
pub struct QueryArgs {
    /// Only leases in this state; repeatable [default: all that are not final]
    #[arg(long = "state", value_parser = PossibleValuesParser::new(CoreState::ALL.map(CoreState::as_str)))]
    states: Vec<String>,
    /// Only leases of this session
    #[arg(long, value_name = "SESSION-ID")]
    session: Option<String>,
    /// Only leases of this role's sessions
    #[arg(long)]
    role: Option<String>,
    /// Only leases of sessions for this requester, as in `unix:1000`
    #[arg(long, value_name = "ID")]
    requester: Option<String>,
    /// Only leases on this backend
    #[arg(long)]
    backend: Option<String>,
}

/// Runs one of them.
pub async fn run(context: &Context, command: LeaseCommand) -> Result<(), Failure> {
    match command {
        LeaseCommand::List => list(context).await,
        LeaseCommand::Release(lease) => release(context, &lease.id).await,
        LeaseCommand::Query(args) => query(context, args).await,
        LeaseCommand::Retry(lease) => retry(context, &lease.id).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let token = SessionToken::from_environment()?;
    let mut client = client::agent(&context.connection.agent_target()?).await?;
    let answer = client.list_leases(token.authorize_call(ListLeasesRequest {})?).await?;
    let leases: Vec<LeaseView> =
        answer.into_inner().leases.into_iter().map(LeaseView::from).collect();
    if is_json {
        return context.printer.json(&leases);
    }
    let mut table = Table::new(&["LEASE", "SCOPE", "STATE", "EXPIRES AT", "REVOCATION"]);
    for lease in &leases {
        let LeaseView { lease_id, scope, state, expires_at, revocation, .. } = lease;
        table.row([lease_id, scope, state, expires_at, revocation]);
    }
    context.printer.table(&table)
}

async fn release(context: &Context, lease_id: &str) -> Result<(), Failure> {
    let token = SessionToken::from_environment()?;
    let mut client = client::agent(&context.connection.agent_target()?).await?;
    let request = token.authorize_call(ReleaseLeaseRequest { lease_id: lease_id.to_owned() })?;
    let answer = client.release_lease(request).await?.into_inner();
    show_state(context, lease_id, answer.state())
}

async fn query(context: &Context, args: QueryArgs) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let states =
        args.states.iter().filter_map(|state| message_state(state)).map(i32::from).collect();
    let mut client = client::admin(&context.connection).await?;
    let request = QueryLeasesRequest {
        states,
        session_id: args.session.unwrap_or_default(),
        role: args.role.unwrap_or_default(),
        requester: args.requester.unwrap_or_default(),
        backend: args.backend.unwrap_or_default(),
    };
    let mut rows = client.query_leases(request).await?.into_inner();
    let mut table =
        Table::new(&["LEASE", "SCOPE", "STATE", "ROLE", "SESSION", "TRIES", "NEXT AT", "CAUSE"]);
    while let Some(row) = rows.message().await? {
        let row = LeaseRowView::from(row);
        if is_json {
            context.printer.json(&row)?;
            continue;
        }
        let LeaseRowView { lease, session_id, role, attempts, next_at, cause } = &row;
        let tries = attempts.to_string();
        let LeaseView { lease_id, scope, state, .. } = lease;
        table.row([lease_id, scope, state, role, session_id, &tries, next_at, cause]);
    }
    if is_json { Ok(()) } else { context.printer.table(&table) }
}

async fn retry(context: &Context, lease_id: &str) -> Result<(), Failure> {
    let mut client = client::admin(&context.connection).await?;
    let request = client::call(RetryLeaseRequest { lease_id: lease_id.to_owned() });
    let answer = client.retry_lease(request).await?.into_inner();
    show_state(context, lease_id, answer.state())
}

fn show_state(context: &Context, lease_id: &str, lease_state: LeaseState) -> Result<(), Failure> {
    let state = state(lease_state);
    if context.printer.is_json()? {
        return context.printer.json(&json!({ "lease_id": lease_id, "state": state }));
    }
    context.printer.text(&format!("{lease_id} is {state}\n"))
}

fn message_state(name: &str) -> Option<LeaseState> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    LeaseState::from_str_name(&format!("LEASE_STATE_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_core_can_be_asked_for() {
        for core in CoreState::ALL {
            assert_eq!(message_state(core.as_str()).map(state).as_deref(), Some(core.as_str()));
        }
    }
}
