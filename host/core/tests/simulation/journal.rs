//! The journal's contract over maps in memory. One writer commits whole jobs in the order in
//! which they were submitted; a job that fails changes nothing.

use std::sync::{Arc, Mutex};
use std::task::Poll;

use claviger_core::binding::Binding;
use claviger_core::budget::{IssueLimit, LeaseLimit};
use claviger_core::decide::{Denial, Permit};
use claviger_core::ids::{DenialId, IntentId, SessionId};
use claviger_core::intent::Intent;
use claviger_core::journal::{Entry, Event, JournalSeq};
use claviger_core::lease::{
    DueCause, DueLease, HeldLease, Lease, LeaseEvent, LeaseState, RevokeOutcome,
};
use claviger_core::name::BackendName;
use claviger_core::policy::SnapshotDigest;
use claviger_core::ports::{
    BeginError, CloseError, Held, Journal, JournalError, Minted, OpenError, PluginError,
    SessionEnded, Standing, WithdrawError, Withdrawal, Withdrawn,
};
use claviger_core::session::{Begun, EndCause, KnownToken, Session};
use claviger_core::time::Timestamp;

use super::ledger::{Row, SessionRow};
use super::world::{Flaw, Sim, World};

/// A submitted job: does its work, or is told that nothing can be written.
pub type Write = Box<dyn FnOnce(&mut World) + Send>;

impl World {
    fn remember_before(&mut self) {
        if self.flaw == Flaw::ForgetsLastWriteInACrash {
            self.ledger.before = None;
            self.ledger.before = Some(Box::new(self.ledger.clone()));
        }
    }

    fn begin_session(&mut self, row: SessionRow, entry: Entry) -> Result<JournalSeq, BeginError> {
        if self.flaw != Flaw::BeginsUnderAnySnapshot && self.ledger.snapshot != entry.snapshot {
            self.coverage.begun_stale += 1;
            return Err(BeginError::SnapshotStale);
        }
        if let Some(parent) = row.session.parent()
            && self.flaw != Flaw::BeginsBelowEndedSessions
            && !self.ledger.is_live(parent.session, entry.at)
        {
            self.coverage.parent_ended += 1;
            return Err(BeginError::ParentEnded);
        }
        self.ledger.sessions.insert(row.session.id(), row);
        Ok(self.ledger.append(entry))
    }

    fn open_intent(
        &mut self,
        id: IntentId,
        row: Row,
        opening: Opening,
    ) -> Result<JournalSeq, OpenError> {
        if self.flaw != Flaw::ForgetsSession && !self.ledger.is_live(row.session, opening.entry.at)
        {
            return Err(OpenError::SessionEnded);
        }
        if self.flaw != Flaw::ForgetsSnapshot && self.ledger.snapshot != Some(opening.snapshot) {
            self.coverage.snapshot_stale += 1;
            return Err(OpenError::SnapshotStale);
        }
        let used = self.ledger.leases.iter().find(|(_, earlier)| {
            row.key.is_some() && earlier.session == row.session && earlier.key == row.key
        });
        if let Some((lease, earlier)) = used
            && self.flaw != Flaw::ForgetsKey
        {
            return Err(OpenError::KeyUsed { lease: *lease, state: earlier.state });
        }
        let now = opening.entry.at;
        let is_full =
            |limit: &&LeaseLimit| self.ledger.count(&limit.of, now) >= limit.most.get() as usize;
        if let Some(limit) = opening.limits.iter().find(is_full)
            && self.flaw != Flaw::ForgetsLimits
        {
            self.coverage.leases_full += 1;
            return Err(OpenError::TooManyLeases {
                limit: Box::new(limit.clone()),
                frees_at: None,
            });
        }
        self.take_issues(&opening.issues)
            .map_err(|spent| OpenError::TooManyIssues(Box::new(spent)))?;
        self.ledger.leases.insert(id, row);
        Ok(self.ledger.append(opening.entry))
    }

