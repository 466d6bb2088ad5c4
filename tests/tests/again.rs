//! Authorization goes on: what a change of policies, prompt files or configuration no longer permits
//! is ended while it lives, and its agent hears why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::world::World;
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use tokio_postgres::NoTls;
use tokio_stream::StreamExt;
use tonic::Streaming;

#[tokio::test]
async fn a_forbidden_lease_is_revoked_at_once_and_its_agent_hears_why() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    let issued = agent.issue("orders-db/readwrite").await.expect("a credential");
    let kept = agent.issue("orders-db/readonly").await.expect("another one");
    let (_client, connection) = tokio_postgres::connect(&issued.dsn(), NoTls).await.expect("login");
    world.write("policies/freeze.cedar", FREEZE);

    let changed = change(&mut news, &issued.lease.lease_id).await;
    assert_eq!((changed.state(), changed.cause.as_str()), DUE);
    assert_eq!(changed.code, "FORBIDDEN");
    assert_eq!(changed.reason, "forbidden by policy `freeze`: no writes during the freeze");
    connection.await.expect_err("the server ends the open connection");
    until_only_left(&world, &kept.lease.lease_id).await;
    let entry = entry(&broker, &issued.lease.lease_id, "lease-due").await;
    assert_eq!(entry["policies"], serde_json::json!(["freeze"]));
    assert_eq!(entry["code"], "FORBIDDEN");
    let loaded = last(&broker, "policies-loaded").await;
    assert_eq!(entry["snapshot"], loaded["snapshot"], "the snapshot that decided");
    agent.issue("orders-db/readonly").await.expect("the session lives on");
}

#[tokio::test]
async fn a_session_that_is_no_longer_permitted_ends_with_everything_it_holds() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let other = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    agent.issue("orders-db/readonly").await.expect("a credential");
    world.write(
        "policies/no-triage.cedar",
        "@id(\"no-triage\")\nforbid (principal, action == Action::\"open_session\", resource == Role::\"support-triage\");",
    );
    let ending = ending(&mut news).await;
    assert_eq!((ending.cause.as_str(), ending.code.as_str()), ("no-longer-permitted", "FORBIDDEN"));
    assert!(ending.reason.contains("`no-triage`"), "{}", ending.reason);
    assert!(news.next().await.is_none(), "the end is the last event");
    world.until_no_logins().await;
    let refused = agent.issue("orders-db/readonly").await.expect_err("the session is over");
    assert_eq!(reason(&refused), "NO_SESSION");
    let ended = last(&broker, "session-ended").await;
    assert_eq!(ended["cause"], "no-longer-permitted");
    assert_eq!(ended["policies"], serde_json::json!(["no-triage"]));
    other.issue("orders-db/readonly").await.expect("another role goes on");
}

#[tokio::test]
async fn an_authorization_that_the_prompt_file_no_longer_declares_takes_its_lease_along() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    let kept = agent.issue("orders-db/readonly").await.expect("a credential");
    let issued = agent.issue("orders-db/readwrite").await.expect("another one");
    world.write("prompts/incident-responder.md", &prompt("incident-responder", "orders.read"));
    let changed = change(&mut news, &issued.lease.lease_id).await;
    assert_eq!((changed.state(), changed.cause.as_str()), DUE);
    assert_eq!(changed.code, "UNDECLARED_AUTHORIZATION");
    assert!(changed.reason.contains("`orders.write`"), "{}", changed.reason);
    until_only_left(&world, &kept.lease.lease_id).await;
}

#[tokio::test]
async fn a_prompt_file_that_is_broken_for_a_moment_ends_nothing() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let path = "prompts/support-triage.md";
    let good = std::fs::read_to_string(world.path().join(path)).expect("read");
    for broken in [Some("---\nname: support-triage\nauthorizations: [\n"), None] {
        match broken {
            Some(half) => world.write(path, half),
            None => std::fs::remove_file(world.path().join(path)).expect("removed"),
        }
        let refused = poll::until("the role is gone", || async {
            agent.issue("orders-db/readonly").await.err()
        })
        .await;
        assert_eq!(reason(&refused), "UNDECLARED_AUTHORIZATION", "nothing new is issued");
        world.write(path, &good);
        poll::until("the role is back", || async { agent.issue("orders-db/readonly").await.ok() })
            .await;
    }
    let held = agent.leases().await.expect("the session lives");
    let active = |lease: &&v1::Lease| lease.lease_id == issued.lease.lease_id;
    assert_eq!(held.iter().find(active).map(v1::Lease::state), Some(v1::LeaseState::Active));
}

