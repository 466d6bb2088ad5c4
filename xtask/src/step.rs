//! One command of a script: says what it does, runs it, and explains how to go on if it fails.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// A command with a sentence about it.
pub struct Step {
    what: String,
    command: Command,
    go_on: String,
}

impl Step {
    /// A step that runs `program`; `what` is printed before it runs.
    pub fn new(what: impl Into<String>, program: &str) -> Self {
        let go_on = "mend what it says above and run the same command again".to_owned();
        Self { what: what.into(), command: Command::new(program), go_on }
    }

    /// A step that runs this workspace's cargo in `folder`.
    pub fn cargo(what: impl Into<String>, folder: &Path) -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut step = Self::new(what, &cargo);
        step.command.current_dir(folder);
        step
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds an option and its file.
    pub fn arg_pair(self, option: &str, file: &Path) -> Self {
        self.args([OsStr::new(option), file.as_os_str()])
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What to do when it fails, as the end of a sentence.
    pub fn go_on(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.go_on);
        self
    }

    /// Says what it does, and runs.
    pub fn run(mut self) -> Result<()> {
        println!("xtask: {}", self.what);
        let line = self.line();
        let status = self.command.status().with_context(|| format!("`{line}` cannot start"))?;
        self.judge(status, &line)
    }

    /// Says what it does, runs, and returns what it wrote to its standard output.
    pub fn output(mut self) -> Result<String> {
        println!("xtask: {}", self.what);
        let line = self.line();
        self.command.stderr(Stdio::inherit());
        let output = self.command.output().with_context(|| format!("`{line}` cannot start"))?;
        self.judge(output.status, &line)?;
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` wrote no UTF-8"))
    }

    /// The command as one would type it.
    pub fn line(&self) -> String {
        let variables = self.command.get_envs().filter_map(|(name, value)| {
            Some(format!("{}={}", name.to_string_lossy(), value?.to_string_lossy()))
        });
        let program = self.command.get_program().to_string_lossy().into_owned();
        let args = self.command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let words: Vec<_> = variables.chain([program]).chain(args).collect();
        words.join(" ")
    }

    fn judge(&self, status: ExitStatus, line: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        bail!("this command failed:\n  {line}\nto go on: {}", self.go_on)
    }
}

/// What `program` writes to its standard output, or `None` if it is missing or fails.
pub fn probe(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