    fn close_intent(
        &mut self,
        id: IntentId,
        mut entry: Entry,
        closing: &Closing,
    ) -> Result<(), CloseError> {
        let (now, flaw) = (entry.at, self.flaw);
        if flaw != Flaw::ClosesUnderAnySnapshot && self.ledger.snapshot != Some(closing.snapshot) {
            self.coverage.decided_again_while_minting += 1;
            return Err(CloseError::SnapshotStale);
        }
        let handle = Some(id.bare());
        let session = self.ledger.row(id).session;
        let live = self.ledger.is_live(session, now) || flaw == Flaw::ForgetsSession;
        let row = self.ledger.row(id);
        if row.state != LeaseState::Open {
            if !row.state.is_final() {
                row.handle = handle;
                hasten(row, now);
            }
            entry.event = Event::IssueFailed;
            entry.state = Some(row.state);
            self.coverage.late_answers += 1;
            self.ledger.append(entry);
            return Err(CloseError::TimedOut);
        }
        row.handle = handle;
        row.state = row.state.after(LeaseEvent::Closed).expect("the core allows it");
        row.act_at = Some(row.expires_at);
        if !live {
            row.fall_due(LeaseEvent::FellDue, DueCause::SessionEnded, Some(now));
            self.coverage.session_ended_while_minting += 1;
        }
        let withdrawn = live && closing.withdrawn;
        if withdrawn {
            row.fall_due(LeaseEvent::FellDue, DueCause::NoLongerPermitted, Some(now));
            self.coverage.withdrawn_while_minting += 1;
        }
        let row = self.ledger.row(id);
        entry.state = Some(row.state);
        self.ledger.append(entry);
        match (live, withdrawn) {
            (false, _) => Err(CloseError::SessionEnded),
            (true, true) => Err(CloseError::Withdrawn),
            (true, false) => Ok(()),
        }
    }

    fn withdraw(
        &mut self,
        withdrawals: &[Withdrawal],
        now: Timestamp,
    ) -> Result<Withdrawn, WithdrawError> {
        if withdrawals.iter().any(|w| self.ledger.snapshot != Some(w.denial.snapshot)) {
            self.coverage.pass_overtaken += 1;
            return Err(WithdrawError::SnapshotStale);
        }
        let mut withdrawn = Withdrawn::default();
        if self.flaw == Flaw::WithdrawsNothing {
            return Ok(withdrawn);
        }
        for withdrawal in withdrawals {
            match withdrawal.of {
                Held::Session(id) => {
                    let Some(ended) = self.end_session(id, EndCause::NoLongerPermitted, now) else {
                        continue;
                    };
                    self.coverage.sessions_withdrawn += 1;
                    withdrawn.sessions.push(id);
                    withdrawn.leases_due += ended.leases_due;
                }
                Held::Lease(id) => {
                    withdrawn.leases_due += self.withdraw_lease(id, withdrawal, now);
                }
            }
        }
        Ok(withdrawn)
    }

    fn withdraw_lease(&mut self, id: IntentId, withdrawal: &Withdrawal, now: Timestamp) -> u64 {
        let Withdrawal { denial, unless_within, .. } = withdrawal;
        let fits =
            |limit: &LeaseLimit| self.ledger.count(&limit.of, now) <= limit.most.get() as usize;
        if !unless_within.is_empty() && unless_within.iter().all(fits) {
            return 0;
        }
        let at_once = self.flaw == Flaw::RevokesWithdrawnIntentsAtOnce;
        let row = self.ledger.row(id);
        let act_at = match row.state {
            LeaseState::Active => Some(now),
            LeaseState::Open if at_once => Some(now),
            LeaseState::Open => row.act_at,
            _ => return 0,
        };
        row.fall_due(LeaseEvent::FellDue, DueCause::NoLongerPermitted, act_at);
        let entry = Entry::lease_withdrawn(&row.due(id), denial, now);
        self.ledger.append(entry);
        self.coverage.leases_withdrawn += 1;
        1
    }

    /// An error after the request was sent tells nothing of what the upstream still does: only
    /// the intent timeout outlasts it, and a revocation before it could find nothing yet.
    fn fail_intent(&mut self, id: IntentId, mut entry: Entry, request_sent: bool) {
        let still_acting = request_sent && self.flaw != Flaw::RevokesFailedIntentsAtOnce;
        let row = self.ledger.row(id);
        if row.state == LeaseState::Open {
            let act_at = if still_acting { row.act_at } else { Some(entry.at) };
            row.fall_due(LeaseEvent::IntentFailed, DueCause::IssueFailed, act_at);
        } else if !still_acting {
            hasten(row, entry.at);
        }
        entry.state = Some(row.state);
        self.ledger.append(entry);
    }

