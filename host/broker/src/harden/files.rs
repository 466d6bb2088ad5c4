//! Closes files, ports, abstract sockets and other processes' signals with Landlock. Knows
//! nothing of the configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::paths::Paths;

/// Leaves open what every program needs and what `paths` names. Says what is in force.
pub(super) fn close_all_but(paths: &Paths) -> anyhow::Result<String> {
    let mut rules = ruleset().context("Landlock")?;
    for (path, access) in SYSTEM {
        rules = open(rules, Path::new(path), access)?;
    }
    for path in programs() {
        rules = open(rules, &path, AccessFs::Execute | AccessFs::ReadFile)?;
    }
    for path in &paths.read {
        rules = open(rules, path, READ)?;
    }
    for path in &paths.write {
        rules = open(rules, path, READ | WRITE)?;
    }
    for path in &paths.sockets {
        rules = open(rules, path, SOCKETS)?;
    }
    for port in &paths.ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::BindTcp)).context("Landlock")?;
    }
    in_force(&rules.restrict_self().context("Landlock")?)
}

/// Leaves nothing open but what is open already.
pub(super) fn close_all() -> Result<RestrictionStatus, RulesetError> {
    ruleset()?.restrict_self()
}

/// Everything that the newest kernel of those that this was tried on can close; an older one
/// closes what it can.
fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TRIED_ON))?
        // Not to which port it connects: 443 is open to every real broker, so a list would stop
        // nobody, and a backend that a reload adds would need a restart.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(TRIED_ON))?
        .create()
}

/// Opens `path` if it is there. What it is decides which rights make sense.
fn open(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> anyhow::Result<RulesetCreated> {
    // Not there, or not for this user: whoever needs it says so.
    let (Ok(opened), Ok(found)) = (PathFd::new(path), std::fs::metadata(path)) else {
        return Ok(rules);
    };
    let access = if found.is_dir() { access } else { access & AccessFs::from_file(TRIED_ON) };
    rules
        .add_rule(PathBeneath::new(opened, access))
        .with_context(|| format!("Landlock, for `{}`", path.display()))
}

/// What the compiling child is: this very program, also after its file was replaced, and the
/// loader that the kernel starts for it.
fn programs() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    let loaders = mapped.map(PathBuf::from).filter(|path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"ld-"))
    });
    let mut programs = vec![PathBuf::from("/proc/self/exe")];
    programs.extend(loaders);
    programs.dedup();
    programs
}

fn in_force(status: &RestrictionStatus) -> anyhow::Result<String> {
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled => {
            return Err(anyhow!(
                "Landlock is not among the security modules that this kernel was started with (`lsm=`)"
            ));
        }
        LandlockStatus::NotImplemented => {
            return Err(anyhow!("this kernel has no Landlock (Linux 5.13 and later have)"));
        }
    };
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => format!("enforce, version {abi}"),
        _ => format!("enforce, as far as version {abi} of it goes; version {TRIED_ON} closes more"),
    })
}

/// The newest version whose every right was tried here. Later ones close more, such as sockets in
/// the file system, which connections to databases may need.
const TRIED_ON: ABI = ABI::V7;

/// A file or everything in a folder.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

/// Ordinary files, made and removed in their folder. No folders, no links, no devices.
const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile});

/// A socket's file, made anew where an old one lies.
const SOCKETS: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir | MakeSock | RemoveFile});

const FILE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile});

/// What a program needs on Linux, whatever it does.
const SYSTEM: [(&str, BitFlags<AccessFs>); 43] = [
    // Shared libraries, also those that name resolution loads when it is first used.
    ("/lib", READ),
    ("/lib64", READ),
    ("/usr/lib", READ),
    ("/usr/lib64", READ),
    ("/etc/ld.so.cache", FILE),
    // Name resolution. Where the first is a link, as on most systems, its goal's folder is open,
    // and a replaced file is seen; where it is a file, whoever replaces it restarts the broker.
    ("/etc/resolv.conf", FILE),
    ("/run/systemd/resolve", READ),
    ("/run/NetworkManager", READ),
    ("/run/resolvconf", READ),
    ("/etc/hosts", FILE),
    ("/etc/host.conf", FILE),
    ("/etc/gai.conf", FILE),
    ("/etc/nsswitch.conf", FILE),
    ("/etc/services", FILE),
    // The names of users, for the journal.
    ("/etc/passwd", FILE),
    ("/etc/localtime", FILE),
    ("/usr/share/zoneinfo", READ),
    // The system's certificate authorities, wherever the distribution keeps them.
    // Not the folders of private keys beside them.
    ("/etc/ssl/certs", READ),
    ("/etc/ssl/cert.pem", FILE),
    ("/etc/ssl/ca-bundle.pem", FILE),
    ("/etc/pki/tls/certs", READ),
    ("/etc/pki/tls/cert.pem", FILE),
    ("/etc/pki/ca-trust", READ),
    ("/etc/ca-certificates", READ),
    ("/usr/share/ca-certificates", READ),
    ("/usr/local/share/ca-certificates", READ),
    ("/usr/share/pki", READ),
    ("/var/lib/ca-certificates", READ),
    // The sandbox looks which pages a plugin wrote; the allocator and the runtime look at the
    // machine.
    ("/proc/self", READ),
    ("/proc/meminfo", FILE),
    ("/proc/cpuinfo", FILE),
    ("/proc/stat", FILE),
    ("/proc/sys/vm/overcommit_memory", FILE),
    ("/proc/sys/kernel/random", READ),
    ("/proc/sys/net/core/somaxconn", FILE),
    ("/sys/fs/cgroup", READ),
    ("/sys/devices/system/cpu", READ),
    ("/sys/devices/system/node", READ),
    ("/sys/kernel/mm/transparent_hugepage", READ),
    ("/dev/null", make_bitflags!(AccessFs::{ReadFile | WriteFile})),
    ("/dev/urandom", FILE),
    ("/dev/random", FILE),
    ("/dev/zero", FILE),
];