#[tokio::test]
async fn a_prompt_file_that_stays_away_ends_the_sessions_of_its_role() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    agent.issue("orders-db/readonly").await.expect("a credential");
    std::fs::remove_file(world.path().join("prompts/support-triage.md")).expect("removed");
    let ending = ending(&mut news).await;
    assert_eq!(
        (ending.cause.as_str(), ending.code.as_str()),
        ("no-longer-permitted", "UNKNOWN_ROLE")
    );
    world.until_no_logins().await;
}

#[tokio::test]
async fn a_team_that_loses_its_member_takes_what_it_permitted() {
    let world = World::new();
    let member = format!("unix:{}", rustix::process::getuid().as_raw());
    world.configure("[plugins.postgres]", &format!("{}[plugins.postgres]", team(&member)));
    world.write("policies/teams.cedar", FOR_THE_TEAM);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    world.configure(&team(&member), &team("unix:4294967294"));
    let changed = change(&mut news, &issued.lease.lease_id).await;
    assert_eq!((changed.state(), changed.cause.as_str()), DUE);
    assert_eq!(changed.code, "NO_PERMIT");
    world.until_no_logins().await;
}

#[tokio::test]
async fn what_changed_while_the_broker_was_down_counts_from_its_start_on() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let kept = agent.issue("orders-db/readonly").await.expect("a credential");
    agent.issue("orders-db/readwrite").await.expect("another one");
    broker.kill();
    world.write("policies/freeze.cedar", FREEZE);
    let broker = Broker::start(&world).await;
    until_only_left(&world, &kept.lease.lease_id).await;
    let agent = agent.reconnected(&broker.socket()).await;
    agent.issue("orders-db/readonly").await.expect("the session lives on");
}

const FREEZE: &str = r#"
@id("freeze")
@reason("no writes during the freeze")
forbid (principal, action == Action::"issue", resource == Scope::"orders-db/readwrite");
"#;

const FOR_THE_TEAM: &str = r#"
@id("sessions")
permit (principal, action == Action::"open_session", resource);
@id("team")
permit (principal, action == Action::"issue", resource == Scope::"orders-db/readonly")
when { principal.requester in Team::"support" };
"#;

const DUE: (v1::LeaseState, &str) = (v1::LeaseState::Due, "no-longer-permitted");

fn team(requester: &str) -> String {
    format!("[teams.support]\nrequesters = [\"{requester}\"]\n")
}

fn prompt(name: &str, authorization: &str) -> String {
    format!("---\nname: {name}\nauthorizations:\n  - {authorization}\n---\nYou help.\n")
}

/// What the stream tells next of that lease.
async fn change(news: &mut Streaming<v1::WatchResponse>, lease: &str) -> v1::LeaseChanged {
    loop {
        match next(news).await {
            Event::LeaseChanged(changed) if changed.lease_id == lease => return changed,
            Event::SessionEnding(ending) => panic!("the session ends: {ending:?}"),
            _ => {}
        }
    }
}

async fn ending(news: &mut Streaming<v1::WatchResponse>) -> v1::SessionEnding {
    loop {
        if let Event::SessionEnding(ending) = next(news).await {
            return ending;
        }
    }
}

async fn next(news: &mut Streaming<v1::WatchResponse>) -> Event {
    let answer = news.next().await.expect("the stream goes on").expect("an event");
    answer.event.expect("not empty")
}

async fn until_only_left(world: &World, lease: &str) {
    let left = format!("clav_{}", lease.trim_start_matches("int_"));
    poll::until("only the other login is left", || {
        std::future::ready((world.logins() == [left.clone()]).then_some(()))
    })
    .await;
}

async fn entry(broker: &Broker, lease: &str, event: &str) -> serde_json::Value {
    let request = v1::QueryJournalRequest { lease_id: lease.to_owned(), ..Default::default() };
    found(&journal(&broker.admin_socket(), request).await, event)
}

async fn last(broker: &Broker, event: &str) -> serde_json::Value {
    found(&journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await, event)
}

fn found(entries: &[serde_json::Value], event: &str) -> serde_json::Value {
    let found = entries.iter().rev().find(|entry| entry["event"] == event);
    found.unwrap_or_else(|| panic!("no `{event}` in {entries:?}")).clone()
}
