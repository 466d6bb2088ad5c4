//! Everything that exists in one simulated run, and the ports onto it. Durable things (journal,
//! upstream) survive a crash; queues and futures do not.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use claviger_core::budget::{IssueLimit, Spent, Subject};
use claviger_core::flow::again::Again;
use claviger_core::ids::{DenialId, IntentId, SessionId};
use claviger_core::policy::{PolicySnapshot, SnapshotDigest};
use claviger_core::ports::{Clock, Entropy, Policies, Ports, Rates, Repeated};
use claviger_core::session::Session;
use claviger_core::time::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::journal::Write;
use super::ledger::Ledger;
use super::policies::SNAPSHOTS;
use super::upstream::Upstream;

/// A deliberate fault in an adapter, which the checker must catch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// `open_intent` and `close_intent` do not look at the session.
    ForgetsSession,
    /// `open_intent` does not compare snapshots.
    ForgetsSnapshot,
    /// `open_intent` does not look for the idempotency key.
    ForgetsKey,
    /// `open_intent` does not count leases.
    ForgetsLimits,
    /// `take_due` overlooks intents that were never closed.
    SkipsStaleIntents,
    /// `end_session` leaves the session's leases as they are.
    SkipsLeasesOfEndedSessions,
    /// `end_session` leaves the sessions below as they are.
    SparesChildren,
    /// `begin_session` does not look at the session above.
    BeginsBelowEndedSessions,
    /// A failed intent is revoked while the upstream may still be acting.
    RevokesFailedIntentsAtOnce,
    /// An intent whose lease is released is revoked while the plugin mints.
    RevokesReleasedIntentsAtOnce,
    /// `begin_session` does not compare snapshots.
    BeginsUnderAnySnapshot,
    /// `close_intent` does not compare snapshots.
    ClosesUnderAnySnapshot,
    /// `withdraw` leaves everything as it is.
    WithdrawsNothing,
    /// An intent that is no longer permitted is revoked while the plugin mints.
    RevokesWithdrawnIntentsAtOnce,
    /// A write is acknowledged before it is durable.
    ForgetsLastWriteInACrash,
}

/// One simulated run.
pub struct World {
    pub now: Timestamp,
    pub rng: SmallRng,
    pub flaw: Flaw,
    pub faults: Faults,
    pub ledger: Ledger,
    /// Writes that were submitted and are not yet committed, oldest first. Like the real writer
    /// it commits them even if nobody waits any longer; a crash loses them.
    pub queue: VecDeque<Write>,
    pub upstream: Upstream,
    /// Which snapshot the `Policies` port shows.
    pub policies: usize,
    /// Which one the last whole pass over what lives decided by; none since a crash.
    pub passed: Option<SnapshotDigest>,
    /// What passes know of each other.
    pub again: Again,
    /// What was issued since the minute began, and which refusal is repeated.
    pub rates: SimRates,
    /// What the clients know of.
    pub clients: Vec<Client>,
    pub coverage: Coverage,
    /// What an adapter or an actor saw that must never be.
    pub violations: Vec<String>,
}

/// A session as its client knows it.
pub struct Client {
    pub session: Arc<Session>,
    pub leases: Vec<IntentId>,
}

/// What goes wrong, in percent or altogether.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub journal_down: bool,
    pub plugin_percent: u32,
    pub revoke_down: bool,
    /// How many leases the plugin can end in one call.
    pub revoked_at_once: usize,
}

macro_rules! coverage {
    ($($name:ident),+ $(,)?) => {
        /// How often the runs came by the places that matter.
        #[derive(Clone, Debug, Default)]
        pub struct Coverage { $(pub $name: u64),+ }

        impl Coverage {
            pub fn add(&mut self, other: &Self) { $(self.$name += other.$name;)+ }

            /// Places where no run came by.
            pub fn missing(&self) -> Vec<&'static str> {
                let counts = [$((stringify!($name), self.$name)),+];
                counts.into_iter().filter(|(_, n)| *n == 0).map(|(name, _)| name).collect()
            }
        }
    };
}

coverage!(
    crashes,
    dropped_futures,
    journal_refusals,
    sessions,
    children,
    ended_with_parent,
    parent_ended,
    issued,
    denied,
    key_used,
    session_ended,
    session_ended_while_minting,
    snapshot_stale,
    policies_unsettled,
    timed_out,
    plugin_failed,
    acted_late,
    late_answers,
    released_while_minting,
    begun_stale,
    decided_again_while_minting,
    withdrawn_while_minting,
    sessions_withdrawn,
    leases_withdrawn,
    roles_spared,
    pass_overtaken,
    issues_spent,
    leases_full,
    lapsed,
    stuck,
    revoked,
    revoked_together,
    revocations_failed_together,
    already_ended,
);

/// The ports; cheap to clone.
#[derive(Clone)]
pub struct Sim(Arc<Mutex<World>>);

