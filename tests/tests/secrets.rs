//! Secrets that the broker keeps: put, used by backends at once, refused where they are needed, and
//! never shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal};
use claviger_e2e::world::{ADMIN_PASSWORD, World, program};
use claviger_proto::v1;

/// The world with the database's password in the store instead of a file.
fn world() -> World {
    let world = World::new();
    world.configure("file:secrets/admin", "store:orders/admin");
    world
}

fn with_input(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

fn put(broker: &Broker, name: &str, value: &str) -> Output {
    with_input(claviger(broker, &["secret", "put", name]), value)
}

fn clavigerd(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(program("clavigerd"));
    command.args(args).arg("--config").arg(world.config());
    command
}

fn check(output: &Output, code: i32, hints: &[&str]) {
    let told = [&output.stdout[..], &output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert_eq!(output.status.code(), Some(code), "{told}");
    for hint in hints {
        assert!(told.contains(hint), "no `{hint}` in {told}");
    }
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn a_new_broker_starts_with_a_secret_that_was_put_before_and_shows_it_to_nobody() {
    let world = world();
    let refused = clavigerd(&world, &["serve"]).output().expect("clavigerd runs");
    check(&refused, 1, &["secret `store:orders/admin`", "clavigerd secret put orders/admin"]);
    let checked = clavigerd(&world, &["check"]).output().expect("clavigerd runs");
    check(&checked, 0, &["not checked: whether the broker keeps `store:orders/admin`"]);
    let value = format!("{ADMIN_PASSWORD}\n");
    let kept = with_input(clavigerd(&world, &["secret", "put", "orders/admin"]), &value);
    check(&kept, 0, &["store:orders/admin is kept, version 1"]);

    let broker = Broker::start(&world).await;
    let in_use = clavigerd(&world, &["secret", "put", "orders/admin"]);
    check(&with_input(in_use, "x"), 1, &["in use by another broker"]);
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the secret opens the database");
    let list = claviger(&broker, &["secret", "list", "-o", "json"]).output().expect("it runs");
    check(&list, 0, &["orders/admin", "backends.orders-db.connections.admin.auth", "unix:"]);
    let export = claviger(&broker, &["audit", "export"]).output().expect("it runs");
    check(&export, 0, &["secret-put", "secret `store:orders/admin`, version 1"]);
    broker.stop().await;
    for file in walk(world.path()) {
        let content = std::fs::read(&file).expect("read");
        let found = content.windows(ADMIN_PASSWORD.len()).any(|w| w == ADMIN_PASSWORD.as_bytes());
        assert!(!found || file.ends_with("secrets/admin"), "{}", file.display());
    }
}

#[tokio::test]
async fn a_secret_that_is_put_anew_is_used_at_once_and_without_a_failed_call() {
    let world = world();
    with_input(clavigerd(&world, &["secret", "put", "orders/admin"]), ADMIN_PASSWORD);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    world.postgres.psql("ALTER ROLE claviger PASSWORD 'canary-second'");
    check(&put(&broker, "orders/admin", "canary-second\n"), 0, &["version 2", "in use by"]);
    agent.issue("orders-db/readonly").await.expect("connections log in with the new one");
    assert_eq!(world.logins().len(), 2);
    agent.close().await.expect("closed");
    world.until_no_logins().await;
}

#[tokio::test]
async fn what_a_backend_uses_is_deleted_on_demand_only() {
    let world = world();
    with_input(clavigerd(&world, &["secret", "put", "orders/admin"]), ADMIN_PASSWORD);
    let broker = Broker::start(&world).await;
    let delete = |args: &[&str]| {
        let args = [&["secret", "delete"], args].concat();
        claviger(&broker, &args).output().expect("it runs")
    };
    check(&put(&broker, "spare", "canary-spare"), 0, &["version 1", "nothing uses it yet"]);
    check(&delete(&["spare"]), 0, &["is forgotten"]);
    check(&delete(&["spare"]), 1, &["keeps no secret `store:spare`"]);
    check(&delete(&["orders/admin"]), 1, &["`backends.orders-db.connections.admin.auth`"]);
    check(&delete(&["orders/admin", "--force"]), 0, &["goes on until the next reload"]);
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("what was read goes on");
    let reload = claviger(&broker, &["reload"]).output().expect("it runs");
    check(&reload, 1, &["secret `store:orders/admin`", "claviger secret put orders/admin"]);
    check(&put(&broker, "orders/admin", ADMIN_PASSWORD), 0, &["version 2", "in use by"]);
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let acts = entries.iter().filter(|entry| entry["event"] == "secret-deleted").count();
    assert_eq!(acts, 2);
}

#[tokio::test]
async fn what_is_no_secret_or_no_name_is_refused() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    check(&put(&broker, "a", "\n"), 2, &["is empty"]);
    check(&put(&broker, "Not a name", "x"), 2, &["is not a valid secret name"]);
    check(&put(&broker, "a", &"x".repeat(20_000)), 2, &["16384 bytes"]);
    check(&put(&broker, "a", &"x".repeat(16 * 1024)), 0, &["version 1"]);
    world.configure("file:secrets/sealing", "store:a");
    let refused = clavigerd(&world, &["check"]).output().expect("it runs");
    check(&refused, 1, &["`journal.sealing_key`", "connections of backends only"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("read"));
    let deeper = entries.flat_map(|entry| match entry.file_type().expect("a type") {
        kind if kind.is_dir() => walk(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    });
    deeper.collect()
}
