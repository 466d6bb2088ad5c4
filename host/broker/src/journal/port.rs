//! The core's port `Journal` over the writer and the readers. What each method must do stands
//! with the port; here stands how.

use std::sync::Arc;

use claviger_core::binding::Binding;
use claviger_core::decide::{Denial, Permit};
use claviger_core::ids::{DenialId, IntentId, SessionId};
use claviger_core::intent::Intent;
use claviger_core::issued::Handle;
use claviger_core::journal::{Entry, Event, JournalSeq};
use claviger_core::lease::{
    DueCause, DueLease, HeldLease, Lease, LeaseEvent, LeaseState, RevokeOutcome,
};
use claviger_core::name::BackendName;
use claviger_core::policy::SnapshotDigest;
use claviger_core::ports::{
    BeginError, CloseError, Journal, JournalError, OpenError, PluginError, SessionEnded, Standing,
    WithdrawError, Withdrawal, Withdrawn,
};
use claviger_core::session::{Begun, DESCENDANTS_MAX, EndCause, KnownToken, Session};
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

use super::SqliteJournal;
use super::fault::Fault;
use super::leases::{Minted, NewLease, StoredLease, held_after, next_due_at, unsettled};
use super::ledger::Ledger;
use super::news::{JournalNews, Why};
use super::opening::{Opening, open_intent};
use super::revocation::Word;
use super::sessions::running_after;
use super::withdraw::withdraw;

impl Journal for SqliteJournal {
    async fn begin_session(
        &self,
        session: &Session,
        token: &KnownToken,
        begun: &Begun,
    ) -> Result<JournalSeq, BeginError> {
        let entry = Entry::session_begun(session, token, begun);
        let (session, token) = (session.clone(), token.clone());
        let beginning = Beginning { session, token, entry };
        self.queue.submit(move |ledger| begin_session(ledger, &beginning)).await?
    }

    async fn bind_session(
        &self,
        session: &Session,
        binding: &Binding,
        now: Timestamp,
    ) -> Result<Option<JournalSeq>, JournalError> {
        let entry = Entry::session_rebound(session, binding, now);
        let (id, binding) = (session.id(), binding.clone());
        self.queue
            .submit(move |ledger| {
                if !ledger.bind(id, &binding)? {
                    return Ok(None);
                }
                ledger.append(&entry).map(Some)
            })
            .await
    }

    async fn end_session(
        &self,
        session: SessionId,
        cause: EndCause,
        now: Timestamp,
    ) -> Result<Option<SessionEnded>, JournalError> {
        let ending = Ending { cause, by: By::Cause, now };
        self.queue.submit(move |ledger| end_session(ledger, session, &ending)).await
    }

    async fn record_denial(
        &self,
        id: DenialId,
        denial: &Denial,
    ) -> Result<JournalSeq, JournalError> {
        self.record(Entry::denied(id, denial)).await
    }

    async fn record(&self, entry: Entry) -> Result<JournalSeq, JournalError> {
        self.queue.submit(move |ledger| ledger.append(&entry)).await
    }

    async fn open_intent(
        &self,
        id: IntentId,
        permit: &Permit,
        now: Timestamp,
    ) -> Result<JournalSeq, OpenError> {
        let opening = Opening {
            entry: Entry::intent_opened(id, permit, now),
            lease: NewLease::of(id, permit, now, self.intent_timeout),
            snapshot: permit.snapshot(),
            leases: permit.lease_limits().to_vec(),
            issues: permit.issue_limits().1.to_vec(),
            rates: Arc::clone(&self.rates),
        };
        self.queue.submit(move |ledger| open_intent(ledger, &opening)).await?
    }

