//! Sub-agents: sessions below sessions, with no wider reach, ended together, traced together.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{self, Agent, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1::watch_response::Event;
use claviger_proto::v1::{QueryJournalRequest, WatchResponse};
use tokio_stream::StreamExt;
use tonic::{Code, Streaming};

/// The cause with which a watched session ends.
async fn cause_of_end(news: &mut Streaming<WatchResponse>) -> String {
    while let Some(event) = news.next().await {
        if let Some(Event::SessionEnding(ending)) = event.expect("news").event {
            return ending.cause;
        }
    }
    panic!("the stream ended without saying why")
}

#[tokio::test]
async fn what_is_below_a_session_ends_with_it_and_hears_why() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let top = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let child = top.child("support-triage").await.expect("a child");
    let grandchild = child.child("support-triage").await.expect("a child of the child");
    for agent in [&top, &child, &grandchild] {
        agent.issue("orders-db/readonly").await.expect("a credential");
    }
    assert_eq!(world.logins().len(), 3);
    let mut of_child = child.watch().await.expect("a stream");
    let mut of_grandchild = grandchild.watch().await.expect("a stream");
    assert_eq!(top.close().await.expect("closed").leases_due, 3);
    assert_eq!(cause_of_end(&mut of_child).await, "parent-ended");
    assert_eq!(cause_of_end(&mut of_grandchild).await, "parent-ended");
    world.until_no_logins().await;
    for agent in [&child, &grandchild] {
        let refused = agent.leases().await.expect_err("ended");
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::Unauthenticated, "NO_SESSION".into())
        );
    }
    let refused = child.child("support-triage").await.err().expect("ended sessions open none");
    assert_eq!(reason(&refused), "NO_SESSION");
    // The whole chain stands in every entry, down to the end of the lease.
    let entries = poll::until("the end of the lease is recorded", || async {
        let session_id = grandchild.session.clone();
        let query = QueryJournalRequest { session_id, ..Default::default() };
        let entries = client::journal(&broker.admin_socket(), query).await;
        entries.iter().any(|entry| entry["event"] == "lease-revoked").then_some(entries)
    })
    .await;
    let events: Vec<_> = entries.iter().filter_map(|entry| entry["event"].as_str()).collect();
    let expect =
        ["session-begun", "intent-opened", "lease-issued", "session-ended", "lease-revoked"];
    assert_eq!(events, expect);
    for entry in &entries {
        assert_eq!(entry["ancestors"][0]["session"], top.session.as_str(), "{entry}");
        assert_eq!(entry["ancestors"][1]["session"], child.session.as_str(), "{entry}");
        assert_eq!(entry["ancestors"][1]["role"], "support-triage", "{entry}");
    }
}

#[tokio::test]
async fn a_child_has_no_authorization_that_its_parent_lacks() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let wide = Agent::open(&broker.socket(), "incident-responder").await.expect("a session");
    wide.issue("orders-db/readwrite").await.expect("a top session of that role may write");
    let narrow = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let below = narrow.child("incident-responder").await.expect("a child");
    let refused = below.issue("orders-db/readwrite").await.expect_err("its parent may not");
    assert_eq!(reason(&refused), "UNDECLARED_AUTHORIZATION");
    assert!(refused.message().contains("`support-triage`"), "{}", refused.message());
    below.issue("orders-db/readonly").await.expect("what both declare");
    // The other way round: within what the parent has, the child's own role decides.
    let reader = wide.child("support-triage").await.expect("a child");
    let refused = reader.issue("orders-db/readwrite").await.expect_err("its own role may not");
    assert_eq!(reason(&refused), "UNDECLARED_AUTHORIZATION");
    // A prompt file above that loses an authorization takes it from those below at once.
    world.write("prompts/support-triage.md", "---\nname: support-triage\n---\nNothing.\n");
    let refused = poll::until("the new prompt file counts", || async {
        below.issue("orders-db/readonly").await.err()
    })
    .await;
    assert_eq!(reason(&refused), "UNDECLARED_AUTHORIZATION");
}

#[tokio::test]
async fn a_parent_that_is_lost_ends_its_children_even_over_a_restart() {
    let world = World::with(Settings { heartbeat_grace: "5s", ..Settings::default() });
    let broker = Broker::start(&world).await;
    let top = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let child = top.child("support-triage").await.expect("a child");
    child.issue("orders-db/readonly").await.expect("a credential");
    broker.kill();
    let broker = Broker::start(&world).await;
    let child = child.reconnected(&broker.socket()).await;
    // Only the child is heard of from here on.
    let mut news = child.watch().await.expect("the child lives on");
    assert_eq!(cause_of_end(&mut news).await, "parent-ended");
    world.until_no_logins().await;
}

#[tokio::test]
async fn a_role_that_may_run_only_below_another_is_run_by_the_command_line() {
    let world = World::new();
    world.write("policies/teams.cedar", ONLY_BELOW);
    let broker = Broker::start(&world).await;
    let refused =
        Agent::open(&broker.socket(), "incident-responder").await.err().expect("not alone");
    assert_eq!(reason(&refused), "NO_PERMIT");
    let count = "SELECT count(*) FROM orders";
    let inner = format!(
        "{} run --child --role incident-responder --grant orders-db/readonly -- psql -At -c '{count}'",
        claviger_e2e::world::program("claviger").display()
    );
    let mut run = claviger(&broker, &["run", "--role", "support-triage", "--", "sh", "-c", &inner]);
    let output = run.output().expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "10", "{told}");
}

const ONLY_BELOW: &str = r#"
permit (principal, action == Action::"open_session", resource == Role::"support-triage");
permit (principal, action == Action::"open_session", resource == Role::"incident-responder")
when { context has parent_role && context.parent_role == Role::"support-triage" };
permit (principal in Role::"incident-responder", action == Action::"issue", resource);
"#;
