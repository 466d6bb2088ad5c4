//! What the host tells about its calls, for metrics. Counts nothing itself.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::PluginName;

/// Called once after each call of a plugin. Must not block.
pub type Observe = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

/// One call of a plugin.
#[derive(Clone, Debug)]
pub struct Observation<'a> {
    /// Which plugin.
    pub plugin: &'a PluginName,
    /// Which of its functions.
    pub call: Call,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, waiting included.
    pub duration: Duration,
    /// How much of that it waited for its turn.
    pub turn_wait: Duration,
    /// How much of that it waited for a connection of the pool.
    pub pool_wait: Duration,
    /// For how long the plugin is quarantined because of this call, if it is.
    pub quarantined_secs: Option<u64>,
}

/// A function that plugins export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `validate-config`.
    ValidateConfig,
    /// `issue`.
    Issue,
    /// `revoke`.
    Revoke,
    /// `revoke-all`.
    RevokeAll,
    /// `rotate-root`.
    RotateRoot,
    /// `make-key`.
    MakeKey,
    /// `delete-key`.
    DeleteKey,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// As it should.
    Ok,
    /// With an error of the plugin's or the upstream's.
    Failed,
    /// The guest broke a limit, panicked or gave an answer that the contract forbids.
    Trapped,
    /// The call's time ran out.
    TimedOut,
    /// No turn came in time.
    Busy,
    /// The plugin is quarantined.
    Quarantined,
}

impl Call {
    /// As metrics and messages spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ValidateConfig => "validate-config",
            Self::Issue => "issue",
            Self::Revoke => "revoke",
            Self::RevokeAll => "revoke-all",
            Self::RotateRoot => "rotate-root",
            Self::MakeKey => "make-key",
            Self::DeleteKey => "delete-key",
        }
    }
}

impl Outcome {
    /// As metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Trapped => "trapped",
            Self::TimedOut => "timed-out",
            Self::Busy => "busy",
            Self::Quarantined => "quarantined",
        }
    }
}
