//! Credentials that need no backend: tokens that Claviger signs, leased tokens of OpenBao, and the
//! bare gRPC echo.

use anyhow::{Context, Result};
use claviger_bench::load::{Tally, closed, open};
use claviger_bench::report::Spread;
use claviger_bench::report::{Curve, Latency, Point};

use crate::Bench;
use crate::claviger::{Claviger, Over, Wanted};
use crate::echo::Echo;
use crate::figures::{Compared, Named, ratio};
use crate::openbao::OpenBao;
use crate::stages;

/// Measures at the goals' numbers of clients, then curves and distributions.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let bao = match &bench.bao {
        Some(binary) => Some(OpenBao::start(binary, &claviger.world.postgres).await?),
        None => None,
    };
    let sides = Sides { claviger, bao, echo: Echo::start().await? };
    let one = against_echo(bench, &sides, 1).await?;
    let p50 = |tallies: &[Tally]| tallies.iter().map(|t| t.micros(0.5)).collect::<Vec<_>>();
    let (ours, theirs) = (p50(&one.ours), p50(&one.theirs));
    bench.ratio(ratio(&Compared {
        key: "issue_p50_vs_echo_p50_1",
        ours: Named { what: "Claviger", unit: "µs", values: &ours },
        theirs: Named { what: "gRPC echo", unit: "µs", values: &theirs },
    })?);
    let many = against_echo(bench, &sides, 256).await?;
    let (ours, theirs) = (rates(&many.ours), rates(&many.theirs));
    bench.ratio(ratio(&Compared {
        key: "issue_vs_echo_256",
        ours: Named { what: "Claviger", unit: "/s", values: &ours },
        theirs: Named { what: "gRPC echo", unit: "/s", values: &theirs },
    })?);
    stages::measure(bench, &sides.claviger).await?;
    if sides.bao.is_some() {
        against_openbao(bench, &sides).await?;
    }
    over_tls(bench, &sides.claviger).await?;
    curves(bench, &sides).await
}

struct Sides {
    claviger: Claviger,
    bao: Option<OpenBao>,
    echo: Echo,
}

struct Tallies {
    ours: Vec<Tally>,
    theirs: Vec<Tally>,
}

async fn against_echo(bench: &Bench, sides: &Sides, clients: usize) -> Result<Tallies> {
    let spell = bench.effort.spell();
    let mut tallies = Tallies { ours: Vec::new(), theirs: Vec::new() };
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("tokens and echo, {clients} clients, round {}", round + 1));
        let agents = sides.claviger.agents(clients, Wanted::Token).await?;
        let (agents, tally) = closed(agents, spell).await?;
        tallies.ours.push(tally);
        sides.claviger.end(agents).await?;
        let (_, tally) = closed(sides.echo.callers(clients).await, spell).await?;
        tallies.theirs.push(tally);
    }
    Ok(tallies)
}

async fn against_openbao(bench: &mut Bench, sides: &Sides) -> Result<()> {
    let Some(bao) = &sides.bao else { return Ok(()) };
    let spell = bench.effort.spell();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("tokens, Claviger and OpenBao, 64 clients, round {}", round + 1));
        let agents = sides.claviger.agents(64, Wanted::Token).await?;
        let (agents, tally) = closed(agents, spell).await?;
        ours.push(tally);
        sides.claviger.end(agents).await?;
        let (_, tally) = closed(bao.clients(64, Wanted::Token).await?, spell).await?;
        theirs.push(tally);
    }
    let (our_rates, their_rates) = (rates(&ours), rates(&theirs));
    bench.ratio(ratio(&Compared {
        key: "mint_vs_openbao_64",
        ours: Named { what: "Claviger", unit: "/s", values: &our_rates },
        theirs: Named { what: "OpenBao", unit: "/s", values: &their_rates },
    })?);
    bench.latency(latency(TOKEN, "Claviger", "closed loop, 64 clients", &ours)?);
    bench.latency(latency(TOKEN, "OpenBao", "closed loop, 64 clients", &theirs)?);
    // Both at the rate that the slower one can just hold, and Claviger at the same part of its own.
    let (own, shared) = (Spread::of(&our_rates).median, Spread::of(&their_rates).median);
    for (rate, load) in [(shared * BUSY, "of OpenBao's"), (own * BUSY, "of Claviger's")] {
        let load = format!("open loop, {rate:.0}/s: 70 % {load} capacity");
        bench.say(&format!("tokens, {load}"));
        let agents = sides.claviger.agents(OPEN_CALLERS, Wanted::Token).await?;
        let (agents, tally) = open(agents, spell, rate).await?;
        sides.claviger.end(agents).await?;
        bench.latency(latency(TOKEN, "Claviger", &load, &[tally])?);
        if rate < shared {
            let clients = bao.clients(OPEN_CALLERS, Wanted::Token).await?;
            let (_, tally) = open(clients, spell, rate).await?;
            bench.latency(latency(TOKEN, "OpenBao", &load, &[tally])?);
        }
    }
    Ok(())
}

