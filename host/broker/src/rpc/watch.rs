//! The `Watch` stream: the session's heartbeat and its news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ids::IntentId;
use claviger_core::lease::LeaseState;
use claviger_core::ports::{Clock, Journal, Ports};
use claviger_core::time::Timestamp;
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{convert, status};
use crate::authenticate::AuthenticateError;
use crate::broker::Broker;
use crate::journal::{JournalNews, Why};
use crate::sessions::Watcher;

/// What one stream needs.
pub struct Watched {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Keeps the session alive.
    pub watcher: Watcher,
    /// How often a heartbeat is sent.
    pub beat: Duration,
    /// When the certificate of the connection expires, if it has one.
    pub proof_ends: Option<Timestamp>,
    /// Turns true when the broker shuts down.
    pub draining: tokio::sync::watch::Receiver<bool>,
}

type Reply = Result<v1::WatchResponse, Status>;

/// Starts the stream. It ends with the session, with the client, or with the broker.
pub fn start(watched: Watched) -> ReceiverStream<Reply> {
    let (sender, receiver) = tokio::sync::mpsc::channel(EVENTS_QUEUED_MAX);
    tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = run(watched, sender) => {}
            () = gone.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn run(watched: Watched, sender: Sender<Reply>) {
    // Subscribed before the leases are read, so that no change falls between the two.
    let mut news = watched.broker.journal.news();
    let session = watched.watcher.session().id();
    let mut warnings = Warnings::default();
    match watched.broker.journal().leases(session).await {
        Ok(leases) => leases.iter().for_each(|lease| {
            warnings.set(lease.id, watched.now(), expiry(lease.state, lease.expires_at));
        }),
        Err(error) => {
            let _gone = sender.send(Err(status::of_journal(&error))).await;
            return;
        }
    }
    let mut draining = watched.draining.clone();
    let mut beat = tokio::time::interval(watched.beat);
    loop {
        if watched.proof_ends.is_some_and(|ends| watched.now().whole_second() > ends) {
            let expired = status::of_authentication(&AuthenticateError::ExpiredCertificate);
            let _gone = sender.send(Err(expired)).await;
            return;
        }
        let warning = warnings.next();
        let wait = warning.map_or(IDLE_WAIT, |(at, ..)| at.since(watched.now()));
        let wait = wait.min(watched.proof_left());
        let event = tokio::select! {
            _ = beat.tick() => heartbeat(watched.now()),
            () = tokio::time::sleep(wait) => match warnings.take(watched.now()) {
                Some(event) => event,
                None => continue,
            },
            _ = draining.wait_for(|draining| *draining) => ending("draining", None),
            heard = news.recv() => match heard {
                Ok(JournalNews::SessionEnded { session: ended, cause, why }) if ended == session => {
                    ending(cause.as_str(), why)
                }
                Ok(JournalNews::LeaseChanged { session: of, lease, state, cause, expires_at, why }) if of == session => {
                    warnings.set(lease, watched.now(), expiry(state, expires_at));
                    if matches!(state, LeaseState::Open | LeaseState::Active) { continue }
                    let cause = cause.map(|cause| cause.as_str().to_owned()).unwrap_or_default();
                    let (reason, code) = told(why);
                    Event::LeaseChanged(v1::LeaseChanged {
                        lease_id: lease.to_string(),
                        state: convert::lease_state(state).into(),
                        cause,
                        reason,
                        code,
                    })
                }
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => ending("draining", None),
            },
        };
        let last = matches!(event, Event::SessionEnding(_));
        let sent = sender.send(Ok(v1::WatchResponse { event: Some(event) })).await;
        if last || sent.is_err() {
            return;
        }
    }
}

impl Watched {
    fn now(&self) -> Timestamp {
        self.broker.clock().now()
    }

    /// Until the certificate has expired; without one there is nothing to wait for.
    fn proof_left(&self) -> Duration {
        // The last second still counts.
        self.proof_ends.map_or(IDLE_WAIT, |ends| ends.since(self.now()) + Duration::from_secs(1))
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

/// A client that reads slower than this many events behind is waited for; the events it misses
/// meanwhile are the broadcast's to drop, and it can list its leases.
const EVENTS_QUEUED_MAX: usize = 32;

/// With nothing to warn of, look again now and then.
const IDLE_WAIT: Duration = Duration::from_secs(60);
