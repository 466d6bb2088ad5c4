//! The one file that makes a gRPC status out of an error: which code, which stable reason, and
//! what the reader should do next. No wildcard arm, so that a new error must be placed here.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use claviger_core::ask::AskError;
use claviger_core::decide::Denial;
use claviger_core::flow::admin::AdmitError;
use claviger_core::flow::issue::IssueError;
use claviger_core::flow::session::OpenSessionError;
use claviger_core::ids::DenialId;
use claviger_core::ports::{BeginError, JournalError, PluginError, PluginErrorKind};
use claviger_proto::ERROR_DOMAIN;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::approvals::{Approval, ApprovalError};
use crate::authenticate::AuthenticateError;
use crate::identity::{AwsError, IdentityError, TokenError};

/// A request field that cannot be read.
pub fn invalid(field: &str, error: impl Display) -> Status {
    let mut details = info("INVALID_ARGUMENT", &[("next", "correct the field and send it again")]);
    details.add_bad_request_violation(field, error.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("field `{field}`: {error}"), details)
}

/// A request for a credential that cannot be read.
pub fn of_ask(error: &AskError) -> Status {
    let field = match error {
        AskError::Scope(_) => "scope",
        AskError::IdempotencyKey(_) => "idempotency_key",
        AskError::ClaimedReason { .. } => "claimed_reason",
    };
    let mut details = info("INVALID_ARGUMENT", &[("next", "correct the field and send it again")]);
    details.add_bad_request_violation(field, error.to_string());
    Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
}

/// A caller who is nobody, or not who the call needs.
pub fn of_authentication(error: &AuthenticateError) -> Status {
    let (code, reason, next) = match error {
        AuthenticateError::NoProof | AuthenticateError::NamelessCertificate => {
            (Code::Unauthenticated, "NO_IDENTITY", "connect with a proof of identity")
        }
        AuthenticateError::Identity(error) => return of_identity(error),
        AuthenticateError::ExpiredCertificate => (
            Code::Unauthenticated,
            "CERTIFICATE_EXPIRED",
            "connect again with a certificate that is still valid",
        ),
        AuthenticateError::NoToken => {
            (Code::Unauthenticated, "NO_SESSION_TOKEN", "open a session and send its token")
        }
        AuthenticateError::NoSession => (Code::Unauthenticated, "NO_SESSION", "open a new session"),
        AuthenticateError::NotCertified(_) => {
            (Code::FailedPrecondition, "NOT_CERTIFICATE_BOUND", "go on with the token as it is")
        }
        AuthenticateError::Journal(error) => return of_journal(error),
    };
    plain(code, reason, next, error)
}

/// A proof that does not count. The sentence says why: whoever made the token up learns nothing
/// from it that the token's issuer does not publish.
fn of_identity(error: &IdentityError) -> Status {
    match error {
        IdentityError::Workload(TokenError::Unavailable(_))
        | IdentityError::Requester(TokenError::Unavailable(_)) => {
            retryable(Code::Unavailable, "ISSUER_UNAVAILABLE", error)
        }
        IdentityError::Aws(AwsError::Unavailable) => {
            retryable(Code::Unavailable, "ISSUER_UNAVAILABLE", error)
        }
        IdentityError::Aws(_) => {
            let next = "sign a new request for this broker, as `claviger run --aws` does";
            plain(Code::Unauthenticated, "WORKLOAD_REFUSED", next, error)
        }
        IdentityError::Workload(_) => {
            let next = "send a token of a trusted issuer, for this broker's audience";
            plain(Code::Unauthenticated, "WORKLOAD_REFUSED", next, error)
        }
        IdentityError::Requester(_) => {
            let next =
                "send a token of the requester, of a trusted issuer, for this broker's audience";
            plain(Code::Unauthenticated, "REQUESTER_REFUSED", next, error)
        }
        IdentityError::TwoProofs => {
            plain(Code::InvalidArgument, "TWO_PROOFS", "send one of the two", error)
        }
    }
}

/// A session that did not begin.
pub fn of_open_session(error: &OpenSessionError) -> Status {
    match error {
        OpenSessionError::Denied { id, denial } => denied(*id, denial),
        OpenSessionError::Begin(error) => of_begin(error),
        OpenSessionError::PoliciesUnsettled => {
            retryable(Code::Unavailable, "POLICIES_UNSETTLED", error)
        }
        OpenSessionError::Journal(error) => of_journal(error),
    }
}

