//! The bare limit of the database: the statements that the plugin for PostgreSQL sends, straight
//! over as many connections as the broker has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use claviger_bench::load::Caller;
use claviger_test_servers::Postgres;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

/// Makes logins, and remembers how many.
pub struct Straight {
    made: Arc<AtomicUsize>,
    /// Apart from other runs on the same server.
    name: &'static str,
}

/// One connection.
pub struct Connection {
    client: Arc<Client>,
    made: Arc<AtomicUsize>,
    name: &'static str,
}

impl Straight {
    /// Logins named after `name`.
    pub fn new(name: &'static str) -> Self {
        Self { made: Arc::default(), name }
    }

    /// Opens connections.
    pub async fn connections(&self, server: &Postgres, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let (client, connection) = tokio_postgres::connect(&server.dsn(), NoTls).await?;
            tokio::spawn(connection);
            connections.push(Connection {
                client: Arc::new(client),
                made: Arc::clone(&self.made),
                name: self.name,
            });
        }
        Ok(connections)
    }

    /// Drops every login over `connections`, with the statements of the plugin's `revoke`.
    pub async fn drop_all(&self, connections: &[Connection]) -> Result<()> {
        let last = self.made.swap(0, Ordering::Relaxed);
        let next = Arc::new(AtomicUsize::new(0));
        let mut dropping = JoinSet::new();
        for connection in connections {
            let (client, name) = (Arc::clone(&connection.client), self.name);
            let next = Arc::clone(&next);
            dropping.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= last {
                        return anyhow::Ok(());
                    }
                    drop_login(&client, &login(name, number)).await?;
                }
            });
        }
        while let Some(dropped) = dropping.join_next().await {
            dropped??;
        }
        Ok(())
    }
}

impl Caller for Connection {
    async fn call(&mut self) -> Result<()> {
        let login = login(self.name, self.made.fetch_add(1, Ordering::Relaxed));
        let statements = format!(
            "BEGIN; \
             CREATE ROLE {login} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION \
             CONNECTION LIMIT 10 PASSWORD '{VERIFIER}' VALID UNTIL '2030-01-01T00:00:00Z'; \
             COMMENT ON ROLE {login} IS 'Claviger session 01k2f7zr9jvd4b6y8m3n5p7q9s, role x'; \
             GRANT orders_readonly TO {login}; \
             COMMIT"
        );
        self.client.batch_execute(&statements).await.context("a login cannot be made")
    }
}

async fn drop_login(client: &Client, login: &str) -> Result<()> {
    let close =
        format!("BEGIN; SET LOCAL synchronous_commit = off; ALTER ROLE {login} NOLOGIN; COMMIT");
    let end = format!(
        "BEGIN; SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE usename = '{login}'; DROP ROLE {login}; COMMIT"
    );
    client.batch_execute(&close).await?;
    client.batch_execute(&end).await.context("a login cannot be dropped")
}

fn login(name: &str, number: usize) -> String {
    format!("straight_{name}_{number}")
}

/// A ready verifier of one iteration, as the host makes them of generated passwords.
const VERIFIER: &str = "SCRAM-SHA-256$1:MDEyMzQ1Njc4OWFiY2RlZg==$\
    MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
