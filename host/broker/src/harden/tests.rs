//! Attacks on the walls of the process, from inside: each from a process of its own, with the
//! walls and without. What fails without them too would show nothing.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claviger_e2e::attack::call;

use super::*;
use crate::config::ConfigFile;

/// What an attack came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused(i32),
    /// By the kernel, in the middle of the call.
    Ended,
    /// Whatever this kernel and this user's rights make of it, but not the end.
    Survived,
}

use Outcome::{Done, Ended, Refused, Survived};

/// An attack, with what comes of it when nothing is closed and behind the walls.
type Attack = (&'static str, Outcome, Outcome, fn(&Path) -> io::Result<()>);

/// Runs each attack from the test named `test`, which is this one: the process that attacks is
/// this program again, told by its environment which attack it is.
fn check(test: &str, profile: calls::Profile, attacks: &[Attack]) {
    if let Ok(told) = std::env::var("CLAVIGER_ATTACK") {
        let (walls, label) = told.split_once(':').expect("walls and label");
        let (_, _, _, body) = attacks.iter().find(|attack| attack.0 == label).expect("known");
        attack(walls == "walls", profile, *body);
        return;
    }
    for (label, free, behind_walls, _) in attacks {
        for (walls, expect) in [("free", free), ("walls", behind_walls)] {
            let stage = Stage::new();
            let output = stage.start(test, &format!("{walls}:{label}"));
            let found = outcome(&output);
            let as_expected = found == *expect || *expect == Survived && found != Ended;
            assert!(as_expected, "{label}, {walls}: {found:?}, not {expect:?}: {output:?}");
        }
    }
}

/// The process that attacks: closes what is to be closed, attacks, tells, ends.
fn attack(walls: bool, profile: calls::Profile, body: fn(&Path) -> io::Result<()>) {
    let stage = PathBuf::from(std::env::var_os("CLAVIGER_STAGE").expect("a stage"));
    if walls && profile == calls::Profile::Broker {
        let file = ConfigFile::read(&stage.join("conf/c.toml")).expect("a configuration");
        process().expect("hardened");
        confine(&file).expect("confined");
    } else if walls {
        close_files_of_compiler();
        close_calls_of_compiler();
    }
    let told = match body(&stage) {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    };
    crate::telemetry::say(&format!("outcome: {told}"));
}

fn outcome(output: &Output) -> Outcome {
    if output.status.signal() == Some(libc::SIGSYS) {
        return Ended;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let told = said.lines().find_map(|line| line.strip_prefix("outcome: "));
    match told.map(|told| told.strip_prefix("errno ")) {
        Some(None) => Done,
        Some(Some(number)) => Refused(number.parse().expect("a number")),
        None => panic!("it told nothing: {output:?}"),
    }
}

/// Files of a broker, and one that is none of its business.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["conf/policies", "conf/prompts", "state", "run", "outside"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("made");
        }
        for name in ["conf/key", "outside/secret"] {
            std::fs::write(folder.path().join(name), "s").expect("written");
        }
        let link = folder.path().join("conf/prompts/link.md");
        std::os::unix::fs::symlink(folder.path().join("outside/secret"), link).expect("linked");
        let text = "[listen]\nsocket = \"../run/a.sock\"\nadmin_socket = \"../run/b.sock\"\n\
            [journal]\npath = \"../state/journal.db\"\nsealing_key = \"file:key\"\n\
            [policies]\npath = \"policies\"\n[prompts]\npath = \"prompts\"\n\
            [metrics]\naddress = \"127.0.0.1:0\"\n[process]\nrequire = true\n";
        std::fs::write(folder.path().join("conf/c.toml"), text).expect("written");
        Self(folder)
    }

    fn start(&self, test: &str, told: &str) -> Output {
        Command::new(std::env::current_exe().expect("a test program"))
            .args(["--exact", &format!("harden::tests::{test}"), "--nocapture"])
            .args(["--test-threads", "1"])
            .env("CLAVIGER_ATTACK", told)
            .env("CLAVIGER_STAGE", self.0.path())
            .output()
            .expect("it starts")
    }
}

fn done<T>(result: io::Result<T>) -> io::Result<()> {
    result.map(drop)
}

