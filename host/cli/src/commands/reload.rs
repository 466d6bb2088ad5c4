//! `claviger reload`: has the broker load policies and prompt files again. Loads nothing itself.

use clap::Args;
use claviger_proto::v1::ReloadRequest;
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::{Exit, Failure};
use crate::text::visible;

/// How to reload.
#[derive(Args)]
pub struct ReloadArgs {
    /// What a second operator granted, where the configuration loosens a guard
    #[arg(long, value_name = "APPROVAL-ID")]
    approval: Option<String>,
}

/// Asks, and prints what the broker found. Exit code 1 if the earlier snapshot stays in force.
pub async fn run(context: &Context, args: ReloadArgs) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let request = ReloadRequest { approval_id: args.approval.unwrap_or_default() };
    let answer = client.reload(client::call(request)).await?.into_inner();
    if is_json {
        context.printer.json(&json!({
            "loaded": answer.loaded, "snapshot": answer.snapshot, "problems": answer.problems,
        }))?;
    } else {
        for problem in &answer.problems {
            context.printer.text(&format!("{}\n", visible(problem)))?;
        }
        let what = if answer.loaded { "loaded" } else { "not loaded; still in force:" };
        context.printer.text(&format!("{what} snapshot {}\n", visible(&answer.snapshot)))?;
    }
    Ok(if answer.loaded { Exit::OK } else { Exit::FAILURE })
}
