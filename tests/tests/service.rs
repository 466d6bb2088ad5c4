//! The broker as a service: what it tells the service manager, and the unit that it is run by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claviger_e2e::attack::call;
use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::poll;
use claviger_e2e::world::{World, program};
use rustix::process::Signal;

#[tokio::test]
async fn the_service_manager_hears_that_it_serves_reloads_lives_and_stops() {
    let world = World::new();
    let manager = Supervisor::at(world.path());
    let broker = manager.start(&world).await;
    let ready = manager.hears("READY=1").await;
    assert!(ready.contains("STATUS=serves 0 sessions with 0 active leases"), "{ready}");
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("it serves by then");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let alive = manager.hears("STATUS=serves 1 sessions with 1 active leases").await;
    assert!(alive.contains("WATCHDOG=1"), "{alive}");

    broker.signal(Signal::HUP);
    let reloading = manager.hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1").await;

    assert!(broker.stop().await.success());
    manager.hears("STOPPING=1").await;
}

#[tokio::test]
async fn a_reload_that_is_refused_ends_too() {
    let world = World::new();
    let manager = Supervisor::at(world.path());
    let broker = manager.start(&world).await;
    manager.hears("READY=1").await;
    world.configure("grant_role = \"orders_readonly\"", "grant_rule = \"x\"");
    let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
    assert_eq!(reload.status.code(), Some(1));
    broker.signal(Signal::HUP);
    manager.hears("RELOADING=1").await;
    manager.hears("READY=1").await;
}

/// The writer's thread is stopped from outside, as a disk that never answers would.
#[tokio::test]
async fn a_journal_that_is_stuck_feeds_no_watchdog() {
    if !rustix::process::geteuid().is_root() {
        left_out("stopping one thread of the broker needs root");
        return;
    }
    let world = World::new();
    let manager = Supervisor::at(world.path());
    let broker = manager.start(&world).await;
    manager.hears("WATCHDOG=1").await;
    let writer = thread_of(broker.pid(), "journal-writer");
    let stopped = Stopped::thread(writer);
    let complaints = || {
        let log = broker.log();
        log.lines().filter(|line| line.contains("the watchdog is not fed")).count()
    };
    let complained = |times: usize| {
        poll::until("the broker complains", move || {
            std::future::ready((complaints() >= times).then_some(()))
        })
    };
    complained(1).await;
    // Whatever was told before lies in the socket by now; nothing may follow.
    manager.heard();
    complained(3).await;
    let since = manager.heard();
    assert!(!since.contains("WATCHDOG=1"), "{since}");
    drop(stopped);
    manager.hears("WATCHDOG=1").await;
}

/// The shipped unit, with the program of this build: systemd itself says what it thinks of it.
#[test]
fn systemd_accepts_the_unit_and_finds_it_hardened() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        left_out("systemd-analyze is not installed");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = std::fs::read_to_string(packaging().join("systemd/clavigerd.service"));
    let shipped = shipped.expect("the unit");
    let program = program("clavigerd").display().to_string();
    // The user is made at installation.
    let unit = shipped
        .replace("/usr/bin/clavigerd", &program)
        .replace("=claviger\nGroup=claviger", "=root");
    assert!(unit.contains(&format!("ExecStart={program} serve")), "{unit}");
    let path = folder.path().join("clavigerd.service");
    std::fs::write(&path, unit).expect("written");
    let verified = analyze(&["verify", "--man=no"], &path);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && !said.contains("clavigerd.service:"), "{said}");
    // Of a hundred points of exposure; what is left is the network, and code that is compiled.
    let exposed = analyze(&["security", "--offline=true", "--threshold=20"], &path);
    let table = String::from_utf8_lossy(&exposed.stdout).into_owned();
    assert!(exposed.status.success(), "{table}");
}

/// The unit's filter holds from the first instruction, so it must let through what the broker's
/// own does.
#[test]
fn the_units_filter_lets_through_what_the_brokers_own_does() {
    let shipped = std::fs::read_to_string(packaging().join("systemd/clavigerd.service"));
    let shipped = shipped.expect("the unit");
    let source = include_str!("../../host/broker/src/harden/calls.rs");
    let (own, _attacks) = source.split_once("const ATTACKS").expect("the list of attacks");
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let own: Vec<String> = own.split("libc::SYS_").skip(1).map(name).collect();
    assert!(own.iter().any(|call| call == "epoll_pwait") && own.len() > 100, "{own:?}");
    let mut allowed = std::collections::BTreeSet::new();
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        left_out("systemd-analyze is not installed");
        return;
    }
    allowed.extend(expanded("@default"));
    for line in shipped.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (names, removes) = match line.strip_prefix('~') {
            Some(names) => (names, true),
            None => (line, false),
        };
        for call in names.split_whitespace().flat_map(expanded) {
            if removes {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    for call in own {
        // Newer than the systemd that this runs with; an older one leaves out what it does not know.
        let known = call == "fchmodat2" || allowed.contains(&call);
        assert!(known, "`{call}` is on the broker's list and not on the unit's");
    }
}

fn expanded(name: &str) -> Vec<String> {
    if !name.starts_with('@') {
        return vec![name.to_owned()];
    }
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let entries = text.lines().skip(1).map(str::trim);
    let names = entries.filter(|entry| !entry.is_empty() && !entry.starts_with('#'));
    names.flat_map(expanded).collect()
}

fn analyze(args: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(args).arg(unit).output().expect("systemd-analyze runs")
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn left_out(why: &str) {
    let line = format!("LEFT OUT: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("a terminal or a file");
}

/// The other end of `NOTIFY_SOCKET`.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    fn at(folder: &Path) -> Self {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("set");
        Self { socket, path }
    }

    async fn start(&self, world: &World) -> Broker {
        Broker::start_with(world, |command| {
            command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", WATCHDOG_USEC);
        })
        .await
    }

    /// Waits for a message that contains `what`, and gives it.
    async fn hears(&self, what: &str) -> String {
        poll::until(what, || {
            let heard = self.next().filter(|message| message.contains(what));
            std::future::ready(heard)
        })
        .await
    }

    /// Everything that was told until now.
    fn heard(&self) -> String {
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(message.get(..length)?).into_owned())
    }
}

fn thread_of(pid: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
    let named = tasks.filter_map(Result::ok).find(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.trim() == name
    });
    let task = named.expect("a thread of that name").file_name();
    task.to_string_lossy().parse().expect("a number")
}

/// One thread of another process that does not run until this is dropped. The thread that makes
/// it must be the one that drops it.
struct Stopped(usize);

impl Stopped {
    fn thread(thread: usize) -> Self {
        let ptrace = |request| call(libc::SYS_ptrace, [request, thread, 0, 0, 0, 0]);
        ptrace(PTRACE_SEIZE).expect("root may trace");
        ptrace(PTRACE_INTERRUPT).expect("interrupted");
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _gone = call(libc::SYS_ptrace, [PTRACE_DETACH, self.0, 0, 0, 0, 0]);
    }
}

const PTRACE_DETACH: usize = 17;
const PTRACE_SEIZE: usize = 0x4206;
const PTRACE_INTERRUPT: usize = 0x4207;

/// Fed three times a second.
const WATCHDOG_USEC: &str = "1000000";
