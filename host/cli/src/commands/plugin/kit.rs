//! `claviger plugin new|check|…`: hands the plugin kit's commands to `clavigerd`, which has the sandbox. No part
//! of the broker is in this program.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, Subcommand};

use crate::commands::Context;
use crate::exit::{Exit, Failure};
use crate::print::Format;

/// The commands on a component in a file.
#[derive(Subcommand)]
pub enum KitCommand {
    /// Write a plugin that builds and whose tests pass, to begin with
    #[command(disable_help_flag = true)]
    New(Forwarded),
    /// Check a component against the contract
    #[command(disable_help_flag = true)]
    Check(Forwarded),
    /// Show what a component is and asks for, and the configuration that would grant it
    #[command(disable_help_flag = true)]
    Inspect(Forwarded),
    /// Run the conformance suite against a component and a real backend
    #[command(disable_help_flag = true)]
    Test(Forwarded),
    /// Put a manifest into a component that was built without the Rust SDK
    #[command(disable_help_flag = true)]
    EmbedManifest(Forwarded),
    /// Sign a component
    #[command(disable_help_flag = true)]
    Sign(Forwarded),
    /// Verify a component's signature
    #[command(disable_help_flag = true)]
    Verify(Forwarded),
    /// Make a pair of keys to sign with
    #[command(disable_help_flag = true)]
    Keygen(Forwarded),
}

/// Arguments that `clavigerd` reads.
#[derive(Args)]
pub struct Forwarded {
    /// As `clavigerd plugin` takes them: see `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Becomes `clavigerd plugin …`. Returns only if it cannot.
pub fn run(context: &Context, command: KitCommand) -> Result<Exit, Failure> {
    let (name, Forwarded { mut arguments }) = match command {
        KitCommand::New(forwarded) => ("new", forwarded),
        KitCommand::Check(forwarded) => ("check", forwarded),
        KitCommand::Inspect(forwarded) => ("inspect", forwarded),
        KitCommand::Test(forwarded) => ("test", forwarded),
        KitCommand::EmbedManifest(forwarded) => ("embed-manifest", forwarded),
        KitCommand::Sign(forwarded) => ("sign", forwarded),
        KitCommand::Verify(forwarded) => ("verify", forwarded),
        KitCommand::Keygen(forwarded) => ("keygen", forwarded),
    };
    // The option is this program's too: before the arguments, it was taken from them.
    if context.printer.format == Format::Json {
        arguments.push("--output=json".into());
    }
    let program = beside_this_program().unwrap_or_else(|| PathBuf::from(BROKER));
    let error = Command::new(&program).args(["plugin", name]).args(arguments).exec();
    if error.kind() == ErrorKind::NotFound {
        return Err(Failure::new(
            Exit::NOT_FOUND,
            format!("`claviger plugin {name}` runs `{BROKER}`, which is neither beside this program nor on the PATH"),
        )
        .with_next("install the broker's program on this machine; it need not serve"));
    }
    Err(Failure::new(Exit::CANNOT_RUN, format!("`{}` cannot be run: {error}", program.display())))
}

fn beside_this_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name(BROKER);
    beside.is_file().then_some(beside)
}

/// The program that has the sandbox.
const BROKER: &str = "clavigerd";
