//! The invariants, checked from what is durable, what lives upstream and what clients hold; the
//! journal's own bookkeeping is not believed, its entries are read again.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use claviger_core::decide::TTL_MAX;
use claviger_core::flow::revoke::ATTEMPTS_MAX;
use claviger_core::ids::SessionId;
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::LeaseState;
use claviger_core::policy::SnapshotDigest;
use claviger_core::session::Ancestor;
use claviger_core::time::Timestamp;

use super::policies::{Known, SNAPSHOTS};
use super::world::World;

/// What the entries read so far say.
#[derive(Default)]
pub struct Checker {
    entries_read: usize,
    last: Option<Entry>,
    sessions: BTreeMap<SessionId, Seen>,
    snapshot: Option<SnapshotDigest>,
}

struct Seen {
    ends_at: Timestamp,
    ended: bool,
    requester: Option<String>,
    /// The sessions above it.
    above: Vec<SessionId>,
}

impl Checker {
    /// What must hold after every step.
    pub fn check(&mut self, world: &World) -> Result<(), String> {
        if let Some(violation) = world.violations.first() {
            return Err(violation.clone());
        }
        self.read_new_entries(world)?;
        live_credentials_are_recorded(world)?;
        one_credential_for_a_key(world)
    }

    fn read_new_entries(&mut self, world: &World) -> Result<(), String> {
        let entries = &world.ledger.entries;
        let last = self.entries_read.checked_sub(1).map(|index| entries.get(index));
        if last.is_some_and(|last| last.map(|(_, entry)| entry) != self.last.as_ref()) {
            return Err(format!("entries up to number {} were rewritten", self.entries_read));
        }
        for (seq, entry) in &entries[self.entries_read..] {
            self.entries_read += 1;
            if seq.get() != self.entries_read as u64 {
                return Err(format!("entries have a gap before {seq}"));
            }
            self.last = Some(entry.clone());
            self.read(world, entry)?;
        }
        Ok(())
    }

