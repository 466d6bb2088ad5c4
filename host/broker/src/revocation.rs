//! An operator's revocation from the first look to the last credential: ends what is selected, a
//! batch at a time, looks again for what began meanwhile, and follows the leases until they are
//! gone, whoever made them due. Who may revoke has been decided before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use claviger_core::admin::Selector;
use claviger_core::decide::AdminPermit;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::journal::Entry;
use claviger_core::lease::LeaseState;
use claviger_core::ports::{Clock, Journal, JournalError, Ports};
use claviger_core::time::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use crate::app::drained;
use crate::broker::Broker;
use crate::journal::{ENDED_AT_ONCE, Ended, JournalNews, LeaseSeen, SqliteJournal, Word};

/// A revocation that was permitted.
pub struct Revocation {
    /// What ends.
    pub selector: Selector,
    /// Who was permitted to end it.
    pub permit: AdminPermit,
    /// The second operator, where it takes two.
    pub approver: Option<String>,
    /// Until when it is told.
    pub until: Until,
    /// Turns true when the broker shuts down.
    pub draining: watch::Receiver<bool>,
}

/// Until when a revocation is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Everything has fallen due.
    Due,
    /// The last lease is gone, stuck or lapsing.
    Gone,
}

/// Where a revocation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was ended: this is what would.
    WouldEnd,
    /// Sessions are being ended.
    Ending,
    /// Everything has fallen due.
    Following,
    /// Nothing is left to wait for.
    Done,
}

/// How far a revocation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub stage: Stage,
    /// Live sessions that matched.
    pub sessions_matched: u64,
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Leases that were in no final state.
    pub leases: u64,
    /// Of these, how many are gone.
    pub gone: u64,
    /// How many cannot be ended early.
    pub lapsing: u64,
    /// How many wait for an operator.
    pub stuck: u64,
    /// How many have failed and are tried again.
    pub failing: u64,
    /// When the last lapsing one expires.
    pub lapsed_at: Option<Timestamp>,
    /// Whether the last look still found something to end, so that more may have begun since.
    pub still_beginning: bool,
}

/// What a revocation would find now.
pub async fn outlook(
    journal: &SqliteJournal,
    selector: Selector,
) -> Result<Progress, JournalError> {
    let sessions = journal.selected_sessions(selector.clone()).await?;
    let mut tally = Tally { sessions_matched: count(sessions.len()), ..Tally::default() };
    for lease in journal.unsettled_of(selector).await? {
        tally.set(lease);
    }
    Ok(tally.progress(Stage::WouldEnd))
}

/// Begins. What has begun goes on when nobody listens any more; only the telling ends.
pub fn start(
    broker: Arc<Broker>,
    revocation: Revocation,
) -> mpsc::Receiver<Result<Progress, JournalError>> {
    let (told, receiver) = mpsc::channel(PROGRESS_QUEUED_MAX);
    // Subscribed before anything ends, so that no lease's end falls between the two.
    let news = broker.journal.news();
    let word = Word::of(&revocation.permit, revocation.approver.clone());
    let tally = Tally::default();
    let mut run = Run { broker, revocation, word, told, news, tally };
    tokio::spawn(async move {
        if let Err(error) = run.whole().await {
            let _gone = run.told.send(Err(error)).await;
        }
    });
    receiver
}

struct Run {
    broker: Arc<Broker>,
    revocation: Revocation,
    word: Word,
    told: mpsc::Sender<Result<Progress, JournalError>>,
    news: broadcast::Receiver<JournalNews>,
    tally: Tally,
}

impl Run {
    async fn whole(&mut self) -> Result<(), JournalError> {
        let ended = self.end_all().await;
        self.tally.still_beginning = matches!(ended, Ok(LastLook::FoundMore));
        // Recorded also when the journal failed half-way: what has ended has ended.
        let recorded = self.record_outcome(&ended).await;
        ended.and(recorded)?;
        if self.revocation.until == Until::Gone && !self.follow().await? {
            return Ok(());
        }
        // The last word waits for its reader, who may have gone.
        let _gone = self.told.send(Ok(self.tally.progress(Stage::Done))).await;
        Ok(())
    }

    /// Looks until a look finds nothing, [`LOOKS_MAX`] times at most: an agent that is told of its
    /// end may at once begin anew.
    async fn end_all(&mut self) -> Result<LastLook, JournalError> {
        for _ in 0..LOOKS_MAX {
            // Before each look, so that what ends by itself between the two is followed, too.
            self.find_unsettled().await?;
            let found = match &self.revocation.selector {
                Selector::Backend(backend) => {
                    let leases = self.broker.journal.leases_on(backend.clone()).await?;
                    self.end_leases(&leases).await?;
                    leases.len()
                }
                selector => {
                    let sessions = self.selected(selector.clone()).await?;
                    self.end_sessions(&sessions).await?;
                    sessions.len()
                }
            };
            if found == 0 {
                return Ok(LastLook::Empty);
            }
        }
        Ok(LastLook::FoundMore)
    }

