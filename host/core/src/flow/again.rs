//! One pass over everything that lives, after a change of what decides: what is no longer permitted
//! is ended. Idempotent, bounded per step, and without input but the snapshot in force: what a pass
//! leaves, the next one takes.

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::budget::{LeaseLimit, Subject};
use crate::decide::{Denial, decide_lease_again, decide_session_again, one_too_many};
use crate::ids::SessionId;
use crate::lease::HeldLease;
use crate::name::RoleName;
use crate::policy::PolicySnapshot;
use crate::ports::{
    Clock, Held, Journal, JournalError, Policies, Ports, WithdrawError, Withdrawal,
};
use crate::session::Session;
use crate::time::Timestamp;

/// What passes know of each other.
#[derive(Debug, Default)]
pub struct Again {
    absent: Absent,
    passed: Passed,
}

/// What passes came to since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// How many sessions were decided.
    pub sessions: u64,
    /// How many leases were decided.
    pub leases: u64,
    /// The sessions that were ended.
    pub sessions_ended: Vec<SessionId>,
    /// How many leases fell due, with those of the sessions.
    pub leases_due: u64,
}

/// Why a pass stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PassError {
    /// Another snapshot is in force: a pass under that one takes over.
    #[error("the policies changed while what lives was being decided again")]
    Overtaken,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Again {
    /// Decides every session that lives, then every lease that its agent holds, and ends what is
    /// no longer permitted.
    ///
    /// Nothing escapes it: a session or an intent that began under an earlier snapshot was
    /// recorded before this one, and so is among what is read here; from then on the journal
    /// takes none that an earlier snapshot permitted.
    pub async fn pass<P: Ports>(&mut self, ports: &P) -> Result<(), PassError> {
        let snapshot = ports.policies().current();
        self.absent.keep(&snapshot);
        self.sessions(ports, &snapshot).await?;
        self.leases(ports, &snapshot).await
    }

    /// What the passes since the last call came to.
    pub fn take_passed(&mut self) -> Passed {
        std::mem::take(&mut self.passed)
    }

    /// When to pass again although nothing has changed, if ever.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.absent.0.values().min().map(|since| since.after(ABSENT_GRACE))
    }

    async fn sessions<P: Ports>(
        &mut self,
        ports: &P,
        snapshot: &PolicySnapshot,
    ) -> Result<(), PassError> {
        let mut after = None;
        loop {
            let page = ports.journal().live_sessions_after(after, SESSIONS_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id());
            let now = ports.clock().now();
            let mut withdrawals = Vec::new();
            for session in page {
                self.passed.sessions += 1;
                if let Some(denial) = self.refused(snapshot, &session, now) {
                    let (of, unless_within) = (Held::Session(session.id()), Vec::new());
                    withdrawals.push(Withdrawal { of, denial, unless_within });
                }
            }
            self.withdraw(ports, withdrawals).await?;
        }
    }

    async fn leases<P: Ports>(
        &mut self,
        ports: &P,
        snapshot: &PolicySnapshot,
    ) -> Result<(), PassError> {
        let mut after = None;
        let mut counted = Counted::default();
        loop {
            let page = ports.journal().held_leases_after(after, LEASES_AT_ONCE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some((last.session.id(), last.id));
            let now = ports.clock().now();
            let mut withdrawals = Vec::new();
            for lease in page {
                self.passed.leases += 1;
                withdrawals.extend(self.refused_lease(snapshot, &lease, (&mut counted, now)));
            }
            self.withdraw(ports, withdrawals).await?;
        }
    }

    /// Why `session` may not go on. One whose life is over is the reaper's.
    fn refused(
        &mut self,
        snapshot: &PolicySnapshot,
        session: &Session,
        now: Timestamp,
    ) -> Option<Denial> {
        if !session.is_live_at(now) || self.absent.spares(snapshot, session.role(), now) {
            return None;
        }
        decide_session_again(snapshot, session, now).err()
    }

    fn refused_lease(
        &mut self,
        snapshot: &PolicySnapshot,
        lease: &HeldLease,
        (counted, now): (&mut Counted, Timestamp),
    ) -> Option<Withdrawal> {
        let session = &lease.session;
        if !session.is_live_at(now) || self.absent.spares(snapshot, session.role(), now) {
            return None;
        }
        let of = Held::Lease(lease.id);
        match decide_lease_again(snapshot, lease, now) {
            Ok(confirmed) => {
                let limit = counted.one_more(&confirmed.lease_limits)?;
                let denial = one_too_many(lease, &confirmed, (limit, now));
                Some(Withdrawal { of, denial, unless_within: confirmed.lease_limits })
            }
            Err(denial) => Some(Withdrawal { of, denial, unless_within: Vec::new() }),
        }
    }

    async fn withdraw<P: Ports>(
        &mut self,
        ports: &P,
        withdrawals: Vec<Withdrawal>,
    ) -> Result<(), PassError> {
        if withdrawals.is_empty() {
            return Ok(());
        }
        match ports.journal().withdraw(withdrawals, ports.clock().now()).await {
            Ok(withdrawn) => {
                self.passed.sessions_ended.extend(withdrawn.sessions);
                self.passed.leases_due += withdrawn.leases_due;
                Ok(())
            }
            Err(WithdrawError::SnapshotStale) => Err(PassError::Overtaken),
            Err(WithdrawError::Journal(error)) => Err(error.into()),
        }
    }
}

/// How many of the leases seen so far may stay, for whom.
#[derive(Debug, Default)]
struct Counted(BTreeMap<Subject, u32>);

impl Counted {
    /// Counts one more, unless it is one too many: then says under which limit. Leases come in the
    /// order of their sessions and of their own age, so that what came last ends first.
    fn one_more(&mut self, limits: &[LeaseLimit]) -> Option<LeaseLimit> {
        let count = |of: &Subject| self.0.get(of).copied().unwrap_or(0);
        if let Some(full) = limits.iter().find(|limit| count(&limit.of) >= limit.most.get()) {
            return Some(full.clone());
        }
        for limit in limits {
            *self.0.entry(limit.of.clone()).or_insert(0) += 1;
        }
        None
    }
}

/// The roles of live sessions whose prompt file is not loaded, and since when.
#[derive(Debug, Default)]
struct Absent(BTreeMap<RoleName, Timestamp>);

impl Absent {
    /// Forgets the roles that are loaded again.
    fn keep(&mut self, snapshot: &PolicySnapshot) {
        self.0.retain(|role, _| !snapshot.roles().contains_key(role));
    }

    /// Whether the role is gone, but not for long enough to count. A file that is half written, or
    /// away during a checkout, must not end what runs; nothing new is permitted meanwhile.
    fn spares(&mut self, snapshot: &PolicySnapshot, role: &RoleName, now: Timestamp) -> bool {
        if snapshot.roles().contains_key(role) {
            return false;
        }
        let since = *self.0.entry(role.clone()).or_insert(now);
        now < since.after(ABSENT_GRACE)
    }
}

/// How long a role may be gone before its sessions end: longer than a checkout or a correction
/// typed in haste, short enough that who deletes a prompt file sees it take effect.
pub const ABSENT_GRACE: Duration = Duration::from_secs(10);

/// Sessions decided and ended in one step. Each may take a thousand leases along, and the journal's
/// writer does nothing else meanwhile.
const SESSIONS_AT_ONCE: usize = 32;

/// Leases decided and ended in one step: about ten milliseconds of the journal's writer.
const LEASES_AT_ONCE: usize = 256;
