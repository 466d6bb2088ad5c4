//! How a session begins, ends, and gives single leases back.

use std::sync::Arc;

use thiserror::Error;

use super::{DECIDE_AGAIN_MAX, random};
use crate::decide::{Denial, SessionAsk, decide_session};
use crate::ids::{DenialId, IntentId, SessionId};
use crate::lease::LeaseState;
use crate::ports::{BeginError, Clock, Journal, JournalError, Policies, Ports, SessionEnded};
use crate::secret::Secret;
use crate::session::{EndCause, Session, TokenHash, mint_token};

/// Begins a session: decides, records, and hands out its token.
pub async fn open<P: Ports>(ports: &P, ask: &SessionAsk) -> Result<Opened, OpenSessionError> {
    for _ in 0..=DECIDE_AGAIN_MAX {
        let snapshot = ports.policies().current();
        let now = ports.clock().now();
        let permit = match decide_session(&snapshot, ask, now) {
            Ok(permit) => permit,
            Err(denial) => return Err(deny(ports, denial).await),
        };
        let begun = crate::session::Begun {
            policies: permit.policies().to_vec(),
            snapshot: permit.snapshot(),
            claimed_reason: ask.claimed_reason.clone(),
        };
        let session = Session::begin(permit, SessionId::mint(now, &random(ports.entropy())), now);
        let (token, hash) = mint_token(&random(ports.entropy()));
        match ports.journal().begin_session(&session, hash, &begun).await {
            Ok(_) => return Ok(Opened { session: Arc::new(session), token, hash }),
            // A session that began under the earlier policies would not be decided again by the
            // pass that follows the change.
            Err(BeginError::SnapshotStale) => {
                ports.policies().other_than(snapshot.digest()).await;
            }
            Err(BeginError::Journal(error)) => return Err(error.into()),
        }
    }
    Err(OpenSessionError::PoliciesUnsettled)
}

/// A session that has begun, with the token that proves it.
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// For the agent.
    pub token: Secret,
    /// For the broker.
    pub hash: TokenHash,
}

async fn deny<P: Ports>(ports: &P, denial: Denial) -> OpenSessionError {
    let id = DenialId::mint(denial.at, &random(ports.entropy()));
    match ports.journal().record_denial(id, &denial).await {
        Ok(_) => OpenSessionError::Denied { id, denial: Box::new(denial) },
        Err(error) => error.into(),
    }
}

/// Ends a session; everything it holds falls due. `None` if it had ended already.
pub async fn end<P: Ports>(
    ports: &P,
    session: SessionId,
    cause: EndCause,
) -> Result<Option<SessionEnded>, JournalError> {
    ports.journal().end_session(session, cause, ports.clock().now()).await
}

/// Gives one lease back before its time. `None` if the session has no such lease.
pub async fn release<P: Ports>(
    ports: &P,
    session: SessionId,
    lease: IntentId,
) -> Result<Option<LeaseState>, JournalError> {
    ports.journal().release_lease(session, lease, ports.clock().now()).await
}

/// Why no session began.
#[derive(Debug, Error)]
pub enum OpenSessionError {
    /// Refused by policy.
    #[error("{}", denial.reason)]
    Denied {
        /// The recorded refusal.
        id: DenialId,
        /// What was refused and why.
        denial: Box<Denial>,
    },
    /// The policies kept changing.
    #[error("the policies changed several times while the request was being decided: try again")]
    PoliciesUnsettled,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
