//! `clavigerd secret`: puts a secret into the journal of a broker that does not run, such as the
//! first one of a new broker, whose configuration refers to it already. Serves nothing.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use claviger_core::name::SecretName;
use zeroize::Zeroizing;

use crate::config::ConfigFile;
use crate::journal::{SECRET_BYTES_MAX, SecretAct};
use crate::{app, broker, telemetry};

/// What can be done to the secrets of a broker that does not run.
#[derive(Subcommand)]
pub enum Command {
    /// Keeps what standard input says as the secret `store:NAME`. To be run as the broker's own
    /// user; while the broker runs, use `claviger secret put`.
    Put {
        /// Its name, without `store:`.
        name: SecretName,
        /// The configuration.
        #[arg(short, long, default_value = "/etc/claviger/claviger.toml")]
        config: PathBuf,
    },
}

/// Runs the command.
pub async fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Put { name, config } = command;
    let file = ConfigFile::read(&config)?;
    let value = read_value()?;
    let journal = app::journal_alone(&file)?;
    let uid = rustix::process::getuid().as_raw();
    let act = SecretAct { by: format!("unix:{uid}"), at: broker::now() };
    let version = journal.put_secret(name.clone(), value, act).await??;
    journal.close().await;
    telemetry::say(&format!("store:{name} is kept, version {version}"));
    Ok(ExitCode::SUCCESS)
}

/// Read into a buffer that never grows: one that does leaves the secret in freed memory.
fn read_value() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 3));
    let most = u64::try_from(SECRET_BYTES_MAX)?.saturating_add(2);
    std::io::stdin().lock().take(most).read_to_end(&mut bytes).context("standard input")?;
    let text = std::str::from_utf8(&bytes).context("a secret is text")?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}
