//! From an ask to a credential: decide, open, issue, close. Read this first.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::{DECIDE_AGAIN_MAX, random};
use crate::ask::Ask;
use crate::decide::{Confirmed, Denial, DenialReason, decide, decide_lease_again};
use crate::ids::{DenialId, IntentId, SessionId};
use crate::intent::Intent;
use crate::issued::{Credential, Issued};
use crate::lease::{HeldLease, Lease, LeaseState};
use crate::policy::PolicySnapshot;
use crate::ports::{
    Clock, CloseError, Journal, JournalError, Minted, OpenError, PluginError, Plugins, Policies,
    Ports, Rates, Repeated, Standing,
};
use crate::session::Session;
use crate::time::Timestamp;

/// What an agent gets.
pub struct Delivery {
    /// The credential under management.
    pub lease: Lease,
    /// The credential.
    pub credential: Credential,
    /// What the agent should know of it, in a sentence.
    pub notice: Option<String>,
}

/// Issues what `session` asks for.
///
/// Dropping the future at any step is safe: an intent that was opened and not closed times out,
/// and the worker revokes by its id whatever the plugin may have minted.
pub async fn issue<P: Ports>(
    ports: &P,
    session: &Arc<Session>,
    ask: &Ask,
) -> Result<Delivery, IssueError> {
    let intent = open(ports, session, ask).await?;
    // INVARIANT (revocation-comes-last): a plugin that starts late could mint after the worker
    // has revoked the intent and found nothing. Such an intent is left to time out.
    if ports.clock().now().since(intent.permit().decided_at()) > START_WITHIN_MAX {
        return Err(IssueError::TimedOut);
    }
    let issued = match ports.plugins().issue(&intent).await {
        Ok(issued) => issued,
        Err(error) => return Err(fail(ports, &intent, error).await),
    };
    close(ports, &intent, &issued).await?;
    let lease = lease(&intent, &issued);
    Ok(Delivery { lease, credential: issued.credential, notice: intent.permit().notice() })
}

/// Decides and makes the decision durable. The journal checks session and snapshot again in the
/// transaction that records the intent; when the policies changed in between, decide once more.
async fn open<P: Ports>(
    ports: &P,
    session: &Arc<Session>,
    ask: &Ask,
) -> Result<Intent, IssueError> {
    for attempt in 0..=DECIDE_AGAIN_MAX {
        let snapshot = ports.policies().current();
        let now = ports.clock().now();
        let permit = match decide(&snapshot, session, ask, now) {
            Ok(permit) => permit,
            Err(denial) => return Err(deny(ports, denial).await),
        };
        // Before anything is recorded, so that a flood costs decisions and nothing else; after the
        // decision, so that what is not permitted takes from no budget. What others share is taken
        // where the intent is recorded, so that who is refused in a loop uses up nobody else's.
        let (own, shared) = permit.issue_limits();
        if attempt == 0
            && let Err(spent) = ports.rates().take(own, shared)
        {
            let denial = permit.too_much(DenialReason::TooManyIssues(spent));
            return Err(deny_repeatedly(ports, denial, session.id()).await);
        }
        let id = IntentId::mint(now, &random(ports.entropy()));
        match ports.journal().open_intent(id, &permit, now).await {
            // INVARIANT (no-plugin-without-intent): the number exists only once the entry is durable.
            Ok(seq) => return Ok(Intent::recorded(id, seq, permit)),
            Err(OpenError::SnapshotStale) => ports.policies().other_than(snapshot.digest()).await,
            Err(OpenError::SessionEnded) => return Err(IssueError::SessionEnded),
            Err(OpenError::KeyUsed { lease, state }) => {
                return Err(IssueError::KeyUsed { lease, state });
            }
            Err(OpenError::TooManyLeases { limit, frees_at }) => {
                let wait = frees_at.map(|at| at.since(now));
                let denial = permit.too_much(DenialReason::TooManyLeases { limit: *limit, wait });
                return Err(deny_repeatedly(ports, denial, session.id()).await);
            }
            Err(OpenError::TooManyIssues(spent)) => {
                let denial = permit.too_much(DenialReason::TooManyIssues(*spent));
                return Err(deny_repeatedly(ports, denial, session.id()).await);
            }
            Err(OpenError::Journal(error)) => return Err(error.into()),
        }
    }
    Err(IssueError::PoliciesUnsettled)
}

