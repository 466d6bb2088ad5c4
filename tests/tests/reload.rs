//! Changed policies and prompt files: taken over by themselves, and never at the cost of good ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::world::World;
use claviger_proto::v1;
use rustix::process::Signal;
use tonic::Code;

#[tokio::test]
async fn an_authorization_that_is_removed_is_refused_in_a_running_session() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("declared");
    world.write("prompts/support-triage.md", "---\nname: support-triage\n---\nYou triage.\n");
    let refused = poll::until("the broker has read the prompt file", || async {
        agent.issue("orders-db/readonly").await.err()
    })
    .await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(reason(&refused), "UNDECLARED_AUTHORIZATION");
    assert!(refused.message().contains("`orders.read`"), "{}", refused.message());
}

#[tokio::test]
async fn a_new_prompt_file_is_a_new_role() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let unknown = Agent::open(&broker.socket(), "auditor").await.err().expect("not a role yet");
    assert_eq!(reason(&unknown), "UNKNOWN_ROLE");
    world.write("prompts/audit/auditor.md", &prompt("auditor"));
    let agent = poll::until("the broker knows the role", || async {
        Agent::open(&broker.socket(), "auditor").await.ok()
    })
    .await;
    agent.issue("orders-db/readonly").await.expect("the new role gets what it declares");
}

#[tokio::test]
async fn a_broken_prompt_file_fails_its_role_only() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    world.write(
        "prompts/code-reviewer.md",
        "---\nname: code-reviewer\nauthorizations: [\n---\nNo.\n",
    );
    let refused = poll::until("the broken file is noticed", || async {
        Agent::open(&broker.socket(), "code-reviewer").await.err()
    })
    .await;
    assert_eq!(reason(&refused), "UNKNOWN_ROLE");
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("another role serves");
    agent.issue("orders-db/readonly").await.expect("and gets its credentials");
    let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
    let said = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert!(reload.status.success(), "the rest is loaded: {said}");
    assert!(said.contains("code-reviewer.md"), "{said}");

    world.write("prompts/code-reviewer.md", &prompt("code-reviewer"));
    poll::until("the mended file serves", || async {
        Agent::open(&broker.socket(), "code-reviewer").await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_bad_policy_set_never_replaces_the_good_one() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for bad in [
        "permit (principal, action ==",
        "permit (principal, action, resource) when { principal.nothing };",
    ] {
        let before = refusals(&broker).await;
        world.write("policies/worse.cedar", bad);
        poll::until("the refusal is recorded", || async {
            (refusals(&broker).await > before).then_some(())
        })
        .await;
        let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
        let said = String::from_utf8_lossy(&reload.stdout).into_owned();
        assert_eq!(reload.status.code(), Some(1), "{said}");
        assert!(said.contains("worse.cedar") && said.contains("not loaded"), "{said}");
        agent.issue("orders-db/readonly").await.expect("the good set goes on deciding");
        let other = agent.issue("orders-db/owner").await.expect_err("and goes on refusing");
        assert_eq!(reason(&other), "SENSITIVE_SCOPE");
    }
    // A good set afterwards is taken: it forbids what was allowed.
    world.write(
        "policies/worse.cedar",
        "@id(\"closed\")\nforbid (principal, action == Action::\"issue\", resource);",
    );
    let refused = poll::until("the new set decides", || async {
        agent.issue("orders-db/readonly").await.err()
    })
    .await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("closed"), "{}", refused.message());
}

#[tokio::test]
async fn a_hangup_loads_what_no_watcher_can_see() {
    let world = World::new();
    let (folder, link) = (world.path().join("checkout-1"), world.path().join("prompts"));
    std::fs::rename(&link, &folder).expect("moved");
    std::os::unix::fs::symlink(&folder, &link).expect("linked");
    let broker = Broker::start(&world).await;
    let unknown = Agent::open(&broker.socket(), "auditor").await.err().expect("not a role yet");
    assert_eq!(reason(&unknown), "UNKNOWN_ROLE");

    // A checkout beside the old one, and the link turned to it: nothing changes in the folder
    // that was watched, and only the signal can make the broker look.
    world.write("checkout-2/auditor.md", &prompt("auditor"));
    let draft = world.path().join("prompts.next");
    std::os::unix::fs::symlink(world.path().join("checkout-2"), &draft).expect("linked");
    std::fs::rename(&draft, &link).expect("turned");
    broker.signal(Signal::HUP);
    poll::until("the broker has looked", || async {
        Agent::open(&broker.socket(), "auditor").await.ok()
    })
    .await;
    let gone = Agent::open(&broker.socket(), "support-triage").await.err().expect("not in it");
    assert_eq!(reason(&gone), "UNKNOWN_ROLE");
}

async fn refusals(broker: &Broker) -> usize {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries.iter().filter(|entry| entry["event"] == "policies-refused").count()
}

fn prompt(name: &str) -> String {
    format!("---\nname: {name}\nauthorizations:\n  - orders.read\n---\nYou read orders.\n")
}
