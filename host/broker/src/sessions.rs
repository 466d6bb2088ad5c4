//! The sessions that live now, by token, with when each was last heard of. The journal is the
//! truth; this is what of it every request needs at once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use claviger_core::admin::Selector;
use claviger_core::binding::Binding;
use claviger_core::ids::SessionId;
use claviger_core::name::RoleName;
use claviger_core::ports::{Journal, JournalError};
use claviger_core::prompt::PromptDigest;
use claviger_core::session::{EndCause, KnownToken, Session, TokenHash};
use claviger_core::time::Timestamp;

use crate::broker::now;
use crate::identity::{Identities, withdrawal};
use crate::journal::SqliteJournal;

/// All live sessions.
pub struct Sessions {
    live: RwLock<HashMap<TokenHash, Arc<LiveSession>>>,
    live_max: usize,
}

/// One live session, where its token is good, and its heartbeat.
pub struct LiveSession {
    session: Arc<Session>,
    /// Held for writing while a change of it is recorded, so that no two changes cross.
    pub(crate) binding: tokio::sync::RwLock<Binding>,
    started: Instant,
    last_seen_millis: AtomicU64,
    watchers: AtomicU32,
}

/// Keeps a session alive while it exists: an open `Watch`.
pub struct Watcher(Arc<LiveSession>);

impl Sessions {
    /// The sessions that the journal says are live; their heartbeat starts anew, so that a
    /// restart of the broker ends none of them.
    pub fn new(live_max: usize, recorded: Vec<(KnownToken, Session)>) -> Self {
        let live = recorded
            .into_iter()
            .map(|(token, session)| {
                let live = LiveSession::new(Arc::new(session), token.binding);
                (token.hash, Arc::new(live))
            })
            .collect();
        Self { live: RwLock::new(live), live_max }
    }