/// The same load over TLS and over the unix socket, in turns.
async fn over_tls(bench: &mut Bench, claviger: &Claviger) -> Result<()> {
    let spell = bench.effort.spell();
    let (mut sealed, mut local) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("tokens over TLS and over the socket, 64 clients, round {}", round + 1));
        for (over, tallies) in [(Over::Tls, &mut sealed), (Over::Socket, &mut local)] {
            let agents = claviger.agents_over(over, 64, Wanted::Token).await?;
            let (agents, tally) = closed(agents, spell).await?;
            tallies.push(tally);
            claviger.end(agents).await?;
        }
    }
    let (sealed_rates, local_rates) = (rates(&sealed), rates(&local));
    let parts: Vec<_> = sealed_rates.iter().zip(&local_rates).map(|(tls, not)| tls / not).collect();
    let (part, tls, not) =
        (Spread::of(&parts), Spread::of(&sealed_rates), Spread::of(&local_rates));
    bench.note(format!(
        "Tokens over TLS 1.3, both ends certified, 64 clients: {:.0}/s, {:.2} ({:.2} to {:.2}) of the {:.0}/s over the unix socket.",
        tls.median, part.median, part.min, part.max, not.median
    ));
    bench.latency(latency(TOKEN, "Claviger, TLS", "closed loop, 64 clients", &sealed)?);
    Ok(())
}

async fn curves(bench: &mut Bench, sides: &Sides) -> Result<()> {
    let spell = bench.effort.glance();
    let (mut ours, mut theirs, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    let mut sealed = Vec::new();
    for &clients in bench.effort.points(&[1, 4, 16, 64, 256]) {
        bench.say(&format!("tokens, {clients} clients"));
        let agents = sides.claviger.agents(clients, Wanted::Token).await?;
        let (agents, tally) = closed(agents, spell).await?;
        ours.push(point(clients, &tally));
        sides.claviger.end(agents).await?;
        let agents = sides.claviger.agents_over(Over::Tls, clients, Wanted::Token).await?;
        let (agents, tally) = closed(agents, spell).await?;
        sealed.push(point(clients, &tally));
        sides.claviger.end(agents).await?;
        if let Some(bao) = &sides.bao {
            let (_, tally) = closed(bao.clients(clients, Wanted::Token).await?, spell).await?;
            theirs.push(point(clients, &tally));
        }
        let (_, tally) = closed(sides.echo.callers(clients).await, spell).await?;
        echoes.push(point(clients, &tally));
    }
    for (side, points) in [("Claviger", ours), ("Claviger, TLS", sealed), ("OpenBao", theirs)] {
        bench.curve(Curve { workload: TOKEN.into(), side: side.into(), points });
    }
    bench.curve(Curve { workload: "bare gRPC".into(), side: "gRPC echo".into(), points: echoes });
    Ok(())
}

/// One point of a curve.
pub fn point(clients: usize, tally: &Tally) -> Point {
    Point {
        clients,
        per_sec: Spread::of(&[tally.per_sec()]),
        p50_us: tally.micros(0.5),
        p99_us: tally.micros(0.99),
    }
}

/// The distribution over all rounds.
pub fn latency(workload: &str, side: &str, load: &str, tallies: &[Tally]) -> Result<Latency> {
    let (first, rest) = tallies.split_first().context("no round was measured")?;
    let mut whole = first.clone();
    for tally in rest {
        whole.add(tally)?;
    }
    Ok(Latency {
        workload: workload.to_owned(),
        side: side.to_owned(),
        load: load.to_owned(),
        quantiles: whole.distribution(),
    })
}

fn rates(tallies: &[Tally]) -> Vec<f64> {
    tallies.iter().map(Tally::per_sec).collect()
}

const TOKEN: &str = "token minted without a backend";

/// Of the capacity: busy, and not overloaded.
const BUSY: f64 = 0.7;

/// More than are ever under way at once below the capacity.
const OPEN_CALLERS: usize = 128;