fn raw(number: i64, arguments: [usize; 6]) -> io::Result<()> {
    call(number, arguments).map(drop)
}

/// Attaches to a process that there cannot be.
fn seize_nobody() -> io::Result<()> {
    raw(libc::SYS_ptrace, [0x4206, 0x7fff_ffff, 0, 0, 0, 0])
}

/// An anonymous mapping with these protections.
fn map(protection: i32) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let number = |value: i32| usize::try_from(value).expect("small");
    raw(libc::SYS_mmap, [0, 4096, number(protection), number(flags), usize::MAX, 0])
}

fn socket(family: i32, kind: i32, protocol: usize) -> io::Result<()> {
    let number = |value: i32| usize::try_from(value).expect("small");
    raw(libc::SYS_socket, [number(family), number(kind), protocol, 0, 0, 0])
}

const ACCESS: Outcome = Refused(libc::EACCES);
const PERMISSION: Outcome = Refused(libc::EPERM);

#[test]
fn what_the_configuration_does_not_lead_to_is_neither_read_nor_written() {
    let attacks: &[Attack] = &[
        ("read", Done, ACCESS, |stage| done(std::fs::read(stage.join("outside/secret")))),
        ("link", Done, ACCESS, |stage| done(std::fs::read(stage.join("conf/prompts/link.md")))),
        ("make a link", Done, PERMISSION, |stage| {
            std::os::unix::fs::symlink("/", stage.join("state/link"))
        }),
        ("list", Done, ACCESS, |stage| done(std::fs::read_dir(stage.join("outside")))),
        ("root", Done, ACCESS, |_| done(std::fs::read_dir("/"))),
        ("temporary", Done, ACCESS, |_| done(tempfile::tempfile_in("/tmp"))),
        ("another process", Done, ACCESS, |_| done(std::fs::read("/proc/1/status"))),
        ("write", Done, ACCESS, |stage| std::fs::write(stage.join("outside/secret"), "mine")),
        ("make", Done, ACCESS, |stage| std::fs::write(stage.join("outside/new"), "mine")),
        ("remove", Done, ACCESS, |stage| std::fs::remove_file(stage.join("outside/secret"))),
        // seccomp is asked before Landlock, and knows no use for this call.
        ("truncate", Done, PERMISSION, |stage| {
            let path = stage.join("outside/secret").into_os_string().into_encoded_bytes();
            let path = std::ffi::CString::new(path)?;
            raw(libc::SYS_truncate, [path.as_ptr() as usize, 0, 0, 0, 0, 0])
        }),
        ("own configuration", Done, ACCESS, |stage| std::fs::write(stage.join("conf/c.toml"), "")),
        ("own policies", Done, ACCESS, |stage| {
            std::fs::write(
                stage.join("conf/policies/mine.cedar"),
                "permit(principal,action,resource);",
            )
        }),
        ("move out", Done, ACCESS, |stage| {
            std::fs::write(stage.join("state/stolen"), "")?;
            std::fs::rename(stage.join("state/stolen"), stage.join("outside/stolen"))
        }),
    ];
    let test = "what_the_configuration_does_not_lead_to_is_neither_read_nor_written";
    check(test, calls::Profile::Broker, attacks);
}

#[test]
fn no_other_program_is_started() {
    let attacks: &[Attack] = &[
        ("shell", Done, ACCESS, |_| done(Command::new("/bin/sh").args(["-c", "true"]).status())),
        ("planted", Done, ACCESS, |stage| {
            use std::os::unix::fs::PermissionsExt;
            let planted = stage.join("state/planted");
            std::fs::write(&planted, "#!/bin/sh\n")?;
            std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o755))?;
            done(Command::new(planted).status())
        }),
        ("itself", Done, Done, |_| {
            let status =
                Command::new("/proc/self/exe").arg("--version-that-is-not").output()?.status;
            if status.code().is_some() { Ok(()) } else { Err(io::Error::other("killed")) }
        }),
    ];
    check("no_other_program_is_started", calls::Profile::Broker, attacks);
}

