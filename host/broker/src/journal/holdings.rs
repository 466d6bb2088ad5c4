//! Who holds how many leases: in the writer's memory, beside the tables that say the same. Exact,
//! since the transaction that opens an intent counts, and what it undoes is undone here. Counts
//! nothing until somebody asks under a limit for the first time.

use std::collections::{BTreeSet, HashMap};

use claviger_core::budget::{LeaseLimit, Subject};
use claviger_core::catalog::RevocationClass;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::lease::LeaseState;
use claviger_core::name::{RoleName, ScopeName};
use claviger_core::session::Ancestor;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, Row};

use super::fault::Fault;
use super::leases::{NewLease, StoredLease};
use super::rows::{json, moment, named, parsed};

/// The leases that count, by whom they count for.
#[derive(Default)]
pub(super) struct Holdings {
    read: Read,
    held: HashMap<IntentId, Holding>,
    /// In the order in which they end by themselves.
    by_subject: HashMap<Subject, BTreeSet<(Timestamp, IntentId)>>,
    /// Those that count until they expire, in the order in which they do.
    given_up: BTreeSet<(Timestamp, IntentId)>,
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
    until: Until,
}

/// Until when a lease counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// While its agent holds it or is about to, however late it is ended.
    GivenUp,
    /// Nobody holds it, and it may go on working until it expires.
    Expired,
}

enum Undo {
    Added(IntentId),
    Removed(IntentId, Box<Holding>),
}

/// Until when a lease counts, if it does: while its agent holds it or is about to, and where
/// nothing can end it, or an attempt to end it has failed, until it has expired. Otherwise an agent
/// could give back what goes on working, and take more.
pub(super) const fn counts(
    state: LeaseState,
    revocation: RevocationClass,
    attempts: u32,
) -> Option<Until> {
    match (state, revocation) {
        (LeaseState::Open | LeaseState::Active, _) => Some(Until::GivenUp),
        (LeaseState::Lapsing | LeaseState::Stuck, _)
        | (LeaseState::Due, RevocationClass::ExpireOnly) => Some(Until::Expired),
        (LeaseState::Due, _) if attempts > 0 => Some(Until::Expired),
        (LeaseState::Due | LeaseState::Revoked | LeaseState::Expired, _) => None,
    }
}

impl Holding {
    /// What a lease to be counts for.
    pub(super) fn of(lease: &NewLease) -> Self {
        let session = (lease.session, lease.ancestors.as_slice());
        let (role, requester) = (lease.role.clone(), lease.requester.clone());
        Self {
            subjects: subjects(session, role, requester, lease.scope.clone()),
            expires_at: lease.expires_at,
            until: Until::GivenUp,
        }
    }

    /// What a lease counts for that has not counted for a while.
    pub(super) fn again(lease: &StoredLease, until: Until) -> Self {
        let session = (lease.session, lease.ancestors.as_slice());
        let (role, requester) = (lease.role.clone(), lease.parties.requester.clone());
        Self {
            subjects: subjects(session, role, requester, lease.scope.clone()),
            expires_at: lease.expires_at,
            until,
        }
    }

    fn read(row: &Row<'_>, until: Until) -> Result<Self, Fault> {
        let ancestors: Vec<Ancestor> = json(row, "ancestors")?;
        let session = (parsed(row, "session")?, ancestors.as_slice());
        let (role, requester) = (parsed(row, "role")?, row.get("requester")?);
        Ok(Self {
            subjects: subjects(session, role, requester, parsed(row, "scope")?),
            expires_at: moment(row, "expires_at")?,
            until,
        })
    }
}