    /// What fell due before counts like what falls due now: an earlier revocation may have been
    /// interrupted, or the agent may have closed its session a moment ago, and the backend may be
    /// down. Only what is gone is gone.
    async fn find_unsettled(&mut self) -> Result<(), JournalError> {
        let selector = self.revocation.selector.clone();
        for lease in self.broker.journal.unsettled_of(selector).await? {
            self.tally.set(lease);
        }
        self.mention(Stage::Ending);
        Ok(())
    }

    /// By the journal, and by memory, which forgets with it.
    async fn selected(&self, selector: Selector) -> Result<Vec<SessionId>, JournalError> {
        let remembered = self.broker.sessions.selected(&selector);
        let recorded = self.broker.journal.selected_sessions(selector).await?;
        let all: BTreeSet<_> = recorded.into_iter().chain(remembered).collect();
        Ok(all.into_iter().collect())
    }

    async fn end_sessions(&mut self, sessions: &[SessionId]) -> Result<(), JournalError> {
        for batch in sessions.chunks(ENDED_AT_ONCE) {
            let now = self.broker.clock().now();
            let journal = &self.broker.journal;
            let job = || journal.end_sessions(batch.to_vec(), self.word.clone(), now);
            let ended = patiently(job).await?;
            self.broker.sessions.forget(batch.iter().chain(&ended.sessions));
            let matched = batch.iter().filter(|id| ended.sessions.contains(id)).count();
            self.tally.sessions_matched += count(matched);
            self.take(&ended);
        }
        Ok(())
    }

    async fn end_leases(&mut self, leases: &[IntentId]) -> Result<(), JournalError> {
        for batch in leases.chunks(ENDED_AT_ONCE) {
            let now = self.broker.clock().now();
            let journal = &self.broker.journal;
            let job = || journal.end_leases(batch.to_vec(), self.word.clone(), now);
            let ended = patiently(job).await?;
            self.take(&ended);
        }
        Ok(())
    }

    fn take(&mut self, ended: &Ended) {
        self.tally.sessions_ended += count(ended.sessions.len());
        for lease in &ended.leases {
            let attempts = self.tally.leases.get(&lease.id).map_or(0, |seen| seen.attempts);
            self.tally.set(LeaseSeen { attempts, ..*lease });
        }
        self.mention(Stage::Ending);
    }

    async fn record_outcome(
        &self,
        ended: &Result<LastLook, JournalError>,
    ) -> Result<(), JournalError> {
        let what = outcome(&self.revocation.selector, &self.tally, ended);
        let now = self.broker.clock().now();
        let mut entry = Entry::operator_outcome(&self.revocation.permit, what, now);
        self.word.sign(&mut entry);
        self.broker.journal().record(entry).await.map(drop)
    }

    /// Hears of each lease, and reads again now and then: news may be missed, and failed attempts
    /// are no news. Whether the end was reached.
    async fn follow(&mut self) -> Result<bool, JournalError> {
        let mut tell = tokio::time::interval(TELL_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut draining = self.revocation.draining.clone();
        // What ended while this read comes as news, and news of a final state is the last.
        self.read_again().await?;
        while self.tally.waiting > 0 {
            tokio::select! {
                () = self.told.closed() => return Ok(false),
                () = drained(&mut draining) => return Ok(false),
                _ = tell.tick() => self.mention(Stage::Following),
                _ = look.tick() => self.read_again().await?,
                heard = self.news.recv() => match heard {
                    Ok(JournalNews::LeaseChanged { lease, state, .. }) => {
                        self.tally.changed(lease, state);
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.read_again().await?,
                    Err(RecvError::Closed) => return Ok(false),
                },
            }
        }
        Ok(true)
    }

    async fn read_again(&mut self) -> Result<(), JournalError> {
        let waiting = self.tally.waiting_ids();
        for batch in waiting.chunks(ENDED_AT_ONCE) {
            for lease in self.broker.journal.leases_seen(batch.to_vec()).await? {
                self.tally.set(lease);
            }
        }
        Ok(())
    }

    /// Progress, unless the reader is behind: nobody who reads slowly may slow the ending down.
    fn mention(&self, stage: Stage) {
        let _behind = self.told.try_send(Ok(self.tally.progress(stage)));
    }
}

/// What the last look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastLook {
    /// It found nothing more to end.
    Empty,
    /// It found something, which was ended; but more may have begun since.
    FoundMore,
}

/// What has been found and where it stands.
#[derive(Default)]
struct Tally {
    sessions_matched: u64,
    sessions_ended: u64,
    leases: HashMap<IntentId, LeaseSeen>,
    /// How many of them [`waits`] says wait; counted along, since there may be a hundred thousand.
    waiting: usize,
    still_beginning: bool,
}

impl Tally {
    fn set(&mut self, lease: LeaseSeen) {
        let before = self.leases.insert(lease.id, lease);
        let waited = before.is_some_and(|before| waits(before.state));
        self.waiting = self.waiting + usize::from(waits(lease.state)) - usize::from(waited);
    }

