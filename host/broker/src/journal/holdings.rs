//! Who holds how many leases: in the writer's memory, beside the tables that say the same. Exact,
//! since the transaction that opens an intent counts, and what it undoes is undone here. Counts
//! nothing until somebody asks under a limit for the first time.

use std::collections::{BTreeSet, HashMap};

use claviger_core::budget::{LeaseLimit, Subject};
use claviger_core::catalog::RevocationClass;
use claviger_core::ids::IntentId;
use claviger_core::lease::LeaseState;
use claviger_core::name::{RoleName, ScopeName};
use claviger_core::session::Ancestor;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, Row};

use super::fault::Fault;
use super::leases::NewLease;
use super::rows::{json, moment, parsed};

/// The leases that count, by whom they count for.
#[derive(Default)]
pub(super) struct Holdings {
    read: Read,
    held: HashMap<IntentId, Holding>,
    /// In the order in which they end by themselves.
    by_subject: HashMap<Subject, BTreeSet<(Timestamp, IntentId)>>,
    /// What this transaction has changed, oldest first.
    undo: Vec<Undo>,
}

/// Whether the tables have been read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Read {
    /// Nobody has asked yet. A broker without limits pays nothing.
    #[default]
    Not,
    /// In the transaction under way, and so with what it may yet undo.
    InThisTransaction,
    /// Before it.
    Before,
}

/// One lease that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    subjects: [Subject; 5],
    expires_at: Timestamp,
}

enum Undo {
    Added(IntentId),
    Removed(IntentId, Holding),
}

/// Whether a lease counts: while its agent holds it or is about to, and where nothing can end it,
/// until it has expired. Otherwise an agent could give back what goes on working, and take more.
pub(super) const fn is_held(state: LeaseState, revocation: RevocationClass) -> bool {
    match state {
        LeaseState::Open | LeaseState::Active => true,
        LeaseState::Due | LeaseState::Lapsing | LeaseState::Stuck => {
            matches!(revocation, RevocationClass::ExpireOnly)
        }
        LeaseState::Revoked | LeaseState::Expired => false,
    }
}

impl Holding {
    /// What `lease` counts for.
    pub(super) fn of(lease: &NewLease) -> Self {
        Self {
            subjects: [
                Subject::of_session(lease.session, &lease.ancestors),
                Subject::Role(lease.role.clone()),
                Subject::Requester(lease.requester.clone()),
                Subject::Backend(lease.scope.backend().clone()),
                Subject::Scope(lease.role.clone(), lease.scope.clone()),
            ],
            expires_at: lease.expires_at,
        }
    }

    fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let (role, scope): (RoleName, ScopeName) = (parsed(row, "role")?, parsed(row, "scope")?);
        let ancestors: Vec<Ancestor> = json(row, "ancestors")?;
        Ok(Self {
            subjects: [
                Subject::of_session(parsed(row, "session")?, &ancestors),
                Subject::Role(role.clone()),
                Subject::Requester(row.get("requester")?),
                Subject::Backend(scope.backend().clone()),
                Subject::Scope(role, scope),
            ],
            expires_at: moment(row, "expires_at")?,
        })
    }
}

impl Holdings {
    /// Reads the tables, unless they have been read. Ten thousand leases take about thirty
    /// milliseconds, once after a start.
    pub(super) fn ready(&mut self, conn: &Connection) -> Result<(), Fault> {
        if self.read != Read::Not {
            return Ok(());
        }
        let mut statement = conn.prepare_cached(HELD)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.put(parsed(row, "id")?, Holding::read(row)?);
        }
        self.read = Read::InThisTransaction;
        Ok(())
    }

    /// How many leases count for `of`.
    pub(super) fn count(&self, of: &Subject) -> u32 {
        let count = self.by_subject.get(of).map_or(0, BTreeSet::len);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The first of `limits` under which there is no room for one more.
    pub(super) fn full<'a>(&self, limits: &'a [LeaseLimit]) -> Option<&'a LeaseLimit> {
        limits.iter().find(|limit| self.count(&limit.of) >= limit.most.get())
    }

    /// Whether no more are held than each of `limits` allows.
    pub(super) fn is_within(&self, limits: &[LeaseLimit]) -> bool {
        limits.iter().all(|limit| self.count(&limit.of) <= limit.most.get())
    }

    /// When the next lease that counts for `of` ends by itself.
    pub(super) fn frees_at(&self, of: &Subject) -> Option<Timestamp> {
        self.by_subject.get(of)?.first().map(|(at, _)| *at)
    }

    pub(super) fn add(&mut self, id: IntentId, holding: impl FnOnce() -> Holding) {
        if self.read == Read::Not {
            return;
        }
        self.put(id, holding());
        self.undo.push(Undo::Added(id));
    }

    /// A lease that no longer counts, if it did.
    pub(super) fn remove(&mut self, id: IntentId) {
        if let Some(holding) = self.take(id) {
            self.undo.push(Undo::Removed(id, holding));
        }
    }

    /// A lease turns out to end at another time than was expected.
    pub(super) fn ends_at(&mut self, id: IntentId, at: Timestamp) {
        let Some(before) = self.held.get(&id).filter(|held| held.expires_at != at).cloned() else {
            return;
        };
        self.remove(id);
        self.add(id, || Holding { expires_at: at, ..before });
    }

    /// A point to which the changes of this transaction can be taken back.
    pub(super) const fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Undoes what was changed since `mark`.
    pub(super) fn take_back(&mut self, mark: usize) {
        if self.read == Read::InThisTransaction {
            // What was read may hold what is undone now; the next who asks reads again.
            *self = Self::default();
            return;
        }
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some(Undo::Added(id)) => drop(self.take(id)),
                Some(Undo::Removed(id, holding)) => self.put(id, holding),
                None => return,
            }
        }
    }

    /// The transaction is durable.
    pub(super) fn settle(&mut self) {
        self.undo.clear();
        if self.read == Read::InThisTransaction {
            self.read = Read::Before;
        }
    }

    fn put(&mut self, id: IntentId, holding: Holding) {
        for subject in &holding.subjects {
            let place = (holding.expires_at, id);
            // Looked up first: a name is copied for the first lease only.
            if let Some(held) = self.by_subject.get_mut(subject) {
                held.insert(place);
            } else {
                self.by_subject.insert(subject.clone(), BTreeSet::from([place]));
            }
        }
        self.held.insert(id, holding);
    }

    fn take(&mut self, id: IntentId) -> Option<Holding> {
        let holding = self.held.remove(&id)?;
        for subject in &holding.subjects {
            let Some(held) = self.by_subject.get_mut(subject) else { continue };
            held.remove(&(holding.expires_at, id));
            // A session that has ended leaves nothing behind.
            if held.is_empty() {
                self.by_subject.remove(subject);
            }
        }
        Some(holding)
    }
}