fn subjects(
    (session, ancestors): (SessionId, &[Ancestor]),
    role: RoleName,
    requester: String,
    scope: ScopeName,
) -> [Subject; 5] {
    [
        Subject::of_session(session, ancestors),
        Subject::Role(role.clone()),
        Subject::Requester(requester),
        Subject::Backend(scope.backend().clone()),
        Subject::Scope(role, scope),
    ]
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
            let (state, revocation) = (named(row, "state")?, named(row, "revocation")?);
            if let Some(until) = counts(state, revocation, row.get("attempts")?) {
                self.put(parsed(row, "id")?, Holding::read(row, until)?);
            }
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
            self.undo.push(Undo::Removed(id, Box::new(holding)));
        }
    }

    /// A lease counts from here on, whether or not it did: until when, and when it expires.
    pub(super) fn keep(
        &mut self,
        id: IntentId,
        lasts: (Until, Timestamp),
        holding: impl FnOnce() -> Holding,
    ) {
        if self.held.contains_key(&id) {
            self.lasts(id, lasts);
        } else {
            self.add(id, holding);
        }
    }

    /// The same of one that counts; of another this changes nothing.
    pub(super) fn lasts(&mut self, id: IntentId, (until, expires_at): (Until, Timestamp)) {
        let differs = |held: &&Holding| (held.until, held.expires_at) != (until, expires_at);
        let Some(before) = self.held.get(&id).filter(differs).cloned() else { return };
        self.remove(id);
        self.add(id, || Holding { until, expires_at, ..before });
    }

    /// What nobody holds no longer counts once it has expired.
    pub(super) fn forget_expired(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.given_up.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(id);
        }
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
                Some(Undo::Removed(id, holding)) => self.put(id, *holding),
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
        if holding.until == Until::Expired {
            self.given_up.insert((holding.expires_at, id));
        }
        self.held.insert(id, holding);
    }

    fn take(&mut self, id: IntentId) -> Option<Holding> {
        let holding = self.held.remove(&id)?;
        self.given_up.remove(&(holding.expires_at, id));
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

/// Every lease that may count, with its requester; [`counts`] has the last word. The index is
/// partial, and found only if its condition is named; what is final, which grows with the years, is
/// not in it. The join begins there (`CROSS`), and not at every session that there ever was.
pub(super) const HELD: &str =
    "SELECT leases.id, leases.session, leases.role, leases.scope, leases.state, leases.revocation,
            leases.attempts, leases.expires_at, leases.ancestors, sessions.requester
     FROM leases INDEXED BY leases_unsettled CROSS JOIN sessions ON sessions.id = leases.session
     WHERE leases.state NOT IN ('revoked', 'expired')";

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
            until: Until::GivenUp,
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
        holdings.lasts(id(3), (Until::Expired, at(20)));
        holdings.forget_expired(at(20));
        assert_eq!(state(&holdings), (1, Some(at(50)), 5), "the third has expired");
        holdings.keep(id(3), (Until::Expired, at(20)), || holding(20));
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
        assert!(holdings.given_up.is_empty());
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
        use LeaseState::{Active, Due, Expired, Lapsing, Open, Revoked, Stuck};
        use RevocationClass::{DenyByPolicy, ExpireOnly, Revocable};
        for revocation in [DenyByPolicy, ExpireOnly, Revocable] {
            let check = |state, attempts, expect| {
                assert_eq!(counts(state, revocation, attempts), expect, "{state:?} {revocation:?}");
            };
            check(Open, 0, Some(Until::GivenUp));
            check(Active, 0, Some(Until::GivenUp));
            check(Due, 0, (revocation == ExpireOnly).then_some(Until::Expired));
            check(Due, 1, Some(Until::Expired));
            check(Lapsing, 0, Some(Until::Expired));
            check(Stuck, 12, Some(Until::Expired));
            check(Revoked, 1, None);
            check(Expired, 1, None);
        }
    }

    #[test]
    fn what_nobody_holds_counts_until_it_has_expired_and_what_is_held_until_it_is_given_up() {
        let mut holdings = Holdings { read: Read::Before, ..Holdings::default() };
        holdings.add(id(1), || holding(30));
        holdings.keep(id(2), (Until::Expired, at(40)), || Holding {
            until: Until::Expired,
            ..holding(40)
        });
        holdings.forget_expired(at(39));
        assert_eq!(state(&holdings), (2, Some(at(30)), 5));
        holdings.forget_expired(at(40));
        assert_eq!(state(&holdings), (1, Some(at(30)), 5));
        holdings.lasts(id(2), (Until::Expired, at(99)));
        assert_eq!(state(&holdings), (1, Some(at(30)), 5), "what does not count stays so");
    }
}
