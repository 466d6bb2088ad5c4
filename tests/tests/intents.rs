//! Credentials that exist and of which nobody was told: the real worker finds each by its intent.
//! The database is held at the moment when the login is made and the answer is not yet out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, journal, lease_rows};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use claviger_test_servers::{ClusterOptions, Postgres};

#[tokio::test]
async fn a_login_made_while_the_broker_was_killed_is_gone_after_the_intent_timeout() {
    let world = held_world();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let asking = agent.clone();
    let asked = tokio::spawn(async move { asking.issue("orders-db/readonly").await.map(drop) });
    until_the_login_is_made(&world.postgres).await;
    broker.kill();
    asked.await.expect("joined").expect_err("nobody is there to answer");
    let_go(&world).await;

    let broker = Broker::start(&world).await;
    let agent = agent.reconnected(&broker.socket()).await;
    let leases = agent.leases().await.expect("the session lives");
    assert!(leases.iter().all(|lease| lease.state() == v1::LeaseState::Open), "{leases:?}");
    world.until_no_logins().await;
    assert_eq!(story(&broker, &agent).await, [OPENED, DUE, "lease-revoked intent-timeout"]);
}

#[tokio::test]
async fn a_login_made_after_the_plugins_time_was_up_is_gone_after_the_intent_timeout() {
    let world = held_world();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.map(drop).expect_err("the database does not answer");
    let_go(&world).await;
    world.until_no_logins().await;
    let story = story(&broker, &agent).await;
    assert_eq!(story, [OPENED, "issue-failed", "lease-revoked issue-failed"]);
}

/// A world whose database makes what the broker asks for, and does not say so: it waits for a
/// standby that does not exist.
fn held_world() -> World {
    let settings = ["synchronous_standby_names = 'nobody'", "synchronous_commit = local"];
    let cluster =
        ClusterOptions { settings: settings.map(str::to_owned).to_vec(), ..Default::default() };
    let world = World::with(Settings { intent_timeout: "16s", cluster, ..Settings::default() });
    world.postgres.psql("ALTER ROLE claviger SET synchronous_commit = on");
    world
}

async fn until_the_login_is_made(postgres: &Postgres) {
    poll::until("the database holds the answer back", || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        std::future::ready((postgres.psql(waits) == "1").then_some(()))
    })
    .await;
}

/// Lets the database answer whoever still listens; the login is there either way.
async fn let_go(world: &World) {
    world.postgres.psql("ALTER SYSTEM SET synchronous_standby_names = ''");
    world.postgres.psql("SELECT pg_reload_conf()");
    poll::until("the login exists", || {
        std::future::ready((world.logins().len() == 1).then_some(()))
    })
    .await;
}

/// What the journal says of the session's only lease, once nothing is left to do.
async fn story(broker: &Broker, agent: &Agent) -> Vec<String> {
    poll::until("every lease is final", || async {
        lease_rows(&broker.admin_socket(), &[]).await.is_empty().then_some(())
    })
    .await;
    let request =
        v1::QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    let word = |entry: &serde_json::Value, key: &str| entry[key].as_str().map(str::to_owned);
    let line = |entry: &serde_json::Value| {
        let (event, cause) = (word(entry, "event"), word(entry, "cause"));
        [event, cause].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    entries.iter().map(line).filter(|line| !line.starts_with("session-")).collect()
}

const OPENED: &str = "intent-opened";
const DUE: &str = "lease-due intent-timeout";
