//! `clavigerd plugin …`: what the author or the reviewer of a plugin needs, without a broker. Each
//! command is one file; all of them work on any component, whatever language it was written in.

pub mod check;
pub mod embed;
pub mod inspect;
pub mod new;
pub mod sign;
pub mod suite;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

/// The commands of the plugin kit.
#[derive(Subcommand)]
pub enum Command {
    /// Write a plugin that builds and whose tests pass, to begin with
    New(new::NewArgs),
    /// Check a component against the contract: imports, exports, manifest, size
    Check(ComponentArgs),
    /// Show what a component is and asks for, and the configuration that would grant it
    Inspect(ComponentArgs),
    /// Run the conformance suite against a component and a real backend
    Test(suite::TestArgs),
    /// Put a manifest into a component that was built without the Rust SDK
    EmbedManifest(embed::EmbedArgs),
    /// Make a key pair to sign plugins with
    Keygen(sign::KeygenArgs),
    /// Sign a plugin: writes `<file>.wasm.minisig`
    Sign(sign::SignArgs),
    /// Verify a plugin's signature as the broker would
    Verify(sign::VerifyArgs),
}

/// A component, and how to write about it.
#[derive(Args)]
pub struct ComponentArgs {
    /// The component
    pub component: PathBuf,
    /// How to write the answer
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// How to write an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Runs one command of the kit.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::New(args) => new::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Test(args) => suite::run(&args),
        Command::EmbedManifest(args) => embed::run(&args),
        Command::Keygen(args) => sign::keygen(&args),
        Command::Sign(args) => sign::sign(&args),
        Command::Verify(args) => sign::verify(&args),
    }
}

/// The bytes of a component.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("`{}` cannot be read", path.display()))
}

/// Writes an answer to standard output.
fn answer(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).context("standard output is closed")
}
