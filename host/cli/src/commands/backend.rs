//! `claviger backend rotate` and `claviger secret rotate`: another root credential, for operators.
//! Makes none and sees none.

use clap::{Args, Subcommand};
use claviger_proto::v1::{RotateRootRequest, RotateRootResponse};
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::Failure;
use crate::text::visible;

/// The commands on backends.
#[derive(Subcommand)]
pub enum BackendCommand {
    /// Replace the root credential with which the broker logs in (operators)
    #[command(after_help = "Example:\n  claviger backend rotate orders-db --connection admin")]
    Rotate(RotateArgs),
}

/// Whose root credential.
#[derive(Args)]
pub struct RotateArgs {
    /// The backend
    #[arg(value_name = "BACKEND")]
    backend: String,
    /// Its connection [default: the only one whose password or access key the broker keeps]
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
}

/// Runs one of them.
pub async fn run(context: &Context, command: BackendCommand) -> Result<(), Failure> {
    let BackendCommand::Rotate(RotateArgs { backend, connection }) = command;
    let connection = connection.unwrap_or_default();
    rotate(context, RotateRootRequest { backend, connection, secret: String::new() }).await
}

/// Has the broker replace what `request` names.
pub async fn rotate(context: &Context, request: RotateRootRequest) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::secrets(&context.connection).await?;
    let answer = client.rotate_root(client::call(request)).await?.into_inner();
    let RotateRootResponse { secret, version } = answer;
    if is_json {
        return context.printer.json(&json!({ "secret": secret, "version": version }));
    }
    let secret = visible(&secret);
    context.printer.text(&format!("store:{secret} version {version} is in force\n"))
}
