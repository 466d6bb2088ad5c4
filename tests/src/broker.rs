//! A real `clavigerd` process, started for one test and stopped with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::poll;
use crate::world::{World, program};

/// A running broker.
pub struct Broker {
    child: Child,
    folder: PathBuf,
}

impl Broker {
    /// Starts a broker on the world's configuration and waits until it serves.
    pub async fn start(world: &World) -> Self {
        Self::start_with(world, |_| {}).await
    }

    /// The same, with a say in how the process is started.
    pub async fn start_with(world: &World, adapt: impl FnOnce(&mut Command)) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(world.path().join("clavigerd.log"))
            .expect("a log");
        let mut command = Command::new(program("clavigerd"));
        command.args(["serve", "--config"]).arg(world.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        adapt(&mut command);
        let child = command.spawn().expect("clavigerd starts");
        let mut broker = Self { child, folder: world.path().to_owned() };
        poll::until("the broker listens", || {
            let ended = broker.child.try_wait().expect("waited");
            assert!(ended.is_none(), "clavigerd ended ({ended:?}): {}", broker.log());
            let served = std::os::unix::net::UnixStream::connect(broker.socket()).ok();
            std::future::ready(served)
        })
        .await;
        broker
    }

    /// The agents' socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    /// The operators' socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Everything logged so far, over restarts.
    pub fn log(&self) -> String {
        log_in(&self.folder)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not zero");
        kill_process(pid, signal).expect("signalled");
    }

    /// Kills it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        poll::until("the broker has stopped", || {
            std::future::ready(self.child.try_wait().expect("waited"))
        })
        .await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Everything that brokers logged in `folder`.
pub fn log_in(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("clavigerd.log")).unwrap_or_default()
}

/// Runs the command line `claviger` as an operator or agent of that broker would.
pub fn claviger(broker: &Broker, args: &[&str]) -> Command {
    let mut command = Command::new(program("claviger"));
    command.args(args).stdin(Stdio::null());
    command.env("CLAVIGER_SOCKET", broker.socket());
    command.env("CLAVIGER_ADMIN_SOCKET", broker.admin_socket());
    command
}

/// Runs a command to its end: its exit code, and what it wrote to standard output and error.
pub fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().expect("claviger runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}
