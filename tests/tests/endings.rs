//! How sessions, leases and brokers end, and what each end leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, channel, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use tokio_postgres::NoTls;
use tokio_stream::StreamExt;
use tonic::{Code, Streaming};

#[tokio::test]
async fn a_session_ends_at_its_maximum_life_and_takes_everything_along() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let channel = channel(&broker.socket()).await;
    let agent = Agent::open_on(channel, "support-triage", Some(10)).await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let (_client, connection) = tokio_postgres::connect(&issued.dsn(), NoTls).await.expect("login");

    // An open Watch keeps a session from falling silent, not from its maximum life.
    assert_eq!(ending(&mut news).await, "life-reached");
    connection.await.expect_err("the server ends the open connection");
    world.until_no_logins().await;
    let refused = agent.issue("orders-db/readonly").await.expect_err("the session is over");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "NO_SESSION"));
    assert_eq!(cause_of_end(&broker, &agent).await, "life-reached");
}

#[tokio::test]
async fn a_silent_session_ends_while_a_watched_one_lives_on() {
    let world = World::with(Settings { heartbeat_grace: "6s", ..Settings::default() });
    let broker = Broker::start(&world).await;
    let watched = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut news = watched.watch().await.expect("a stream");
    // From here on the watched one makes no call, for longer than the silent one makes none.
    let silent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    silent.issue("orders-db/readonly").await.expect("a credential");

    world.until_no_logins().await;
    let refused = silent.issue("orders-db/readonly").await.expect_err("the session is over");
    assert_eq!(reason(&refused), "NO_SESSION");
    assert_eq!(cause_of_end(&broker, &silent).await, "heartbeat-lost");
    assert!(matches!(next(&mut news).await, Event::Heartbeat(_)));
    watched.issue("orders-db/readonly").await.expect("the watched session lives");

    drop(news);
    // Its stream is gone, and with it what kept it alive.
    world.until_no_logins().await;
    assert_eq!(cause_of_end(&broker, &watched).await, "heartbeat-lost");
}

#[tokio::test]
async fn a_watch_tells_heartbeats_leases_and_the_end() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    assert!(matches!(next(&mut news).await, Event::Heartbeat(_)), "the first comes at once");

    let released = agent.issue("orders-db/readonly").await.expect("a credential").lease.lease_id;
    agent.release(&released).await.expect("released");
    assert_eq!(ends_of(&mut news, &released).await, "released");

    let expiring = agent.issue_as(ask(6)).await.expect("a credential").lease.lease_id;
    assert_eq!(warning(&mut news).await, expiring);
    assert_eq!(ends_of(&mut news, &expiring).await, "ttl-reached");

    agent.issue("orders-db/readonly").await.expect("a credential");
    agent.close().await.expect("closed");
    assert_eq!(ending(&mut news).await, "closed");
    assert!(news.next().await.is_none(), "the end is the last event");
}

#[tokio::test]
async fn the_end_of_a_lease_ends_its_open_connection() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue_as(ask(8)).await.expect("a credential");
    let lasting = agent.issue("orders-db/readonly").await.expect("a credential");
    let (client, connection) = tokio_postgres::connect(&issued.dsn(), NoTls).await.expect("login");
    connection.await.expect_err("the server ends the open connection");
    drop(client);
    let left = format!("clav_{}", lasting.lease.lease_id.trim_start_matches("int_"));
    poll::until("only the lasting login is left", || {
        std::future::ready((world.logins() == [left.clone()]).then_some(()))
    })
    .await;
    // The login is gone a moment before the journal says so.
    poll::until("the session holds the lasting lease alone", || async {
        let leases = agent.leases().await.expect("the session lives");
        (leases.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_terminated_broker_drains_and_its_sessions_survive() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let mut news = agent.watch().await.expect("a stream");
    let stopped = tokio::spawn(broker.stop());
    assert_eq!(ending(&mut news).await, "draining");
    assert_eq!(stopped.await.expect("joined").code(), Some(0));
    assert!(!world.path().join("agent.sock").exists(), "an orderly end removes the socket");
    survives(&world, &agent, &issued.dsn()).await;
}

#[tokio::test]
async fn the_sessions_of_a_killed_broker_survive() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    broker.kill();
    survives(&world, &agent, &issued.dsn()).await;
}

/// A new broker knows the session and its lease, and ends both when told to.
async fn survives(world: &World, agent: &Agent, dsn: &str) {
    let broker = Broker::start(world).await;
    let agent = agent.reconnected(&broker.socket()).await;
    let leases = agent.leases().await.expect("the token still works");
    assert_eq!(leases.len(), 1);
    let states: Vec<_> = leases.iter().map(v1::Lease::state).collect();
    assert_eq!(states, [v1::LeaseState::Active]);
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.expect("still a login");
    let alive = tokio::spawn(connection);
    client.query_one("SELECT count(*) FROM orders", &[]).await.expect("that works");
    agent.issue("orders-db/readonly").await.expect("a second credential");
    assert_eq!(agent.close().await.expect("closed").leases_due, 2);
    alive.await.expect("joined").expect_err("the server ends the open connection");
    world.until_no_logins().await;
}

fn ask(ttl_secs: i64) -> v1::IssueRequest {
    v1::IssueRequest {
        scope: "orders-db/readonly".into(),
        ttl: Some(prost_types::Duration { seconds: ttl_secs, nanos: 0 }),
        ..Default::default()
    }
}

async fn next(news: &mut Streaming<v1::WatchResponse>) -> Event {
    let answer = news.next().await.expect("the stream goes on").expect("an event");
    answer.event.expect("not empty")
}

/// The cause in the last event, whatever comes before.
async fn ending(news: &mut Streaming<v1::WatchResponse>) -> String {
    loop {
        if let Event::SessionEnding(ending) = next(news).await {
            return ending.cause;
        }
    }
}

/// The lease whose end is announced next.
async fn warning(news: &mut Streaming<v1::WatchResponse>) -> String {
    loop {
        match next(news).await {
            Event::LeaseExpiring(warned) => return warned.lease_id,
            Event::Heartbeat(_) => {}
            other => panic!("no warning but {other:?}"),
        }
    }
}

/// Why `lease` fell due, once its final state is told.
async fn ends_of(news: &mut Streaming<v1::WatchResponse>, lease: &str) -> String {
    let mut due = String::new();
    loop {
        let Event::LeaseChanged(changed) = next(news).await else { continue };
        assert_eq!(changed.lease_id, lease);
        match changed.state() {
            v1::LeaseState::Due => due = changed.cause,
            v1::LeaseState::Revoked => return due,
            other => panic!("state {other:?}"),
        }
    }
}

async fn cause_of_end(broker: &Broker, agent: &Agent) -> String {
    let request =
        v1::QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    let ended = entries.iter().find(|entry| entry["event"] == "session-ended");
    let ended = ended.unwrap_or_else(|| panic!("the end is recorded in {entries:?}"));
    ended["cause"].as_str().unwrap_or_else(|| panic!("a cause in {ended}")).to_owned()
}
