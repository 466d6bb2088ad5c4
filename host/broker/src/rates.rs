//! Issues by the minute, in token buckets, and which refusals were recorded lately. Lives in memory
//! and by the monotonic clock: a step of the wall clock must neither fill a bucket nor empty it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_core::budget::{IssueLimit, Spent, Subject};
use claviger_core::ids::{DenialId, SessionId};
use claviger_core::ports;
use claviger_core::ports::Repeated;
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// The buckets and the refusals.
pub struct Rates<C: Clock = MonotonicClock> {
    clock: C,
    kept: Mutex<Kept<C>>,
}

struct Kept<C: Clock> {
    /// One for each rate that is configured.
    limiters: HashMap<NonZeroU32, Limiter<C>>,
    refusals: HashMap<(SessionId, &'static str), Refusal<C>>,
    /// How often something was asked since what is no longer needed was dropped.
    asked: u32,
}

struct Limiter<C: Clock> {
    /// A bucket for everyone whom it limits.
    buckets: Buckets<C>,
    /// Whose bucket was found empty, and before when it has nothing again, whoever asks.
    spent: HashMap<Subject, C::Instant>,
}

type Buckets<C> =
    RateLimiter<Subject, HashMapStateStore<Subject>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// One that was recorded, and how many like it were not.
struct Refusal<C: Clock> {
    id: DenialId,
    at: C::Instant,
    repeats: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(MonotonicClock)
    }
}

impl<C: Clock + Clone> Rates<C> {
    /// Full buckets, by `clock`.
    pub fn new(clock: C) -> Self {
        let (limiters, refusals) = (HashMap::new(), HashMap::new());
        Self { clock, kept: Mutex::new(Kept { limiters, refusals, asked: 0 }) }
    }

    /// Takes one issue from each of `limits`, in their order, or says which one is used up. What
    /// was taken from those before it stays taken; but from then on it is known to be used up, and
    /// who asks again takes nothing from any.
    pub fn take_each(&self, limits: &[IssueLimit]) -> Result<(), Spent> {
        if limits.is_empty() {
            return Ok(());
        }
        let mut kept = self.kept();
        kept.known(limits, self.clock.now())?;
        for limit in limits {
            let limiter = kept.limiters.entry(limit.per_minute).or_insert_with(|| {
                let quota = Quota::per_minute(limit.per_minute);
                let store = HashMapStateStore::default();
                let buckets = RateLimiter::new(quota, store, self.clock.clone());
                Limiter { buckets, spent: HashMap::new() }
            });
            if let Err(until) = limiter.buckets.check_key(&limit.of) {
                limiter.spent.insert(limit.of.clone(), until.earliest_possible());
                let wait = until.wait_time_from(self.clock.now());
                return Err(Spent { limit: limit.clone(), wait });
            }
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept<C>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.asked += 1;
        if kept.asked >= SWEEP_EVERY {
            kept.sweep(self.clock.now());
        }
        kept
    }
}

impl<C: Clock> Kept<C> {
    /// The first of `limits` that is known to be used up, if there is one.
    fn known(&self, limits: &[IssueLimit], now: C::Instant) -> Result<(), Spent> {
        for limit in limits {
            let limiter = self.limiters.get(&limit.per_minute);
            let until = limiter.and_then(|limiter| limiter.spent.get(&limit.of));
            if let Some(until) = until.filter(|until| **until > now) {
                let wait = Duration::from(until.duration_since(now));
                return Err(Spent { limit: limit.clone(), wait });
            }
        }
        Ok(())
    }

    /// Drops full buckets, which say nothing: those of sessions that have ended fill within a
    /// minute. Also rates that are no longer configured, and refusals that nobody repeats.
    fn sweep(&mut self, now: C::Instant) {
        self.asked = 0;
        self.limiters.retain(|_, limiter| {
            limiter.buckets.retain_recent();
            limiter.spent.retain(|_, until| *until > now);
            limiter.spent.shrink_to_fit();
            !limiter.buckets.is_empty()
        });
        self.limiters.shrink_to_fit();
        self.refusals.retain(|_, refusal| is_recent(refusal.at, now));
        self.refusals.shrink_to_fit();
    }
}

impl<C: Clock + Clone + Send + Sync> ports::Rates for Rates<C>
where
    C::Instant: Send + Sync,
{
    fn take(&self, own: &[IssueLimit], shared: &[IssueLimit]) -> Result<(), Spent> {
        self.take_each(own)?;
        if shared.is_empty() {
            return Ok(());
        }
        self.kept().known(shared, self.clock.now())
    }

    fn repeated(&self, session: SessionId, code: &'static str) -> Repeated {
        let now = self.clock.now();
        let mut kept = self.kept();
        match kept.refusals.get_mut(&(session, code)) {
            Some(refusal) if is_recent(refusal.at, now) => {
                refusal.repeats = refusal.repeats.saturating_add(1);
                Repeated::Again(refusal.id)
            }
            Some(refusal) => Repeated::First { repeats: refusal.repeats },
            None => Repeated::First { repeats: 0 },
        }
    }

    fn recorded(&self, session: SessionId, code: &'static str, id: DenialId) {
        let refusal = Refusal { id, at: self.clock.now(), repeats: 0 };
        self.kept().refusals.insert((session, code), refusal);
    }
}

fn is_recent<I: Reference>(at: I, now: I) -> bool {
    Duration::from(now.duration_since(at)) < REFUSALS_WITHIN
}

/// A session that is refused in a loop makes six entries a minute, not thousands; a person who
/// reads the journal still sees when it began and that it goes on.
const REFUSALS_WITHIN: Duration = Duration::from_secs(10);

/// What is kept beyond need is at most so much; dropping it looks at every bucket.
const SWEEP_EVERY: u32 = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use claviger_core::ports::Rates as _;
    use claviger_core::time::Timestamp;
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn session(number: u8) -> SessionId {
        SessionId::mint(Timestamp::from_unix_millis(1), &[number; 10])
    }

