//! Root credentials that the broker replaces: under load, on schedule, over outages and crashes, and
//! never so that it is locked out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use claviger_e2e::broker::{Broker, claviger, run};
use claviger_e2e::client::{Agent, journal};
use claviger_e2e::poll;
use claviger_e2e::rotation::{Load, Want, check, count, issues, operate};
use claviger_e2e::shop::{self, BROKER_PASSWORD};
use claviger_e2e::world::{ADMIN_PASSWORD, Settings, World, plugins, program, sha256_of};
use claviger_proto::v1;
use claviger_test_servers::Mariadb;

/// The world with the database's password in the broker's keeping.
fn world() -> World {
    let world = World::new();
    world.configure("file:secrets/admin", "store:orders/admin");
    put(&world, "orders/admin", "secrets/admin");
    world
}

fn put(world: &World, name: &str, file: &str) {
    let secret = std::fs::File::open(world.path().join(file)).expect("a file");
    let mut put = Command::new(program("clavigerd"));
    put.args(["secret", "put", name, "--config"]).arg(world.config());
    let output = put.stdin(secret).output().expect("clavigerd runs");
    assert!(output.status.success(), "{output:?}");
}

/// Waits until every rotation that began has ended, and says how many were done.
async fn settled(broker: &Broker) -> usize {
    poll::until("every rotation is settled", || async {
        let done = count(broker, "rotation-done").await;
        let ended = done + count(broker, "rotation-failed").await;
        (ended == count(broker, "rotation-started").await).then_some(done)
    })
    .await
}

/// How often a broker started while a rotation had begun and not ended.
async fn starts_within_a_rotation(broker: &Broker) -> usize {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let (mut has_begun, mut starts) = (false, 0);
    for entry in &entries {
        match entry["event"].as_str() {
            Some("rotation-started") => has_begun = true,
            Some("rotation-done" | "rotation-failed") => has_begun = false,
            Some("broker-started") if has_begun => starts += 1,
            _ => {}
        }
    }
    starts
}

