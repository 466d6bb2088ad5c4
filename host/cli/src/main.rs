//! Claviger's command line: for agents, their developers and operators. Wires parsing, the chosen
//! command and the exit code; what a command does stands in `commands/`.

mod args;
mod child;
mod client;
mod commands;
mod environment;
mod exit;
mod print;
mod proof;
mod renewal;
mod text;
mod view;
mod watch;

use std::process::ExitCode;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::print::Printer;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => return ExitCode::from(answer.show().0),
    };
    let printer = Printer { format: cli.output };
    let exit = start(cli).unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit
    });
    ExitCode::from(exit.0)
}

fn start(cli: Cli) -> Result<Exit, Failure> {
    // Tokens and credentials pass through this process: no core dump, and no reading of its
    // memory by other processes of the same user. Children are not affected.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::other(format!("cannot protect its own memory: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    runtime.block_on(commands::run(cli))
}
