//! A temporary AWS account: a moto server on its own port, furnished by `python/furnish.py`, with
//! signatures (SigV4) and IAM policies checked from then on.
//!
//! moto checks who signed, what the user or role may do, and whether the role trusts the user. It
//! takes session policies, tags, source identities and every `DurationSeconds`, and ignores them;
//! a session of its goes on working after its expiry. It refuses a deleted access key at
//! once, knows a new one at once, which AWS does not, and takes one that is inactive.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::python::{program, python};

/// A running server, stopped when dropped, and also when the test's process ends in any other way.
pub struct Moto {
    process: Child,
    url: String,
    log: Arc<Mutex<String>>,
    keys: BTreeMap<String, AccessKey>,
}

/// A long-lived access key of an IAM user.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// Not a secret.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl Moto {
    /// Starts and furnishes an account.
    pub fn start() -> Self {
        let mut process = spawn();
        let mut output = BufReader::new(process.stderr.take().unwrap());
        let url = announced_url(&mut output);
        let log = Arc::new(Mutex::new(String::new()));
        // The server stops when nobody reads what it writes.
        let kept = Arc::clone(&log);
        std::thread::spawn(move || keep(output, &kept));
        let mut server = Self { process, url, log, keys: BTreeMap::new() };
        server.furnish();
        server
    }

    /// Such as `http://127.0.0.1:40451`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The access key of the user `claviger`, who may assume the role `reports` and replace its own
    /// access keys.
    pub fn root_key(&self) -> &AccessKey {
        &self.keys["claviger"]
    }

    /// The access key of the user `operator`, who may do everything in IAM.
    pub fn operator_key(&self) -> &AccessKey {
        &self.keys["operator"]
    }

    /// The access key of the user `double`, who may send `AssumeRoleWithWebIdentity`. In AWS that
    /// needs no signature; moto answers 500 to an unsigned one.
    pub fn double_key(&self) -> &AccessKey {
        &self.keys["double"]
    }

    /// What the server has logged so far: a line for each request.
    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn furnish(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/furnish.py");
        let output = python().arg(script).env("AWS_ENDPOINT_URL", &self.url).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "furnishing failed: {error}\n{}", self.log_text());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let [user, id, secret] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let key = AccessKey { id: id.to_owned(), secret: secret.to_owned() };
            self.keys.insert(user.to_owned(), key);
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // The end of its input is what the shell waits for before it stops the server.
        drop(self.process.stdin.take());
        let _gone = self.process.wait();
    }
}

/// A shell that runs the server until its own input ends, which it does with this process at the
/// latest. In a process group of its own, so that the Ctrl-C that ends the test does not end it.
fn spawn() -> Child {
    let script = r#""$0" -H 127.0.0.1 -p 0 </dev/null & cat >/dev/null; kill $!; wait"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program("moto_server")).process_group(0).current_dir("/");
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    shell.spawn().unwrap()
}

/// The server takes a free port and says which.
fn announced_url(output: &mut impl BufRead) -> String {
    let mut said = String::new();
    loop {
        let start = said.len();
        let ended = output.read_line(&mut said).unwrap() == 0;
        assert!(!ended, "moto did not start:\n{said}");
        if let Some((_, url)) = said[start..].split_once("Running on ") {
            return url.trim().to_owned();
        }
    }
}

fn keep(mut output: impl Read, log: &Mutex<String>) {
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = output.read(&mut chunk) {
        log.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
}