#[test]
fn what_only_an_attack_calls_ends_the_process() {
    let attacks: &[Attack] = &[
        ("attach", Survived, Ended, |_| seize_nobody()),
        ("keys", Survived, Ended, |_| raw(libc::SYS_keyctl, [0, usize::MAX - 2, 1, 0, 0, 0])),
        ("module", Survived, Ended, |_| {
            raw(libc::SYS_finit_module, [usize::MAX, c"".as_ptr() as usize, 0, 0, 0, 0])
        }),
        ("eBPF", Survived, Ended, |_| raw(libc::SYS_bpf, [usize::MAX; 6])),
        ("io_uring", Survived, Ended, |_| raw(libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0])),
        ("mount", Survived, Ended, |_| {
            raw(libc::SYS_mount, [usize::MAX, usize::MAX, usize::MAX, 0, 0, 0])
        }),
        ("namespace", Survived, Ended, |_| raw(libc::SYS_unshare, [0; 6])),
        ("another root", Survived, Ended, |_| raw(libc::SYS_chroot, [usize::MAX, 0, 0, 0, 0, 0])),
    ];
    check("what_only_an_attack_calls_ends_the_process", calls::Profile::Broker, attacks);
}

#[test]
fn no_raw_packets_and_no_doors_to_the_kernel() {
    let attacks: &[Attack] = &[
        ("routes", Done, PERMISSION, |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        ("a raw kind of this machine", Done, PERMISSION, |_| {
            socket(libc::AF_UNIX, libc::SOCK_RAW, 0)
        }),
        ("a stream", Done, Done, |_| {
            socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
        }),
        ("a datagram", Done, Done, |_| socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)),
        ("terminal input", Refused(libc::ENOTTY), PERMISSION, |_| {
            let null = std::fs::File::open("/dev/null")?;
            let number = usize::try_from(std::os::fd::AsRawFd::as_raw_fd(&null)).expect("small");
            raw(libc::SYS_ioctl, [number, 0x5412, 0, 0, 0, 0])
        }),
        ("dumpable again", Done, PERMISSION, |_| raw(libc::SYS_prctl, [4, 1, 0, 0, 0, 0])),
        ("a list of groups", Done, PERMISSION, |_| raw(libc::SYS_getgroups, [0; 6])),
    ];
    check("no_raw_packets_and_no_doors_to_the_kernel", calls::Profile::Broker, attacks);
}

#[test]
fn it_listens_on_configured_ports_and_connects_to_any() {
    let attacks: &[Attack] = &[
        // Any free one: its number was not in the configuration.
        ("listen", Done, ACCESS, |_| {
            (20_000..20_100)
                .map(|port| TcpListener::bind(("127.0.0.1", port)))
                .find(|bound| !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse))
                .unwrap_or_else(|| Err(io::Error::other("all are taken")))
                .map(drop)
        }),
        ("configured", Done, Done, |_| done(TcpListener::bind(("127.0.0.1", 0)))),
        ("connect", Done, Done, |_| {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            done(TcpStream::connect(listener.local_addr()?))
        }),
    ];
    check("it_listens_on_configured_ports_and_connects_to_any", calls::Profile::Broker, attacks);
}

#[test]
fn no_signal_leaves_the_process() {
    let attacks: &[Attack] = &[
        ("parent", Done, PERMISSION, |_| {
            let parent = usize::try_from(std::os::unix::process::parent_id()).expect("a number");
            raw(libc::SYS_kill, [parent, 0, 0, 0, 0, 0])
        }),
        ("itself", Done, Done, |_| {
            let own = usize::try_from(std::process::id()).expect("a number");
            raw(libc::SYS_kill, [own, 0, 0, 0, 0, 0])
        }),
    ];
    check("no_signal_leaves_the_process", calls::Profile::Broker, attacks);
}

#[test]
fn memory_is_written_or_run_but_never_both() {
    let attacks: &[Attack] = &[
        ("both", Done, PERMISSION, |_| map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC)),
        ("run", Done, Done, |_| map(libc::PROT_READ | libc::PROT_EXEC)),
        ("write", Done, Done, |_| map(libc::PROT_READ | libc::PROT_WRITE)),
    ];
    check("memory_is_written_or_run_but_never_both", calls::Profile::Broker, attacks);
}

