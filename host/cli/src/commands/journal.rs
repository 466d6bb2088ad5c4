//! `claviger journal rekey`: the journal under another sealing key, for operators. Holds no key.

use clap::Subcommand;
use claviger_proto::v1::{RekeyRequest, RekeyResponse};
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::Failure;

/// The commands on the journal as a whole. To read it is `claviger audit`.
#[derive(Subcommand)]
pub enum JournalCommand {
    /// Put the journal under the sealing key that the configuration names now (operators)
    #[command(after_help = REKEY_EXAMPLE)]
    Rekey,
}

/// Runs one of them.
pub async fn run(context: &Context, command: JournalCommand) -> Result<(), Failure> {
    let JournalCommand::Rekey = command;
    let is_json = context.printer.is_json()?;
    let mut client = client::secrets(&context.connection).await?;
    let answer = client.rekey(client::call(RekeyRequest {})).await?.into_inner();
    let RekeyResponse { handles, issuer_keys, secrets } = answer;
    if is_json {
        return context.printer.json(&json!({
            "handles": handles, "issuer_keys": issuer_keys, "secrets": secrets,
        }));
    }
    context.printer.text(&format!(
        "another sealing key: {handles} handles, {issuer_keys} keys of the issuer and {secrets} \
         secrets are sealed anew; the previous keys can go from the configuration\n"
    ))
}

const REKEY_EXAMPLE: &str = "\
Example: the new key in a new file, the old one among the previous
  head -c 32 /dev/urandom | base64 > sealing-2
  # [journal]
  # sealing_key = \"file:sealing-2\"
  # previous_sealing_keys = [\"file:sealing-1\"]
  claviger journal rekey";
