//! `claviger approve`: what waits for a second operator, and that operator's word.

use clap::{Args, Subcommand};
use claviger_proto::v1::{Approval, ApprovalDecision, DecideApprovalRequest, ListApprovalsRequest};
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::Failure;
use crate::text::{Table, moment, pairs};

/// The commands on approvals.
#[derive(Subcommand)]
pub enum ApproveCommand {
    /// What waits for a second operator
    List,
    /// One of them, in full
    Show(ApprovalId),
    /// Agree: whoever asked may then do it, once
    #[command(after_help = "Example:\n  claviger approve grant apr_01jd…")]
    Grant(ApprovalId),
    /// Have it forgotten
    Refuse(ApprovalId),
}

/// One approval.
#[derive(Args)]
pub struct ApprovalId {
    /// `apr_…`, as the refusal and `approve list` show it
    #[arg(value_name = "APPROVAL-ID")]
    id: String,
}

/// An approval as `--output json` shows it.
#[derive(Debug, Serialize)]
struct ApprovalView {
    approval_id: String,
    operator: String,
    what: String,
    /// RFC 3339.
    expires_at: String,
    /// Empty while it waits.
    approver: String,
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        Self {
            expires_at: moment(approval.expires_at),
            approval_id: approval.approval_id,
            operator: approval.operator,
            what: approval.what,
            approver: approval.approver,
        }
    }
}

/// Runs one of them.
pub async fn run(context: &Context, command: ApproveCommand) -> Result<(), Failure> {
    match command {
        ApproveCommand::List => list(context).await,
        ApproveCommand::Show(of) => show(context, &of.id).await,
        ApproveCommand::Grant(of) => decide(context, of.id, ApprovalDecision::Grant).await,
        ApproveCommand::Refuse(of) => decide(context, of.id, ApprovalDecision::Refuse).await,
    }
}

async fn waiting(context: &Context) -> Result<Vec<ApprovalView>, Failure> {
    let mut client = client::admin(&context.connection).await?;
    let answer = client.list_approvals(client::call(ListApprovalsRequest {})).await?.into_inner();
    Ok(answer.approvals.into_iter().map(ApprovalView::from).collect())
}

async fn list(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let waiting = waiting(context).await?;
    if is_json {
        return context.printer.json(&waiting);
    }
    let mut table = Table::new(&["APPROVAL", "ASKED BY", "GRANTED BY", "EXPIRES AT", "WHAT"]);
    for ApprovalView { approval_id, operator, approver, expires_at, what } in &waiting {
        table.row([approval_id, operator, approver, expires_at, what]);
    }
    context.printer.table(&table)
}

async fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let found = waiting(context).await?.into_iter().find(|one| one.approval_id == id);
    let found = found.ok_or_else(|| Failure::other(format!("no approval `{id}` waits")))?;
    if is_json {
        return context.printer.json(&found);
    }
    context.printer.text(&pairs(&[
        ("approval", &found.approval_id),
        ("what", &found.what),
        ("asked by", &found.operator),
        ("granted by", &found.approver),
        ("expires at", &found.expires_at),
    ]))
}

async fn decide(
    context: &Context,
    approval_id: String,
    decision: ApprovalDecision,
) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let request =
        DecideApprovalRequest { approval_id: approval_id.clone(), decision: decision.into() };
    client.decide_approval(client::call(request)).await?;
    let granted = decision == ApprovalDecision::Grant;
    if is_json {
        return context.printer.json(&json!({ "approval_id": approval_id, "granted": granted }));
    }
    let word = if granted { "granted" } else { "refused" };
    context.printer.text(&format!("{approval_id} is {word}\n"))
}
