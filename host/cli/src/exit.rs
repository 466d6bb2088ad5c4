//! How a command ends: the exit codes, and failures with what the broker said. Prints nothing.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Exit(pub u8);

impl Exit {
    /// All went well.
    pub const OK: Self = Self(0);
    /// Something failed that has no code of its own.
    pub const FAILURE: Self = Self(1);
    /// The command was called wrongly.
    pub const USAGE: Self = Self(2);
    /// The broker refused.
    pub const DENIED: Self = Self(3);
    /// Somebody has to approve first.
    pub const NEEDS_APPROVAL: Self = Self(4);
    /// The session is over, or its token is not known.
    pub const EXPIRED: Self = Self(5);
    /// The broker cannot be reached, or cannot record now.
    pub const UNREACHABLE: Self = Self(6);
    /// The command to run exists and cannot be run, as shells have it.
    pub const CANNOT_RUN: Self = Self(126);
    /// The command to run does not exist, as shells have it.
    pub const NOT_FOUND: Self = Self(127);

    /// The code of a process that signal number `signal` ended, as shells have it.
    pub fn of_signal(signal: i32) -> Self {
        Self(u8::try_from(signal.saturating_add(128)).unwrap_or(Self::FAILURE.0))
    }
}

/// Why a command failed: one sentence, and what the broker added to it.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// What happened, as a sentence.
    #[serde(rename = "error")]
    pub sentence: String,
    /// The code that the process ends with.
    #[serde(rename = "exit_code")]
    pub exit: Exit,
    /// What the broker said about it.
    #[serde(flatten)]
    pub details: Box<Details>,
}

/// What the broker says beside the sentence. Absent where it says nothing.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    /// The stable reason, such as `UNDECLARED_AUTHORIZATION`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The recorded refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial_id: Option<String>,
    /// The lease concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How long to wait before another try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
}

impl Failure {
    /// A failure that ends the process with `exit`.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), exit, details: Box::default() }
    }

    /// A failure without a code of its own.
    pub fn other(sentence: impl Into<String>) -> Self {
        Self::new(Exit::FAILURE, sentence)
    }

    /// The command was called wrongly.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Exit::USAGE, sentence)
    }

    /// The same failure with the advice `next`.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.details.next = Some(next.into());
        self
    }

    /// The file at `path` cannot be read.
    pub fn unreadable(path: &str, error: &io::Error) -> Self {
        Self::other(format!("`{path}` cannot be read: {error}"))
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = details(&status);
        let exit = exit_of(status.code(), details.code.as_deref());
        Self { sentence: sentence(&status, exit), exit, details: Box::new(details) }
    }
}

fn details(status: &Status) -> Details {
    let all = status.get_error_details();
    let info = all.error_info().filter(|info| info.domain == claviger_proto::ERROR_DOMAIN);
    let from_info = |key: &str| info.and_then(|info| info.metadata.get(key).cloned());
    let help =
        || all.help().and_then(|help| help.links.first()).map(|link| link.description.clone());
    Details {
        code: info.map(|info| info.reason.clone()),
        denial_id: from_info("denial_id"),
        lease_id: from_info("lease_id"),
        next: from_info("next").or_else(help),
        retry_after_secs: all
            .retry_info()
            .and_then(|retry| retry.retry_delay)
            .map(|delay: Duration| delay.as_secs()),
    }
}

/// The reason outranks the gRPC code: it is the more exact of the two.
fn exit_of(code: Code, reason: Option<&str>) -> Exit {
    match (code, reason) {
        (_, Some(REASON_SESSION_NOT_LIVE)) => Exit::EXPIRED,
        (_, Some(REASON_APPROVAL_REQUIRED)) => Exit::NEEDS_APPROVAL,
        // Permitted, and too much of it: refused all the same, and recorded.
        (
            Code::ResourceExhausted,
            Some(REASON_BUDGET_ISSUES | REASON_BUDGET_LEASES | REASON_MAX_ACTIVE),
        ) => Exit::DENIED,
        // A new session would not help a workload that the broker does not know.
        (Code::PermissionDenied, _)
        | (_, Some(REASON_NO_IDENTITY | REASON_WORKLOAD_REFUSED | REASON_REQUESTER_REFUSED)) => {
            Exit::DENIED
        }
        (Code::Unauthenticated, _) => Exit::EXPIRED,
        (Code::InvalidArgument, _) => Exit::USAGE,
        // A connection that breaks in the middle of a call shows as one of the latter four.
        (Code::Unavailable, _)
        | (Code::DeadlineExceeded | Code::Cancelled | Code::Unknown, None) => Exit::UNREACHABLE,
        _ => Exit::FAILURE,
    }
}

