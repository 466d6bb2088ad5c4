//! `claviger plugin`: the plugins of a broker, for operators. Loads none itself.

use clap::{Args, Subcommand};
use claviger_proto::v1::{LiftQuarantineRequest, ListPluginsRequest, Plugin};
use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::client;
use crate::exit::Failure;
use crate::text::{Table, moment};

/// The commands on plugins.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// The plugins of the broker, who signed them and which are quarantined (operators)
    #[command(after_help = "Example:\n  claviger plugin list --output json | jq '.[].sha256'")]
    List,
    /// Let a quarantined plugin work again at once (operators)
    #[command(after_help = "Example:\n  claviger plugin lift postgres")]
    Lift(PluginArg),
}

/// One plugin.
#[derive(Args)]
pub struct PluginArg {
    /// Its name in the broker's configuration
    #[arg(value_name = "PLUGIN")]
    name: String,
}

/// A plugin as `--output json` shows it.
#[derive(Debug, Serialize)]
struct PluginView {
    name: String,
    id: String,
    version: String,
    sha256: String,
    signed_by: String,
    limits: String,
    backends: Vec<String>,
    /// RFC 3339; empty if it is not quarantined.
    quarantined_until: String,
    traps: u64,
}

impl From<Plugin> for PluginView {
    fn from(plugin: Plugin) -> Self {
        Self {
            quarantined_until: moment(plugin.quarantined_until),
            name: plugin.name,
            id: plugin.id,
            version: plugin.version,
            sha256: plugin.sha256,
            signed_by: plugin.signed_by,
            limits: plugin.limits,
            backends: plugin.backends,
            traps: plugin.traps,
        }
    }
}

/// Runs one of them.
pub async fn run(context: &Context, command: PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::List => list(context).await,
        PluginCommand::Lift(plugin) => lift(context, &plugin.name).await,
    }
}

async fn list(context: &Context) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let answer = client.list_plugins(client::call(ListPluginsRequest {})).await?.into_inner();
    let plugins: Vec<PluginView> = answer.plugins.into_iter().map(PluginView::from).collect();
    if is_json {
        return context.printer.json(&plugins);
    }
    let mut table = Table::new(&COLUMNS);
    for plugin in &plugins {
        let PluginView { name, id, version, limits, quarantined_until, .. } = plugin;
        let sha256: String = plugin.sha256.chars().take(DIGITS).collect();
        let signed_by = if plugin.signed_by.is_empty() { "nobody" } else { &plugin.signed_by };
        let (backends, traps) = (plugin.backends.join(","), plugin.traps.to_string());
        table.row([
            name.as_str(),
            id,
            version,
            &sha256,
            signed_by,
            limits,
            &backends,
            &traps,
            quarantined_until,
        ]);
    }
    context.printer.table(&table)
}

async fn lift(context: &Context, plugin: &str) -> Result<(), Failure> {
    let is_json = context.printer.is_json()?;
    let mut client = client::admin(&context.connection).await?;
    let request = client::call(LiftQuarantineRequest { plugin: plugin.to_owned() });
    client.lift_quarantine(request).await?;
    if is_json {
        return context.printer.json(&json!({ "plugin": plugin, "quarantined": false }));
    }
    context.printer.text(&format!("{plugin} works again\n"))
}

const COLUMNS: [&str; 9] = [
    "PLUGIN",
    "ID",
    "VERSION",
    "SHA256",
    "SIGNED BY",
    "LIMITS",
    "BACKENDS",
    "TRAPS",
    "QUARANTINED UNTIL",
];

/// Enough to tell digests apart; `--output json` has all of them.
const DIGITS: usize = 12;