    async fn close_intent(
        &self,
        intent: &Intent,
        minted: claviger_core::ports::Minted<'_>,
        now: Timestamp,
    ) -> Result<(), CloseError> {
        let (id, issued) = (intent.id(), minted.issued);
        let duplicate = |handle: &Handle| Zeroizing::new(handle.as_str().to_owned());
        let handle = issued.handle.as_ref().map(duplicate).map(Handle::new);
        let mut closing = Closing {
            id,
            entry: Entry::lease_issued(intent, &minted, now),
            snapshot: minted.standing.snapshot(intent),
            standing: match minted.standing {
                Standing::AsDecided | Standing::Confirmed(_) => Stands::Permitted,
                Standing::Withdrawn(denial) => Stands::Withdrawn(Why::of(denial)),
            },
            minted: Minted {
                sealed_handle: None,
                join_keys: issued.join_keys.clone(),
                expires_at: issued.credential.expires_at,
            },
            now,
        };
        self.queue
            .submit(move |ledger| {
                // Here, and not before it was queued: another key may have come in force meanwhile.
                let sealed = handle.map(|handle| ledger.seals().seal_handle(id, &handle));
                closing.minted.sealed_handle = sealed.transpose()?;
                close_intent(ledger, closing)
            })
            .await?
    }

    async fn fail_intent(
        &self,
        intent: &Intent,
        error: &PluginError,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (id, entry) = (intent.id(), Entry::issue_failed(intent, error, now));
        let upstream = if error.request_sent { Upstream::MayAct } else { Upstream::Untouched };
        self.queue.submit(move |ledger| fail_intent(ledger, id, (entry, upstream))).await
    }

    async fn release_lease(
        &self,
        session: SessionId,
        lease: IntentId,
        now: Timestamp,
    ) -> Result<Option<LeaseState>, JournalError> {
        self.queue.submit(move |ledger| release_lease(ledger, session, lease, now)).await
    }

    async fn leases(&self, session: SessionId) -> Result<Vec<Lease>, JournalError> {
        self.readers.read(move |conn| unsettled(conn, session)).await
    }

