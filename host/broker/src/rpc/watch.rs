//! The `Watch` stream: the session's heartbeat and its news. What the news does not tell, because
//! the stream was not there yet or lagged, is asked of the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ids::{IntentId, SessionId};
use claviger_core::lease::{DueCause, LeaseState};
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{convert, status};
use crate::app::drained;
use crate::authenticate::AuthenticateError;
use crate::broker::now;
use crate::journal::{ENDED_AT_ONCE, JournalNews, LeaseQuery, SqliteJournal, Why};
use crate::sessions::Watcher;
use crate::tls::is_over;

/// What one stream needs.
pub struct Watched {
    /// Keeps the session alive.
    pub watcher: Watcher,
    /// How often a heartbeat is sent.
    pub beat: Duration,
    /// When the certificate of the connection expires, if it has one.
    pub proof_ends: Option<Timestamp>,
    /// Turns true when the broker shuts down.
    pub draining: watch::Receiver<bool>,
}

type Reply = Result<v1::WatchResponse, Status>;

/// Starts the stream. It ends with the session, with the client, or with the broker.
pub fn start(journal: Arc<SqliteJournal>, watched: Watched) -> ReceiverStream<Reply> {
    let (sender, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
    tokio::spawn(async move {
        let gone = sender.clone();
        let account = Account::new(&journal, watched.watcher.session().id(), journal.news());
        tokio::select! {
            () = run(watched, account, sender) => {}
            () = gone.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn run(watched: Watched, account: Account<'_>, sender: mpsc::Sender<Reply>) {
    if let Err(last_word) = tell(&watched, account, &sender).await {
        let _gone = sender.send(Err(last_word)).await;
    }
}

async fn tell(
    watched: &Watched,
    mut account: Account<'_>,
    sender: &mpsc::Sender<Reply>,
) -> Result<(), Status> {
    let of_journal = |error: JournalError| status::of_journal(&error);
    let mut events = account.begin(now()).await.map_err(of_journal)?;
    let mut draining = watched.draining.clone();
    let mut beat = tokio::time::interval(watched.beat);
    loop {
        for event in events {
            let last = matches!(event, Event::SessionEnding(_));
            let sent = sender.send(Ok(v1::WatchResponse { event: Some(event) })).await;
            if last || sent.is_err() {
                return Ok(());
            }
        }
        if watched.proof_ends.is_some_and(|ends| is_over(ends, now())) {
            return Err(status::of_authentication(&AuthenticateError::ExpiredCertificate));
        }
        let wait = account.warnings.next().map_or(IDLE_WAIT, |(at, ..)| at.since(now()));
        let wait = wait.min(watched.proof_left());
        events = tokio::select! {
            _ = beat.tick() => vec![heartbeat(now())],
            () = tokio::time::sleep(wait) => account.warnings.take(now()).into_iter().collect(),
            () = drained(&mut draining) => vec![ending("draining", None)],
            heard = account.news.recv() => account.hear(heard, now()).await.map_err(of_journal)?,
        };
    }
}

impl Watched {
    /// Until the certificate has expired; without one there is nothing to wait for.
    fn proof_left(&self) -> Duration {
        // The last second still counts.
        self.proof_ends.map_or(IDLE_WAIT, |ends| ends.since(now()) + Duration::from_secs(1))
    }
}

/// What is known to the client of its session, so that what it missed can be told.
struct Account<'a> {
    journal: &'a SqliteJournal,
    session: SessionId,
    news: broadcast::Receiver<JournalNews>,
    /// Where each lease stood last; those in a final state are left out.
    leases: BTreeMap<IntentId, LeaseState>,
    warnings: Warnings,
}

/// Where a lease stands.
struct LeaseNow {
    id: IntentId,
    state: LeaseState,
    cause: Option<DueCause>,
    expires_at: Timestamp,
    why: Option<Why>,
}

impl<'a> Account<'a> {
    /// Subscribed before the journal is asked, so that no change falls between the two.
    fn new(
        journal: &'a SqliteJournal,
        session: SessionId,
        news: broadcast::Receiver<JournalNews>,
    ) -> Self {
        let (leases, warnings) = (BTreeMap::new(), Warnings::default());
        Self { journal, session, news, leases, warnings }
    }

    /// The end of the session, if it came before anybody listened. Its leases the client lists.
    async fn begin(&mut self, now: Timestamp) -> Result<Vec<Event>, JournalError> {
        let mut events = self.look(now).await?;
        events.retain(|event| matches!(event, Event::SessionEnding(_)));
        Ok(events)
    }

    async fn hear(
        &mut self,
        heard: Result<JournalNews, RecvError>,
        now: Timestamp,
    ) -> Result<Vec<Event>, JournalError> {
        match heard {
            Ok(JournalNews::SessionEnded { session, cause, why }) if session == self.session => {
                Ok(vec![ending(cause.as_str(), why)])
            }
            Ok(JournalNews::LeaseChanged { session, lease: id, state, cause, expires_at, why })
                if session == self.session =>
            {
                let lease = LeaseNow { id, state, cause, expires_at, why };
                Ok(self.stands(lease, now).into_iter().collect())
            }
            Ok(_) => Ok(Vec::new()),
            Err(RecvError::Lagged(_)) => {
                // What is left of the old news is in the journal, and older than what it says.
                self.news = self.news.resubscribe();
                self.look(now).await
            }
            Err(RecvError::Closed) => Ok(vec![ending("draining", None)]),
        }
    }

    /// What the journal says and the client does not know. Why something is no longer permitted is
    /// told in the news alone. Of a lease that came and went unheard nothing is told: it is no
    /// longer listed.
    async fn look(&mut self, now: Timestamp) -> Result<Vec<Event>, JournalError> {
        let recorded = self.journal.session(self.session).await?;
        if let Some((_, cause)) = recorded.and_then(|row| row.end) {
            return Ok(vec![ending(cause.as_str(), None)]);
        }
        let query = LeaseQuery { session: Some(self.session), ..LeaseQuery::default() };
        let unsettled: Result<Vec<_>, _> = self.journal.lease_rows(query).collect().await;
        let mut rows = unsettled?;
        let listed: BTreeSet<IntentId> = rows.iter().map(|row| row.lease.id).collect();
        let known = self.leases.keys().copied();
        let settled: Vec<IntentId> = known.filter(|id| !listed.contains(id)).collect();
        for some in settled.chunks(ENDED_AT_ONCE) {
            rows.extend(self.journal.lease_rows_of(some.to_vec()).await?);
        }
        let mut events = Vec::new();
        for row in rows {
            let (id, state, expires_at) = (row.lease.id, row.lease.state, row.lease.expires_at);
            let lease = LeaseNow { id, state, cause: row.cause, expires_at, why: None };
            events.extend(self.stands(lease, now));
        }
        Ok(events)
    }

    /// Takes in where a lease stands. What the client knows already is no event, nor is that it
    /// may use it.
    fn stands(&mut self, lease: LeaseNow, now: Timestamp) -> Option<Event> {
        let LeaseNow { id, state, cause, expires_at, why } = lease;
        let before = match state.is_final() {
            true => self.leases.remove(&id),
            false => self.leases.insert(id, state),
        };
        if before == Some(state) {
            return None;
        }
        self.warnings.set(id, now, expiry(state, expires_at));
        if matches!(state, LeaseState::Open | LeaseState::Active) {
            return None;
        }
        let cause = cause.map(|cause| cause.as_str().to_owned()).unwrap_or_default();
        let (reason, code) = told(why);
        Some(Event::LeaseChanged(v1::LeaseChanged {
            lease_id: id.to_string(),
            state: convert::lease_state(state).into(),
            cause,
            reason,
            code,
        }))
    }
}

/// When to warn of which lease's expiry: once four fifths of its remaining life have passed.
#[derive(Default)]
struct Warnings(BTreeMap<(Timestamp, IntentId), Timestamp>);

impl Warnings {
    fn set(&mut self, lease: IntentId, now: Timestamp, expires_at: Option<Timestamp>) {
        self.0.retain(|(_, id), _| *id != lease);
        if let Some(expires_at) = expires_at {
            let warn_at = now.after(expires_at.since(now) * 4 / 5);
            self.0.insert((warn_at, lease), expires_at);
        }
    }

    fn next(&self) -> Option<(Timestamp, IntentId)> {
        self.0.keys().next().copied()
    }

    fn take(&mut self, now: Timestamp) -> Option<Event> {
        let entry = self.0.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (_, lease) = *entry.key();
        let expires_at = entry.remove();
        Some(Event::LeaseExpiring(v1::LeaseExpiring {
            lease_id: lease.to_string(),
            expires_at: Some(convert::timestamp(expires_at)),
        }))
    }
}

/// Only of active leases there is something to warn.
fn expiry(state: LeaseState, expires_at: Timestamp) -> Option<Timestamp> {
    (state == LeaseState::Active).then_some(expires_at)
}

fn heartbeat(now: Timestamp) -> Event {
    Event::Heartbeat(v1::Heartbeat { at: Some(convert::timestamp(now)) })
}

fn ending(cause: &str, why: Option<Why>) -> Event {
    let (reason, code) = told(why);
    Event::SessionEnding(v1::SessionEnding { cause: cause.to_owned(), reason, code })
}

/// The sentence and the code of a refusal; empty where nothing was refused.
fn told(why: Option<Why>) -> (String, String) {
    why.map(|why| (why.reason, why.code.to_owned())).unwrap_or_default()
}

/// A client that reads slower than this many events behind is waited for; what it misses meanwhile
/// is the broadcast's to drop, and the account's to find again.
const EVENTS_QUEUED_MAX: usize = 32;

/// With nothing to warn of, look again now and then.
const IDLE_WAIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
