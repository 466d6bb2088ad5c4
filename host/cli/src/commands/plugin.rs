//! `claviger plugin`: the plugins of a broker, and the kit for those who make them.

mod installed;
mod kit;

use clap::Subcommand;

use super::Context;
use crate::exit::{Exit, Failure};

/// The commands on plugins.
#[derive(Subcommand)]
pub enum PluginCommand {
    /// Those that a broker runs.
    #[command(flatten)]
    Installed(installed::InstalledCommand),
    /// Those in files.
    #[command(flatten)]
    Kit(kit::KitCommand),
}

/// Runs one of them.
pub async fn run(context: &Context, command: PluginCommand) -> Result<Exit, Failure> {
    match command {
        PluginCommand::Installed(command) => {
            installed::run(context, command).await.map(|()| Exit::OK)
        }
        PluginCommand::Kit(command) => kit::run(context, command),
    }
}