    fn read(&mut self, world: &World, entry: &Entry) -> Result<(), String> {
        match entry.event {
            Event::PoliciesLoaded => self.snapshot = entry.snapshot,
            Event::SessionBegun => self.begun(entry)?,
            Event::SessionEnded => self.session(entry)?.ended = true,
            Event::IntentOpened => self.permitted(world, entry)?,
            Event::LeaseIssued if entry.state == Some(LeaseState::Active) => {
                self.of_live_session(entry)?;
                self.granted(entry)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn session(&mut self, entry: &Entry) -> Result<&mut Seen, String> {
        let begun = self.sessions.get_mut(&entry.session.unwrap());
        begun.ok_or_else(|| format!("entry of a session that never began: {entry:?}"))
    }

    fn begun(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.snapshot != self.snapshot {
            return Err(format!("begun by a snapshot that is not current: {entry:?}"));
        }
        let above: Vec<_> = entry.ancestors.iter().map(|above| above.session).collect();
        let (ends_at, requester) = (entry.expires_at.unwrap(), entry.requester.clone());
        if let Some(parent) = above.last() {
            let parent =
                self.sessions.get(parent).ok_or("a child of a session that never began")?;
            if parent.ended || parent.ends_at <= entry.at {
                return Err(format!("begun below an ended session: {entry:?}"));
            }
            if parent.ends_at < ends_at || parent.requester != requester {
                return Err(format!("a child beyond its parent: {entry:?}"));
            }
            if parent.above != above[..above.len() - 1] {
                return Err(format!("another chain than the parent's: {entry:?}"));
            }
        }
        let seen = Seen { ends_at, ended: false, requester, above };
        self.sessions.insert(entry.session.unwrap(), seen);
        Ok(())
    }

    fn of_live_session(&mut self, entry: &Entry) -> Result<(), String> {
        let session = self.session(entry)?;
        if session.ended || session.ends_at <= entry.at {
            return Err(format!("issued to an ended session: {entry:?}"));
        }
        let above = session.above.clone();
        if above.iter().any(|id| self.sessions.get(id).is_none_or(|above| above.ended)) {
            return Err(format!("issued below an ended session: {entry:?}"));
        }
        if !entry.ancestors.iter().map(|above| above.session).eq(above) {
            return Err(format!("an entry without its chain: {entry:?}"));
        }
        Ok(())
    }

    /// By the snapshot in force, whether it is opened or handed out.
    fn granted(&self, entry: &Entry) -> Result<(), String> {
        if entry.snapshot != self.snapshot {
            return Err(format!("permitted by a snapshot that is not current: {entry:?}"));
        }
        let (role, scope) = (entry.role.as_ref().unwrap(), entry.scope.as_ref().unwrap());
        let known = deciding(entry.snapshot)?;
        if !known.grants.contains(&(role.as_str(), scope.as_str())) {
            return Err(format!("issued what its snapshot does not grant: {entry:?}"));
        }
        Ok(())
    }

    fn permitted(&mut self, world: &World, entry: &Entry) -> Result<(), String> {
        self.of_live_session(entry)?;
        self.granted(entry)?;
        within_the_budget(world, entry)?;
        let (at, ends_at) = (entry.at, self.session(entry)?.ends_at);
        if entry.expires_at.is_none_or(|end| end > at.after(TTL_MAX) || end > ends_at) {
            return Err(format!("outlives its session or the cap: {entry:?}"));
        }
        Ok(())
    }
}

/// Counted when the entry is read: after its own step, and before the next.
fn within_the_budget(world: &World, entry: &Entry) -> Result<(), String> {
    let known = deciding(entry.snapshot)?;
    let at = entry.at;
    let held = || {
        world.ledger.leases.values().filter(move |row| match row.state {
            LeaseState::Open | LeaseState::Active => true,
            // What an attempt to revoke has left may work until it expires.
            LeaseState::Due | LeaseState::Stuck => row.attempts > 0 && row.expires_at > at,
            LeaseState::Lapsing | LeaseState::Revoked | LeaseState::Expired => false,
        })
    };
    let of_role = held().filter(|row| Some(&row.role) == entry.role.as_ref()).count();
    let top = top_of(entry.session.unwrap(), &entry.ancestors);
    let of_tree = held().filter(|row| top_of(row.session, &row.ancestors) == top).count();
    if exceeds(of_role, known.role_max) || exceeds(of_tree, known.tree_max) {
        return Err(format!(
            "{of_role} leases of a role, {of_tree} of a tree, beyond a budget: {entry:?}"
        ));
    }
    Ok(())
}

fn exceeds(count: usize, most: Option<NonZeroU32>) -> bool {
    most.is_some_and(|most| count > most.get() as usize)
}

fn top_of(session: SessionId, ancestors: &[Ancestor]) -> SessionId {
    ancestors.first().map_or(session, |top| top.session)
}

fn deciding(snapshot: Option<SnapshotDigest>) -> Result<&'static Known, String> {
    let known = SNAPSHOTS.iter().find(|known| Some(known.snapshot.digest()) == snapshot);
    known.ok_or_else(|| "an unknown snapshot decided".to_owned())
}

/// What must hold once a pass under the snapshot in force was whole.
fn all_is_permitted_still(world: &World) -> Result<(), String> {
    let known = deciding(world.ledger.snapshot)?;
    for row in world.ledger.sessions.values().filter(|row| !row.ended) {
        let role = row.session.role();
        if !known.sessions.contains(&role.as_str()) {
            return Err(format!("a session of `{role}` lives and is no longer permitted"));
        }
    }
    let (mut of_roles, mut of_trees) = (BTreeMap::new(), BTreeMap::new());
    for row in world.ledger.leases.values().filter(|row| row.state == LeaseState::Active) {
        *of_roles.entry(&row.role).or_insert(0_usize) += 1;
        *of_trees.entry(top_of(row.session, &row.ancestors)).or_insert(0_usize) += 1;
    }
    if of_roles.values().any(|count| exceeds(*count, known.role_max))
        || of_trees.values().any(|count| exceeds(*count, known.tree_max))
    {
        return Err(format!(
            "leases beyond a budget are active and no longer permitted: {of_roles:?} {of_trees:?}"
        ));
    }
    // A lease of an ended session is for the check of endings.
    let runs = |id| world.ledger.sessions.get(id).is_some_and(|row| !row.ended);
    for (id, row) in world.ledger.leases.iter().filter(|(_, row)| runs(&row.session)) {
        let granted = known.grants.contains(&(row.role.as_str(), row.scope.as_str()));
        let within = row.expires_at.since(row.granted_at) <= known.ttl_max;
        if row.state == LeaseState::Active && !(granted && within) {
            return Err(format!("lease {id} is active and no longer permitted"));
        }
    }
    Ok(())
}

fn live_credentials_are_recorded(world: &World) -> Result<(), String> {
    for id in world.upstream.live.keys() {
        let state = world.ledger.leases.get(id).map(|row| row.state);
        if state.is_none_or(LeaseState::is_final) {
            return Err(format!("{id} works and has no lease that is not final ({state:?})"));
        }
    }
    Ok(())
}

fn one_credential_for_a_key(world: &World) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for (id, live) in &world.upstream.live {
        let Some(key) = &live.key else { continue };
        if let Some(other) = holders.insert((live.session, key), id) {
            return Err(format!("{id} and {other} work for one idempotency key"));
        }
    }
    Ok(())
}

/// What must hold once faults are over, the intent timeout has passed and the worker has run.
pub fn settled(world: &World) -> Result<(), String> {
    let sessions = &world.ledger.sessions;
    for (id, row) in sessions.iter().filter(|(_, row)| !row.ended) {
        let mut above = row.session.ancestors().iter();
        if let Some(gone) = above.find(|above| sessions[&above.session].ended) {
            return Err(format!("session {id} runs below {}, which has ended", gone.session));
        }
    }
    all_is_permitted_still(world)?;
    for (id, row) in &world.ledger.leases {
        let live = world.upstream.live.contains_key(id);
        let ended = world.ledger.sessions.get(&row.session).is_none_or(|session| session.ended);
        match row.state {
            LeaseState::Open => return Err(format!("intent {id} is still open")),
            LeaseState::Due => return Err(format!("lease {id} is still due")),
            LeaseState::Active if ended => {
                return Err(format!("lease {id} is active in an ended session"));
            }
            LeaseState::Active | LeaseState::Lapsing if row.expires_at <= world.now => {
                return Err(format!("lease {id} has expired and is {:?}", row.state));
            }
            LeaseState::Stuck => {
                let failed = world.upstream.revocations_failed.get(id).copied().unwrap_or(0);
                if failed < ATTEMPTS_MAX {
                    return Err(format!("lease {id} is stuck after {failed} failures"));
                }
            }
            LeaseState::Active | LeaseState::Lapsing => {}
            LeaseState::Revoked | LeaseState::Expired if live => {
                return Err(format!("lease {id} is {:?} and works", row.state));
            }
            LeaseState::Revoked | LeaseState::Expired => {}
        }
    }
    Ok(())
}

/// What must hold when every session is over and everything has had time to expire.
pub fn over(world: &World) -> Result<(), String> {
    settled(world)?;
    if let Some(id) = world.upstream.live.keys().next() {
        return Err(format!("{id} works after everything has expired"));
    }
    let unfinished = |(_, row): &(_, &super::ledger::Row)| {
        !row.state.is_final() && row.state != LeaseState::Stuck
    };
    match world.ledger.leases.iter().find(unfinished) {
        Some((id, row)) => Err(format!("lease {id} ends as {:?}", row.state)),
        None => Ok(()),
    }
}
