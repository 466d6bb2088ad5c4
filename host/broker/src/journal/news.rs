//! What the journal tells the rest of the broker: its health, its figures, and what changed.
//! Tells only what is durable.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use claviger_core::decide::Denial;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::lease::{DueCause, LeaseState};
use claviger_core::name::BackendName;
use claviger_core::session::EndCause;
use claviger_core::time::Timestamp;

/// Something that has just become durable. A receiver that lags has missed some: it reads again
/// what it needs from the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalNews {
    /// A lease changed its state.
    LeaseChanged {
        /// Its session.
        session: SessionId,
        /// The lease.
        lease: IntentId,
        /// The state that it is in now.
        state: LeaseState,
        /// Why it fell due, if it did.
        cause: Option<DueCause>,
        /// When the credential stops working by itself.
        expires_at: Timestamp,
        /// What refuses it now, if that is why.
        why: Option<Why>,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        cause: EndCause,
        /// What refuses it now, if that is why.
        why: Option<Why>,
    },
    /// `next_due_at` of a backend is now earlier than it last answered.
    DueChanged {
        /// The backend.
        backend: BackendName,
    },
}

/// Why something is no longer permitted, for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The stable code of the refusal.
    pub code: &'static str,
    /// Its sentence.
    pub reason: String,
}

impl Why {
    /// What an agent may know of `denial`.
    pub(super) fn of(denial: &Denial) -> Self {
        Self { code: denial.reason.code(), reason: denial.reason.to_string() }
    }
}

/// Whether the journal can write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Writable,
    /// It cannot, and why. It looks again by itself, about twice a second.
    Unwritable(String),
}

impl Health {
    /// Whether the journal can write.
    pub const fn is_writable(&self) -> bool {
        matches!(self, Self::Writable)
    }
}

/// Figures for metrics. Read at any time; each is exact, all together are not one moment.
#[derive(Debug, Default)]
pub struct Stats {
    queued: AtomicUsize,
    commits: AtomicU64,
    entries: AtomicU64,
    commit_micros: AtomicU64,
    wal_pages: AtomicU64,
    leases: [AtomicU64; LeaseState::ALL.len()],
}

impl Stats {
    /// Writes that wait for the writer.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Commits since the start.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Entries recorded since the start.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// How long the last commit took.
    pub fn last_commit(&self) -> Duration {
        Duration::from_micros(self.commit_micros.load(Ordering::Relaxed))
    }

    /// Pages in the write-ahead log after the last commit.
    pub fn wal_pages(&self) -> u64 {
        self.wal_pages.load(Ordering::Relaxed)
    }

    /// How many leases are in each state.
    pub fn leases(&self) -> LeaseCounts {
        let mut counts = LeaseCounts::default();
        for (to, from) in counts.0.iter_mut().zip(&self.leases) {
            *to = from.load(Ordering::Relaxed);
        }
        counts
    }

    pub(super) fn enqueued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dequeued(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn committed(&self, took: Duration, entries: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.entries.fetch_add(entries, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.store(micros, Ordering::Relaxed);
    }

    pub(super) fn set_wal_pages(&self, pages: u64) {
        self.wal_pages.store(pages, Ordering::Relaxed);
    }

    pub(super) fn set_leases(&self, counts: &LeaseCounts) {
        for (to, from) in self.leases.iter().zip(&counts.0) {
            to.store(*from, Ordering::Relaxed);
        }
    }
}

/// How many leases are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts([u64; LeaseState::ALL.len()]);

impl LeaseCounts {
    /// How many are in `state`.
    pub fn of(&self, state: LeaseState) -> u64 {
        self.iter().find(|(at, _)| *at == state).map_or(0, |(_, count)| count)
    }

    /// Every state with its count.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseState, u64)> {
        LeaseState::ALL.into_iter().zip(self.0)
    }

    /// `count` leases came into `state`.
    pub(super) fn add(&mut self, state: LeaseState, count: u64) {
        self.change(state, |before| before.saturating_add(count));
    }

    /// `count` leases left `state`.
    pub(super) fn remove(&mut self, state: LeaseState, count: u64) {
        self.change(state, |before| before.saturating_sub(count));
    }

    /// As the journal keeps them.
    pub(super) fn to_json(self) -> String {
        let counts: serde_json::Map<_, _> =
            self.iter().map(|(state, count)| (state.as_str().to_owned(), count.into())).collect();
        serde_json::Value::Object(counts).to_string()
    }

    /// As the journal kept them.
    pub(super) fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let kept: BTreeMap<LeaseState, u64> = serde_json::from_str(text)?;
        let mut counts = Self::default();
        for (state, count) in kept {
            counts.add(state, count);
        }
        Ok(counts)
    }

    fn change(&mut self, state: LeaseState, change: impl FnOnce(u64) -> u64) {
        let mut slots = LeaseState::ALL.iter().zip(&mut self.0);
        if let Some((_, slot)) = slots.find(|(at, _)| **at == state) {
            *slot = change(*slot);
        }
    }
}

/// The earliest moment per backend that `next_due_at` last answered, so that only an earlier
/// moment is news: ten thousand intents a second must not wake the worker ten thousand times.
#[derive(Debug, Default)]
pub(super) struct Alarms(Mutex<BTreeMap<BackendName, Option<Timestamp>>>);

impl Alarms {
    /// `next_due_at` is about to read: from here until [`Alarms::set`], everything is news.
    /// What commits after the read is then told, and what committed before is in the answer.
    pub(super) fn clear(&self, backend: &BackendName) {
        if let Ok(mut alarms) = self.0.lock() {
            alarms.insert(backend.clone(), None);
        }
    }

    /// `next_due_at` has answered.
    pub(super) fn set(&self, backend: &BackendName, at: Option<Timestamp>) {
        if let Ok(mut alarms) = self.0.lock() {
            alarms.insert(backend.clone(), at);
        }
    }

    /// The backends that have been asked about.
    pub(super) fn backends(&self) -> Vec<BackendName> {
        self.0.lock().map(|alarms| alarms.keys().cloned().collect()).unwrap_or_default()
    }

    /// The worker must now act on `backend` at `at`. Whether that is news.
    pub(super) fn ring(&self, backend: &BackendName, at: Timestamp) -> bool {
        let Ok(mut alarms) = self.0.lock() else { return true };
        match alarms.get_mut(backend) {
            Some(Some(known)) if *known < at => false,
            Some(known) => {
                *known = Some(at);
                true
            }
            None => {
                alarms.insert(backend.clone(), Some(at));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_earlier_moment_is_news() {
        let backend: BackendName = "orders-db".parse().unwrap();
        let at = Timestamp::from_unix_millis;
        let alarms = Alarms::default();
        assert!(alarms.ring(&backend, at(50)));
        assert!(!alarms.ring(&backend, at(60)));
        assert!(alarms.ring(&backend, at(40)));
        alarms.clear(&backend);
        assert!(alarms.ring(&backend, at(60)), "committed while `next_due_at` was reading");
        alarms.set(&backend, Some(at(70)));
        assert!(!alarms.ring(&backend, at(80)));
        alarms.set(&backend, None);
        assert!(alarms.ring(&backend, at(80)), "nothing was due, so anything is earlier");
    }
}
