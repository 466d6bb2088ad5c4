//! Changed policies and prompt files: taken over by themselves, and never at the cost of good ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{World, plugins, sha256_of};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_and_plugins_change_under_load_and_no_call_fails() {
    let world = World::new();
    let plugin = std::fs::read(plugins().join("postgres.wasm")).expect("the plugin");
    let place = |name: &str, bytes: &[u8]| {
        let path = world.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        (format!("path = \"{name}\""), format!("sha256 = \"{}\"", sha256_of(&path)))
    };
    // The same plugin with an empty custom section at its end: other bytes, the same behaviour.
    let first = place("one.wasm", &plugin);
    let second = place("two.wasm", &[&plugin[..], &[0, 5, 4, b'c', b'o', b'p', b'y']].concat());
    let shipped = plugins().join("postgres.wasm");
    world.configure(&format!("path = \"{}\"", shipped.display()), &first.0);
    let broker = Broker::start(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (socket, stop) = (broker.socket(), Arc::clone(&stop));
            tokio::spawn(async move {
                let agent = Agent::open(&socket, "support-triage").await.expect("a session");
                let mut issued = 0;
                while !stop.load(Ordering::Relaxed) {
                    let lease = agent.issue("orders-db/readonly").await.expect("issued").lease;
                    agent.release(&lease.lease_id).await.expect("released");
                    issued += 1;
                }
                issued
            })
        })
        .collect();
    let mut now = first;
    for turn in 0..6 {
        let before = configurations(&broker).await;
        if turn % 2 == 0 {
            let (from, to) =
                ("grant_role = \"orders_readonly\"", "grant_role = \"orders_auditor\"");
            let (from, to) = if turn % 4 == 0 { (from, to) } else { (to, from) };
            world.configure(from, to);
        } else {
            let next = if now.0 == second.0 { &place("one.wasm", &plugin) } else { &second };
            let text = std::fs::read_to_string(world.config()).expect("read");
            let text = text.replacen(&now.0, &next.0, 1).replacen(&now.1, &next.1, 1);
            world.write("claviger.toml", &text);
            now = next.clone();
        }
        poll::until("the configuration is in force", || async {
            (configurations(&broker).await > before).then_some(())
        })
        .await;
    }
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("issued");
    let user = issued.field("user");
    let member = format!("SELECT pg_has_role('{user}', 'orders_auditor', 'member')");
    assert_eq!(world.postgres.psql(&member).trim(), "t", "the new parameters are in force");
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let issued = caller.await.expect("no call failed");
        assert!(issued > 0, "it was no load");
    }
    let listed = claviger(&broker, &["plugin", "list", "-o", "json"]).output().expect("runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let digest = now.1.trim_start_matches("sha256 = ").to_owned();
    assert!(listed.contains(&digest), "{listed}");
}

#[tokio::test]
async fn a_bad_configuration_never_replaces_the_good_one() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let good = std::fs::read_to_string(world.config()).expect("read");
    for (from, to, expect) in [
        ("[journal]", "[journal", "claviger.toml"),
        ("sha256 = \"", "sha256 = \"00", "sha256"),
        ("plugin = \"postgres\"", "plugin = \"mysql\"", "mysql"),
        ("grant_role = \"orders_readonly\"", "grant_rule = \"x\"", "grant_rule"),
        ("secrets/admin", "secrets/lost", "secrets/lost"),
    ] {
        let before = count(&broker, "configuration-refused").await;
        world.configure(from, to);
        poll::until("the refusal is recorded", || async {
            (count(&broker, "configuration-refused").await > before).then_some(())
        })
        .await;
        let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
        let said = String::from_utf8_lossy(&reload.stdout).into_owned();
        assert_eq!(reload.status.code(), Some(1), "{said}");
        assert!(said.contains(expect), "{expect}: {said}");
        agent.issue("orders-db/readonly").await.expect("the good one stays in force");
        world.write("claviger.toml", &good);
    }
}

#[tokio::test]
async fn what_a_removed_backend_issued_is_revoked_and_nothing_more_is_issued() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("issued");
    let good = std::fs::read_to_string(world.config()).expect("read");
    let (head, _) = good.split_once("[plugins.postgres]").expect("the plugins come last");
    world.write("claviger.toml", &format!("{head}[metrics]\naddress = \"127.0.0.1:0\"\n"));
    let refused = poll::until("the backend is gone", || async {
        agent.issue("orders-db/readonly").await.err()
    })
    .await;
    assert_eq!(reason(&refused), "UNKNOWN_SCOPE", "{refused:?}");
    let reload = claviger(&broker, &["reload"]).output().expect("claviger runs");
    let said = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert!(said.contains("`[metrics]` has changed: restart the broker"), "{said}");
    world.until_no_logins().await;
    agent.close().await.expect("the session lived on");
}

#[tokio::test]
async fn a_hangup_reads_the_secrets_again() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("issued");
    world.postgres.psql("ALTER ROLE claviger PASSWORD 'rotated-root-password'");
    world.write("secrets/admin", "rotated-root-password");
    let before = configurations(&broker).await;
    broker.signal(Signal::HUP);
    poll::until("the broker has read it", || async {
        (configurations(&broker).await > before).then_some(())
    })
    .await;
    // Connections that were open go on, so they are ended: a new login needs the new password.
    world.postgres.psql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'claviger'",
    );
    agent.issue("orders-db/readonly").await.expect("with the new password");
}

async fn configurations(broker: &Broker) -> usize {
    count(broker, "configuration-loaded").await
}

async fn refusals(broker: &Broker) -> usize {
    count(broker, "policies-refused").await
}

async fn count(broker: &Broker, event: &str) -> usize {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries.iter().filter(|entry| entry["event"] == event).count()
}

fn prompt(name: &str) -> String {
    format!("---\nname: {name}\nauthorizations:\n  - orders.read\n---\nYou read orders.\n")
}