/// Every lease for which [`is_held`] holds, with its requester. The index is partial, and found
/// only if its condition is named; what is final, which grows with the years, is not in it. The join
/// begins there (`CROSS`), and not at every session that there ever was.
pub(super) const HELD: &str =
    "SELECT leases.id, leases.session, leases.role, leases.scope, leases.expires_at,
            leases.ancestors, sessions.requester
     FROM leases INDEXED BY leases_unsettled CROSS JOIN sessions ON sessions.id = leases.session
     WHERE leases.state NOT IN ('revoked', 'expired')
       AND (leases.state IN ('open', 'active') OR leases.revocation = 'expire-only')";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::num::NonZeroU32;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn id(number: u8) -> IntentId {
        IntentId::mint(at(1), &[number; 10])
    }

    fn role() -> Subject {
        Subject::Role("reader".parse().unwrap())
    }

    fn holding(expires_at: u64) -> Holding {
        let (role, scope): (RoleName, ScopeName) =
            ("reader".parse().unwrap(), "orders-db/readonly".parse().unwrap());
        Holding {
            subjects: [
                Subject::Session(claviger_core::ids::SessionId::mint(at(1), &[1; 10])),
                Subject::Role(role.clone()),
                Subject::Requester("unix:1000".to_owned()),
                Subject::Backend(scope.backend().clone()),
                Subject::Scope(role, scope),
            ],
            expires_at: at(expires_at),
        }
    }

    fn state(holdings: &Holdings) -> (u32, Option<Timestamp>, usize) {
        (holdings.count(&role()), holdings.frees_at(&role()), holdings.by_subject.len())
    }

    #[test]
    fn what_a_transaction_undoes_is_undone() {
        let mut holdings = Holdings { read: Read::Before, ..Holdings::default() };
        holdings.add(id(1), || holding(50));
        holdings.add(id(2), || holding(40));
        holdings.settle();
        let before = state(&holdings);
        assert_eq!(before, (2, Some(at(40)), 5));

        holdings.add(id(3), || holding(30));
        let mark = holdings.mark();
        holdings.remove(id(2));
        holdings.ends_at(id(3), at(20));
        holdings.remove(id(3));
        holdings.add(id(4), || holding(10));
        holdings.take_back(mark);
        assert_eq!(state(&holdings), (3, Some(at(30)), 5), "up to the mark");
        holdings.take_back(0);
        assert_eq!(state(&holdings), before);
        for number in [1, 2] {
            holdings.remove(id(number));
        }
        assert_eq!(state(&holdings), (0, None, 0), "nothing is left behind");
    }

    #[test]
    fn what_was_read_in_a_transaction_that_is_undone_is_read_again() {
        let mut holdings = Holdings { read: Read::InThisTransaction, ..Holdings::default() };
        holdings.put(id(1), holding(50));
        holdings.take_back(0);
        assert_eq!(state(&holdings), (0, None, 0));
        holdings.add(id(2), || holding(50));
        assert_eq!(state(&holdings), (0, None, 0), "nothing is counted until it is read");
    }

    #[test]
    fn the_last_place_is_taken_once() {
        let most = NonZeroU32::new(2).unwrap();
        let limits = [LeaseLimit { of: role(), most, policy: None }];
        let mut holdings = Holdings { read: Read::Before, ..Holdings::default() };
        holdings.add(id(1), || holding(50));
        assert_eq!(holdings.full(&limits), None);
        holdings.add(id(2), || holding(50));
        assert_eq!(holdings.full(&limits), Some(&limits[0]));
    }

    #[test]
    fn what_cannot_be_ended_counts_until_it_has_expired() {
        use LeaseState::{Due, Expired, Lapsing};
        for state in [Due, Lapsing] {
            assert!(is_held(state, RevocationClass::ExpireOnly));
            assert!(!is_held(state, RevocationClass::Revocable));
        }
        assert!(!is_held(Expired, RevocationClass::ExpireOnly));
    }
}