    async fn live_sessions_after(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, JournalError> {
        self.readers.read(move |conn| running_after(conn, after, limit)).await
    }

    async fn held_leases_after(
        &self,
        after: Option<(SessionId, IntentId)>,
        limit: usize,
    ) -> Result<Vec<HeldLease>, JournalError> {
        self.readers.read(move |conn| held_after(conn, after, limit)).await
    }

    async fn withdraw(
        &self,
        withdrawals: Vec<Withdrawal>,
        now: Timestamp,
    ) -> Result<Withdrawn, WithdrawError> {
        self.queue.submit(move |ledger| withdraw(ledger, &withdrawals, now)).await?
    }

    async fn take_due(
        &self,
        backend: &BackendName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, JournalError> {
        let (backend, limit) = (backend.clone(), limit.min(TAKE_DUE_MAX));
        let take = move |ledger: &mut Ledger<'_>| {
            let taken = take_due(ledger, &backend, now, limit)?;
            Ok((taken, Arc::clone(ledger.seals())))
        };
        let (taken, seals) = self.queue.submit(take).await?;
        Ok(taken.into_iter().map(|lease| lease.into_due(&seals)).collect())
    }

    async fn next_due_at(&self, backend: &BackendName) -> Result<Option<Timestamp>, JournalError> {
        self.alarms.clear(backend);
        let asked = backend.clone();
        let at = self.readers.read(move |conn| next_due_at(conn, &asked)).await?;
        self.alarms.set(backend, at);
        Ok(at)
    }

    async fn record_revocation(
        &self,
        lease: &DueLease,
        outcome: &RevokeOutcome,
        now: Timestamp,
    ) -> Result<LeaseState, JournalError> {
        let (id, seen) = (lease.id, lease.state);
        let outcome = outcome.clone();
        self.queue
            .submit(move |ledger| {
                let attempt = Attempt { id, seen, outcome, now };
                record_revocation(ledger, &attempt)
            })
            .await
    }

    async fn record_gone(&self, leases: &[DueLease], now: Timestamp) -> Result<(), JournalError> {
        let gone = |lease: &DueLease| Attempt {
            id: lease.id,
            seen: lease.state,
            outcome: RevokeOutcome::Gone,
            now,
        };
        let attempts: Vec<_> = leases.iter().map(gone).collect();
        self.queue
            .submit(move |ledger| {
                for attempt in &attempts {
                    record_revocation(ledger, attempt)?;
                }
                Ok(())
            })
            .await
    }
}

struct Beginning {
    session: Session,
    token: KnownToken,
    entry: Entry,
}

/// INVARIANT (child-ends-with-parent): the parent is looked at in the transaction that records the
/// child. A child that began after its parent's end would be ended by nothing.
fn begin_session(
    ledger: &mut Ledger<'_>,
    beginning: &Beginning,
) -> Result<Result<JournalSeq, BeginError>, Fault> {
    let Beginning { session, token, entry } = beginning;
    // What began under an earlier snapshot would not be decided again by the pass that follows.
    if ledger.tip().snapshot != entry.snapshot {
        return Ok(Err(BeginError::SnapshotStale));
    }
    if let Some(parent) = session.parent()
        && !ledger.is_live(parent.session, session.opened_at())?
    {
        return Ok(Err(BeginError::ParentEnded));
    }
    if let Some(top) = session.ancestors().first()
        && ledger.below(top.session)?.len() >= DESCENDANTS_MAX
    {
        return Ok(Err(BeginError::TooManyDescendants { top: top.session }));
    }
    ledger.insert_session(session, token)?;
    Ok(Ok(ledger.append(entry)?))
}

struct Closing {
    id: IntentId,
    entry: Entry,
    snapshot: SnapshotDigest,
    standing: Stands,
    minted: Minted,
    now: Timestamp,
}

/// What was decided of it last.
enum Stands {
    Permitted,
    Withdrawn(Why),
}

fn close_intent(
    ledger: &mut Ledger<'_>,
    closing: Closing,
) -> Result<Result<(), CloseError>, Fault> {
    // INVARIANT (handed-out-is-permitted): see `flow::issue`.
    if ledger.tip().snapshot != Some(closing.snapshot) {
        return Ok(Err(CloseError::SnapshotStale));
    }
    let mut lease = find(ledger, closing.id)?;
    let before = lease.state;
    if before != LeaseState::Open {
        return close_late(ledger, lease, closing);
    }
    let Closing { mut entry, minted, now, standing, .. } = closing;
    lease.keep(minted);
    lease.take(LeaseEvent::Closed)?;
    lease.act_at = Some(lease.expires_at);
    let (closed, why) = match standing {
        _ if !ledger.is_live(lease.session, now)? => {
            lease.fall_due(LeaseEvent::FellDue, DueCause::SessionEnded, now)?;
            (Err(CloseError::SessionEnded), None)
        }
        Stands::Withdrawn(why) => {
            lease.fall_due(LeaseEvent::FellDue, DueCause::NoLongerPermitted, now)?;
            (Err(CloseError::Withdrawn), Some(why))
        }
        Stands::Permitted => (Ok(()), None),
    };
    entry.cause = lease.cause.map(|cause| cause.as_str().to_owned());
    entry.state = Some(lease.state);
    ledger.update_lease_for(before, &lease, why)?;
    ledger.append(&entry)?;
    Ok(closed)
}

/// The intent timed out, or its lease was given back, before the answer came. The credential
/// exists now, so that the worker need wait no longer.
fn close_late(
    ledger: &mut Ledger<'_>,
    mut lease: StoredLease,
    closing: Closing,
) -> Result<Result<(), CloseError>, Fault> {
    let Closing { mut entry, minted, now, .. } = closing;
    let state = lease.state;
    entry.event = Event::IssueFailed;
    entry.state = Some(state);
    entry.cause = lease.cause.map(|cause| cause.as_str().to_owned());
    entry.detail = Some(LATE.to_owned());
    if !state.is_final() {
        lease.keep(minted);
        hasten(&mut lease, now);
        ledger.update_lease(state, &lease)?;
    }
    ledger.append(&entry)?;
    Ok(Err(CloseError::TimedOut))
}

/// What the upstream may do after a plugin has failed.
#[derive(Clone, Copy)]
enum Upstream {
    /// Nothing was sent to it.
    Untouched,
    /// It may still carry out what it was sent, until the intent times out. INVARIANT
    /// (revocation-comes-last): a revocation at once could find nothing, and be followed by the
    /// credential.
    MayAct,
}

fn fail_intent(
    ledger: &mut Ledger<'_>,
    id: IntentId,
    (mut entry, upstream): (Entry, Upstream),
) -> Result<(), Fault> {
    let mut lease = find(ledger, id)?;
    let before = lease.state;
    match (before, upstream) {
        (LeaseState::Open, Upstream::Untouched) => {
            lease.fall_due(LeaseEvent::IntentFailed, DueCause::IssueFailed, entry.at)?;
        }
        (LeaseState::Open, Upstream::MayAct) => {
            let act_at = lease.act_at.unwrap_or(entry.at);
            lease.fall_due(LeaseEvent::IntentFailed, DueCause::IssueFailed, act_at)?;
        }
        (_, Upstream::Untouched) => hasten(&mut lease, entry.at),
        (_, Upstream::MayAct) => {}
    }
    entry.state = Some(lease.state);
    ledger.update_lease(before, &lease)?;
    ledger.append(&entry)?;
    Ok(())
}

/// A due lease that was waiting, whether for the plugin's answer or for another attempt, is
/// acted on now: what there is to revoke has become known.
fn hasten(lease: &mut StoredLease, now: Timestamp) {
    if lease.state == LeaseState::Due {
        lease.act_at = lease.act_at.map(|at| at.min(now));
    }
}

fn release_lease(
    ledger: &mut Ledger<'_>,
    session: SessionId,
    id: IntentId,
    now: Timestamp,
) -> Result<Option<LeaseState>, Fault> {
    let Some(mut lease) = ledger.lease(id)?.filter(|lease| lease.session == session) else {
        return Ok(None);
    };
    let before = lease.state;
    let act_at = match before {
        LeaseState::Active => now,
        // The plugin is still minting. A revocation now could come before there is anything to
        // revoke; it waits for the answer, or for the intent timeout.
        LeaseState::Open => lease.act_at.unwrap_or(now),
        state => return Ok(Some(state)),
    };
    lease.fall_due(LeaseEvent::FellDue, DueCause::Released, act_at)?;
    ledger.update_lease(before, &lease)?;
    ledger.append(&Entry::lease_due(&lease.as_due(), DueCause::Released, now))?;
    Ok(Some(lease.state))
}

/// How a session ends.
pub(super) struct Ending<'a> {
    pub(super) cause: EndCause,
    /// Who decided it.
    pub(super) by: By<'a>,
    pub(super) now: Timestamp,
}