/// A session that could not begin although it was permitted.
fn of_begin(error: &BeginError) -> Status {
    match error {
        BeginError::ParentEnded => {
            plain(Code::Unauthenticated, "NO_SESSION", "open a new session", error)
        }
        BeginError::TooManyDescendants { .. } => {
            let next = "close sessions that are done, or try again";
            let details = retry("CHILDREN_EXHAUSTED", next, RETRY_SOON);
            Status::with_error_details(Code::ResourceExhausted, error.to_string(), details)
        }
        BeginError::SnapshotStale => retryable(Code::Unavailable, "POLICIES_UNSETTLED", error),
        BeginError::Journal(error) => of_journal(error),
    }
}

/// A session that ended while it was being opened.
pub fn ended_meanwhile() -> Status {
    let message = "the session ended while it was being opened";
    plain(Code::Unauthenticated, "NO_SESSION", "open a new session", &message)
}

/// An operator's act that did not begin, or may not go on.
pub fn of_admit(error: &AdmitError) -> Status {
    match error {
        AdmitError::Denied { id, denial } => denied(*id, denial),
        AdmitError::Unrecorded { error, .. } | AdmitError::Journal(error) => of_journal(error),
    }
}

/// An act that waits for a second operator.
pub fn approval_required(approval: &Approval) -> Status {
    let id = approval.id.to_string();
    let next = format!(
        "have another operator run `claviger approve grant {id}`, then do the same again with `--approval {id}`"
    );
    let details = info("APPROVAL_REQUIRED", &[("approval_id", &id), ("next", &next)]);
    let message = format!("{} takes two operators: it waits as `{id}`", approval.what);
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// An approval that is not given, or does not count.
pub fn of_approval(error: &ApprovalError) -> Status {
    let (code, reason, next) = match error {
        ApprovalError::Waits { .. } => {
            (Code::FailedPrecondition, "APPROVAL_REQUIRED", "ask a second operator to grant it")
        }
        ApprovalError::SamePerson { .. } => {
            (Code::PermissionDenied, "SAME_PERSON", "ask a second operator")
        }
        ApprovalError::Unknown { .. }
        | ApprovalError::Another { .. }
        | ApprovalError::Granted { .. }
        | ApprovalError::NoLonger { .. } => (
            Code::FailedPrecondition,
            "APPROVAL_VOID",
            "`claviger approve list` shows what waits; ask again without `--approval`",
        ),
        ApprovalError::TooManyOfOne | ApprovalError::TooMany => {
            (Code::ResourceExhausted, "TOO_MANY_APPROVALS", "grant or refuse some")
        }
    };
    plain(code, reason, next, error)
}

/// Too many live sessions.
pub fn no_room() -> Status {
    let details =
        retry("SESSIONS_EXHAUSTED", "close sessions that are done, or try again", RETRY_SOON);
    let message = "the broker has as many live sessions as `live_max` allows";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// A credential that was not issued.
pub fn of_issue(error: &IssueError) -> Status {
    match error {
        IssueError::Denied { id, denial } => denied(*id, denial),
        IssueError::SessionEnded => {
            plain(Code::Unauthenticated, "NO_SESSION", "open a new session", error)
        }
        IssueError::KeyUsed { lease, .. } => {
            let lease = lease.to_string();
            let next = format!("release lease `{lease}` and ask again with a new key");
            let details = info("IDEMPOTENCY_KEY_USED", &[("lease_id", &lease), ("next", &next)]);
            Status::with_error_details(Code::AlreadyExists, error.to_string(), details)
        }
        IssueError::PoliciesUnsettled => retryable(Code::Unavailable, "POLICIES_UNSETTLED", error),
        IssueError::TimedOut => retryable(Code::DeadlineExceeded, "ISSUE_TIMED_OUT", error),
        IssueError::Plugin(error) => of_plugin(error),
        IssueError::Journal(error) => of_journal(error),
    }
}

/// The journal could not do its part.
pub fn of_journal(error: &JournalError) -> Status {
    match error {
        JournalError::Unwritable(_) => retryable(Code::Unavailable, "JOURNAL_UNWRITABLE", error),
        JournalError::Overloaded => retryable(Code::ResourceExhausted, "OVERLOADED", error),
        JournalError::Damaged(_) => plain(
            Code::Internal,
            "JOURNAL_DAMAGED",
            "tell the platform team: `claviger audit verify` says where",
            error,
        ),
    }
}

/// A lease that the session does not have. The same answer for one that never existed.
pub fn no_lease(lease: impl Display) -> Status {
    let message = format!("the session holds no lease `{lease}`");
    plain(
        Code::NotFound,
        "NO_LEASE",
        "`claviger lease list` shows what the session holds",
        &message,
    )
}

/// Something that the operator's request cannot apply to.
pub fn precondition(message: impl Display) -> Status {
    plain(Code::FailedPrecondition, "FAILED_PRECONDITION", "see the message", &message)
}

fn of_plugin(error: &PluginError) -> Status {
    let (code, reason, next) = match error.kind {
        PluginErrorKind::InvalidConfig => {
            (Code::FailedPrecondition, "BACKEND_MISCONFIGURED", "tell the platform team")
        }
        PluginErrorKind::Denied => (
            Code::FailedPrecondition,
            "BACKEND_REFUSED",
            "tell the platform team: the broker lacks rights on the backend",
        ),
        PluginErrorKind::NotFound => (
            Code::FailedPrecondition,
            "BACKEND_OBJECT_MISSING",
            "tell the platform team: what the scope names does not exist on the backend",
        ),
        PluginErrorKind::Conflict => (Code::Aborted, "BACKEND_CONFLICT", "try again"),
        PluginErrorKind::RateLimited => {
            (Code::ResourceExhausted, "BACKEND_RATE_LIMITED", "wait, then try again")
        }
        PluginErrorKind::Unavailable => {
            (Code::Unavailable, "BACKEND_UNAVAILABLE", "try again in a moment")
        }
        PluginErrorKind::Timeout => {
            (Code::DeadlineExceeded, "BACKEND_TIMEOUT", "try again in a moment")
        }
        PluginErrorKind::Sandbox => (
            Code::Internal,
            "PLUGIN_FAILED",
            "tell the platform team: the plugin broke a limit of its sandbox",
        ),
        PluginErrorKind::NotLoaded => {
            (Code::Unavailable, "PLUGIN_NOT_LOADED", "tell the platform team")
        }
        PluginErrorKind::Other => (Code::Unknown, "BACKEND_ERROR", "tell the platform team"),
    };
    let sent = error.request_sent.to_string();
    let mut details = info(reason, &[("next", next), ("request_sent", &sent)]);
    if let Some(upstream) = &error.code {
        details =
            info(reason, &[("next", next), ("request_sent", &sent), ("upstream_code", upstream)]);
    }
    if let Some(wait) = error.retry_after {
        details.set_retry_info(Some(wait));
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn denied(id: DenialId, denial: &Denial) -> Status {
    let id = id.to_string();
    if denial.reason.is_budget() {
        let wait = denial.reason.retry_after();
        let mut details = info(
            denial.reason.code(),
            &[("denial_id", &id), ("next", "release what is no longer needed, or come back later")],
        );
        details.set_retry_info(wait);
        return Status::with_error_details(
            Code::ResourceExhausted,
            denial.reason.to_string(),
            details,
        );
    }
    let next = format!("change what the sentence names, or ask the platform team about `{id}`");
    let told = denial.told();
    let details = info(told.code(), &[("denial_id", &id), ("next", &next)]);
    Status::with_error_details(Code::PermissionDenied, told.to_string(), details)
}

fn plain(code: Code, reason: &str, next: &str, message: &impl Display) -> Status {
    Status::with_error_details(code, message.to_string(), info(reason, &[("next", next)]))
}

fn retryable(code: Code, reason: &str, message: &impl Display) -> Status {
    let details = retry(reason, "try again in a moment", RETRY_SOON);
    Status::with_error_details(code, message.to_string(), details)
}

fn retry(reason: &str, next: &str, wait: Duration) -> ErrorDetails {
    let mut details = info(reason, &[("next", next)]);
    details.set_retry_info(Some(wait));
    details
}

fn info(reason: &str, metadata: &[(&str, &str)]) -> ErrorDetails {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata)
}

/// What a client should wait before it asks a busy or recovering broker again.
const RETRY_SOON: Duration = Duration::from_secs(1);
