//! Logins of one PostgreSQL server: issued by Claviger, by OpenBao, and by the bare SQL.

use anyhow::Result;
use claviger_bench::load::closed;
use claviger_bench::report::Spread;
use claviger_bench::report::{Curve, Point};

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::figures::{Compared, Named, ratio};
use crate::mint::{latency, point};
use crate::openbao::OpenBao;
use crate::sql::Straight;

/// Measures with as many clients as the goals name, then a curve.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let bao = match &bench.bao {
        Some(binary) => Some(OpenBao::start(binary, &claviger.world.postgres).await?),
        None => None,
    };
    let sides = Sides { claviger, bao };
    at_sixteen(bench, &sides).await?;
    curves(bench, &sides).await
}

struct Sides {
    claviger: Claviger,
    bao: Option<OpenBao>,
}

async fn at_sixteen(bench: &mut Bench, sides: &Sides) -> Result<()> {
    let (spell, straight) = (bench.effort.spell(), Straight::new("rounds"));
    let postgres = &sides.claviger.world.postgres;
    let mut connections = straight.connections(postgres, CONNECTIONS).await?;
    let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let (mut our_tallies, mut their_tallies) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("PostgreSQL logins, round {}", round + 1));
        let agents = sides.claviger.agents(CLIENTS, Wanted::Login).await?;
        let (agents, tally) = closed(agents, spell).await?;
        sides.claviger.end(agents).await?;
        ours.push(tally.per_sec());
        our_tallies.push(tally);
        if let Some(bao) = &sides.bao {
            let clients = bao.clients(CLIENTS, Wanted::Login).await?;
            let (_, tally) = closed(clients, spell).await?;
            bao.revoke_logins().await?;
            theirs.push(tally.per_sec());
            their_tallies.push(tally);
        }
        let (back, tally) = closed(connections, spell).await?;
        straight.drop_all(&back).await?;
        connections = back;
        bare.push(tally.per_sec());
    }
    let ours = || Named { what: "Claviger", unit: "/s", values: &ours };
    let (key, theirs) =
        ("pg_vs_openbao_16", Named { what: "OpenBao", unit: "/s", values: &theirs });
    bench.latency(latency("PostgreSQL login", "Claviger", LOAD, &our_tallies)?);
    if sides.bao.is_some() {
        bench.ratio(ratio(&Compared { key, ours: ours(), theirs })?);
        bench.latency(latency("PostgreSQL login", "OpenBao", LOAD, &their_tallies)?);
    }
    let bare = Named { what: "bare SQL", unit: "/s", values: &bare };
    bench.ratio(ratio(&Compared { key: "pg_vs_raw_sql_16", ours: ours(), theirs: bare })?);
    Ok(())
}

async fn curves(bench: &mut Bench, sides: &Sides) -> Result<()> {
    let spell = bench.effort.glance();
    let postgres = &sides.claviger.world.postgres;
    let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for &clients in bench.effort.points(&[1, 4, 16, 64]) {
        bench.say(&format!("PostgreSQL logins, {clients} clients"));
        let agents = sides.claviger.agents(clients, Wanted::Login).await?;
        let (agents, tally) = closed(agents, spell).await?;
        sides.claviger.end(agents).await?;
        ours.push(point(clients, &tally));
        if let Some(bao) = &sides.bao {
            let (_, tally) = closed(bao.clients(clients, Wanted::Login).await?, spell).await?;
            bao.revoke_logins().await?;
            theirs.push(point(clients, &tally));
        }
        let straight = Straight::new("curve");
        let connections = straight.connections(postgres, clients.min(CONNECTIONS)).await?;
        let (connections, tally) = closed(connections, spell).await?;
        straight.drop_all(&connections).await?;
        bare.push(Point { per_sec: Spread::of(&[tally.per_sec()]), ..point(clients, &tally) });
    }
    for (side, points) in [("Claviger", ours), ("OpenBao", theirs), ("bare SQL", bare)] {
        bench.curve(Curve { workload: "PostgreSQL login".into(), side: side.into(), points });
    }
    Ok(())
}

const CLIENTS: usize = 16;

/// As many as the broker keeps for a connection of its configuration.
const CONNECTIONS: usize = 8;

const LOAD: &str = "closed loop, 16 clients";
