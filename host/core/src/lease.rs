//! The life of an issued credential as a state machine. Keeps no state: the journal does.
//!
//! ```text
//!             close               due (released, session ended, expired)
//!   Open ───────────────▶ Active ───────────────▶ Due ──── gone ─────▶ Revoked
//!    │                                            ▲ │ │
//!    └── timed out, plugin failed ────────────────┘ │ └─ cannot revoke ▶ Lapsing ── expired ─▶ Expired
//!                                        tries used up ▶ Stuck ── operator's retry ─▶ Due
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::catalog::RevocationClass;
use crate::ids::{IntentId, SessionId};
use crate::issued::Handle;
use crate::name::{RoleName, ScopeName};
use crate::prompt::PromptDigest;
use crate::session::Ancestor;
use crate::session::Session;
use crate::time::Timestamp;

/// An issued credential under management. It keeps the id of its intent.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The intent's id.
    pub id: IntentId,
    /// The session that it belongs to.
    pub session: SessionId,
    /// What was granted.
    pub scope: ScopeName,
    /// Where it stands.
    pub state: LeaseState,
    /// When the credential stops working by itself.
    pub expires_at: Timestamp,
    /// What ending it early means.
    pub revocation: RevocationClass,
    /// The longest time it may go on working after revocation.
    pub residual_exposure: Duration,
}

/// A lease that the agent holds, or is about to, with what deciding it again needs.
#[derive(Clone, Debug)]
pub struct HeldLease {
    /// The intent's id.
    pub id: IntentId,
    /// The session that holds it.
    pub session: Arc<Session>,
    /// What was granted.
    pub scope: ScopeName,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When the credential stops working by itself.
    pub expires_at: Timestamp,
}

impl HeldLease {
    /// The life that it was given.
    pub fn life(&self) -> Duration {
        self.expires_at.since(self.granted_at)
    }
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// The intent is recorded; the credential may or may not exist yet.
    Open,
    /// The credential was handed to the agent.
    Active,
    /// To be revoked now, or again at the next attempt.
    Due,
    /// Cannot be revoked early; waits for its expiry.
    Lapsing,
    /// Gone upstream. Final.
    Revoked,
    /// Ran out where nothing else could end it. Final.
    Expired,
    /// Every attempt to revoke failed; an operator must look.
    Stuck,
}

/// What can happen to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The plugin minted the credential and the journal recorded it.
    Closed,
    /// The plugin failed, or no answer came within the intent timeout.
    IntentFailed,
    /// Released by the agent, ended with its session, or ran out.
    FellDue,
    /// The upstream object is gone.
    Gone,
    /// The backend has no way to end it early.
    CannotRevoke,
    /// An attempt failed; another will follow.
    AttemptFailed,
    /// The last attempt failed.
    AttemptsUsedUp,
    /// Its expiry passed.
    RanOut,
    /// An operator asked for another round of attempts.
    Retried,
}

/// An event that the state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a lease that is {state:?} cannot take {event:?}")]
pub struct TransitionError {
    /// The state.
    pub state: LeaseState,
    /// The event.
    pub event: LeaseEvent,
}

impl LeaseState {
    /// The state after `event`. The only place where states change.
    pub const fn after(self, event: LeaseEvent) -> Result<Self, TransitionError> {
        Ok(match (self, event) {
            (Self::Open, LeaseEvent::Closed) => Self::Active,
            (Self::Open, LeaseEvent::IntentFailed)
            | (Self::Open | Self::Active, LeaseEvent::FellDue)
            | (Self::Due, LeaseEvent::AttemptFailed)
            | (Self::Stuck, LeaseEvent::Retried) => Self::Due,
            (Self::Due, LeaseEvent::Gone) => Self::Revoked,
            (Self::Due, LeaseEvent::CannotRevoke) => Self::Lapsing,
            (Self::Due, LeaseEvent::AttemptsUsedUp) => Self::Stuck,
            (Self::Lapsing, LeaseEvent::RanOut) => Self::Expired,
            (state, event) => return Err(TransitionError { state, event }),
        })
    }

    /// Whether nothing more can happen to the lease.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Revoked | Self::Expired)
    }

    /// As messages, metrics and the journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Active => "active",
            Self::Due => "due",
            Self::Lapsing => "lapsing",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Stuck => "stuck",
        }
    }

    /// Every state, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Active,
        Self::Due,
        Self::Lapsing,
        Self::Revoked,
        Self::Expired,
        Self::Stuck,
    ];
}

