//! The two permissions, made only by the decision module.

use std::sync::Arc;
use std::time::Duration;

use super::denial::{Denial, DenialReason, Refused, span};
use crate::ask::Ask;
use crate::budget::{IssueLimit, LeaseLimit};
use crate::catalog::{Backend, Scope};
use crate::name::IdempotencyKey;
use crate::policy::SnapshotDigest;
use crate::principal::{Principal, Requester};
use crate::prompt::Role;
use crate::session::{Ancestor, Session};
use crate::time::Timestamp;

/// A permission to mint one credential.
///
/// INVARIANT (permit-only-by-decide): the fields are private and `granted` can be called only
/// from the decision module, where `decide` alone calls it. Not `Clone`: one permit becomes at
/// most one intent.
#[derive(Debug)]
pub struct Permit {
    granted: Granted,
}

/// What `decide` found, before it becomes a permit.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) session: Arc<Session>,
    pub(super) backend: Arc<Backend>,
    pub(super) scope: Arc<Scope>,
    pub(super) ttl: Duration,
    pub(super) ttl_max: Duration,
    pub(super) issue_limits: Vec<IssueLimit>,
    pub(super) lease_limits: Vec<LeaseLimit>,
    pub(super) now: Timestamp,
    pub(super) policies: Vec<String>,
    pub(super) snapshot: SnapshotDigest,
    pub(super) ask: Ask,
}

impl Permit {
    pub(super) const fn granted(granted: Granted) -> Self {
        Self { granted }
    }

    /// The session that may be issued the credential.
    pub const fn session(&self) -> &Arc<Session> {
        &self.granted.session
    }

    /// What may be granted.
    pub const fn scope(&self) -> &Arc<Scope> {
        &self.granted.scope
    }

    /// The backend that the scope is on.
    pub const fn backend(&self) -> &Arc<Backend> {
        &self.granted.backend
    }

    /// How long the credential may live.
    pub const fn ttl(&self) -> Duration {
        self.granted.ttl
    }

    /// What the agent should know of the life that it gets, if it asked for another.
    pub fn notice(&self) -> Option<String> {
        let (asked, ttl) = (self.granted.ask.ttl?, self.granted.ttl);
        (ttl > asked).then(|| {
            format!(
                "{} was asked for; the credential lives {}, the shortest life that backend `{}` gives",
                span(asked),
                span(ttl),
                self.granted.backend.name
            )
        })
    }

    /// The longest time for which the credential may go on working after its revocation.
    pub fn residual_exposure(&self) -> Duration {
        self.granted.backend.residual_exposure(self.granted.ttl)
    }

    /// How long it could have lived, had that been asked for.
    pub const fn ttl_max(&self) -> Duration {
        self.granted.ttl_max
    }

    /// How many issues a minute there may be: by the session's own limits, and by those that it
    /// shares with others.
    pub fn issue_limits(&self) -> (&[IssueLimit], &[IssueLimit]) {
        let limits = &self.granted.issue_limits;
        // The narrowest come first.
        limits.split_at(limits.partition_point(|limit| !limit.of.is_shared()))
    }

    /// How many leases at once there may be.
    pub fn lease_limits(&self) -> &[LeaseLimit] {
        &self.granted.lease_limits
    }

    /// The refusal of what is permitted, and too much of it.
    pub(crate) fn too_much(&self, reason: DenialReason) -> Denial {
        let (session, ask) = (Arc::clone(&self.granted.session), self.granted.ask.clone());
        Denial {
            reason,
            refused: Refused::Issue { session, ask },
            policies: self.granted.policies.clone(),
            snapshot: self.granted.snapshot,
            at: self.granted.now,
            repeats: 0,
        }
    }

    /// When it was decided.
    pub const fn decided_at(&self) -> Timestamp {
        self.granted.now
    }

    /// When the credential must stop working.
    pub fn expires_at(&self) -> Timestamp {
        self.granted.now.after(self.granted.ttl)
    }

    /// The ids of the policies that permitted it.
    pub fn policies(&self) -> &[String] {
        &self.granted.policies
    }

    /// The snapshot that decided.
    pub const fn snapshot(&self) -> SnapshotDigest {
        self.granted.snapshot
    }

    /// The client's idempotency key.
    pub const fn idempotency_key(&self) -> Option<&IdempotencyKey> {
        self.granted.ask.idempotency_key.as_ref()
    }

    /// What the agent says it wants this for.
    pub fn claimed_reason(&self) -> Option<&str> {
        self.granted.ask.claimed_reason.as_deref()
    }
}

/// A permission to begin one session. Made only by `decide_session`. Not `Clone`.
#[derive(Debug)]
pub struct SessionPermit {
    pub(super) role: Role,
    pub(super) principal: Principal,
    pub(super) requester: Requester,
    pub(super) ancestors: Vec<Ancestor>,
    pub(super) life: Duration,
    pub(super) policies: Vec<String>,
    pub(super) snapshot: SnapshotDigest,
}

impl SessionPermit {
    /// How long the session may live.
    pub const fn life(&self) -> Duration {
        self.life
    }

    /// The ids of the policies that permitted it.
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// The snapshot that decided.
    pub const fn snapshot(&self) -> SnapshotDigest {
        self.snapshot
    }

    /// What the session to begin is made of.
    pub(crate) fn into_parts(self) -> SessionParts {
        let Self { role, principal, requester, ancestors, .. } = self;
        SessionParts { role, principal, requester, ancestors }
    }
}

/// What a session is made of.
pub(crate) struct SessionParts {
    /// Its role, with the authorizations that it may have.
    pub(crate) role: Role,
    /// Who runs it.
    pub(crate) principal: Principal,
    /// For whom.
    pub(crate) requester: Requester,
    /// The sessions above it.
    pub(crate) ancestors: Vec<Ancestor>,
}
