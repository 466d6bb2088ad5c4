//! How a session begins, ends, and gives single leases back.

use std::sync::Arc;

use thiserror::Error;

use super::{DECIDE_AGAIN_MAX, random};
use crate::binding::Binding;
use crate::decide::{Denial, SessionAsk, decide_session};
use crate::ids::{DenialId, IntentId, SessionId};
use crate::lease::LeaseState;
use crate::ports::{BeginError, Clock, Journal, JournalError, Policies, Ports, SessionEnded};
use crate::secret::Secret;
use crate::session::{EndCause, KnownToken, Session, mint_token};

/// Begins a session: decides, records, and hands out its token, which is good from where `binding`
/// says.
pub async fn open<P: Ports>(
    ports: &P,
    ask: &SessionAsk,
    binding: Binding,
) -> Result<Opened, OpenSessionError> {
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
        let known = KnownToken { hash, binding: binding.clone() };
        match ports.journal().begin_session(&session, &known, &begun).await {
            Ok(_) => return Ok(Opened { session: Arc::new(session), token, known }),
            // A session that began under the earlier policies would not be decided again by the
            // pass that follows the change.
            Err(BeginError::SnapshotStale) => {
                ports.policies().other_than(snapshot.digest()).await;
            }
            Err(error) => return Err(error.into()),
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
    pub known: KnownToken,
}

async fn deny<P: Ports>(ports: &P, denial: Denial) -> OpenSessionError {
    let id = DenialId::mint(denial.at, &random(ports.entropy()));
    match ports.journal().record_denial(id, &denial).await {
        Ok(_) => OpenSessionError::Denied { id, denial: Box::new(denial) },
        Err(error) => error.into(),
    }
}

/// Records where the session's token is good from now on. `false` if the session has ended.
pub async fn bind<P: Ports>(
    ports: &P,
    session: &Session,
    binding: &Binding,
) -> Result<bool, JournalError> {
    let bound = ports.journal().bind_session(session, binding, ports.clock().now()).await?;
    Ok(bound.is_some())
}

/// Ends a session and all below it; everything that they hold falls due. `None` if it had ended already.
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
    /// The session above it ended, or has too many below it.
    #[error(transparent)]
    Begin(BeginError),
    /// The policies kept changing.
    #[error("the policies changed several times while the request was being decided: try again")]
    PoliciesUnsettled,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<BeginError> for OpenSessionError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Journal(error) => Self::Journal(error),
            BeginError::SnapshotStale => Self::PoliciesUnsettled,
            error @ (BeginError::ParentEnded | BeginError::TooManyDescendants { .. }) => {
                Self::Begin(error)
            }
        }
    }
}
