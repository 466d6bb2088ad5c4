//! The doors to the outside that plugins reach through named connections. Knows no WIT type and
//! no policy: who may use a connection is settled before a request comes here.

use std::time::Duration;

pub mod http;
pub mod native;
pub mod redact;
pub mod scram;
pub mod sql;
pub mod tls;

/// What went wrong outside, in the terms that plugins and their callers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// The upstream's own code, such as an SQLSTATE or MySQL's error number.
    pub code: Option<String>,
    /// A sentence for people. May still hold a value that the upstream echoed: it is redacted
    /// where it leaves the sandbox.
    pub message: String,
    /// Whether the upstream may have acted.
    pub request_sent: bool,
    /// How long the upstream asked to wait.
    pub retry_after: Option<Duration>,
}

/// What sort of failure; the plugin contract's `error-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Only an operator can mend it.
    InvalidConfig,
    /// An argument is malformed or breaks a limit.
    InvalidInput,
    /// The upstream refused the broker's credential or its rights.
    Denied,
    /// What was named does not exist.
    NotFound,
    /// The upstream is in another state than expected.
    Conflict,
    /// The upstream asks to slow down.
    RateLimited,
    /// The upstream cannot be reached.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The upstream cannot do this.
    Unsupported,
    /// Anything else.
    Other,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn unsent(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, code: None, message, request_sent: false, retry_after: None }
    }

    /// A failure after which the upstream may have acted.
    pub fn sent(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { request_sent: true, ..Self::unsent(kind, message) }
    }
}