    fn release_lease(
        &mut self,
        session: SessionId,
        id: IntentId,
        now: Timestamp,
    ) -> Option<LeaseState> {
        let at_once = self.flaw == Flaw::RevokesReleasedIntentsAtOnce;
        let row = self.ledger.leases.get_mut(&id).filter(|row| row.session == session)?;
        let act_at = match row.state {
            LeaseState::Active => Some(now),
            LeaseState::Open => {
                self.coverage.released_while_minting += 1;
                if at_once { Some(now) } else { row.act_at }
            }
            state => return Some(state),
        };
        row.fall_due(LeaseEvent::FellDue, DueCause::Released, act_at);
        let (state, entry) = (row.state, Entry::lease_due(&row.due(id), DueCause::Released, now));
        self.ledger.append(entry);
        Some(state)
    }

    fn end_session(
        &mut self,
        id: SessionId,
        cause: EndCause,
        now: Timestamp,
    ) -> Option<SessionEnded> {
        if self.ledger.sessions.get(&id).is_none_or(|row| row.ended) {
            self.coverage.already_ended += 1;
            return None;
        }
        let below = |row: &&SessionRow| {
            !row.ended && row.session.ancestors().iter().any(|above| above.session == id)
        };
        let below: Vec<_> =
            self.ledger.sessions.values().filter(below).map(|row| row.session.id()).collect();
        let mut ended = SessionEnded { leases_due: self.end_one(id, cause, now), below: 0 };
        if self.flaw != Flaw::SparesChildren {
            for child in below {
                ended.leases_due += self.end_one(child, EndCause::ParentEnded, now);
                ended.below += 1;
                self.coverage.ended_with_parent += 1;
            }
        }
        Some(ended)
    }

    fn end_one(&mut self, id: SessionId, cause: EndCause, now: Timestamp) -> u64 {
        let ending = self.ledger.sessions.get_mut(&id).expect("a session to end");
        ending.ended = true;
        let session = ending.session.clone();
        let mut leases_due = 0;
        let active = |row: &&mut Row| row.session == id && row.state == LeaseState::Active;
        if self.flaw != Flaw::SkipsLeasesOfEndedSessions {
            for row in self.ledger.leases.values_mut().filter(active) {
                row.fall_due(LeaseEvent::FellDue, DueCause::SessionEnded, Some(now));
                leases_due += 1;
            }
        }
        self.ledger.append(Entry::session_ended(&session, cause, leases_due, now));
        leases_due
    }

    fn take_due(&mut self, backend: &BackendName, now: Timestamp, limit: usize) -> Vec<DueLease> {
        let skips_open = self.flaw == Flaw::SkipsStaleIntents;
        let mut ids: Vec<_> = self
            .ledger
            .leases
            .iter()
            .filter(|(_, row)| row.scope.backend() == backend)
            .filter(|(_, row)| !(skips_open && row.state == LeaseState::Open))
            .filter_map(|(id, row)| Some((row.act_at.filter(|at| *at <= now)?, *id)))
            .collect();
        ids.sort_unstable();
        ids.truncate(limit);
        ids.into_iter().map(|(_, id)| self.take_one(id, now)).collect()
    }

    fn take_one(&mut self, id: IntentId, now: Timestamp) -> DueLease {
        let row = self.ledger.row(id);
        let fell = match row.state {
            LeaseState::Open => Some((LeaseEvent::IntentFailed, DueCause::IntentTimeout)),
            LeaseState::Active => Some((LeaseEvent::FellDue, DueCause::TtlReached)),
            _ => None,
        };
        if let Some((event, cause)) = fell {
            let act_at = row.act_at;
            row.fall_due(event, cause, act_at);
            let entry = Entry::lease_due(&row.due(id), cause, now);
            self.ledger.append(entry);
        }
        self.ledger.row(id).due(id)
    }

