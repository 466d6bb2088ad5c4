//! Hardens the process before it holds a secret: not dumpable, no core file.

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Takes from this process what could spill its memory.
pub fn process() -> anyhow::Result<()> {
    // Also keeps other processes of the same user from reading /proc/<pid>/mem and attaching.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("the process cannot be made undumpable")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .context("core files cannot be turned off")
}