/// At whose decision a session ends.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// Nobody's beyond the cause.
    Cause,
    /// What decides refuses it now.
    Refusal(&'a Denial),
    /// An operator said so.
    Word(&'a Word),
}

impl By<'_> {
    /// The same for the sessions below: the refusal was of the one above them.
    const fn of_children(self) -> Self {
        match self {
            Self::Refusal(_) => Self::Cause,
            by => by,
        }
    }

    fn why(self) -> Option<Why> {
        match self {
            Self::Refusal(denial) => Some(Why::of(denial)),
            Self::Cause | Self::Word(_) => None,
        }
    }
}

pub(super) fn end_session(
    ledger: &mut Ledger<'_>,
    id: SessionId,
    ending: &Ending<'_>,
) -> Result<Option<SessionEnded>, Fault> {
    let Some(session) = ledger.running_session(id)? else { return Ok(None) };
    let now = ending.now;
    let below = ledger.below(id)?;
    let mut ended = SessionEnded {
        leases_due: end_one(ledger, &session, ending)?,
        below: u64::try_from(below.len()).unwrap_or(u64::MAX),
    };
    let with_it = Ending { cause: EndCause::ParentEnded, by: ending.by.of_children(), now };
    for session in &below {
        ended.leases_due += end_one(ledger, session, &with_it)?;
    }
    Ok(Some(ended))
}