/// The command that replaces the password, begun and not waited for.
fn rotating(broker: &Broker) -> std::process::Child {
    let mut rotate = claviger(broker, &["backend", "rotate", "orders-db"]);
    rotate.stdout(Stdio::null()).stderr(Stdio::null());
    rotate.spawn().expect("claviger runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_postgres_changes_under_load_without_a_failed_call() {
    let world = world();
    let broker = Broker::start(&world).await;
    let load = Load::start(&broker, ORDERS).await;
    load.goes_on().await;
    let by_backend = ["backend", "rotate", "orders-db"];
    check(&operate(&broker, &by_backend), 0, "store:orders/admin version 2 is in force");
    load.goes_on().await;
    let by_secret = ["secret", "rotate", "orders/admin"];
    check(&operate(&broker, &by_secret), 0, "store:orders/admin version 3 is in force");
    load.goes_on().await;
    load.end().await;
    let old = world.postgres.try_psql("claviger", ADMIN_PASSWORD, "SELECT 1");
    assert!(!old.status.success(), "the first password is worth nothing any more");
    assert_eq!(count(&broker, "rotation-started").await, 2);
    assert_eq!(count(&broker, "rotation-done").await, 2);
    world.until_no_logins().await;
    broker.stop().await;
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a start later it still logs in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_mariadb_changes_under_load_without_a_failed_call() {
    let (server, plugin) = (Mariadb::start(), plugins().join("mysql.wasm"));
    shop::furnish(&server);
    let (sha256, address) = (sha256_of(&plugin), server.url());
    let more = format!(
        r#"
[plugins.mysql]
path = "{}"
sha256 = "{sha256}"
[backends.shop-db]
plugin = "mysql"
[backends.shop-db.connections.admin]
address = "{address}"
auth = {{ password = {{ user = "claviger", password = "store:shop" }} }}
[backends.shop-db.scopes.readonly]
authorization = "orders.read"
grant_role = "orders_readonly"
"#,
        plugin.display()
    );
    let world = World::with(Settings { more, ..Settings::default() });
    world.write("secrets/shop", BROKER_PASSWORD);
    world.write("policies/shop.cedar", SHOP_POLICY);
    put(&world, "shop", "secrets/shop");
    let broker = Broker::start(&world).await;
    let load = Load::start(&broker, Want { scope: "shop-db/readonly", ..ORDERS }).await;
    load.goes_on().await;
    check(
        &operate(&broker, &["backend", "rotate", "shop-db"]),
        0,
        "store:shop version 2 is in force",
    );
    load.goes_on().await;
    load.end().await;
    let old = server.try_sql("claviger", BROKER_PASSWORD, "SELECT 1");
    assert!(!old.status.success(), "the first password is worth nothing any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_while_it_rotates_is_never_locked_out() {
    let world = world();
    let mut broker = Broker::start(&world).await;
    let began = Instant::now();
    assert!(rotating(&broker).wait().expect("it ends").success());
    let whole = began.elapsed();
    // From after its answer to before the call arrives: what was killed early may stay unsettled for
    // a while, and no other rotation begins meanwhile.
    for kill in (1..=KILLS).rev() {
        let done = count(&broker, "rotation-done").await;
        let (began, mut rotate) = (Instant::now(), rotating(&broker));
        while began.elapsed() < whole * kill / KILLS {
            tokio::task::yield_now().await;
        }
        broker.kill();
        let told = rotate.wait().expect("it ends with the broker");
        broker = Broker::start(&world).await;
        issues(&broker, ORDERS).await;
        let recorded = count(&broker, "rotation-done").await > done;
        assert!(recorded || !told.success(), "what the command said was done is recorded");
    }
    assert!(starts_within_a_rotation(&broker).await > 0, "no kill fell into a rotation");
    settled(&broker).await;
    check(&operate(&broker, &["backend", "rotate", "orders-db"]), 0, "is in force");
    world.until_no_logins().await;
}

/// Between the record of the new password and the database's answer: what the broker sent takes
/// effect after its death, or never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_at_a_step_settles_it_at_the_next_start() {
    let world = world();
    let mut broker = Broker::start(&world).await;
    for what_becomes_of_it in [After::LetGo, After::Ended] {
        let holder = holding(&world).await;
        let mut rotate = rotating(&broker);
        poll::until("the statement waits in the database", || {
            std::future::ready((world.postgres.psql(WAITING) == "1").then_some(()))
        })
        .await;
        broker.kill();
        rotate.wait().expect("it ends with the broker");
        if what_becomes_of_it == After::Ended {
            world.postgres.psql(END_ALL);
        }
        holder.batch_execute("ROLLBACK").await.expect("let go");
        broker = Broker::start(&world).await;
        issues(&broker, ORDERS).await;
        let (before, after) = (count(&broker, "rotation-done").await, settled(&broker).await);
        assert!(what_becomes_of_it == After::LetGo || before == after, "it never took effect");
        issues(&broker, ORDERS).await;
    }
    assert_eq!(count(&broker, "rotation-started").await, 2);
    check(&operate(&broker, &["backend", "rotate", "orders-db"]), 0, "version 4 is in force");
}

/// After the database's answer, and before the new password has been tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_before_the_new_password_counts_goes_on_with_it() {
    let world = world();
    let broker = Broker::start(&world).await;
    // One for the plugin, which keeps it, and none for the host's own login.
    world.postgres.psql("ALTER ROLE claviger CONNECTION LIMIT 1");
    let unsettled = operate(&broker, &["backend", "rotate", "orders-db"]);
    check(&unsettled, 1, "it is not settled which of two credentials");
    let old = world.postgres.try_psql("claviger", ADMIN_PASSWORD, "SELECT 1");
    let told = String::from_utf8_lossy(&old.stderr).into_owned();
    assert!(told.contains("password authentication failed"), "the database has it: {told}");
    broker.kill();
    world.postgres.psql("ALTER ROLE claviger CONNECTION LIMIT -1");
    let broker = Broker::start(&world).await;
    issues(&broker, ORDERS).await;
    assert_eq!(settled(&broker).await, 1);
    assert_eq!(count(&broker, "rotation-failed").await, 0);
    check(&operate(&broker, &["backend", "rotate", "orders-db"]), 0, "version 3 is in force");
}

/// What becomes of the statement of a broker that was killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The database goes on with it.
    LetGo,
    /// The database ends it.
    Ended,
}