/// Records what was minted. INVARIANT (handed-out-is-permitted): when the policies changed while
/// the plugin minted, the credential is decided again before it is handed out; the journal checks
/// in the transaction that closes the intent that the snapshot which permits it is in force.
async fn close<P: Ports>(ports: &P, intent: &Intent, issued: &Issued) -> Result<(), IssueError> {
    for _ in 0..=DECIDE_AGAIN_MAX {
        let snapshot = ports.policies().current();
        let now = ports.clock().now();
        let decided = decided_now(&snapshot, intent, now);
        let standing = match &decided {
            None => Standing::AsDecided,
            Some(Ok(confirmed)) => Standing::Confirmed(confirmed),
            Some(Err(denial)) => Standing::Withdrawn(denial),
        };
        match ports.journal().close_intent(intent, Minted { issued, standing }, now).await {
            Err(CloseError::SnapshotStale) => {
                ports.policies().other_than(snapshot.digest()).await;
            }
            Err(CloseError::Journal(error)) => return Err(error.into()),
            closed => {
                return match decided {
                    Some(Err(denial)) => Err(deny(ports, denial).await),
                    _ => Ok(closed?),
                };
            }
        }
    }
    // The intent stays open and times out, and what was minted is revoked.
    Err(IssueError::PoliciesUnsettled)
}

/// What another snapshot than the intent's says of it. Of a session that is over the journal
/// tells.
fn decided_now(
    snapshot: &PolicySnapshot,
    intent: &Intent,
    now: Timestamp,
) -> Option<Result<Confirmed, Denial>> {
    let permit = intent.permit();
    if snapshot.digest() == permit.snapshot() || !permit.session().is_live_at(now) {
        return None;
    }
    let held = HeldLease {
        id: intent.id(),
        session: Arc::clone(permit.session()),
        scope: permit.scope().name.clone(),
        granted_at: permit.decided_at(),
        expires_at: permit.expires_at(),
    };
    Some(decide_lease_again(snapshot, &held, now))
}

async fn deny<P: Ports>(ports: &P, denial: Denial) -> IssueError {
    let id = DenialId::mint(denial.at, &random(ports.entropy()));
    match ports.journal().record_denial(id, &denial).await {
        Ok(_) => IssueError::Denied { id, denial: Box::new(denial) },
        Err(error) => error.into(),
    }
}

/// Records a refusal by a budget, unless one like it was recorded a moment ago: a loop that asks
/// again and again must not fill the journal. The agent then gets the id of that one.
async fn deny_repeatedly<P: Ports>(
    ports: &P,
    mut denial: Denial,
    session: SessionId,
) -> IssueError {
    let code = denial.reason.code();
    match ports.rates().repeated(session, code) {
        Repeated::Again(id) => IssueError::Denied { id, denial: Box::new(denial) },
        Repeated::First { repeats } => {
            denial.repeats = repeats;
            let denied = deny(ports, denial).await;
            if let IssueError::Denied { id, .. } = &denied {
                ports.rates().recorded(session, code, *id);
            }
            denied
        }
    }
}

async fn fail<P: Ports>(ports: &P, intent: &Intent, error: PluginError) -> IssueError {
    let now = ports.clock().now();
    // If the journal cannot write, the intent stays open and times out: the plugin's error is
    // the one that helps the agent, and the journal has told its own health.
    let _unrecorded = ports.journal().fail_intent(intent, &error, now).await;
    IssueError::Plugin(error)
}

fn lease(intent: &Intent, issued: &Issued) -> Lease {
    let permit = intent.permit();
    Lease {
        id: intent.id(),
        session: permit.session().id(),
        scope: permit.scope().name.clone(),
        state: LeaseState::Active,
        expires_at: issued.credential.expires_at,
        revocation: permit.backend().revocation,
        residual_exposure: permit.residual_exposure(),
    }
}

/// Why nothing was issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// Refused by policy.
    #[error("{}", denial.reason)]
    Denied {
        /// The recorded refusal.
        id: DenialId,
        /// What was refused and why.
        denial: Box<Denial>,
    },
    /// The session ended meanwhile.
    #[error("the session has ended: open a new one")]
    SessionEnded,
    /// The idempotency key was used before.
    #[error(
        "a credential was already minted for this idempotency key, and its secret is not kept: \
         release lease `{lease}` ({}) and ask again with a new key", state.as_str()
    )]
    KeyUsed {
        /// The lease of the earlier request.
        lease: IntentId,
        /// Where it stands.
        state: LeaseState,
    },
    /// The policies kept changing.
    #[error("the policies changed several times while the request was being decided: try again")]
    PoliciesUnsettled,
    /// Minting took longer than the intent timeout; what was minted is being revoked.
    #[error("minting took longer than the intent timeout: try again")]
    TimedOut,
    /// The plugin failed.
    #[error(transparent)]
    Plugin(PluginError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl From<CloseError> for IssueError {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::SessionEnded => Self::SessionEnded,
            CloseError::SnapshotStale | CloseError::Withdrawn => Self::PoliciesUnsettled,
            CloseError::TimedOut => Self::TimedOut,
            CloseError::Journal(error) => Self::Journal(error),
        }
    }
}

/// How long recording an intent may take before its plugin is no longer started: a journal that
/// stalls, a machine that sleeps. INVARIANT (revocation-comes-last): this and the longest plugin
/// call together stay below the intent timeout (10 s, at most half of it, 30 s).
pub const START_WITHIN_MAX: Duration = Duration::from_secs(10);