    fn changed(&mut self, lease: IntentId, state: LeaseState) {
        if let Some(seen) = self.leases.get(&lease).copied() {
            self.set(LeaseSeen { state, ..seen });
        }
    }

    fn waiting_ids(&self) -> Vec<IntentId> {
        self.leases.values().filter(|lease| waits(lease.state)).map(|lease| lease.id).collect()
    }

    fn progress(&self, stage: Stage) -> Progress {
        let of = |wanted: fn(&LeaseSeen) -> bool| {
            count(self.leases.values().filter(|lease| wanted(lease)).count())
        };
        let lapsing = self.leases.values().filter(|lease| lease.state == LeaseState::Lapsing);
        Progress {
            stage,
            sessions_matched: self.sessions_matched,
            sessions_ended: self.sessions_ended,
            leases: count(self.leases.len()),
            gone: of(|lease| lease.state.is_final()),
            lapsing: of(|lease| lease.state == LeaseState::Lapsing),
            stuck: of(|lease| lease.state == LeaseState::Stuck),
            failing: of(|lease| waits(lease.state) && lease.attempts > 0),
            lapsed_at: lapsing.map(|lease| lease.expires_at).max(),
            still_beginning: self.still_beginning,
        }
    }
}

/// What a revocation came to, for the journal.
fn outcome(selector: &Selector, tally: &Tally, ended: &Result<LastLook, JournalError>) -> String {
    let Progress { sessions_ended, leases, stuck, lapsing, .. } = tally.progress(Stage::Ending);
    let mut what =
        format!("{selector}: {sessions_ended} sessions ended, {leases} leases to be revoked");
    if stuck > 0 {
        what.push_str(&format!(", {stuck} of them stuck"));
    }
    if lapsing > 0 {
        what.push_str(&format!(", {lapsing} of them can only expire"));
    }
    match (ended, selector) {
        (Ok(LastLook::Empty), _) => {}
        (Ok(LastLook::FoundMore), Selector::Backend(_)) => {
            what.push_str("; not complete: new leases keep beginning");
        }
        (Ok(LastLook::FoundMore), _) => {
            what.push_str("; not complete: new sessions keep beginning");
        }
        (Err(error), _) => what.push_str(&format!("; not complete: {error}")),
    }
    what
}

/// Whether the worker, or the plugin's answer, will move the lease on by itself and soon.
const fn waits(state: LeaseState) -> bool {
    matches!(state, LeaseState::Open | LeaseState::Active | LeaseState::Due)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Does a job of the writer, again while its queue is full.
async fn patiently<J: Future<Output = Result<Ended, JournalError>>>(
    job: impl Fn() -> J,
) -> Result<Ended, JournalError> {
    for _ in 0..OVERLOADED_MAX {
        match job().await {
            Err(JournalError::Overloaded) => tokio::time::sleep(BREATH).await,
            ended => return ended,
        }
    }
    job().await
}

/// Progress messages that wait for a slow reader; each replaces the one before.
const PROGRESS_QUEUED_MAX: usize = 8;

/// An agent that begins anew whenever it is ended must not keep its operator for ever. After so many
/// looks the operator is told that it is not complete: to stop it takes a policy that forbids it.
const LOOKS_MAX: usize = 16;

/// A full queue empties in a fifth of a second; for a kill switch it is worth trying for longer.
const OVERLOADED_MAX: usize = 200;

/// See `OVERLOADED_MAX`.
const BREATH: Duration = Duration::from_millis(50);

/// Four times a second looks alive and costs nothing.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// The first retry of a failed attempt comes after about a second.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn what_is_not_complete_is_recorded_as_that() {
        let (role, backend) = ("reader".parse().unwrap(), "orders-db".parse().unwrap());
        let (role, backend) = (Selector::Role(role), Selector::Backend(backend));
        let end = |selector, ended| outcome(selector, &Tally::default(), &ended);
        let complete = end(&role, Ok(LastLook::Empty));
        assert!(!complete.contains("not complete"), "{complete}");
        for (told, expect) in [
            (end(&role, Ok(LastLook::FoundMore)), "; not complete: new sessions keep beginning"),
            (end(&backend, Ok(LastLook::FoundMore)), "; not complete: new leases keep beginning"),
            (end(&role, Err(JournalError::Overloaded)), "; not complete: "),
        ] {
            assert!(told.contains(expect), "{told}");
        }
    }
}
