//! MariaDB, end to end: from a prompt file to a database login that dies with the session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::poll;
use claviger_e2e::shop::{self, BROKER_PASSWORD};
use claviger_e2e::world::{Settings, World, plugins};
use claviger_test_servers::Mariadb;

#[tokio::test]
async fn a_login_works_as_granted_and_dies_with_the_session() {
    let shop = Shop::open();
    let broker = Broker::start(&shop.world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("shop-db/readonly").await.expect("a credential");
    let (user, password) = (issued.field("user"), issued.field("password"));

    let read = shop.server.try_sql(user, password, "SELECT COUNT(*) FROM orders");
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), "3", "{read:?}");
    let write = shop.server.try_sql(user, password, "DELETE FROM orders");
    assert!(String::from_utf8_lossy(&write.stderr).contains("DELETE command denied"), "{write:?}");
    let mut open = shop.server.client(user, password);
    let mut open = open
        .args(["--unbuffered", "--skip-reconnect"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadb runs");
    let mut input = open.stdin.take().expect("its input");
    let mut output = BufReader::new(open.stdout.take().expect("its output"));
    writeln!(input, "SELECT 'open';").expect("asked");
    let mut line = String::new();
    output.read_line(&mut line).expect("answered");
    assert_eq!(line.trim(), "open");

    assert_eq!(agent.close().await.expect("closed").leases_due, 1);
    poll::until("the login is gone", || std::future::ready((shop.logins() == 0).then_some(())))
        .await;
    let _ = writeln!(input, "SELECT 'still alive';");
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "", "the open connection is dead");
    assert!(!open.wait().expect("it ends").success());
    let again = shop.server.try_sql(user, password, "SELECT 1");
    assert!(!again.status.success(), "a login after the end of the session must fail");

    let log = broker.log();
    for secret in [password, BROKER_PASSWORD, shop.server.password()] {
        assert!(!log.contains(secret) && !shop.server.log_text().contains(secret));
    }
}

#[tokio::test]
async fn the_client_works_with_the_environment_that_the_plugin_names() {
    let shop = Shop::open();
    let broker = Broker::start(&shop.world).await;
    let arguments = ["run", "--role", "support-triage", "--grant", "shop-db/readonly", "--"];
    let mut run: Command = claviger(&broker, &arguments);
    let script = "exec mariadb --no-defaults -BN -u \"$MYSQL_USER\" \"$MYSQL_DATABASE\" \
                  -e 'SELECT SUM(total_cents) FROM orders'";
    let output = run.args(["sh", "-c", script]).output().expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "600", "{told}");
    poll::until("the login is gone", || std::future::ready((shop.logins() == 0).then_some(())))
        .await;
}

/// The usual world with a second database in it, on MariaDB.
struct Shop {
    world: World,
    server: Mariadb,
}

impl Shop {
    fn open() -> Self {
        let server = Mariadb::start();
        shop::furnish(&server);
        let (plugin, address) = (plugins().join("mysql.wasm"), server.url());
        let sha256 = Command::new("sha256sum").arg(&plugin).output().expect("sha256sum runs");
        let sha256 = String::from_utf8(sha256.stdout).expect("text");
        let sha256 = sha256.split_whitespace().next().expect("a digest");
        let plugin = plugin.display();
        let more = format!(
            r#"
[plugins.mysql]
path = "{plugin}"
sha256 = "{sha256}"
[backends.shop-db]
plugin = "mysql"
[backends.shop-db.connections.admin]
address = "{address}"
auth = {{ password = {{ user = "claviger", password = "file:secrets/shop" }} }}
[backends.shop-db.scopes.readonly]
authorization = "orders.read"
max_ttl = "1h"
grant_role = "orders_readonly"
"#
        );
        let world = World::with(Settings { more, ..Settings::default() });
        world.write("secrets/shop", BROKER_PASSWORD);
        world.write("policies/shop.cedar", POLICY);
        Self { world, server }
    }

    fn logins(&self) -> usize {
        let count = "SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'clav\\_%'";
        self.server.sql(count).parse().expect("a number")
    }
}

const POLICY: &str = r#"
@id("shop.readonly")
permit (principal, action == Action::"issue", resource == Scope::"shop-db/readonly");
"#;