    fn record_revocation(
        &mut self,
        lease: &Seen,
        outcome: &RevokeOutcome,
        now: Timestamp,
    ) -> LeaseState {
        let row = self.ledger.row(lease.id);
        if row.state != lease.state {
            return row.state;
        }
        row.state = row.state.after(outcome.event()).expect("the core allows it");
        row.act_at = match outcome {
            RevokeOutcome::Gone | RevokeOutcome::RanOut => None,
            RevokeOutcome::CannotRevoke => Some(row.expires_at),
            RevokeOutcome::Failed { next_attempt_at, .. } => {
                row.attempts += 1;
                *next_attempt_at
            }
        };
        let state = row.state;
        let entry = Entry::revocation(&row.due(lease.id), outcome, state, now);
        self.ledger.append(entry);
        match state {
            LeaseState::Stuck => self.coverage.stuck += 1,
            LeaseState::Lapsing => self.coverage.lapsed += 1,
            LeaseState::Revoked => self.coverage.revoked += 1,
            _ => {}
        }
        state
    }
}

struct Opening {
    entry: Entry,
    snapshot: SnapshotDigest,
    limits: Vec<LeaseLimit>,
    issues: Vec<IssueLimit>,
}

struct Closing {
    snapshot: SnapshotDigest,
    withdrawn: bool,
}

struct Seen {
    id: IntentId,
    state: LeaseState,
}

fn hasten(row: &mut Row, now: Timestamp) {
    if row.state == LeaseState::Due {
        row.act_at = row.act_at.map(|at| at.min(now));
    }
}

impl Sim {
    /// Submits a job and waits for its commit. The job is in the queue from the first poll on,
    /// and stays there if the future is dropped.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T, JournalError> {
        let answer = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&answer);
        self.world().queue.push_back(Box::new(move |world| {
            *slot.lock().unwrap() = Some(if world.faults.journal_down {
                world.coverage.journal_refusals += 1;
                Err(JournalError::Unwritable("simulated".to_owned()))
            } else {
                world.remember_before();
                Ok(job(world))
            });
        }));
        std::future::poll_fn(|_| match answer.lock().unwrap().take() {
            Some(done) => Poll::Ready(done),
            None => Poll::Pending,
        })
        .await
    }
}

/// Few a page, so that a pass has several and much can happen in between.
const PAGE_MAX: usize = 2;

impl Journal for Sim {
    async fn begin_session(
        &self,
        session: &Session,
        token: &KnownToken,
        begun: &Begun,
    ) -> Result<JournalSeq, BeginError> {
        let entry = Entry::session_begun(session, token, begun);
        let row = SessionRow { session: session.clone(), ended: false };
        self.write(move |world| world.begin_session(row, entry)).await?
    }

    async fn bind_session(
        &self,
        session: &Session,
        binding: &Binding,
        now: Timestamp,
    ) -> Result<Option<JournalSeq>, JournalError> {
        let (id, entry) = (session.id(), Entry::session_rebound(session, binding, now));
        self.write(move |world| {
            let runs = world.ledger.sessions.get(&id).is_some_and(|row| !row.ended);
            runs.then(|| world.ledger.append(entry))
        })
        .await
    }

    async fn end_session(
        &self,
        session: SessionId,
        cause: EndCause,
        now: Timestamp,
    ) -> Result<Option<SessionEnded>, JournalError> {
        self.write(move |world| world.end_session(session, cause, now)).await
    }

    async fn record_denial(
        &self,
        id: DenialId,
        denial: &Denial,
    ) -> Result<JournalSeq, JournalError> {
        self.record(Entry::denied(id, denial)).await
    }

    async fn record(&self, entry: Entry) -> Result<JournalSeq, JournalError> {
        self.write(move |world| world.ledger.append(entry)).await
    }

    async fn open_intent(
        &self,
        id: IntentId,
        permit: &Permit,
        now: Timestamp,
    ) -> Result<JournalSeq, OpenError> {
        let row = Row::of(permit, now);
        let entry = Entry::intent_opened(id, permit, now);
        let limits = permit.lease_limits().to_vec();
        let issues = permit.issue_limits().1.to_vec();
        let opening = Opening { entry, snapshot: permit.snapshot(), limits, issues };
        self.write(move |world| world.open_intent(id, row, opening)).await?
    }

