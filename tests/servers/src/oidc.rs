//! A temporary OpenID provider: the certified `oidc-provider` of npm on its own port, with clients
//! for workloads, users for engineers, and token exchange (RFC 8693). It signs with keys that a test
//! may rotate; over a restart it forgets who signed in.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running provider, stopped when dropped, and also when the test's process ends otherwise.
pub struct OidcProvider {
    process: Option<Child>,
    port: u16,
    keys: TempDir,
}

impl OidcProvider {
    /// Starts one that publishes these keys and signs with the first. A name that begins with
    /// `rsa` is a key for RS256, every other one for ES256.
    pub fn start(keys: &[&str]) -> Self {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("oidc-").tempdir().unwrap();
        let mut provider = Self { process: None, port, keys: folder };
        provider.restart_with(keys);
        provider
    }

    /// The issuer.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it, as an outage would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The end of its input is what it waits for.
            drop(process.stdin.take());
            let _gone = process.wait();
        }
    }

    /// The same provider with other keys. Keys of the same name are the same.
    pub fn restart_with(&mut self, keys: &[&str]) {
        self.stop();
        let mut command = node("provider.mjs");
        command.arg(modules()).arg(self.port.to_string()).arg(keys.join(","));
        command.arg(self.keys.path()).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut said = String::new();
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "listening\n", "the OpenID provider did not start");
        // It stops when nobody reads what it writes.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        self.process = Some(process);
    }

    /// A token of the client `client` for an audience, as a CI job or a service has.
    pub fn workload_token(&self, client: &str, audience: &str) -> String {
        self.token(&["workload", client, audience], "")
    }

    /// An ID token of `ada` (groups `payments` and `oncall`) or `bob` (group `support`), who signs
    /// in as with a browser. Its audience is `claviger`.
    pub fn id_token(&self, login: &str) -> String {
        self.token(&["engineer", login], "")
    }

    /// A token of whom `subject_token` is, by which whoever `actor_token` is may act.
    pub fn exchanged(&self, subject_token: &str, actor_token: &str) -> String {
        self.token(&["exchange"], &format!("{subject_token}\n{actor_token}"))
    }

    fn token(&self, args: &[&str], input: &str) -> String {
        let mut command = node("token.mjs");
        command.arg(self.issuer()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no token {args:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        self.stop();
    }
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("node").join(script));
    command
}

/// Where the packages are installed.
fn modules() -> PathBuf {
    let modules = crate::python::tools().join("node");
    let missing = !modules.join("node_modules/oidc-provider").exists();
    assert!(!missing, "`{}` is not complete: run `cargo xtask setup`", modules.display());
    modules
}

/// The provider must know its port before it has one.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
