//! A broker starts again with many live leases in its journal: how long until it serves.

use std::time::Instant;

use anyhow::{Context, Result};
use claviger_bench::load::{Caller, count};
use claviger_bench::report::{Growth, Spread};

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::figures::{Named, absolute};

/// Measures at growing numbers of leases; the goal is for the last.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let mut claviger = Claviger::start().await?;
    let most = bench.effort.of(1_000_000, 20_000);
    let mut points = Vec::new();
    let mut last = Vec::new();
    let mut there = 0;
    for leases in [most / 100, most / 10, most] {
        bench.say(&format!("restart with {leases} leases"));
        let agents = claviger.agents(CALLERS, Wanted::Token).await?;
        count(agents, leases - there).await?;
        there = leases;
        last.clear();
        for _ in 0..bench.effort.rounds() {
            claviger.stop().await?;
            let begun = Instant::now();
            claviger.start_again().await?;
            let mut agents = claviger.agents(1, Wanted::Token).await?;
            agents.first_mut().context("one agent was asked for")?.call().await?;
            last.push(begun.elapsed().as_secs_f64());
        }
        points.push((leases as f64, Spread::of(&last).median));
    }
    bench.growth(Growth {
        of: "leases in the journal".to_owned(),
        measure: "from the start of the process to the first credential".to_owned(),
        unit: "s".to_owned(),
        points,
    });
    if there != GOAL_LEASES {
        bench.note(format!(
            "The restart was measured with {there} leases only: its goal is for {GOAL_LEASES}, \
             which the full run measures."
        ));
    }
    let ours = Named { what: "Claviger", unit: "s", values: &last };
    bench.ratio(absolute("restart_1m_secs", &ours)?);
    Ok(())
}

/// As many as fill the journal fastest.
const CALLERS: usize = 256;

const GOAL_LEASES: usize = 1_000_000;
