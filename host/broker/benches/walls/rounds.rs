//! Runs cases in turns, so that whatever else the machine does meets them alike, and compares
//! each round with itself. Knows no case.

use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::effort::Turns;
use crate::report::Row;
use crate::spread::Spread;

/// One thing to measure.
pub struct Case<'a> {
    name: &'static str,
    calls_per_sample: u32,
    work: Work<'a>,
}

enum Work<'a> {
    Now(Box<dyn FnMut() -> Result<()> + 'a>),
    Later(Box<dyn FnMut() -> Done<'a> + 'a>),
}

/// Work that waits for something.
pub type Done<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// What one case took in each round.
#[derive(Default)]
struct Taken {
    /// Nanoseconds a call, of all rounds.
    walls: Vec<f64>,
    /// The median of each round.
    medians: Vec<f64>,
    /// Processor nanoseconds a call, of each round.
    cpus: Vec<f64>,
}

impl<'a> Case<'a> {
    /// Work that never waits.
    pub fn now(name: &'static str, work: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name, calls_per_sample: 1, work: Work::Now(Box::new(work)) }
    }

    /// Work that may wait.
    pub fn later(name: &'static str, work: impl FnMut() -> Done<'a> + 'a) -> Self {
        Self { name, calls_per_sample: 1, work: Work::Later(Box::new(work)) }
    }

    /// The same, many times a sample: where reading the clock would be a good part of it.
    #[must_use]
    pub fn repeated(self, calls_per_sample: u32) -> Self {
        Self { calls_per_sample, ..self }
    }

    async fn sample(&mut self) -> Result<f64> {
        let began = Instant::now();
        for _ in 0..self.calls_per_sample {
            match &mut self.work {
                Work::Now(work) => work()?,
                Work::Later(work) => work().await?,
            }
        }
        Ok(nanos(began) / f64::from(self.calls_per_sample))
    }

    async fn round(&mut self, samples: usize, taken: &mut Taken) -> Result<()> {
        let mut walls = Vec::with_capacity(samples);
        let began = cpu_nanos();
        for _ in 0..samples {
            walls.push(self.sample().await.with_context(|| format!("`{}` failed", self.name))?);
        }
        let cpu = cpu_nanos() - began;
        taken.cpus.push(cpu / samples as f64 / f64::from(self.calls_per_sample));
        taken.walls.extend_from_slice(&walls);
        taken.medians.push(Spread::of(walls).context("no samples")?.median);
        Ok(())
    }
}

/// Runs `cases` in turns. The first is what the others are compared with.
pub async fn interleaved(mut cases: Vec<Case<'_>>, turns: Turns) -> Result<Vec<Row>> {
    let mut taken: Vec<_> = cases.iter().map(|_| Taken::default()).collect();
    for case in &mut cases {
        // What is slow only once is not what is asked: first touches of memory, a connection.
        case.round(turns.samples, &mut Taken::default()).await?;
    }
    for _ in 0..turns.rounds {
        for (case, taken) in cases.iter_mut().zip(&mut taken) {
            case.round(turns.samples, taken).await?;
        }
    }
    let base = taken.first().map(|taken| taken.medians.clone()).unwrap_or_default();
    let row = |(case, taken): (&Case<'_>, Taken)| {
        let ratios = taken.medians.iter().zip(&base).map(|(own, base)| own / base).collect();
        Some(Row {
            name: case.name.to_owned(),
            values: Spread::of(taken.walls)?,
            cpu: Spread::of(taken.cpus).map(|cpu| cpu.median),
            ratio: Spread::of(ratios)?,
        })
    };
    cases.iter().zip(taken).map(row).collect::<Option<_>>().context("no rounds")
}

/// Since `began`.
pub fn nanos(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64
}

/// The processor time of this thread.
fn cpu_nanos() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
