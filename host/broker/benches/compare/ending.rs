//! A session with many logins ends: how long until the last one is dead, against the same DROPs
//! sent straight.

use std::time::Instant;

use anyhow::{Context, Result};
use claviger_bench::load::count;
use claviger_test_servers::Postgres;
use tokio_postgres::{Client, NoTls};

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::figures::{Compared, Named, ratio};
use crate::sql::Straight;

/// Measures.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let postgres = &claviger.world.postgres;
    let watcher = watcher(postgres).await?;
    let leases = bench.effort.of(1000, 1000);
    let straight = Straight::new("ending");
    let mut connections = straight.connections(postgres, CONNECTIONS).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("end of a session with {leases} logins, round {}", round + 1));
        let session = claviger.agents(1, Wanted::Login).await?;
        let [agent] = &session[..] else { anyhow::bail!("one session was asked for") };
        let callers = (0..CALLERS).map(|_| agent.clone()).collect();
        count(callers, leases).await?;
        let begun = Instant::now();
        agent.close().await?;
        until_none(&watcher).await?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);

        connections = count(connections, leases).await?.0;
        let begun = Instant::now();
        straight.drop_all(&connections).await?;
        theirs.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    bench.ratio(ratio(&Compared {
        key: "session_end_1000_vs_raw",
        ours: Named { what: "Claviger", unit: "ms", values: &ours },
        theirs: Named { what: "bare SQL", unit: "ms", values: &theirs },
    })?);
    Ok(())
}

/// A connection to look with.
pub async fn watcher(postgres: &Postgres) -> Result<Client> {
    let (watcher, connection) = tokio_postgres::connect(&postgres.dsn(), NoTls).await?;
    tokio::spawn(connection);
    Ok(watcher)
}

/// Waits until the server has no login of Claviger's.
pub async fn until_none(watcher: &Client) -> Result<()> {
    let any = watcher.prepare(ANY_LOGIN).await?;
    while watcher.query_opt(&any, &[]).await.context("the server does not answer")?.is_some() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Finds a login of Claviger's, if there is one.
pub const ANY_LOGIN: &str = "SELECT 1 FROM pg_roles WHERE rolname LIKE 'clav\\_%' LIMIT 1";

/// As many as the broker keeps for a connection of its configuration.
const CONNECTIONS: usize = 8;

const CALLERS: usize = 16;

/// A thousandth of what is measured, and seldom enough not to disturb it.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(2);
