//! `claviger secret put|list|rotate|delete`: the secrets that the broker keeps, for operators. No command
//! shows a value, since no call returns one.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use claviger_proto::v1::{
    DeleteSecretRequest, ListSecretsRequest, PutSecretRequest, PutSecretResponse,
    RotateRootRequest, StoredSecret,
};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, backend};
use crate::client;
use crate::exit::{Exit, Failure};
use crate::text::{Table, moment, visible};

/// The commands on the secrets that the broker keeps.
#[derive(Subcommand)]
pub enum SecretCommand {
    /// Keep a secret, from standard input or a file; what uses it reads it at once (operators)
    #[command(after_help = PUT_EXAMPLE)]
    Put(PutArgs),
    /// What is kept, and what uses it; never a value (operators)
    #[command(after_help = "Example:\n  claviger secret list --output json | jq '.[].name'")]
    List,
    /// Replace a root credential by a new one that the broker makes (operators)
    #[command(after_help = "Example:\n  claviger secret rotate orders/admin")]
    Rotate(NameArg),
    /// Forget a secret (operators)
    #[command(after_help = "Example:\n  claviger secret delete aws/old-key")]
    Delete(DeleteArgs),
}

/// A secret to keep. There is no argument for its value on purpose: every local user can read the
/// arguments of every process.
#[derive(Args)]
pub struct PutArgs {
    /// Its name, as `store:NAME` in the configuration
    #[arg(value_name = "NAME")]
    name: String,
    /// Where its value is; newlines at the end are dropped [default: standard input]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

/// A secret.
#[derive(Args)]
pub struct NameArg {
    /// Its name, without `store:`
    #[arg(value_name = "NAME")]
    name: String,
}

/// A secret to forget.
#[derive(Args)]
pub struct DeleteArgs {
    /// Its name, without `store:`
    #[arg(value_name = "NAME")]
    name: String,
    /// Also if a backend uses it: it goes on until the next reload, which is refused then
    #[arg(long)]
    force: bool,
}

/// A secret as `--output json` shows it.
#[derive(Debug, Serialize)]
struct SecretView {
    name: String,
    version: u64,
    /// RFC 3339.
    put_at: String,
    put_by: String,
    used_by: Vec<String>,
    /// Whether a rotation of it has begun and not ended.
    unsettled: bool,
}

impl From<StoredSecret> for SecretView {
    fn from(secret: StoredSecret) -> Self {
        Self {
            put_at: moment(secret.put_at),
            name: secret.name,
            version: secret.version,
            put_by: secret.put_by,
            used_by: secret.used_by,
            unsettled: secret.unsettled,
        }
    }
}

/// Runs one of them.
pub async fn run(context: &Context, command: SecretCommand) -> Result<Exit, Failure> {
    match command {
        SecretCommand::Put(args) => put(context, args).await,
        SecretCommand::Rotate(NameArg { name }) => {
            let request = RotateRootRequest { secret: name, ..RotateRootRequest::default() };
            backend::rotate(context, request).await.map(|()| Exit::OK)
        }
        SecretCommand::List => list(context).await.map(|()| Exit::OK),
        SecretCommand::Delete(args) => delete(context, args).await.map(|()| Exit::OK),
    }
}

/// Exit code 1 if the secret is kept and what uses it could not be loaded.
async fn put(context: &Context, args: PutArgs) -> Result<Exit, Failure> {
    let is_json = context.printer.is_json()?;
    let value = read_value(&args)?;
    let mut client = client::secrets(&context.connection).await?;
    let request = PutSecretRequest { name: args.name.clone(), value: value.to_string() };
    let answer = client.put_secret(client::call(request)).await?.into_inner();
    let PutSecretResponse { version, used_by, loaded, problems } = answer;
    if is_json {
        context.printer.json(&json!({
            "name": args.name, "version": version, "used_by": used_by, "loaded": loaded,
            "problems": problems,
        }))?;
    } else {
        for problem in &problems {
            context.printer.text(&format!("{}\n", visible(problem)))?;
        }
        let what = match (loaded, used_by.is_empty()) {
            (true, true) => "nothing uses it yet".to_owned(),
            (true, false) => format!("in use by {}", used_by.join(", ")),
            (false, _) => "kept, but the reload was refused: see above".to_owned(),
        };
        context.printer.text(&format!("store:{} version {version}: {what}\n", args.name))?;
    }
    Ok(if loaded { Exit::OK } else { Exit::FAILURE })
}

async fn list(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::secrets(&context.connection).await?;
    let answer = client.list_secrets(client::call(ListSecretsRequest {})).await?.into_inner();
    let secrets: Vec<SecretView> = answer.secrets.into_iter().map(SecretView::from).collect();
    if is_json {
        return context.printer.json(&secrets);
    }
    let mut table = Table::new(&COLUMNS);
    for SecretView { name, version, put_at, put_by, used_by, unsettled } in &secrets {
        let mark = if *unsettled { " (unsettled)" } else { "" };
        let version = format!("{version}{mark}");
        table.row([name.as_str(), &version, put_at, put_by, &used_by.join(",")]);
    }
    context.printer.table(&table)
}

async fn delete(context: &Context, args: DeleteArgs) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::secrets(&context.connection).await?;
    let request = DeleteSecretRequest { name: args.name.clone(), force: args.force };
    let answer = client.delete_secret(client::call(request)).await?.into_inner();
    if is_json {
        let used_by = answer.used_by;
        return context.printer.json(&json!({ "name": args.name, "used_by": used_by }));
    }
    let what = match answer.used_by.as_slice() {
        [] => "is forgotten".to_owned(),
        used_by => format!(
            "is forgotten; {} goes on until the next reload, which is refused",
            used_by.join(", ")
        ),
    };
    context.printer.text(&format!("store:{} {what}\n", args.name))
}

fn read_value(args: &PutArgs) -> Result<Zeroizing<String>, Failure> {
    let (mut source, name): (Box<dyn Read>, String) = match &args.file {
        Some(path) => {
            let name = path.display().to_string();
            let file =
                std::fs::File::open(path).map_err(|error| Failure::unreadable(&name, &error))?;
            (Box::new(file), name)
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                "the value is read from standard input or a file, so that no screen and no history shows it: `claviger secret put NAME < FILE`",
            ));
        }
        None => (Box::new(std::io::stdin()), "standard input".to_owned()),
    };
    // Large enough from the start: a buffer that grows leaves the secret in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BYTES_MAX + 1));
    let most = u64::try_from(READ_BYTES_MAX).unwrap_or(u64::MAX);
    let read = source.by_ref().take(most).read_to_end(&mut bytes);
    read.map_err(|error| Failure::unreadable(&name, &error))?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::usage(format!("`{name}` is not text, and a secret is")))?;
    let value = text.trim_end_matches(['\n', '\r']);
    if value.is_empty() {
        return Err(Failure::usage(format!("`{name}` is empty: a secret has at least one byte")));
    }
    Ok(Zeroizing::new(value.to_owned()))
}

const PUT_EXAMPLE: &str = "\
Examples:
  claviger secret put orders-db < password.txt
  pass show aws/prod-key | claviger secret put aws/prod-key";

const COLUMNS: [&str; 5] = ["SECRET", "VERSION", "PUT AT", "PUT BY", "USED BY"];

/// More than the broker keeps, so that it says no and not this command.
const READ_BYTES_MAX: usize = 32 * 1024;