/// Why a lease fell due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DueCause {
    /// The agent gave it back.
    Released,
    /// Its session ended.
    SessionEnded,
    /// Its time ran out.
    TtlReached,
    /// The plugin failed while minting.
    IssueFailed,
    /// The intent was never closed: a crash, or an agent that went away.
    IntentTimeout,
    /// An operator asked.
    Operator,
    /// What is in force now no longer permits it.
    NoLongerPermitted,
}

impl DueCause {
    /// As messages, metrics and the journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::SessionEnded => "session-ended",
            Self::TtlReached => "ttl-reached",
            Self::IssueFailed => "issue-failed",
            Self::IntentTimeout => "intent-timeout",
            Self::Operator => "operator",
            Self::NoLongerPermitted => "no-longer-permitted",
        }
    }
}

/// A lease that the worker must act on now. Made by the journal from what it recorded, so that
/// revocation, like issuing, never runs without a record.
pub struct DueLease {
    /// The intent's id, which revocation can work from alone.
    pub id: IntentId,
    /// Its session.
    pub session: SessionId,
    /// The session's role.
    pub role: RoleName,
    /// The session's prompt digest.
    pub prompt_digest: PromptDigest,
    /// Who ran the session and for whom.
    pub parties: Parties,
    /// The sessions above it.
    pub ancestors: Vec<Ancestor>,
    /// What was granted.
    pub scope: ScopeName,
    /// `Due`, or `Lapsing` once its expiry has passed.
    pub state: LeaseState,
    /// Why it fell due.
    pub cause: DueCause,
    /// How many attempts to revoke it have failed. A round that an operator asks for starts at one.
    pub attempts: u32,
    /// When it fell due.
    pub due_at: Timestamp,
    /// When the credential stops working by itself.
    pub expires_at: Timestamp,
    /// What the plugin asked the broker to keep, if it got that far.
    pub handle: Option<Handle>,
}

/// Who ran a session and for whom, as entries name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// The workload's id.
    pub principal: String,
    /// The requester's id.
    pub requester: String,
    /// Who acts for the requester.
    pub act: Vec<String>,
}

impl Parties {
    /// Those of a session.
    pub fn of(session: &Session) -> Self {
        Self {
            principal: session.principal().id().to_owned(),
            requester: session.requester().id().to_owned(),
            act: session.requester().grounds().act.clone(),
        }
    }
}

/// What one attempt to revoke came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// The upstream object is gone (or never was).
    Gone,
    /// The backend has no way to end it early; it lapses at its expiry.
    CannotRevoke,
    /// It had lapsed, and its expiry has passed.
    RanOut,
    /// The attempt failed.
    Failed {
        /// The plugin's error, as a sentence.
        error: String,
        /// When to try again; `None` when the tries are used up.
        next_attempt_at: Option<Timestamp>,
    },
}

impl RevokeOutcome {
    /// The lease event that the outcome amounts to.
    pub const fn event(&self) -> LeaseEvent {
        match self {
            Self::Gone => LeaseEvent::Gone,
            Self::CannotRevoke => LeaseEvent::CannotRevoke,
            Self::RanOut => LeaseEvent::RanOut,
            Self::Failed { next_attempt_at: Some(_), .. } => LeaseEvent::AttemptFailed,
            Self::Failed { next_attempt_at: None, .. } => LeaseEvent::AttemptsUsedUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_states_take_no_event_and_others_do() {
        let events = [
            LeaseEvent::Closed,
            LeaseEvent::IntentFailed,
            LeaseEvent::FellDue,
            LeaseEvent::Gone,
            LeaseEvent::CannotRevoke,
            LeaseEvent::AttemptFailed,
            LeaseEvent::AttemptsUsedUp,
            LeaseEvent::RanOut,
            LeaseEvent::Retried,
        ];
        for state in LeaseState::ALL {
            let moves = events.iter().any(|event| state.after(*event).is_ok());
            assert_eq!(moves, !state.is_final(), "{state:?}");
        }
    }

    #[test]
    fn a_revoked_intent_cannot_be_closed() {
        for state in [LeaseState::Due, LeaseState::Revoked, LeaseState::Stuck] {
            assert!(state.after(LeaseEvent::Closed).is_err(), "{state:?}");
        }
    }
}
