//! Many logins fall due at once: how long until the last is dead, while others go on being issued.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use claviger_bench::load::{Spell, Tally, count, open};

use crate::Bench;
use crate::claviger::{Asking, Claviger, Wanted};
use crate::ending::{until_none, watcher};

/// Measures.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let watcher = watcher(&claviger.world.postgres).await?;
    let logins = bench.effort.of(10_000, 1_000);
    bench.say(&format!("{logins} logins that fall due at once"));
    let bystanders = claviger.agents(BYSTANDERS, Wanted::Token).await?;
    let calm_spell = Spell { warm: Duration::from_millis(500), counted: Duration::from_secs(3) };
    let (bystanders, calm) = open(bystanders, calm_spell, BYSTANDERS_PER_SEC).await?;
    let agents = claviger.agents(SESSIONS, Wanted::Login).await?;
    let (agents, _) = count(agents, logins).await?;
    let begun = Instant::now();
    let (dead, meanwhile) =
        tokio::join!(end(&agents, &watcher, begun), go_on_issuing(bystanders, begun, &watcher));
    let (secs, meanwhile) = (dead?.as_secs_f64(), meanwhile?);
    let millis = |tally: &Tally| tally.micros(0.99) / 1e3;
    bench.note(format!(
        "Expiry storm: {logins} logins that fell due at the same moment were all dead after \
         {secs:.1} s ({:.0} a second). Meanwhile {BYSTANDERS_PER_SEC} tokens a second were issued \
         with a p99 of {:.0} ms; before, it was {:.0} ms.",
        logins as f64 / secs,
        millis(&meanwhile),
        millis(&calm),
    ));
    Ok(())
}

async fn end(
    agents: &[Asking],
    watcher: &tokio_postgres::Client,
    begun: Instant,
) -> Result<Duration> {
    for agent in agents {
        agent.close().await?;
    }
    until_none(watcher).await?;
    Ok(begun.elapsed())
}

/// Until the storm is over.
async fn go_on_issuing(
    mut bystanders: Vec<Asking>,
    begun: Instant,
    watcher: &tokio_postgres::Client,
) -> Result<Tally> {
    let spell = Spell { warm: Duration::ZERO, counted: Duration::from_secs(1) };
    let mut whole: Option<Tally> = None;
    while begun.elapsed() < STORM_MAX {
        let (back, tally) = open(bystanders, spell, BYSTANDERS_PER_SEC).await?;
        bystanders = back;
        match &mut whole {
            Some(whole) => whole.add(&tally)?,
            None => whole = Some(tally),
        }
        if watcher.query_opt(crate::ending::ANY_LOGIN, &[]).await?.is_none() {
            break;
        }
    }
    whole.context("the storm was over before it began")
}

/// With as many logins each that a session's end is not the whole storm.
const SESSIONS: usize = 16;

const BYSTANDERS: usize = 32;

/// A quiet site's load: what is asked is whether a storm is felt, not how much fits beside it.
const BYSTANDERS_PER_SEC: f64 = 100.0;

/// Longer than a storm may take; then the bench fails on what is left.
const STORM_MAX: Duration = Duration::from_secs(120);