    /// Whether another session fits under the bound.
    pub fn has_room(&self) -> bool {
        self.len() < self.live_max
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Remembers a session that has just begun. `false`, and it is not kept, if it has ended since:
    /// whoever ended it told those who were remembered then, and nobody would ever forget it. So
    /// the journal is asked last: what ends after the answer finds the session here. For the same
    /// reason it is ended here if a key that proved it was withdrawn since.
    pub async fn remember(
        &self,
        journal: &SqliteJournal,
        identities: &Identities,
        (token, session): (KnownToken, Arc<Session>),
    ) -> Result<bool, JournalError> {
        let id = session.id();
        if !self.insert(token, Arc::clone(&session)) {
            return Ok(false);
        }
        // After an error it stays: nobody has its token, and as a silent one it is ended.
        if withdrawal::is_withdrawn(identities, &session) {
            journal.end_session(id, EndCause::KeyWithdrawn, now()).await?;
            tracing::warn!(session.id = %id, "a session ended as it began: its key was withdrawn");
        }
        if journal.is_running(id).await? {
            return Ok(true);
        }
        self.remove(id);
        Ok(false)
    }

    /// `false`, and it is not kept, if the one above it has ended: then so has this one.
    #[must_use]
    fn insert(&self, token: KnownToken, session: Arc<Session>) -> bool {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = session.parent()
            && !live.values().any(|other| other.session.id() == parent.session)
        {
            return false;
        }
        live.insert(token.hash, Arc::new(LiveSession::new(session, token.binding)));
        true
    }

    /// The session of that token.
    pub fn find(&self, hash: &TokenHash) -> Option<Arc<LiveSession>> {
        self.read().get(hash).cloned()
    }

    /// Forgets a session that has ended, and those below it.
    pub fn remove(&self, id: SessionId) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, live| {
            let session = &live.session;
            session.id() != id && session.ancestors().iter().all(|above| above.session != id)
        });
    }

    /// Forgets sessions that have ended, all in one pass.
    pub fn forget<'a>(&self, ended: impl Iterator<Item = &'a SessionId>) {
        let ended: HashSet<_> = ended.collect();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, session| !ended.contains(&session.session.id()));
    }

    /// The session of that id, for operators: agents come with a token.
    pub fn by_id(&self, id: SessionId) -> Option<Arc<Session>> {
        let live = self.read();
        let found = live.values().find(|live| live.session.id() == id);
        found.map(|live| Arc::clone(&live.session))
    }

    /// The sessions that `selector` selects.
    pub fn selected(&self, selector: &Selector) -> Vec<SessionId> {
        let live = self.read();
        let selected = live.values().filter(|live| selector.selects(&live.session));
        selected.map(|live| live.session.id()).collect()
    }

    /// The roles of the sessions that began with the prompt file of that digest.
    pub fn roles_of(&self, digest: &PromptDigest) -> BTreeSet<RoleName> {
        let live = self.read();
        let with = live.values().filter(|live| live.session.prompt_digest() == digest);
        with.map(|live| live.session.role().clone()).collect()
    }

    /// The sessions whose time is over: their life, or their heartbeat grace.
    pub fn overdue(&self, now: Timestamp, grace: Duration) -> Vec<(SessionId, EndCause)> {
        let cause = |live: &LiveSession| {
            if !live.session.is_live_at(now) {
                return Some(EndCause::LifeReached);
            }
            live.is_silent(grace).then_some(EndCause::HeartbeatLost)
        };
        self.read().values().filter_map(|live| Some((live.session.id(), cause(live)?))).collect()
    }

    /// The sessions that are as wanted.
    pub fn of_whom(&self, is_wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let live = self.read();
        live.values().filter(|live| is_wanted(&live.session)).map(|l| l.session.id()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<TokenHash, Arc<LiveSession>>> {
        // The map is replaced or changed in single steps; a panic elsewhere leaves it whole.
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveSession {
    fn new(session: Arc<Session>, binding: Binding) -> Self {
        Self {
            session,
            binding: tokio::sync::RwLock::new(binding),
            started: Instant::now(),
            last_seen_millis: AtomicU64::new(0),
            watchers: AtomicU32::new(0),
        }
    }

    /// The session.
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// It was heard of now.
    pub fn seen(&self) {
        self.last_seen_millis.store(self.elapsed_millis(), Ordering::Relaxed);
    }

    /// Keeps it alive until the watcher is dropped.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        Watcher(Arc::clone(self))
    }

    fn is_silent(&self, grace: Duration) -> bool {
        let silent =
            self.elapsed_millis().saturating_sub(self.last_seen_millis.load(Ordering::Relaxed));
        self.watchers.load(Ordering::Relaxed) == 0 && Duration::from_millis(silent) >= grace
    }

    /// By the monotonic clock, so that a step of the wall clock ends no session.
    fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Watcher {
    /// The session that is watched.
    pub fn session(&self) -> &Arc<Session> {
        &self.0.session
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // First the time, then the count: in the other order the session looks silent in between.
        self.0.seen();
        self.0.watchers.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use claviger_core::fixture;

    use super::*;

    fn token(number: u8) -> KnownToken {
        let hash = TokenHash::from_record([number; 32]);
        KnownToken { hash, binding: Binding::Unix { uid: 1 } }
    }

    #[test]
    fn forgets_what_is_below_and_takes_nothing_below_what_is_gone() {
        let snapshot = fixture::snapshot();
        let (top, other) = (fixture::session_in(&snapshot, 1), fixture::session_in(&snapshot, 2));
        let child = fixture::child_in(&snapshot, &top, 3);
        let grandchild = fixture::child_in(&snapshot, &child, 4);
        let sessions = Sessions::new(8, vec![]);
        for (number, session) in [(1, &top), (2, &other), (3, &child), (4, &grandchild)] {
            assert!(sessions.insert(token(number), Arc::clone(session)));
        }
        sessions.remove(top.id());
        let left: Vec<_> = sessions.read().values().map(|live| live.session.id()).collect();
        assert_eq!(left, [other.id()]);
        assert!(!sessions.insert(token(3), child), "its parent is gone");
        assert_eq!(sessions.len(), 1);
    }
}
