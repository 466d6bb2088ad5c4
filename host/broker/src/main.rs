//! The broker's process: command line, logging, then `app`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use clavigerd::config::{ConfigFile, LimitsClass};
use clavigerd::{app, check, dev, harden, keep, kit, telemetry};

/// Most of what an issue takes beside the commit is many small allocations on two threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Claviger broker: issues short-lived credentials to AI agents, as their prompt files ask
/// and your Cedar policies allow.
#[derive(Parser)]
#[command(name = "clavigerd", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves agents and operators. SIGTERM drains, SIGHUP reloads policies, prompt files,
    /// plugins and backends.
    Serve {
        /// The configuration.
        #[arg(short, long, default_value = "/etc/claviger/claviger.toml")]
        config: PathBuf,
    },
    /// Serves on this machine for one developer: sockets, journal and key are made for you.
    Dev(dev::DevArgs),
    /// For who writes, reviews or publishes a plugin: makes, checks, shows, tests and signs one,
    /// without a broker.
    #[command(subcommand)]
    Plugin(kit::Command),
    /// Puts secrets into the keeping of a broker that does not run yet.
    #[command(subcommand)]
    Secret(keep::Command),
    /// Checks configuration, policies, prompt files and plugins without serving. Exit code 1 if
    /// anything is wrong: meant for CI.
    Check {
        /// The configuration.
        #[arg(short, long, default_value = "/etc/claviger/claviger.toml")]
        config: PathBuf,
    },
    /// Compiles one component from standard input to standard output, under limits: what the
    /// broker starts for each component that it has not compiled before.
    #[command(hide = true)]
    CompileComponent {
        /// How much it may take.
        class: LimitsClass,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            telemetry::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { config } => check::run(&config),
        Command::CompileComponent { class } => Ok(clavigerd::plugin::compile_child(class)),
        Command::Plugin(command) => kit::run(command),
        Command::Secret(command) => {
            harden::process()?;
            app::block_on(keep::run(command))
        }
        Command::Serve { config } => {
            begin()?;
            let file = ConfigFile::read(&config)?;
            let confinement = harden::confine(&file)?;
            app::block_on(app::serve(app::Mode::Serve, file, confinement))
        }
        Command::Dev(args) => {
            begin()?;
            let file = dev::prepare(args)?;
            let confinement = harden::confine(&file)?;
            app::block_on(app::serve(app::Mode::Dev, file, confinement))
        }
    }
}

/// What comes before anything is read.
fn begin() -> anyhow::Result<()> {
    // First: of a process that cannot be dumped, what lies in `/proc` about it belongs to root.
    clavigerd::plugin::open_pagemap();
    harden::process()?;
    telemetry::start();
    Ok(())
}
