//! `clavigerd plugin …`: what authors and publishers of plugins need. Runs no broker.

pub mod sign;

use std::process::ExitCode;

use clap::Subcommand;

/// The commands for plugins.
#[derive(Subcommand)]
pub enum KitCommand {
    /// Make a key pair to sign plugins with
    Keygen(sign::KeygenArgs),
    /// Sign a plugin: writes `<file>.wasm.minisig`
    Sign(sign::SignArgs),
    /// Verify a plugin's signature as the broker would
    Verify(sign::VerifyArgs),
}

/// Runs one of them.
pub fn run(command: &KitCommand) -> anyhow::Result<ExitCode> {
    match command {
        KitCommand::Keygen(args) => sign::keygen(args),
        KitCommand::Sign(args) => sign::sign(args),
        KitCommand::Verify(args) => sign::verify(args),
    }
}
