//! `claviger completion`: the completion script of a shell. Installs nothing.

use clap::Args;
use clap_complete::Shell;

use super::Context;
use crate::exit::Failure;

/// Which shell.
#[derive(Args)]
#[command(
    after_help = "Example:\n  claviger completion bash > ~/.local/share/bash-completion/completions/claviger"
)]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(
    context: &Context,
    args: &CompletionArgs,
    mut cli: clap::Command,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "claviger", &mut script);
    context.printer.text(&String::from_utf8_lossy(&script))
}
