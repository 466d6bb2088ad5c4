//! What decides changes while much lives: how long until everything is decided again, and until
//! what is no longer permitted is ended, while others go on being issued.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use claviger_bench::load::{Spell, Tally, count, open};

use crate::Bench;
use crate::claviger::{Asking, Claviger, Wanted};
use crate::stages::metric;

/// Measures.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let leases = bench.effort.of(10_000, 1_000);
    bench.say(&format!("{leases} leases that are decided again"));
    let agents = claviger.agents(SESSIONS, Wanted::Token).await?;
    let (agents, _) = count(agents, leases).await?;
    let kept = pass(&claviger, ("again", KEEP)).await?;
    let before = metric(claviger.metrics_port(), ENDED).await?;
    let bystanders = claviger.agents(BYSTANDERS, Wanted::Login).await?;
    let (bystanders, calm) = open(bystanders, SPELL, BYSTANDERS_PER_SEC).await?;
    let over = Cell::new(false);
    let change = async {
        let ended = pass(&claviger, ("again", END)).await;
        over.set(true);
        ended
    };
    let (ended, meanwhile) = tokio::join!(change, go_on_issuing(bystanders, &over));
    let (ended, meanwhile) = (ended?, meanwhile?);
    let gone = metric(claviger.metrics_port(), ENDED).await? - before;
    ensure!(gone >= leases as f64, "{gone} of {leases} leases were ended");
    drop(agents);
    let per_lease = |took: Duration| took.as_secs_f64() * 1e6 / leases as f64;
    bench.note(format!(
        "Decided again: {leases} leases of {SESSIONS} sessions that all may stay took {:.2} s ({:.0} µs \
         each); ending all of them took {:.2} s ({:.0} µs each). Meanwhile {BYSTANDERS_PER_SEC} logins \
         a second were issued with a p99 of {:.0} ms; before, it was {:.0} ms.",
        kept.as_secs_f64(),
        per_lease(kept),
        ended.as_secs_f64(),
        per_lease(ended),
        meanwhile.micros(0.99) / 1e3,
        calm.micros(0.99) / 1e3,
    ));
    Ok(())
}

/// Until the change is over.
async fn go_on_issuing(mut bystanders: Vec<Asking>, over: &Cell<bool>) -> Result<Tally> {
    let mut whole: Option<Tally> = None;
    while !over.get() {
        let (back, tally) = open(bystanders, SPELL, BYSTANDERS_PER_SEC).await?;
        bystanders = back;
        match &mut whole {
            Some(whole) => whole.add(&tally)?,
            None => whole = Some(tally),
        }
    }
    whole.context("it was over before it began")
}

/// Puts another policy beside the others, and waits for the pass that follows. How long the broker
/// took for it.
async fn pass(claviger: &Claviger, (name, policy): (&str, &str)) -> Result<Duration> {
    let port = claviger.metrics_port();
    let (passes, secs) = (metric(port, PASSES).await?, metric(port, PASS_SECS).await?);
    claviger.world.write(&format!("policies/{name}.cedar"), policy);
    let begun = Instant::now();
    loop {
        let (now, took) = (metric(port, PASSES).await?, metric(port, PASS_SECS).await?);
        if now > passes {
            return Ok(Duration::from_secs_f64(took - secs));
        }
        ensure!(begun.elapsed() < PASS_MAX, "nothing was decided again in {PASS_MAX:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Changes the policies, and nothing that they permit.
const KEEP: &str = r#"
@id("again")
permit (principal in Role::"nobody", action == Action::"issue", resource == Scope::"tokens/reports");
"#;

/// Refuses every token.
const END: &str = r#"
@id("again")
forbid (principal, action == Action::"issue", resource == Scope::"tokens/reports");
"#;

const PASSES: &str = "claviger_decide_again_seconds_count";
const PASS_SECS: &str = "claviger_decide_again_seconds_sum";
const ENDED: &str = "claviger_withdrawn_total{kind=\"lease\"}";

const SESSIONS: usize = 100;

const BYSTANDERS: usize = 16;

/// A quiet site's load.
const BYSTANDERS_PER_SEC: f64 = 100.0;

/// A stretch of their load.
const SPELL: Spell = Spell { warm: Duration::ZERO, counted: Duration::from_millis(500) };

/// Longer than a pass may take.
const PASS_MAX: Duration = Duration::from_secs(60);

/// A look is a page of metrics: seldom enough not to disturb.
const LOOK_EVERY: Duration = Duration::from_millis(20);
