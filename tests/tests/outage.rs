//! Outages: of the journal's files, of its disk, of a backend. Nothing is minted that could not
//! be recorded, nothing else stops, and all goes on without a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, health, lease_rows, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World, furnish, logins_on};
use claviger_proto::v1;
use claviger_test_servers::Postgres;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;

#[tokio::test]
async fn a_journal_that_is_moved_away_stops_issuing_until_it_is_back() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    assert_eq!(health(&broker.socket()).await, ServingStatus::Serving);

    let (state, away) = (world.path().join("state"), world.path().join("away"));
    std::fs::create_dir(&away).expect("made");
    carry(&state, &away);
    unwritable_and_nothing_minted(&world, &broker, &agent).await;
    let nobody = Agent::open(&broker.socket(), "support-triage").await.err().expect("no session");
    assert_eq!(reason(&nobody), "JOURNAL_UNWRITABLE");

    carry(&away, &state);
    works_again(&world, &broker, &agent).await;
}

/// Needs the right to mount; where that is refused the test fails and says so.
#[tokio::test]
async fn a_full_disk_stops_issuing_until_there_is_room() {
    let world = World::new();
    let disk = Disk::mount(world.path().join("state"));
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");

    disk.fill();
    // The journal may still have room in its log; the disk tells at the latest when that is used.
    poll::until("the journal notices", || async { agent.issue("orders-db/readonly").await.err() })
        .await;
    unwritable_and_nothing_minted(&world, &broker, &agent).await;

    disk.empty();
    works_again(&world, &broker, &agent).await;
    drop(broker);
}

#[tokio::test]
async fn a_dead_backend_delays_no_other_and_is_cleared_when_it_is_back() {
    let billing = Postgres::start();
    furnish(&billing);
    let world =
        World::with(Settings { more: second_backend(billing.port()), ..Settings::default() });
    world.write("policies/billing.cedar", BILLING_POLICY);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    agent.issue("billing-db/readonly").await.expect("a credential of the other server");
    assert_eq!((world.logins().len(), logins_on(&billing).len()), (1, 1));

    billing.stop();
    assert_eq!(agent.close().await.expect("closed").leases_due, 2);
    world.until_no_logins().await;
    retried(&broker, 2).await;

    // While that one is being tried again, the living backend issues and revokes.
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    other.issue("orders-db/readonly").await.expect("a credential");
    let refused = other.issue("billing-db/readonly").await.expect_err("its server is dead");
    assert_eq!(reason(&refused), "BACKEND_UNAVAILABLE", "{refused:?}");
    other.close().await.expect("closed");
    world.until_no_logins().await;
    retried(&broker, 2).await;

    billing.start_again();
    poll::until("nothing is left to revoke", || async {
        lease_rows(&broker.admin_socket(), &[]).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(logins_on(&billing), Vec::<String>::new());
}

/// The broker refuses, says why and that it is not serving, and leaves no login behind.
async fn unwritable_and_nothing_minted(world: &World, broker: &Broker, agent: &Agent) {
    let before = world.logins();
    let refused = agent.issue("orders-db/readonly").await.expect_err("nothing can be recorded");
    assert_unwritable(&refused);
    poll::until("health tells", || async {
        (health(&broker.socket()).await == ServingStatus::NotServing).then_some(())
    })
    .await;
    let refused = agent.issue("orders-db/readonly").await.expect_err("nothing can be recorded");
    assert_unwritable(&refused);
    assert_eq!(world.logins(), before, "nothing is minted that could not be recorded");
}

fn assert_unwritable(refused: &Status) {
    let told = (refused.code(), reason(refused));
    assert_eq!(told, (Code::Unavailable, "JOURNAL_UNWRITABLE".to_owned()), "{refused:?}");
}

/// Without a restart; and what was issued before the outage is revoked after it.
async fn works_again(world: &World, broker: &Broker, agent: &Agent) {
    poll::until("health tells", || async {
        (health(&broker.socket()).await == ServingStatus::Serving).then_some(())
    })
    .await;
    agent.issue("orders-db/readonly").await.expect("a credential");
    agent.close().await.expect("closed");
    world.until_no_logins().await;
}

/// Waits until a lease of the dead backend has been tried `attempts` times in vain.
async fn retried(broker: &Broker, attempts: u32) {
    poll::until("the dead backend is tried again", || async {
        let rows = lease_rows(&broker.admin_socket(), &[v1::LeaseState::Due]).await;
        let scope = |row: &v1::LeaseRow| row.lease.as_ref().map(|lease| lease.scope.clone());
        let tried = rows.iter().any(|row| {
            scope(row).as_deref() == Some("billing-db/readonly") && row.attempts >= attempts
        });
        tried.then_some(())
    })
    .await;
}

/// Moves the journal's files, but not its lock, which the broker holds open.
fn carry(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal", "journal.db-shm"] {
        std::fs::rename(from.join(name), to.join(name)).expect("moved");
    }
}

/// A small file system in memory, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).expect("made");
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at).output();
        let mounted = mounted.expect("mount runs");
        let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
        assert!(
            mounted.status.success(),
            "this test fills a disk of its own and needs the right to mount one: run it as root, \
             or leave it out by name with `--skip a_full_disk` ({said})"
        );
        Self(at)
    }

    /// Leaves not one byte.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filling")).expect("made");
        loop {
            match file.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filling")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, for the broker of a failed test still has its files open.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn second_backend(port: u16) -> String {
    format!(
        r#"
[backends.billing-db]
plugin = "postgres"
[backends.billing-db.connections.admin]
address = "postgres://127.0.0.1:{port}/postgres?sslmode=disable"
auth = {{ password = {{ user = "claviger", password = "file:secrets/admin" }} }}
[backends.billing-db.scopes.readonly]
authorization = "orders.read"
grant_role = "orders_readonly"
"#
    )
}

const BILLING_POLICY: &str = r#"
@id("billing.readonly")
permit (principal, action == Action::"issue", resource == Scope::"billing-db/readonly");
"#;