    fn limit(of: Subject, per_minute: u32) -> IssueLimit {
        IssueLimit { of, per_minute: NonZeroU32::new(per_minute).unwrap() }
    }

    fn role() -> Subject {
        Subject::Role("reader".parse().unwrap())
    }

    fn rates() -> (FakeRelativeClock, Rates<FakeRelativeClock>) {
        let clock = FakeRelativeClock::default();
        (clock.clone(), Rates::new(clock))
    }

    #[test]
    fn as_many_as_the_limit_come_at_once_and_then_one_for_each_share_of_a_minute() {
        let (clock, rates) = rates();
        let limits = [limit(Subject::Session(session(1)), 6)];
        for _ in 0..6 {
            rates.take_each(&limits).unwrap();
        }
        let spent = rates.take_each(&limits).unwrap_err();
        assert_eq!((spent.limit, spent.wait), (limits[0].clone(), Duration::from_secs(10)));
        clock.advance(Duration::from_secs(9));
        assert_eq!(rates.take_each(&limits).unwrap_err().wait, Duration::from_secs(1));
        clock.advance(spent.wait - Duration::from_secs(9));
        rates.take_each(&limits).unwrap();
        rates.take_each(&limits).unwrap_err();
    }

    #[test]
    fn a_flood_is_stopped_by_its_own_budget_before_it_takes_from_a_shared_one() {
        let (_, rates) = rates();
        let of = |number| [limit(Subject::Session(session(number)), 2), limit(role(), 4)];
        for _ in 0..2 {
            rates.take_each(&of(1)).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(rates.take_each(&of(1)).unwrap_err().limit.of, Subject::Session(session(1)));
        }
        for _ in 0..2 {
            rates.take_each(&of(2)).unwrap();
        }
        assert_eq!(rates.take_each(&of(3)).unwrap_err().limit.of, role());
    }

    #[test]
    fn who_is_refused_by_one_shared_budget_uses_up_no_other() {
        let (clock, rates) = rates();
        let backend = Subject::Backend("orders-db".parse().unwrap());
        let both = [limit(role(), 10), limit(backend, 1)];
        rates.take_each(&both).unwrap();
        for _ in 0..100 {
            assert_eq!(rates.take_each(&both).unwrap_err().limit, both[1]);
            assert_eq!(rates.take(&[], &both).unwrap_err().limit, both[1]);
        }
        // One with the backend's own, one when it was found to be used up.
        for _ in 0..8 {
            rates.take_each(&both[..1]).unwrap();
        }
        rates.take_each(&both[..1]).unwrap_err();
        clock.advance(Duration::from_secs(60));
        rates.take(&[], &both).unwrap();
        rates.take_each(&both).unwrap();
    }

    #[test]
    fn of_sessions_that_have_ended_nothing_is_kept() {
        let (clock, rates) = rates();
        for number in 0..200 {
            rates.take_each(&[limit(Subject::Session(session(number)), 10)]).unwrap();
            rates.recorded(session(number), "BUDGET_ISSUES", DenialId::mint(now(), &[1; 10]));
        }
        clock.advance(Duration::from_secs(60));
        for _ in 0..SWEEP_EVERY {
            rates.take_each(&[limit(role(), u32::MAX)]).unwrap();
        }
        let kept = rates.kept.lock().unwrap();
        let buckets: usize = kept.limiters.values().map(|limiter| limiter.buckets.len()).sum();
        assert!(buckets <= 1, "{buckets} buckets are kept");
        assert!(kept.refusals.is_empty());
    }

    #[test]
    fn a_refusal_that_is_repeated_at_once_belongs_to_the_one_before() {
        let (clock, rates) = rates();
        let id = DenialId::mint(now(), &[1; 10]);
        assert_eq!(rates.repeated(session(1), "A"), Repeated::First { repeats: 0 });
        rates.recorded(session(1), "A", id);
        for _ in 0..3 {
            assert_eq!(rates.repeated(session(1), "A"), Repeated::Again(id));
        }
        assert_eq!(rates.repeated(session(1), "B"), Repeated::First { repeats: 0 });
        assert_eq!(rates.repeated(session(2), "A"), Repeated::First { repeats: 0 });
        clock.advance(REFUSALS_WITHIN);
        assert_eq!(rates.repeated(session(1), "A"), Repeated::First { repeats: 3 });
    }

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(1)
    }
}
