//! Budgets: who asks for too much is told which limit it is and when to come back, and a flood of
//! such asks costs next to nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[tokio::test]
async fn a_session_that_asks_too_often_is_told_when_to_come_back() {
    let world = with("session = { issues_per_minute = 3 }");
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for _ in 0..3 {
        agent.issue(READONLY).await.expect("within the budget");
    }
    let refused = agent.issue(READONLY).await.expect_err("the budget is used up");
    assert_eq!((refused.code(), reason(&refused).as_str()), SPENT);
    let sentence =
        "this session (with those above and below it) may be issued 3 credentials a minute";
    assert!(refused.message().starts_with(sentence), "{}", refused.message());
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.is_some_and(|wait| !wait.is_zero() && wait.as_secs() <= 20), "{wait:?}");
    other.issue(READONLY).await.expect("another session has a budget of its own");
    let denied = agent.issue("orders-db/owner").await.expect_err("never issued");
    assert_eq!(reason(&denied), "SENSITIVE_SCOPE", "what is not permitted takes from no budget");
}

#[tokio::test]
async fn a_flood_of_refused_asks_is_one_entry_and_no_credential() {
    let world = with("session = { issues_per_minute = 1 }");
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue(READONLY).await.expect("within the budget");
    let mut ids = Vec::new();
    for _ in 0..200 {
        let refused = agent.issue(READONLY).await.expect_err("the budget is used up");
        ids.push(denial(&refused));
    }
    ids.dedup();
    let recorded: Vec<_> = denials(&broker, "BUDGET_ISSUES").await;
    assert_eq!(recorded.len(), ids.len(), "an entry for each id that an agent was told");
    // One every ten seconds: a slow machine may take a few windows for it.
    assert!(recorded.len() < 20, "{} entries for 200 refusals", recorded.len());
    assert_eq!(world.logins().len(), 1);
    let why = claviger(&broker, &["why", &ids[0]]).output().expect("claviger runs");
    let said = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(said.contains("BUDGET_ISSUES"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_ask_at_once_only_so_many_get_a_lease_also_after_a_crash() {
    let world = with("roles = { support-triage = { live_leases = 3 } }");
    let broker = Broker::start(&world).await;
    let mut asking = Vec::new();
    for _ in 0..4 {
        let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
        for _ in 0..4 {
            let agent = agent.clone();
            asking
                .push(tokio::spawn(async move { agent.issue(READONLY).await.map(|i| (agent, i)) }));
        }
    }
    let mut held = Vec::new();
    for asked in asking {
        match asked.await.expect("joined") {
            Ok(issued) => held.push(issued),
            Err(refused) => {
                assert_eq!((refused.code(), reason(&refused).as_str()), FULL);
                let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
                assert!(wait.is_some_and(|wait| wait.as_secs() <= 1800), "{wait:?}");
            }
        }
    }
    assert_eq!((held.len(), world.logins().len()), (3, 3));
    broker.kill();
    let broker = Broker::start(&world).await;
    let (agent, issued) = held.remove(0);
    let agent = agent.reconnected(&broker.socket()).await;
    let refused = agent.issue(READONLY).await.expect_err("still as many");
    assert_eq!((refused.code(), reason(&refused).as_str()), FULL);
    let other = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    other.issue(READONLY).await.expect("another role has no such budget");
    agent.release(&issued.lease.lease_id).await.expect("released");
    agent.issue(READONLY).await.expect("there is room again");
}

#[tokio::test]
async fn an_agent_that_is_refused_in_a_loop_uses_up_nobody_elses_budget() {
    let world = with("session = { live_leases = 2 }\nbackend = { issues_per_minute = 4 }");
    let broker = Broker::start(&world).await;
    let greedy = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for _ in 0..2 {
        greedy.issue(READONLY).await.expect("within the budget");
    }
    for _ in 0..20 {
        let refused = greedy.issue(READONLY).await.expect_err("it holds two");
        assert_eq!((refused.code(), reason(&refused).as_str()), FULL);
    }
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for _ in 0..2 {
        other.issue(READONLY).await.expect("the backend's budget is there for all");
    }
    assert_eq!(world.logins().len(), 4);
}

#[tokio::test]
async fn nobody_gets_more_by_opening_children() {
    let world = with("session = { live_leases = 2 }");
    let broker = Broker::start(&world).await;
    let top = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let child = top.child("support-triage").await.expect("a child");
    let grandchild = child.child("support-triage").await.expect("a child of the child");
    top.issue(READONLY).await.expect("the first");
    let issued = grandchild.issue(READONLY).await.expect("the second");
    for agent in [&top, &child, &grandchild] {
        let refused = agent.issue(READONLY).await.expect_err("one budget for all three");
        assert_eq!((refused.code(), reason(&refused).as_str()), FULL);
    }
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    other.issue(READONLY).await.expect("another top session has a budget of its own");
    broker.kill();
    let broker = Broker::start(&world).await;
    let child = child.reconnected(&broker.socket()).await;
    let refused = child.issue(READONLY).await.expect_err("still as many");
    assert_eq!((refused.code(), reason(&refused).as_str()), FULL);
    let grandchild = grandchild.reconnected(&broker.socket()).await;
    grandchild.release(&issued.lease.lease_id).await.expect("released");
    child.issue(READONLY).await.expect("there is room again");
}

#[tokio::test]
async fn a_permit_says_how_many_there_may_be_at_once() {
    let world = World::new();
    let one = "@id(\"one.writer\")\n@max_active(\"1\")\npermit (principal in Role::\"incident-responder\", action == Action::\"issue\", resource == Scope::\"orders-db/readwrite\");";
    world.write("policies/one.cedar", one);
    let broker = Broker::start(&world).await;
    let first = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let second = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    let issued = first.issue("orders-db/readwrite").await.expect("the first");
    let refused = second.issue("orders-db/readwrite").await.expect_err("one too many");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "MAX_ACTIVE")
    );
    assert!(refused.message().contains("`one.writer`"), "{}", refused.message());
    second.issue(READONLY).await.expect("another scope is not meant");
    first.release(&issued.lease.lease_id).await.expect("released");
    second.issue("orders-db/readwrite").await.expect("there is room again");
}

#[tokio::test]
async fn a_lowered_budget_ends_what_is_one_too_many_and_says_so() {
    let world = with("session = { live_leases = 3 }");
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let mut news = agent.watch().await.expect("a stream");
    let mut leases = Vec::new();
    for _ in 0..3 {
        leases.push(agent.issue(READONLY).await.expect("within the budget").lease.lease_id);
    }
    world.configure("live_leases = 3", "live_leases = 2");
    let changed = loop {
        let answer = news.next().await.expect("the stream goes on").expect("an event");
        if let Some(Event::LeaseChanged(changed)) = answer.event {
            break changed;
        }
    };
    assert_eq!(changed.lease_id, leases[2], "what came last ends first");
    assert_eq!(
        (changed.cause.as_str(), changed.code.as_str()),
        ("no-longer-permitted", "BUDGET_LEASES")
    );
    assert!(changed.reason.contains("2 credentials at once"), "{}", changed.reason);
    poll::until("one login is gone", || {
        std::future::ready((world.logins().len() == 2).then_some(()))
    })
    .await;
}

fn with(budgets: &str) -> World {
    World::with(Settings { more: format!("[budgets]\n{budgets}\n"), ..Settings::default() })
}

async fn denials(broker: &Broker, code: &str) -> Vec<serde_json::Value> {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries
        .into_iter()
        .filter(|entry| entry["event"] == "denied" && entry["code"] == code)
        .collect()
}

fn denial(refused: &Status) -> String {
    let info = refused.get_details_error_info().expect("details");
    info.metadata.get("denial_id").expect("an id").clone()
}

const READONLY: &str = "orders-db/readonly";
const SPENT: (Code, &str) = (Code::ResourceExhausted, "BUDGET_ISSUES");
const FULL: (Code, &str) = (Code::ResourceExhausted, "BUDGET_LEASES");
