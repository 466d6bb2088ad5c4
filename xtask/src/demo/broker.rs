//! The demo's broker: `clavigerd dev` in a temporary folder, and `claviger` talking to it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use claviger_test_servers::{Moto, Postgres};
use serde_json::Value;
use tempfile::TempDir;

use super::{Expect, database};
use crate::paths::Paths;

/// A broker that lives as long as the demo.
pub struct Broker {
    process: Child,
    bin: PathBuf,
    folder: TempDir,
}

impl Broker {
    /// Starts it on the demo's prompt files and policies and waits until it serves.
    pub fn start(paths: &Paths, postgres: &Postgres, aws: &Moto) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("claviger-demo-").tempdir()?;
        let config = folder.path().join("demo.toml");
        std::fs::write(&config, configuration(paths, postgres) + &configuration_aws(paths, aws))?;
        let log = std::fs::File::create(folder.path().join("clavigerd.log"))?;
        let process = Command::new(paths.bin.join("clavigerd"))
            .arg("dev")
            .arg("--config")
            .arg(&config)
            .arg("--dir")
            .arg(folder.path().join("state"))
            .env("CLAVIGER_DEMO_PASSWORD", database::PASSWORD)
            .env("CLAVIGER_DEMO_AWS_ID", &aws.root_key().id)
            .env("CLAVIGER_DEMO_AWS_KEY", &aws.root_key().secret)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("clavigerd cannot start")?;
        let mut broker = Self { process, bin: paths.bin.clone(), folder };
        broker.wait_until_it_serves()?;
        Ok(broker)
    }

    /// Shows a command of `claviger` and what it prints.
    pub fn show(&self, args: &[&str], expect: Expect) -> Result<()> {
        println!("$ claviger {}", args.join(" "));
        let status = self.claviger(args, None).status().context("claviger cannot start")?;
        ensure!(
            status.success() == (expect == Expect::Success),
            "`claviger {}` ended with {status}, which the demo did not expect",
            args.join(" ")
        );
        Ok(())
    }

    /// Runs a command of `claviger` and returns its answer.
    pub fn json(&self, args: &[&str], token: Option<&str>) -> Result<Value> {
        let output = self.claviger(&[&["--output", "json"], args].concat(), token).output()?;
        if !output.status.success() {
            bail!("`claviger {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("claviger answered no JSON")
    }

    /// Lets it drain and stop.
    pub fn stop(mut self) -> Result<()> {
        let stopped = Command::new("kill").arg(self.process.id().to_string()).status()?;
        ensure!(stopped.success(), "the broker could not be asked to stop");
        let ended = self.process.wait()?;
        ensure!(ended.success(), "the broker ended with {ended}: {}", self.log());
        Ok(())
    }

    fn claviger(&self, args: &[&str], token: Option<&str>) -> Command {
        let mut command = Command::new(self.bin.join("claviger"));
        command.args(args).stdin(Stdio::null());
        command.env("CLAVIGER_SOCKET", self.folder.path().join("state/agent.sock"));
        command.env("CLAVIGER_ADMIN_SOCKET", self.folder.path().join("state/admin.sock"));
        if let Some(token) = token {
            command.env("CLAVIGER_SESSION_TOKEN", token);
        }
        command
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let socket = self.folder.path().join("state/agent.sock");
        let deadline = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = self.process.try_wait()?;
            ensure!(ended.is_none(), "the broker did not start: {}", self.log());
            ensure!(Instant::now() < deadline, "the broker does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("clavigerd.log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // After `stop` both fail, as they should; after an error they leave nothing running.
        let _stopped_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

fn configuration(paths: &Paths, postgres: &Postgres) -> String {
    let demo = paths.root.join("xtask/demo");
    format!(
        r#"
[policies]
path = {policies:?}
[prompts]
path = {prompts:?}
[plugins.postgres]
path = {plugin:?}
[backends.orders-db]
plugin = "postgres"
[backends.orders-db.connections.admin]
address = {address:?}
auth = {{ password = {{ user = "claviger", password = "env:CLAVIGER_DEMO_PASSWORD" }} }}
[backends.orders-db.scopes.readonly]
authorization = "orders.read"
max_ttl = "1h"
grant_role = "orders_readonly"
[backends.orders-db.scopes.readwrite]
authorization = "orders.write"
max_ttl = "15m"
grant_role = "orders_readwrite"
"#,
        policies = demo.join("policies"),
        prompts = demo.join("prompts"),
        plugin = paths.plugins.join("postgres.wasm"),
        address = postgres.url(),
    )
}

fn configuration_aws(paths: &Paths, aws: &Moto) -> String {
    format!(
        r#"
[plugins.aws-sts]
path = {plugin:?}
[backends.aws]
plugin = "aws-sts"
[backends.aws.connections.sts]
address = {address:?}
methods = ["POST"]
paths = ["/"]
reach = ["loopback"]
reads = ["/*/*/Credentials/AccessKeyId", "/*/*/Credentials/Expiration", "/*/*/AssumedRoleUser/Arn", "/ErrorResponse/Error/Code", "/ErrorResponse/Error/Message"]
[backends.aws.connections.sts.auth.sigv4]
access_key_id = "env:CLAVIGER_DEMO_AWS_ID"
secret_access_key = "env:CLAVIGER_DEMO_AWS_KEY"
region = "eu-central-1"
service = "sts"
[backends.aws.scopes.reports]
authorization = "aws.reports.read"
role_arn = "arn:aws:iam::123456789012:role/reports"
region = "eu-central-1"
[backends.aws.scopes.reports.policy]
Statement = [{{ Effect = "Allow", Action = ["s3:GetObject"], Resource = ["arn:aws:s3:::reports/*"] }}]
"#,
        plugin = paths.plugins.join("aws-sts.wasm"),
        address = aws.url(),
    )
}

/// A debug build compiles the plugin for some seconds at start.
const PATIENCE: Duration = Duration::from_secs(60);
