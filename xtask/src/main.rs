//! The project's scripts, in Rust: set-up, plugins, tests, demo, checks, benches. No part of the product.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a script talks to a person")]

mod bench;
mod checks;
mod counts;
mod demo;
mod fuzz;
mod javascript;
mod paths;
mod plugins;
mod setup;
mod step;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::paths::Paths;
use crate::setup::Mode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", args),
    };
    let paths = Paths::find()?;
    match (command, rest) {
        ("help" | "--help" | "-h", _) => {
            println!("{HELP}");
            Ok(())
        }
        ("setup", []) => setup::run(&paths, Mode::Install),
        ("setup", [print]) if print == "--print" => setup::run(&paths, Mode::Print),
        ("plugins", []) => {
            plugins::build(&paths)?;
            javascript::build(&paths)
        }
        ("test", filter) => checks::test(&paths, filter),
        ("bench", names) => bench::run(&paths, names),
        ("fuzz", args) => fuzz::run(&paths, args),
        ("demo", []) => demo::prepare_and_run(&paths),
        ("check", []) => checks::check(&paths),
        ("proto", []) => checks::proto(&paths),
        ("setup" | "plugins" | "demo" | "check" | "proto", unknown) => {
            bail!("`{command}` does not take `{}`: see `cargo xtask help`", unknown.join(" "))
        }
        _ => bail!("there is no `{command}`: see `cargo xtask help`"),
    }
}

const HELP: &str = "\
cargo xtask <command>

  setup [--print]   make a fresh machine ready: the wasm target, PostgreSQL, Python
                    packages; --print only tells
  plugins           build the plugins to target/plugins/
  test [args…]      setup, plugins, binaries, then `cargo test --workspace [args…]`
  demo              setup, plugins, binaries, then the guided tour
  bench [--quick]   setup, OpenBao, a release build, then Claviger beside OpenBao and the bare
                    limits: target/bench/report.json and report.html
  bench walls|soak|counts
                    what the walls round a plugin cost; ten minutes at 70 % of the capacity;
                    the instructions of a decision and an issue, against the committed ones
  fuzz [target] [--seconds N]
                    search for faults with libFuzzer, ten minutes a target unless told otherwise
  check             formatting, clippy without warnings, cargo-deny if it is installed
  proto             write the committed gRPC code anew from the .proto files";
