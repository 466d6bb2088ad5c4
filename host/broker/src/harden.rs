//! Takes from the process, before it serves, what a broker has no use for and an intruder would:
//! core files, privileges by execution, files, system calls. It only gives up; nothing comes back.

mod calls;
mod files;
mod paths;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::{Context, bail};
use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::config::{ConfigError, ConfigFile, LandlockMode, LockMemory, SeccompMode};
use paths::Paths;

/// Takes from this process what could spill its memory, and what a program that it starts could
/// gain.
pub fn process() -> anyhow::Result<()> {
    // Also keeps other processes of the same user from reading /proc/<pid>/mem and attaching.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("the process cannot be made undumpable")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("core files cannot be turned off")?;
    rustix::thread::set_no_new_privs(true).context("privileges by execution cannot be turned off")
}

/// What is open to this process until it ends.
#[derive(Debug)]
pub struct Confinement {
    /// `None`: every file that its user may open.
    opened: Option<Paths>,
}

/// Closes what `file` does not lead to: files and ports with Landlock, system calls with seccomp.
///
/// INVARIANT (one-thread): called while the process has one thread. Both are inherited by the
/// threads that are started afterwards, and hold for no other.
pub fn confine(file: &ConfigFile) -> anyhow::Result<Confinement> {
    let config = &file.config().process;
    let mut weaker = Weaker { require: config.require };
    let paths = Paths::of(file).with_environment();
    paths.make();
    let landlock = match config.landlock {
        LandlockMode::Off => Ok("off".to_owned()),
        LandlockMode::Enforce => files::close_all_but(&paths),
    };
    // Whoever configured it off has been told; what is partly there still closes what it can.
    let opened = (config.landlock == LandlockMode::Enforce && landlock.is_ok()).then_some(paths);
    let landlock = weaker.accept("files stay open to it", landlock)?;
    let seccomp = match config.seccomp {
        SeccompMode::Off => Ok("off"),
        SeccompMode::Log => calls::log().map(|()| "log"),
        SeccompMode::Enforce => calls::enforce(calls::Profile::Broker).map(|()| "enforce"),
    };
    let seccomp = weaker.accept("every system call is open to it", seccomp.map(str::to_owned))?;
    tracing::info!(landlock, seccomp, no_new_privs = true, "the process is confined");
    Ok(Confinement { opened })
}

/// Keeps what the process has in memory by now, and the heap that it will fill, out of swap.
///
/// Not what it maps later: the pool of the sandbox reserves terabytes and gives pages back, which
/// the kernel refuses for locked ones. So this comes before the pool.
pub fn lock_memory(file: &ConfigFile) -> anyhow::Result<()> {
    let config = &file.config().process;
    if config.lock_memory == LockMemory::Off {
        return Ok(());
    }
    let locked = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT)
        .map(|()| "current".to_owned())
        .context("set `LimitMEMLOCK=infinity`, or turn swap off for it with `MemorySwapMax=0`");
    let locked = Weaker { require: config.require }
        .accept("the system may write its memory to swap", locked)?;
    tracing::info!(locked, "memory");
    Ok(())
}

/// Takes from a compiling child everything but its three pipes. Where the kernel cannot, it goes
/// on: the broker has said so.
pub(crate) fn close_files_of_compiler() {
    let _older_kernel = files::close_all();
}

/// The second half, for when the child's limits are set: from here on it may only compute.
pub(crate) fn close_calls_of_compiler() {
    let _older_kernel = calls::enforce(calls::Profile::Compiler);
}

impl Confinement {
    /// One that holds nothing back, for processes that serve nobody.
    pub const fn none() -> Self {
        Self { opened: None }
    }

    /// Whether everything that `file` names can be read without a restart.
    pub fn covers(&self, file: &ConfigFile) -> Result<(), ConfigError> {
        let Some(opened) = &self.opened else { return Ok(()) };
        match Paths::of(file).first_outside(opened) {
            None => Ok(()),
            Some(path) => Err(outside(file, &path)),
        }
    }
}

fn outside(file: &ConfigFile, path: &Path) -> ConfigError {
    let problem = format!(
        "`{}` lies outside what was opened when the broker started, and Landlock keeps everything else closed: restart the broker to use it (a folder that `process.read` names is open from the start)",
        path.display()
    );
    file.problem(&["process"], problem)
}

/// What to do where the system cannot do what the configuration wants.
struct Weaker {
    require: bool,
}

impl Weaker {
    /// What is in force: all of it, or less and a warning, unless less is refused.
    fn accept(
        &mut self,
        what_remains: &str,
        result: anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        match result {
            Ok(in_force) => Ok(in_force),
            Err(error) if self.require => {
                bail!("{error:#}, so {what_remains}, and `process.require` does not allow that")
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "{what_remains}");
                Ok("not available".to_owned())
            }
        }
    }
}
