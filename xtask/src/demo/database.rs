//! The demo's database: what is in it, and waiting for what the broker does to it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use claviger_test_servers::Postgres;

/// A table worth protecting, group roles to grant, and the broker's own login.
pub fn prepare(postgres: &Postgres) {
    postgres.psql(SETUP);
}

/// Waits until an issued login has an open connection.
pub fn wait_for_connection(postgres: &Postgres) -> Result<()> {
    wait(postgres, "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename LIKE 'clav\\_%'")
}

/// Waits until no issued login exists.
pub fn wait_until_no_login(postgres: &Postgres) -> Result<()> {
    wait(postgres, "SELECT count(*) = 0 FROM pg_roles WHERE rolname LIKE 'clav\\_%'")
}

fn wait(postgres: &Postgres, question: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !postgres.psql(question).split_whitespace().any(|word| word == "t") {
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {question}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The broker's password in the demo's own database server, which lives for seconds.
pub const PASSWORD: &str = "demo-only";

const SETUP: &str = "
CREATE ROLE claviger LOGIN CREATEROLE PASSWORD 'demo-only';
CREATE ROLE orders_readonly NOLOGIN;
CREATE ROLE orders_readwrite NOLOGIN;
GRANT orders_readonly, orders_readwrite TO claviger WITH ADMIN OPTION;
GRANT pg_signal_backend TO claviger;
CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, total_cents int NOT NULL);
INSERT INTO orders SELECT n, 'customer ' || n, n * 100 FROM generate_series(1, 42) n;
GRANT SELECT ON orders TO orders_readonly, orders_readwrite;
GRANT INSERT, UPDATE, DELETE ON orders TO orders_readwrite;
";

/// Everything here takes milliseconds; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