    async fn close_intent(
        &self,
        intent: &Intent,
        minted: Minted<'_>,
        now: Timestamp,
    ) -> Result<(), CloseError> {
        let id = intent.id();
        let entry = Entry::lease_issued(intent, &minted, now);
        let closing = Closing {
            snapshot: minted.standing.snapshot(intent),
            withdrawn: matches!(minted.standing, Standing::Withdrawn(_)),
        };
        self.write(move |world| world.close_intent(id, entry, &closing)).await?
    }

    async fn fail_intent(
        &self,
        intent: &Intent,
        error: &PluginError,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (id, sent) = (intent.id(), error.request_sent);
        let entry = Entry::issue_failed(intent, error, now);
        self.write(move |world| world.fail_intent(id, entry, sent)).await
    }

    async fn release_lease(
        &self,
        session: SessionId,
        lease: IntentId,
        now: Timestamp,
    ) -> Result<Option<LeaseState>, JournalError> {
        self.write(move |world| world.release_lease(session, lease, now)).await
    }

    async fn leases(&self, session: SessionId) -> Result<Vec<Lease>, JournalError> {
        let world = self.world();
        let of_session = |(_, row): &(_, &Row)| row.session == session && !row.state.is_final();
        Ok(world.ledger.leases.iter().filter(of_session).map(|(id, row)| row.lease(*id)).collect())
    }

    async fn live_sessions_after(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<Session>, JournalError> {
        self.dawdle().await;
        let world = self.world();
        let rows = world.ledger.sessions.values().filter(|row| !row.ended);
        let later = rows.filter(|row| after.is_none_or(|after| row.session.id() > after));
        Ok(later.take(limit.min(PAGE_MAX)).map(|row| row.session.clone()).collect())
    }

    async fn held_leases_after(
        &self,
        after: Option<(SessionId, IntentId)>,
        limit: usize,
    ) -> Result<Vec<HeldLease>, JournalError> {
        self.dawdle().await;
        let world = self.world();
        let mut held: Vec<_> = world
            .ledger
            .leases
            .iter()
            .filter(|(_, row)| matches!(row.state, LeaseState::Open | LeaseState::Active))
            .filter_map(|(id, row)| {
                let session = world.ledger.sessions.get(&row.session).filter(|of| !of.ended)?;
                Some(row.held(*id, Arc::new(session.session.clone())))
            })
            .filter(|held| after.is_none_or(|after| (held.session.id(), held.id) > after))
            .collect();
        held.sort_by_key(|held| (held.session.id(), held.id));
        held.truncate(limit.min(PAGE_MAX));
        Ok(held)
    }

    async fn withdraw(
        &self,
        withdrawals: Vec<Withdrawal>,
        now: Timestamp,
    ) -> Result<Withdrawn, WithdrawError> {
        self.write(move |world| world.withdraw(&withdrawals, now)).await?
    }

    async fn take_due(
        &self,
        backend: &BackendName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<DueLease>, JournalError> {
        let backend = backend.clone();
        self.write(move |world| world.take_due(&backend, now, limit)).await
    }

    async fn next_due_at(&self, backend: &BackendName) -> Result<Option<Timestamp>, JournalError> {
        let world = self.world();
        let of_backend = world.ledger.leases.values().filter(|row| row.scope.backend() == backend);
        Ok(of_backend.filter_map(|row| row.act_at).min())
    }

    async fn record_revocation(
        &self,
        lease: &DueLease,
        outcome: &RevokeOutcome,
        now: Timestamp,
    ) -> Result<LeaseState, JournalError> {
        let (seen, outcome) = (Seen { id: lease.id, state: lease.state }, outcome.clone());
        self.write(move |world| world.record_revocation(&seen, &outcome, now)).await
    }

    async fn record_gone(&self, leases: &[DueLease], now: Timestamp) -> Result<(), JournalError> {
        let seen: Vec<_> = leases.iter().map(|l| Seen { id: l.id, state: l.state }).collect();
        self.write(move |world| {
            for lease in &seen {
                world.record_revocation(lease, &RevokeOutcome::Gone, now);
            }
        })
        .await
    }
}