impl Sim {
    pub fn new(seed: u64, flaw: Flaw) -> Self {
        Self(Arc::new(Mutex::new(World {
            now: Timestamp::from_unix_millis(1_795_000_000_000),
            rng: SmallRng::seed_from_u64(seed),
            flaw,
            faults: Faults::default(),
            ledger: Ledger::default(),
            queue: VecDeque::new(),
            upstream: Upstream::default(),
            policies: 0,
            passed: None,
            again: Again::default(),
            rates: SimRates::default(),
            clients: Vec::new(),
            coverage: Coverage::default(),
            violations: Vec::new(),
        })))
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gives other tasks up to three turns.
    pub async fn dawdle(&self) {
        let turns = self.world().rng.random_range(0..=3_u8);
        for _ in 0..turns {
            let mut given = false;
            std::future::poll_fn(|_| {
                if std::mem::replace(&mut given, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
    }

    /// Waits until the simulator has moved the time to `at`.
    pub fn until(&self, at: Timestamp) -> Until {
        Until { sim: self.clone(), at }
    }
}

pub struct Until {
    sim: Sim,
    at: Timestamp,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.sim.world().now >= self.at { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl World {
    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent.min(100), 100)
    }

    /// Moves the time; what was under way upstream happens when its time has come.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.after(by);
        self.coverage.acted_late += self.upstream.catch_up(self.now);
    }

    /// The process dies and starts again: what was not durable is lost, and the broker loads its
    /// policies anew, as every start does.
    pub fn crash(&mut self) {
        self.coverage.crashes += 1;
        self.queue.clear();
        self.passed = None;
        self.again = Again::default();
        self.rates = SimRates::default();
        if self.flaw == Flaw::ForgetsLastWriteInACrash {
            self.ledger.forget_last_write();
        }
        self.ledger.load_policies(SNAPSHOTS[self.policies].snapshot.digest(), self.now);
    }
}

impl World {
    /// Takes one issue from each of `limits`, or from none.
    pub fn take_issues(&mut self, limits: &[IssueLimit]) -> Result<(), Spent> {
        self.has_issues(limits)?;
        for limit in limits {
            *self.rates.taken.entry(limit.of.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn has_issues(&mut self, limits: &[IssueLimit]) -> Result<(), Spent> {
        let minute = self.now.unix_secs() / 60;
        if self.rates.minute != minute {
            self.rates = SimRates { minute, ..SimRates::default() };
        }
        for limit in limits {
            let taken = self.rates.taken.get(&limit.of).copied().unwrap_or(0);
            if taken >= limit.per_minute.get() {
                self.coverage.issues_spent += 1;
                let wait = Duration::from_secs(60 - self.now.unix_secs() % 60);
                return Err(Spent { limit: limit.clone(), wait });
            }
        }
        Ok(())
    }
}

impl Ports for Sim {
    type Clock = Self;
    type Entropy = Self;
    type Journal = Self;
    type Plugins = Self;
    type Policies = Self;
    type Rates = Self;

    fn clock(&self) -> &Self {
        self
    }
    fn entropy(&self) -> &Self {
        self
    }
    fn journal(&self) -> &Self {
        self
    }
    fn plugins(&self) -> &Self {
        self
    }
    fn policies(&self) -> &Self {
        self
    }
    fn rates(&self) -> &Self {
        self
    }
}

impl Clock for Sim {
    fn now(&self) -> Timestamp {
        self.world().now
    }
}

impl Entropy for Sim {
    fn fill(&self, bytes: &mut [u8]) {
        self.world().rng.fill_bytes(bytes);
    }
}

/// Counts by the calendar minute: another bucket than the broker's, with the same promise.
#[derive(Default)]
pub struct SimRates {
    minute: u64,
    taken: BTreeMap<Subject, u32>,
    recorded: BTreeMap<(SessionId, &'static str), DenialId>,
}

impl Rates for Sim {
    fn take(&self, own: &[IssueLimit], shared: &[IssueLimit]) -> Result<(), Spent> {
        let world = &mut *self.world();
        world.take_issues(own)?;
        world.has_issues(shared)
    }

    fn repeated(&self, session: SessionId, code: &'static str) -> Repeated {
        match self.world().rates.recorded.get(&(session, code)) {
            Some(id) => Repeated::Again(*id),
            None => Repeated::First { repeats: 0 },
        }
    }

    fn recorded(&self, session: SessionId, code: &'static str, id: DenialId) {
        self.world().rates.recorded.insert((session, code), id);
    }
}

impl Policies for Sim {
    fn current(&self) -> Arc<PolicySnapshot> {
        Arc::clone(&SNAPSHOTS[self.world().policies].snapshot)
    }

    /// Loses patience at times, so that what comes of that is seen too.
    async fn other_than(&self, _stale: SnapshotDigest) {
        self.dawdle().await;
    }
}
