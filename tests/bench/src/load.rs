//! Loads a service with callers, and tells how many answers came and how long each took. Knows
//! nothing of the service: the same loop drives every side of a comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// One caller: it asks again when the answer before is there.
pub trait Caller: Send + 'static {
    /// Asks once. An answer other than the one hoped for is an error, and ends the measurement.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// How long callers call.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    /// Before it counts.
    pub warm: Duration,
    /// While it counts.
    pub counted: Duration,
}

/// What a spell of load came to.
#[derive(Clone, Debug)]
pub struct Tally {
    nanos: Histogram<u64>,
    counted: Duration,
}

/// Loads with callers of which each always has one request under way: as many as there are
/// callers. Gives them back for the next spell.
pub async fn closed<C: Caller>(callers: Vec<C>, spell: Spell) -> Result<(Vec<C>, Tally)> {
    run(callers, spell, |_| Pace::AtOnce).await
}

/// Loads with `per_sec` requests that fall due whether or not the earlier ones are answered. The
/// time of each counts from when it fell due, so that a service that stalls is charged for all
/// that waited ("coordinated omission").
pub async fn open<C: Caller>(
    callers: Vec<C>,
    spell: Spell,
    per_sec: f64,
) -> Result<(Vec<C>, Tally)> {
    let count = f64::from(u32::try_from(callers.len()).context("too many callers")?);
    let every = Duration::from_secs_f64(count / per_sec);
    run(callers, spell, |index| Pace::Every {
        every,
        offset: Duration::from_secs_f64(f64::from(index) / per_sec),
    })
    .await
}

/// Has `callers` ask `total` times altogether, as fast as they can, and tells how long it took.
pub async fn count<C: Caller>(callers: Vec<C>, total: usize) -> Result<(Vec<C>, Duration)> {
    let left = Arc::new(AtomicUsize::new(total));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for mut caller in callers {
        let left = Arc::clone(&left);
        running.spawn(async move {
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                caller.call().await?;
            }
            anyhow::Ok(caller)
        });
    }
    let mut back = Vec::new();
    while let Some(ended) = running.join_next().await {
        back.push(ended.context("a caller broke")??);
    }
    Ok((back, begun.elapsed()))
}

impl Tally {
    /// Answers per second.
    pub fn per_sec(&self) -> f64 {
        self.count() as f64 / self.counted.as_secs_f64()
    }

    /// Answers that counted.
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// What the fraction `quantile` of the answers stayed below, in microseconds.
    pub fn micros(&self, quantile: f64) -> f64 {
        self.nanos.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The mean, in microseconds.
    pub fn mean_micros(&self) -> f64 {
        self.nanos.mean() / 1e3
    }

    /// The same for the quantiles that a plot of a distribution shows.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        // Beyond one answer in the whole spell a quantile says nothing.
        let resolved = |quantile: &f64| self.count() as f64 * (1.0 - quantile) >= 1.0;
        QUANTILES.into_iter().filter(resolved).map(|q| (q, self.micros(q))).collect()
    }

    /// Takes in what another spell came to.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.nanos.add(&other.nanos).context("histograms of one kind")?;
        self.counted += other.counted;
        Ok(())
    }
}

/// When a caller asks next.
#[derive(Clone, Copy)]
enum Pace {
    AtOnce,
    Every { every: Duration, offset: Duration },
}

async fn run<C: Caller>(
    callers: Vec<C>,
    spell: Spell,
    pace: impl Fn(u32) -> Pace,
) -> Result<(Vec<C>, Tally)> {
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for (index, caller) in (0..).zip(callers) {
        running.spawn(drive(caller, pace(index), Window { begun, spell }));
    }
    let mut back = Vec::new();
    let mut tally = Tally { nanos: histogram()?, counted: spell.counted };
    while let Some(ended) = running.join_next().await {
        let (caller, nanos) = ended.context("a caller broke")??;
        tally.nanos.add(&nanos).context("histograms of one kind")?;
        back.push(caller);
    }
    ensure!(tally.count() > 0, "not one answer came in {:?}", spell.counted);
    Ok((back, tally))
}

/// The part of the time that counts.
#[derive(Clone, Copy)]
struct Window {
    begun: Instant,
    spell: Spell,
}

impl Window {
    fn counts(&self, at: Instant) -> bool {
        at >= self.begun + self.spell.warm && at < self.end()
    }

    fn end(&self) -> Instant {
        self.begun + self.spell.warm + self.spell.counted
    }
}

async fn drive<C: Caller>(
    mut caller: C,
    pace: Pace,
    window: Window,
) -> Result<(C, Histogram<u64>)> {
    let mut nanos = histogram()?;
    let mut due = window.begun;
    if let Pace::Every { offset, .. } = pace {
        due += offset;
    }
    while due < window.end() && Instant::now() < window.end() {
        let from = begin(pace, due).await;
        caller.call().await?;
        let answered = Instant::now();
        if window.counts(answered) {
            nanos.saturating_record(u64::try_from((answered - from).as_nanos())?);
        }
        due = match pace {
            Pace::AtOnce => answered,
            Pace::Every { every, .. } => due + every,
        };
    }
    Ok((caller, nanos))
}

/// From when a request's time counts. The timer wakes up to a millisecond late, which is not the
/// service's fault: a caller that was free in time counts from when it woke.
async fn begin(pace: Pace, due: Instant) -> Instant {
    match pace {
        Pace::Every { .. } if Instant::now() < due => {
            sleep_until(due).await;
            Instant::now()
        }
        Pace::Every { .. } => due,
        Pace::AtOnce => Instant::now(),
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, NANOS_MAX, SIGNIFICANT_DIGITS).context("the bounds are constants")
}

/// A minute: longer than any service is waited for.
const NANOS_MAX: u64 = 60_000_000_000;

/// A thousandth of each figure, far below what two runs differ by.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Evenly spaced on the axis of such plots, where each nine takes as much room as the one before.
const QUANTILES: [f64; 14] =
    [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_had_to_wait_for_its_caller_counts_from_when_it_fell_due() {
        let due = Instant::now() - Duration::from_secs(2);
        let every = Duration::from_millis(1);
        assert_eq!(begin(Pace::Every { every, offset: Duration::ZERO }, due).await, due);
        assert!(begin(Pace::AtOnce, due).await > due, "its caller decides when");
    }

    #[tokio::test]
    async fn only_answers_within_the_counted_time_count() {
        let begun = Instant::now();
        let (warm, counted) = (Duration::from_secs(1), Duration::from_secs(2));
        let window = Window { begun, spell: Spell { warm, counted } };
        assert!(!window.counts(begun) && window.counts(begun + warm));
        assert!(window.counts(begun + counted) && !window.counts(begun + warm + counted));
    }

    #[tokio::test]
    async fn a_failed_call_ends_the_measurement() {
        struct Fails;
        impl Caller for Fails {
            async fn call(&mut self) -> Result<()> {
                anyhow::bail!("refused")
            }
        }
        let spell = Spell { warm: Duration::ZERO, counted: Duration::from_secs(1) };
        let error = closed(vec![Fails], spell).await.map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "refused");
    }
}
