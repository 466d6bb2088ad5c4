//! Another sealing key for a running broker: under load, without a failed call, and killed while it
//! is at it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::poll;
use claviger_e2e::world::{ADMIN_PASSWORD, World, program};

/// The world with the database's password in the broker's keeping.
fn world() -> World {
    let world = World::new();
    world.configure("file:secrets/admin", "store:orders/admin");
    let mut put = std::process::Command::new(program("clavigerd"));
    put.args(["secret", "put", "orders/admin", "--config"]).arg(world.config());
    let secret = std::fs::File::open(world.path().join("secrets/admin")).expect("a file");
    let output = put.stdin(secret).output().expect("clavigerd runs");
    assert!(output.status.success(), "{output:?}");
    world
}

/// Has the configuration name key `number` of those that were made, with the one before as previous.
fn name_key(world: &World, number: usize) {
    world.write(&format!("secrets/sealing-{number}"), &format!("{:02x}", number + 1).repeat(32));
    let before = match number {
        1 => "sealing_key = \"file:secrets/sealing\"".to_owned(),
        2 => keys_line("file:secrets/sealing-1", "file:secrets/sealing"),
        _ => keys_line(&key(number - 1), &key(number - 2)),
    };
    let previous = if number == 1 { "file:secrets/sealing".to_owned() } else { key(number - 1) };
    world.configure(&before, &keys_line(&key(number), &previous));
}

fn key(number: usize) -> String {
    format!("file:secrets/sealing-{number}")
}

fn keys_line(current: &str, previous: &str) -> String {
    format!("sealing_key = \"{current}\"\nprevious_sealing_keys = [\"{previous}\"]")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_changes_under_load_without_a_failed_call() {
    let world = world();
    let broker = Broker::start(&world).await;
    let run = |args: &[&str]| claviger(&broker, args).output().expect("claviger runs");
    let kept = told(&run(&["audit", "verify"]));
    let kept =
        kept.lines().find_map(|line| line.strip_prefix("head: ")).expect("a head").to_owned();
    let (stop, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let load = tokio::spawn({
        let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
        async move {
            while !stop.load(Ordering::SeqCst) {
                let lease = agent.issue("orders-db/readonly").await.expect("issued").lease.lease_id;
                agent.release(&lease).await.expect("released");
                issued.fetch_add(1, Ordering::SeqCst);
            }
            agent
        }
    });
    for number in 1..=3 {
        let until = issued.load(Ordering::SeqCst) + 3;
        name_key(&world, number);
        let rekey = run(&["journal", "rekey"]);
        assert!(rekey.status.success(), "{}", told(&rekey));
        assert!(told(&rekey).contains("1 secrets are sealed anew"), "{}", told(&rekey));
        poll::until("the load goes on", || {
            std::future::ready((issued.load(Ordering::SeqCst) >= until).then_some(()))
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    let agent = load.await.expect("no call failed");
    let again = run(&["journal", "rekey"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(told(&again).contains("under this key already"), "{}", told(&again));
    let verified = run(&["audit", "verify", "--expect", &kept]);
    assert!(verified.status.success(), "a head from before: {}", told(&verified));
    agent.close().await.expect("closed");
    world.until_no_logins().await;
    broker.stop().await;

    // The last key alone opens it from now on.
    world.configure(&keys_line(&key(3), &key(2)), &format!("sealing_key = \"{}\"", key(2)));
    let old = std::process::Command::new(program("clavigerd"))
        .args(["serve", "--config"])
        .arg(world.config())
        .output()
        .expect("clavigerd runs");
    assert!(told(&old).contains("the sealing key does not open the journal"), "{}", told(&old));
    world.configure(&key(2), &key(3));
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the kept secret opens the database");
    assert!(!broker.log().contains(ADMIN_PASSWORD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_meanwhile_starts_with_the_same_configuration() {
    let world = world();
    let mut broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let lease = agent.issue("orders-db/readonly").await.expect("a credential").lease.lease_id;
    for number in 1..=KILLS {
        name_key(&world, number);
        let mut rekey = claviger(&broker, &["journal", "rekey"]);
        let rekey = rekey.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut rekey = rekey.expect("claviger runs");
        // From before the call arrives to after its answer.
        for _ in 0..number * YIELDS_BETWEEN_KILLS {
            tokio::task::yield_now().await;
        }
        broker.kill();
        rekey.wait().expect("it ends with the broker");
        broker = Broker::start(&world).await;
    }
    let agent = agent.reconnected(&broker.socket()).await;
    agent.release(&lease).await.expect("the lease of the beginning is still there");
    world.until_no_logins().await;
    let verified = claviger(&broker, &["audit", "verify"]).output().expect("claviger runs");
    assert!(verified.status.success(), "{}", told(&verified));
}

/// The start takes up what the kill cut off, so each is another rotation.
const KILLS: usize = 6;

/// Together some tens of milliseconds: as long as the command takes.
const YIELDS_BETWEEN_KILLS: usize = 4000;
