//! What the process gives up before it serves: the section `[process]`. Gives up nothing itself.

use std::path::PathBuf;

use serde::Deserialize;

/// What the process gives up before it serves.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Whether system calls that a broker has no use for are refused.
    pub seccomp: SeccompMode,
    /// Whether files that the configuration does not lead to are closed.
    pub landlock: LandlockMode,
    /// Whether memory is kept out of swap.
    pub lock_memory: LockMemory,
    /// Refuses to serve where this system cannot do one of them; otherwise it warns.
    pub require: bool,
    /// Files and folders to open for reading besides, such as one that a later configuration
    /// will name.
    pub read: Vec<PathBuf>,
}

/// What becomes of a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompMode {
    /// It is refused, or ends the process if only an attack makes it.
    #[default]
    Enforce,
    /// It is let through and the kernel logs it: to find out what a system needs.
    Log,
    /// Nothing is looked at.
    Off,
}

/// Whether files that the configuration does not lead to are closed.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LandlockMode {
    /// They are.
    #[default]
    Enforce,
    /// They are not.
    Off,
}

/// Whether memory is kept out of swap.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LockMemory {
    /// It is, where the limits allow it.
    #[default]
    On,
    /// It is not.
    Off,
}
