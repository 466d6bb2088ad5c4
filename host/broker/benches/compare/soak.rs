//! Ten minutes at 70 % of the capacity: whether memory, files and the log of the journal stay as
//! they are, and requests as fast as they were.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use claviger_bench::load::{Spell, closed, open};
use claviger_bench::report::Spread;

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::memory::resident_mib;

/// Measures, and prints a line for each stretch.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let pid = claviger.broker()?.pid();
    let agents = claviger.agents(CALLERS, Wanted::Token).await?;
    let (mut agents, full) = closed(agents, bench.effort.spell()).await?;
    let rate = full.per_sec() * BUSY;
    let stretches = bench.effort.of(60, 6);
    bench.say(&format!("soak: {stretches} stretches of 10 s at {rate:.0}/s"));
    let mut seen = Vec::new();
    for number in 1..=stretches {
        let stretch = Spell { warm: Duration::ZERO, counted: bench.effort.stretch() };
        let (back, tally) = open(agents, stretch, rate).await?;
        agents = back;
        let now = Seen {
            p50_ms: tally.micros(0.5) / 1e3,
            p99_ms: tally.micros(0.99) / 1e3,
            resident_mib: resident_mib(pid)?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
            log_mib: mib(&claviger.world.path().join("state/journal.db-wal")),
            journal_mib: mib(&claviger.world.path().join("state/journal.db")),
        };
        bench.say(&format!("soak {number:2}: {}", now.line()));
        seen.push(now);
    }
    // A tenth is a minute of ten: one stretch alone says little of how fast it was.
    let tenth = seen.len().div_ceil(10);
    let (first, last) = (seen.iter().take(tenth), seen.iter().rev().take(tenth));
    let capacity = full.per_sec();
    bench.note(format!(
        "Soak: {stretches} stretches at {rate:.0} tokens a second of {capacity:.0}, {CALLERS} callers."
    ));
    bench.note(format!(
        "Soak, median of the first tenth: {}.",
        Seen::of(first, |s| s.median).line()
    ));
    bench.note(format!("Soak, median of the last tenth: {}.", Seen::of(last, |s| s.median).line()));
    bench.note(format!("Soak, the most: {}.", Seen::of(seen.iter(), |s| s.max).line()));
    Ok(())
}

struct Seen {
    p50_ms: f64,
    p99_ms: f64,
    resident_mib: f64,
    files: f64,
    log_mib: f64,
    journal_mib: f64,
}

impl Seen {
    /// Each figure by itself, as `of` takes it from all of them.
    fn of<'s>(seen: impl Iterator<Item = &'s Self> + Clone, of: fn(Spread) -> f64) -> Self {
        let figure =
            |pick: fn(&Self) -> f64| of(Spread::of(&seen.clone().map(pick).collect::<Vec<_>>()));
        Self {
            p50_ms: figure(|seen| seen.p50_ms),
            p99_ms: figure(|seen| seen.p99_ms),
            resident_mib: figure(|seen| seen.resident_mib),
            files: figure(|seen| seen.files),
            log_mib: figure(|seen| seen.log_mib),
            journal_mib: figure(|seen| seen.journal_mib),
        }
    }

    fn line(&self) -> String {
        let Self { p50_ms, p99_ms, resident_mib, files, log_mib, journal_mib } = self;
        format!(
            "p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {resident_mib:.1} MiB resident, {files:.0} open \
             files, journal {journal_mib:.0} MiB with {log_mib:.1} MiB of log"
        )
    }
}

fn mib(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(0.0, |found| found.len() as f64 / f64::from(1 << 20))
}

const CALLERS: usize = 64;

/// Of the capacity: busy, and not overloaded.
const BUSY: f64 = 0.7;