/// Holds up every change of the broker's own role.
async fn holding(world: &World) -> tokio_postgres::Client {
    let dsn = world.postgres.dsn();
    let (client, connection) =
        tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let hold = "BEGIN; ALTER ROLE claviger VALID UNTIL 'infinity'";
    client.batch_execute(hold).await.expect("held");
    client
}

const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'claviger' AND wait_event_type = 'Lock'";

const END_ALL: &str = "SELECT count(pg_terminate_backend(pid, 5000)) \
    FROM pg_stat_activity WHERE usename = 'claviger'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_outage_leaves_open_is_settled_when_it_is_over() {
    let world = world();
    let broker = Broker::start(&world).await;
    world.postgres.stop();
    let unsettled = operate(&broker, &["backend", "rotate", "orders-db"]);
    check(&unsettled, 1, "it is not settled which of two credentials");
    world.postgres.start_again();
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the password as it was");
    poll::until("the rotation is settled", || async {
        (count(&broker, "rotation-failed").await == 1).then_some(())
    })
    .await;
    check(&operate(&broker, &["backend", "rotate", "orders-db"]), 0, "version 3 is in force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_gives_no_way_to_settle_is_said_once_and_listed() {
    let world = world();
    let broker = Broker::start(&world).await;
    world.postgres.stop();
    let unsettled = operate(&broker, &["backend", "rotate", "orders-db"]);
    check(&unsettled, 1, "it is not settled which of two credentials");
    world.configure("store:orders/admin", "file:secrets/admin");
    check(&operate(&broker, &["reload"]), 0, "");
    let said = || broker.log().matches("stays unsettled until one connection").count();
    poll::until("it is said", || std::future::ready((said() > 0).then_some(()))).await;
    check(&operate(&broker, &["secret", "list"]), 0, "1 (unsettled)");
    let since = Instant::now();
    poll::until("the broker has looked again", || {
        std::future::ready((since.elapsed() > TWO_LOOKS).then_some(()))
    })
    .await;
    assert_eq!(said(), 1, "once, and not at every look");
    world.postgres.start_again();
    world.configure("file:secrets/admin", "store:orders/admin");
    check(&operate(&broker, &["reload"]), 0, "");
    settled(&broker).await;
    let (_, listed, _) = operate(&broker, &["secret", "list"]);
    assert!(!listed.contains("unsettled"), "{listed}");
    issues(&broker, ORDERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_replaced_on_schedule() {
    let world = world();
    world.configure("store:orders/admin\" } }", "store:orders/admin\" } }\nrotate_every = \"1s\"");
    let broker = Broker::start(&world).await;
    poll::until("it was replaced twice", || async {
        (count(&broker, "rotation-done").await >= 2).then_some(())
    })
    .await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the newest logs in");
}

#[tokio::test]
async fn only_what_the_broker_keeps_for_one_connection_is_replaced() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let rotate = |args: &[&str]| operate(&broker, &[&["backend", "rotate"], args].concat());
    check(&rotate(&["orders-db"]), 1, "write `password = \"store:NAME\"`");
    check(&rotate(&["nothing"]), 1, "no connection of that name");
    let refused = "rotate_every = \"1h\"\nauth = { password";
    world.configure("auth = { password", refused);
    let mut checked = Command::new(program("clavigerd"));
    checked.args(["check", "--config"]).arg(world.config());
    check(&run(checked), 1, "only a password in the broker's keeping is replaced");
    assert_eq!(count(&broker, "rotation-started").await, 0);
}

const ORDERS: Want = Want { role: "support-triage", scope: "orders-db/readonly" };

const SHOP_POLICY: &str = r#"
@id("shop.readonly")
permit (principal, action == Action::"issue", resource == Scope::"shop-db/readonly");
"#;

/// Spread over the time that a rotation takes.
const KILLS: u32 = 8;

/// The broker looks every five seconds.
const TWO_LOOKS: Duration = Duration::from_secs(11);