#[test]
fn no_other_system_is_made() {
    const NEW_USER: usize = 0x1000_0000;
    let attacks: &[Attack] = &[
        // With no stack and without CLONE_VM it is a fork: the child ends at once.
        ("namespace", Done, PERMISSION, |_| {
            let signal = usize::try_from(libc::SIGCHLD).expect("small");
            match call(libc::SYS_clone, [NEW_USER | signal, 0, 0, 0, 0, 0])? {
                0 => raw(libc::SYS_exit_group, [0; 6]),
                _ => Ok(()),
            }
        }),
        ("hidden flags", Refused(libc::EINVAL), Refused(libc::ENOSYS), |_| {
            raw(libc::SYS_clone3, [0; 6])
        }),
        ("threads", Done, Done, |_| {
            std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("it panicked"))
        }),
    ];
    check("no_other_system_is_made", calls::Profile::Broker, attacks);
}

#[test]
fn what_a_broker_does_goes_on() {
    let attacks: &[Attack] = &[
        ("configuration", Done, Done, |stage| done(std::fs::read(stage.join("conf/c.toml")))),
        ("journal", Done, Done, |stage| {
            let (draft, file) = (stage.join("state/draft"), stage.join("state/file"));
            std::fs::write(&draft, "1")?;
            std::fs::rename(&draft, &file)?;
            std::fs::write(&file, "2")?;
            std::fs::remove_file(&file)
        }),
        ("cache", Done, Done, |stage| {
            let folder = stage.join("state/journal.db.components");
            if !folder.exists() {
                std::fs::create_dir(&folder)?;
            }
            std::fs::write(folder.join("c"), "c")
        }),
        ("socket", Done, Done, |stage| {
            let path = stage.join("run/a.sock");
            let listener = std::os::unix::net::UnixListener::bind(&path)?;
            std::os::unix::net::UnixStream::connect(&path)?;
            drop(listener);
            std::fs::remove_file(&path)
        }),
        ("names", Done, Done, |_| {
            done(std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 1)))
        }),
    ];
    check("what_a_broker_does_goes_on", calls::Profile::Broker, attacks);
}

#[test]
fn the_compiler_computes_and_does_nothing_else() {
    let attacks: &[Attack] = &[
        ("read", Done, PERMISSION, |stage| done(std::fs::read(stage.join("conf/c.toml")))),
        ("itself", Done, PERMISSION, |_| done(std::fs::read("/proc/self/status"))),
        ("connect", Done, PERMISSION, |_| socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
        ("this machine", Done, PERMISSION, |_| socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("start", Done, PERMISSION, |_| {
            done(Command::new("/proc/self/exe").arg("--help").output())
        }),
        ("run", Done, PERMISSION, |_| map(libc::PROT_READ | libc::PROT_EXEC)),
        ("signal", Done, PERMISSION, |_| {
            let parent = usize::try_from(std::os::unix::process::parent_id()).expect("a number");
            raw(libc::SYS_kill, [parent, 0, 0, 0, 0, 0])
        }),
        ("attach", Refused(libc::ESRCH), Ended, |_| seize_nobody()),
        ("memory", Done, Done, |_| map(libc::PROT_READ | libc::PROT_WRITE)),
        ("threads", Done, Done, |_| {
            std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("it panicked"))
        }),
    ];
    check("the_compiler_computes_and_does_nothing_else", calls::Profile::Compiler, attacks);
}

#[test]
fn where_the_system_cannot_close_it_is_said_or_refused() {
    let cannot = || Err(anyhow::anyhow!("this kernel has no Landlock"));
    let mut warns = Weaker { require: false };
    assert_eq!(warns.accept("files stay open", cannot()).expect("a warning"), "not available");
    let mut refuses = Weaker { require: true };
    let said = refuses.accept("files stay open", cannot()).expect_err("refused").to_string();
    let expect = "this kernel has no Landlock, so files stay open, and `process.require` does not allow that";
    assert_eq!(said, expect);
    assert_eq!(refuses.accept("", Ok("enforce".to_owned())).expect("in force"), "enforce");
}