fn sentence(status: &Status, exit: Exit) -> String {
    if status.message().is_empty() {
        return format!("the broker answered {:?} without a word", status.code());
    }
    if exit == Exit::UNREACHABLE && status.get_details_error_info().is_none() {
        return format!("the connection to the broker broke: {}", status.message());
    }
    status.message().to_owned()
}

/// As the core's `DenialReason::code` spells it.
const REASON_SESSION_NOT_LIVE: &str = "SESSION_NOT_LIVE";

/// As the core's `DenialReason::code` spells it.
const REASON_BUDGET_ISSUES: &str = "BUDGET_ISSUES";

/// As above.
const REASON_BUDGET_LEASES: &str = "BUDGET_LEASES";

/// As above.
const REASON_MAX_ACTIVE: &str = "MAX_ACTIVE";

/// Sent to a workload that proves no identity.
const REASON_NO_IDENTITY: &str = "NO_IDENTITY";

/// Sent when the proof of the workload does not count.
const REASON_WORKLOAD_REFUSED: &str = "WORKLOAD_REFUSED";

/// Sent when the proof of the requester does not count.
const REASON_REQUESTER_REFUSED: &str = "REQUESTER_REFUSED";

/// Sent when a policy asks for an approval that nobody has given yet.
const REASON_APPROVAL_REQUIRED: &str = "APPROVAL_REQUIRED";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn check((code, reason): (Code, Option<&str>), expect: Exit) {
        let mut details = ErrorDetails::new();
        if let Some(reason) = reason {
            details.set_error_info(reason, claviger_proto::ERROR_DOMAIN, HashMap::new());
        }
        let failure = Failure::from(Status::with_error_details(code, "no", details));
        assert_eq!(failure.exit, expect, "{code:?} {reason:?}");
    }

    #[test]
    fn every_kind_of_error_has_its_exit_code() {
        check((Code::PermissionDenied, Some("NO_PERMIT")), Exit::DENIED);
        check((Code::PermissionDenied, Some("SESSION_NOT_LIVE")), Exit::EXPIRED);
        check((Code::PermissionDenied, Some("APPROVAL_REQUIRED")), Exit::NEEDS_APPROVAL);
        check((Code::Unauthenticated, Some("NO_SESSION")), Exit::EXPIRED);
        check((Code::Unauthenticated, Some("NO_IDENTITY")), Exit::DENIED);
        check((Code::Unauthenticated, Some("WORKLOAD_REFUSED")), Exit::DENIED);
        check((Code::Unauthenticated, Some("REQUESTER_REFUSED")), Exit::DENIED);
        check((Code::Unavailable, Some("JOURNAL_UNWRITABLE")), Exit::UNREACHABLE);
        check((Code::Unavailable, None), Exit::UNREACHABLE);
        check((Code::Unknown, None), Exit::UNREACHABLE);
        check((Code::Unknown, Some("BACKEND_ERROR")), Exit::FAILURE);
        check((Code::InvalidArgument, Some("INVALID_ARGUMENT")), Exit::USAGE);
        check((Code::AlreadyExists, Some("IDEMPOTENCY_KEY_USED")), Exit::FAILURE);
        check((Code::ResourceExhausted, Some("OVERLOADED")), Exit::FAILURE);
        check((Code::ResourceExhausted, Some("BUDGET_LEASES")), Exit::DENIED);
    }

    #[test]
    fn keeps_what_the_broker_says_to_do_next() {
        let said = HashMap::from([
            ("denial_id".to_owned(), "den_1".to_owned()),
            ("next".to_owned(), "declare it".to_owned()),
        ]);
        let mut details = ErrorDetails::with_error_info("NO_PERMIT", "claviger", said);
        details.set_retry_info(Some(Duration::from_secs(7)));
        let failure =
            Failure::from(Status::with_error_details(Code::PermissionDenied, "no", details));
        let json = serde_json::to_value(&failure).unwrap();
        let expect = serde_json::json!({
            "error": "no", "exit_code": 3, "code": "NO_PERMIT", "denial_id": "den_1",
            "next": "declare it", "retry_after_secs": 7,
        });
        assert_eq!(json, expect);
    }

    #[test]
    fn details_of_a_stranger_are_not_believed() {
        let details = ErrorDetails::with_error_info("SESSION_NOT_LIVE", "proxy", HashMap::new());
        let failure = Failure::from(Status::with_error_details(Code::Internal, "no", details));
        assert_eq!((failure.exit, failure.details.code), (Exit::FAILURE, None));
    }

    #[test]
    fn a_signal_shows_as_in_shells() {
        assert_eq!(Exit::of_signal(2), Exit(130));
        assert_eq!(Exit::of_signal(15), Exit(143));
    }
}
