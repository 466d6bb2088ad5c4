//! A session with many logins ends, or an operator ends everything of one requester: how long until
//! the last login is dead, against the same DROPs sent straight.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use claviger_bench::load::count;
use claviger_e2e::broker::claviger;
use claviger_test_servers::Postgres;
use tokio_postgres::{Client, NoTls};

use crate::Bench;
use crate::claviger::{Claviger, Wanted};
use crate::figures::{Compared, Named, ratio};
use crate::sql::{Connection, Straight};

/// Measures.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let claviger = Claviger::start().await?;
    let postgres = &claviger.world.postgres;
    let watcher = watcher(postgres).await?;
    let leases = bench.effort.of(1000, 1000);
    let straight = Straight::new("ending");
    let mut connections = straight.connections(postgres, CONNECTIONS).await?;
    let (mut ended, mut revoked) = (Vec::new(), Vec::new());
    let (mut beside_ended, mut beside_revoked) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.rounds() {
        bench.say(&format!("end of a session with {leases} logins, round {}", round + 1));
        let session = claviger.agents(1, Wanted::Login).await?;
        let [agent] = &session[..] else { anyhow::bail!("one session was asked for") };
        let callers = (0..CALLERS).map(|_| agent.clone()).collect();
        count(callers, leases).await?;
        let begun = Instant::now();
        agent.close().await?;
        until_none(&watcher).await?;
        ended.push(millis(begun));
        connections = count(connections, leases).await?.0;
        beside_ended.push(drop_all(&straight, &connections).await?);

        bench.say(&format!("one command ends {leases} logins, round {}", round + 1));
        count(claviger.agents(CALLERS, Wanted::Login).await?, leases).await?;
        revoked.push(revoke(&claviger, &watcher).await?);
        connections = count(connections, leases).await?.0;
        beside_revoked.push(drop_all(&straight, &connections).await?);
    }
    for (key, ours, theirs) in [
        ("session_end_1000_vs_raw", &ended, &beside_ended),
        ("kill_switch_1000_vs_raw", &revoked, &beside_revoked),
    ] {
        bench.ratio(ratio(&Compared {
            key,
            ours: Named { what: "Claviger", unit: "ms", values: ours },
            theirs: Named { what: "bare SQL", unit: "ms", values: theirs },
        })?);
    }
    Ok(())
}

/// From the start of `claviger revoke` to the last login dead. The command itself returns when the
/// journal says so too, a little later.
async fn revoke(broker: &Claviger, watcher: &Client) -> Result<f64> {
    let requester = format!("unix:{}", rustix::process::geteuid().as_raw());
    let mut command = claviger(
        broker.broker()?,
        &["revoke", "requester", &requester, "--yes", "--reason", "left"],
    );
    let begun = Instant::now();
    let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    until_none(watcher).await?;
    let took = millis(begun);
    let output = tokio::task::block_in_place(|| running.wait_with_output())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(took)
}

async fn drop_all(straight: &Straight, connections: &[Connection]) -> Result<f64> {
    let begun = Instant::now();
    straight.drop_all(connections).await?;
    Ok(millis(begun))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
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
