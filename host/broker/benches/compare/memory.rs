//! Resident memory with many live leases.

use anyhow::{Context, Result};
use claviger_bench::load::count;
use claviger_bench::report::Growth;

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::figures::{Compared, Named, ratio};
use crate::openbao::OpenBao;

/// Measures with leases, against the peer, and with sessions.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let leases = bench.effort.of(GOAL_LEASES, 2_000);
    let claviger = Claviger::start().await?;
    let ours = with_leases(bench, &claviger, leases).await?;
    with_sessions(bench).await?;
    let Some(binary) = bench.bao.clone() else { return Ok(()) };
    bench.say(&format!("memory with {leases} leases: OpenBao"));
    let bao = OpenBao::start(&binary, &claviger.world.postgres).await?;
    count(bao.clients(CALLERS, Wanted::Token).await?, leases).await?;
    let theirs = resident_mib(bao.pid())?;
    if leases != GOAL_LEASES {
        bench.note(format!(
            "Memory was measured with {leases} leases only: its goal is for {GOAL_LEASES}, which \
             the full run measures."
        ));
    }
    bench.ratio(ratio(&Compared {
        key: "rss_30k_vs_openbao",
        ours: Named { what: "Claviger", unit: "MiB", values: &[ours] },
        theirs: Named { what: "OpenBao", unit: "MiB", values: &[theirs] },
    })?);
    Ok(())
}

/// At a growing number of leases; MiB with all of them.
async fn with_leases(bench: &mut Bench, claviger: &Claviger, leases: usize) -> Result<f64> {
    bench.say(&format!("memory with {leases} leases"));
    let pid = claviger.broker()?.pid();
    let mut agents = claviger.agents(CALLERS, Wanted::Token).await?;
    let mut points = Vec::new();
    let mut there = 0;
    for some in [leases / 100, leases / 10, leases] {
        agents = count(agents, some - there).await?.0;
        there = some;
        points.push((some as f64, resident_mib(pid)?));
    }
    let most = points.last().map_or(0.0, |(_, mib)| *mib);
    bench.growth(memory("live leases", points));
    Ok(most)
}

async fn with_sessions(bench: &mut Bench) -> Result<()> {
    let sessions = bench.effort.of(50_000, 2_000);
    bench.say(&format!("memory with {sessions} sessions"));
    let claviger = Claviger::start().await?;
    let pid = claviger.broker()?.pid();
    let mut points = Vec::new();
    let mut there = 0;
    for some in [sessions / 100, sessions / 10, sessions] {
        claviger.agents(some - there, Wanted::Token).await?;
        there = some;
        points.push((some as f64, resident_mib(pid)?));
    }
    bench.growth(memory("live sessions", points));
    Ok(())
}

fn memory(of: &str, points: Vec<(f64, f64)>) -> Growth {
    let (measure, unit) = ("resident memory".to_owned(), "MiB".to_owned());
    Growth { of: of.to_owned(), measure, unit, points }
}

/// Of a process.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib = line.split_whitespace().next().context("no figure")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

const CALLERS: usize = 16;

const GOAL_LEASES: usize = 30_000;