/// Ends one session and says how many of its leases fell due.
fn end_one(ledger: &mut Ledger<'_>, session: &Session, ending: &Ending<'_>) -> Result<u64, Fault> {
    let Ending { cause, by, now } = *ending;
    ledger.mark_ended(session.id(), cause, now)?;
    let leases_due = ledger.end_leases(session.id(), now)?;
    let mut entry = match by {
        By::Refusal(denial) => Entry::session_withdrawn(session, denial, leases_due, now),
        By::Cause | By::Word(_) => Entry::session_ended(session, cause, leases_due, now),
    };
    if let By::Word(word) = by {
        word.sign(&mut entry);
    }
    ledger.append(&entry)?;
    ledger.tell(JournalNews::SessionEnded { session: session.id(), cause, why: by.why() });
    Ok(leases_due)
}

fn take_due(
    ledger: &mut Ledger<'_>,
    backend: &BackendName,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<StoredLease>, Fault> {
    let mut leases = ledger.leases_to_act_on(backend, now, limit)?;
    for lease in &mut leases {
        let (event, cause) = match lease.state {
            LeaseState::Open => (LeaseEvent::IntentFailed, DueCause::IntentTimeout),
            LeaseState::Active => (LeaseEvent::FellDue, DueCause::TtlReached),
            LeaseState::Due | LeaseState::Lapsing => continue,
            state @ (LeaseState::Revoked | LeaseState::Expired | LeaseState::Stuck) => {
                let (id, state) = (lease.id, state.as_str());
                return Err(Fault::damaged(format!(
                    "lease `{id}` is {state} and yet to be acted on"
                )));
            }
        };
        let before = lease.state;
        // Its place in the order stays, so that asking again returns the same leases.
        let act_at = lease.act_at.unwrap_or(now);
        lease.fall_due(event, cause, act_at)?;
        ledger.update_lease(before, lease)?;
        ledger.append(&Entry::lease_due(&lease.as_due(), cause, now))?;
    }
    Ok(leases)
}

struct Attempt {
    id: IntentId,
    seen: LeaseState,
    outcome: RevokeOutcome,
    now: Timestamp,
}

fn record_revocation(ledger: &mut Ledger<'_>, attempt: &Attempt) -> Result<LeaseState, Fault> {
    let mut lease = find(ledger, attempt.id)?;
    let before = lease.state;
    if before != attempt.seen {
        // The same lease was taken twice, and the other outcome was recorded first.
        return Ok(before);
    }
    lease.take(attempt.outcome.event())?;
    lease.act_at = match &attempt.outcome {
        RevokeOutcome::Gone | RevokeOutcome::RanOut => None,
        RevokeOutcome::CannotRevoke => Some(lease.expires_at),
        RevokeOutcome::Failed { next_attempt_at, .. } => {
            lease.attempts = lease.attempts.saturating_add(1);
            *next_attempt_at
        }
    };
    ledger.update_lease(before, &lease)?;
    let entry = Entry::revocation(&lease.as_due(), &attempt.outcome, lease.state, attempt.now);
    ledger.append(&entry)?;
    Ok(lease.state)
}

fn find(ledger: &Ledger<'_>, id: IntentId) -> Result<StoredLease, Fault> {
    let lost = || Fault::damaged(format!("intent `{id}` was recorded and its lease is not there"));
    ledger.lease(id)?.ok_or_else(lost)
}

/// One job must not hold up the others: a thousand leases take about 20 ms.
const TAKE_DUE_MAX: usize = 1000;

const LATE: &str = "the plugin answered after the lease had fallen due; the credential was not \
     handed out and is revoked";
