//! Issues by the minute, in token buckets, and which refusals were recorded lately. Lives in memory
//! and by the monotonic clock: a step of the wall clock must neither fill a bucket nor empty it.

use std::cell::Cell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_core::budget::{IssueLimit, Spent, Subject};
use claviger_core::ids::{DenialId, SessionId};
use claviger_core::ports;
use claviger_core::ports::Repeated;
use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// The buckets and the refusals.
pub struct Rates<C: Clock = MonotonicClock> {
    clock: C,
    kept: Mutex<Kept<C::Instant>>,
}

struct Kept<I: Reference> {
    /// One for each rate that is configured.
    limiters: HashMap<NonZeroU32, Limiter<I>>,
    refusals: HashMap<(SessionId, &'static str), Refusal<I>>,
    /// How often something was asked since what is no longer needed was dropped.
    asked: u32,
}

struct Limiter<I: Reference> {
    /// A bucket for everyone whom it limits.
    buckets: Buckets<I>,
    /// Whose bucket was emptied, and before when it has nothing again, whoever asks. Every bucket
    /// that is empty stands here, so that one can be known to be empty before others are taken from.
    spent: HashMap<Subject, I>,
}

type Buckets<I> =
    RateLimiter<Subject, HashMapStateStore<Subject>, Still<I>, StateInformationMiddleware>;

/// When the ask came that is being answered. Were the clock read for each look at a bucket, one
/// that was just emptied could have something again at the second look, which would then take it.
struct Still<I>(Cell<I>);

/// One that was recorded, and how many like it were not.
struct Refusal<I> {
    id: DenialId,
    at: I,
    repeats: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(MonotonicClock)
    }
}

impl<C: Clock> Rates<C> {
    /// Full buckets, by `clock`.
    pub fn new(clock: C) -> Self {
        let (limiters, refusals) = (HashMap::new(), HashMap::new());
        Self { clock, kept: Mutex::new(Kept { limiters, refusals, asked: 0 }) }
    }

    /// Takes one issue from each of `limits`, or says which one is used up and takes from none.
    ///
    /// INVARIANT (refused-takes-nothing-shared): one lock over all of it, and the time is read under
    /// it. Else somebody could empty a bucket between the look at all and the taking, and an agent
    /// that asks in a loop for what others use up would use up the rest of what it shares with them.
    pub fn take_each(&self, limits: &[IssueLimit]) -> Result<(), Spent> {
        if limits.is_empty() {
            return Ok(());
        }
        let mut kept = self.kept();
        let now = self.clock.now();
        kept.known(limits, now)?;
        for limit in limits {
            let new = || Limiter::new(limit.per_minute, now);
            let limiter = kept.limiters.entry(limit.per_minute).or_insert_with(new);
            limiter.take(&limit.of, now).map_err(|until| spent(limit, until, now))?;
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Kept<C::Instant>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.asked += 1;
        if kept.asked >= SWEEP_EVERY {
            kept.sweep(self.clock.now());
        }
        kept
    }
}

impl<I: Reference> Kept<I> {
    /// The first of `limits` that is used up, if there is one. Takes nothing.
    fn known(&self, limits: &[IssueLimit], now: I) -> Result<(), Spent> {
        for limit in limits {
            let limiter = self.limiters.get(&limit.per_minute);
            let until = limiter.and_then(|limiter| limiter.spent.get(&limit.of));
            if let Some(until) = until.filter(|until| **until > now) {
                return Err(spent(limit, *until, now));
            }
        }
        Ok(())
    }

    /// Drops full buckets, which say nothing: those of sessions that have ended fill within a
    /// minute. Also rates that are no longer configured, and refusals that nobody repeats.
    fn sweep(&mut self, now: I) {
        self.asked = 0;
        self.limiters.retain(|_, limiter| {
            limiter.at(now).retain_recent();
            limiter.spent.retain(|_, until| *until > now);
            limiter.spent.shrink_to_fit();
            !limiter.buckets.is_empty()
        });
        self.limiters.shrink_to_fit();
        self.refusals.retain(|_, refusal| is_recent(refusal.at, now));
        self.refusals.shrink_to_fit();
    }
}

impl<I: Reference> Limiter<I> {
    /// Full buckets.
    fn new(per_minute: NonZeroU32, now: I) -> Self {
        let (store, clock) = (HashMapStateStore::default(), Still(Cell::new(now)));
        let buckets = RateLimiter::new(Quota::per_minute(per_minute), store, clock);
        Self { buckets, spent: HashMap::new() }
    }

    /// Takes one from the bucket of `of`, or says until when it has none. Who takes the last one
    /// makes that known at once, not only the next who finds nothing.
    fn take(&mut self, of: &Subject, now: I) -> Result<(), I> {
        let buckets = self.at(now);
        let left = match buckets.check_key(of) {
            Ok(left) => left.remaining_burst_capacity(),
            Err(until) => return Err(until.earliest_possible()),
        };
        // What says when there is another is a refusal, and a refusal takes nothing.
        if left == 0
            && let Err(until) = buckets.check_key(of)
        {
            self.spent.insert(of.clone(), until.earliest_possible());
        }
        Ok(())
    }

    /// The buckets as they are `now`.
    fn at(&self, now: I) -> &Buckets<I> {
        self.buckets.clock().0.set(now);
        &self.buckets
    }
}

impl<I: Reference> Clock for Still<I> {
    type Instant = I;

    fn now(&self) -> I {
        self.0.get()
    }
}

impl<C: Clock + Send + Sync> ports::Rates for Rates<C>
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

fn spent<I: Reference>(limit: &IssueLimit, until: I, now: I) -> Spent {
    Spent { limit: limit.clone(), wait: Duration::from(until.duration_since(now)) }
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
        // One with the backend's own; the refusals took nothing.
        for _ in 0..9 {
            rates.take_each(&both[..1]).unwrap();
        }
        rates.take_each(&both[..1]).unwrap_err();
        clock.advance(Duration::from_secs(60));
        rates.take(&[], &both).unwrap();
        rates.take_each(&both).unwrap();
    }

    #[test]
    fn who_asks_for_what_others_use_up_loses_nothing_each_time_that_they_are_first() {
        let (clock, rates) = rates();
        let backend = Subject::Backend("orders-db".parse().unwrap());
        let both = [limit(role(), 10), limit(backend, 60)];
        for _ in 0..60 {
            rates.take_each(&both[1..]).unwrap();
        }
        for _ in 0..100 {
            assert_eq!(rates.take_each(&both).unwrap_err().limit, both[1]);
            clock.advance(Duration::from_secs(1));
            rates.take_each(&both[1..]).unwrap();
            let spent = rates.take_each(&both).unwrap_err();
            assert_eq!((spent.limit, spent.wait), (both[1].clone(), Duration::from_secs(1)));
        }
        for _ in 0..10 {
            rates.take_each(&both[..1]).unwrap();
        }
        rates.take_each(&both[..1]).unwrap_err();
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
