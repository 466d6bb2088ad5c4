//! The backend as an agent and its operator see it: by the two commands of the configuration.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::config::Conformance;
use crate::rpc::reply::OpenField;

/// The backend behind the commands.
pub struct Upstream {
    use_command: Vec<String>,
    list_command: Option<Vec<String>>,
}

impl Upstream {
    /// The commands of `config`.
    pub fn new(config: &Conformance) -> Self {
        Self { use_command: config.use_command(), list_command: config.list_command() }
    }

    /// Whether the credential with these fields works: the command's exit code is 0.
    pub async fn works(&self, fields: &[OpenField]) -> Result<bool, String> {
        let environment = fields.iter().map(|field| {
            let own = || format!("CLAVIGER_FIELD_{}", field.name.to_uppercase().replace('-', "_"));
            (field.env.clone().unwrap_or_else(own), field.value.clone())
        });
        let output = run(&self.use_command, environment.collect()).await?;
        Ok(output.status.success())
    }

    /// Whether what an intent left can be told.
    pub const fn lists(&self) -> bool {
        self.list_command.is_some()
    }

    /// How many credentials of this intent are there, as far as that can be told: the command
    /// prints one line for each.
    pub async fn left(&self, intent: &str) -> Result<Option<usize>, String> {
        let Some(command) = &self.list_command else { return Ok(None) };
        let intent = Zeroizing::new(intent.to_owned());
        let environment = BTreeMap::from([("CLAVIGER_INTENT".to_owned(), intent)]);
        let output = run(command, environment).await?;
        if !output.status.success() {
            return Err(format!(
                "the command of `[list]` failed: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(Some(text.lines().filter(|line| !line.trim().is_empty()).count()))
    }
}

async fn run(
    command: &[String],
    environment: BTreeMap<String, Zeroizing<String>>,
) -> Result<std::process::Output, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("the command is empty".to_owned());
    };
    let mut child = Command::new(program);
    child.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    child.envs(environment.iter().map(|(name, value)| (name, value.as_str())));
    match timeout(COMMAND_MAX, child.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(format!("`{program}` cannot be run: {error}")),
        Err(_) => Err(format!("`{program}` did not end within {} s", COMMAND_MAX.as_secs())),
    }
}

/// A login and one question; what takes longer hangs.
const COMMAND_MAX: Duration = Duration::from_secs(30);
