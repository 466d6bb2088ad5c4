//! The door for SQL against a real PostgreSQL; MySQL has a file of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod mysql;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use claviger_test_servers::{ClusterOptions, Postgres};
use proptest::prelude::*;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::*;
use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};

fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

fn secret(text: &str) -> SharedSecret {
    Arc::new(Zeroizing::new(text.to_owned()))
}

fn pool(server: &Postgres, password: &str, connections_max: usize) -> Pool {
    let login =
        Login { user: server.superuser().to_owned(), password: secret(password), next: None };
    let address = Address::parse(&server.url()).unwrap();
    Pool::new(&PoolSpec { address, login, ca_file: None, connections_max }).unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn text(sql: &str) -> Rendered {
    let mut statement = Statement::default();
    statement.text(sql.to_owned());
    statement.render(Dialect::Postgres).unwrap()
}

async fn value(session: &mut Session, sql: &str) -> String {
    let mut rows = session.query(&text(sql), soon()).await.unwrap();
    rows.next_page(1)[0][0].clone().unwrap()
}

#[tokio::test]
async fn runs_statements_queries_and_transactions() {
    let pool = pool(server(), server().password(), 2);
    let mut session = pool.lend(soon()).await.unwrap();
    session.execute(&text("CREATE TEMP TABLE t (a int, b text)"), soon()).await.unwrap();
    let insert = text("INSERT INTO t VALUES (1, NULL), (2, 'x')");
    assert_eq!(session.execute(&insert, soon()).await, Ok(2));
    let both = [text("INSERT INTO t VALUES (3, 'y')"), text("INSERT INTO t VALUES (1 / 0, '')")];
    let failure = session.transaction(&both, soon()).await.unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("22012"));
    session.transaction(&both[..1], soon()).await.unwrap();
    let mut rows = session.query(&text("SELECT a, b FROM t ORDER BY a"), soon()).await.unwrap();
    assert_eq!(rows.columns, ["a", "b"]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(rows.next_page(2), [[some("1"), None], [some("2"), some("x")]]);
    assert_eq!(rows.next_page(2), [[some("3"), some("y")]]);
    assert!(rows.next_page(2).is_empty());
}

#[tokio::test]
async fn a_returned_connection_carries_nothing_over() {
    let pool = pool(server(), server().password(), 1);
    let mut session = pool.lend(soon()).await.unwrap();
    for sql in [
        "SET standard_conforming_strings = off",
        "SET statement_timeout = 0",
        "SET ROLE pg_monitor",
        "CREATE TEMP TABLE left_behind ()",
    ] {
        session.execute(&text(sql), soon()).await.unwrap();
    }
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    assert_eq!(value(&mut session, "SHOW standard_conforming_strings").await, "on");
    assert_ne!(value(&mut session, "SHOW statement_timeout").await, "0");
    assert_eq!(value(&mut session, "SELECT current_user").await, server().superuser());
    assert_eq!(value(&mut session, "SHOW application_name").await, "claviger");
    let gone = session.query(&text("SELECT FROM left_behind"), soon()).await.unwrap_err();
    assert_eq!(gone.kind, FailureKind::NotFound);
}

#[tokio::test]
async fn a_transaction_left_open_poisons_nobody_elses_statements() {
    let pool = pool(server(), server().password(), 1);
    let mut session = pool.lend(soon()).await.unwrap();
    session.execute(&text("BEGIN"), soon()).await.unwrap();
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    let refused = session.execute(&text("CREATE ROLE stray"), soon()).await.unwrap_err();
    assert_eq!((refused.kind, refused.request_sent), (FailureKind::Unavailable, false));
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    let stray = "SELECT count(*) FROM pg_roles WHERE rolname = 'stray'";
    assert_eq!(value(&mut session, stray).await, "0");
}

/// Nothing may take effect after the deadline: the server ends the statement itself, even though
/// the client is long gone.
#[tokio::test]
async fn the_server_ends_what_the_deadline_overtakes() {
    let pool = pool(server(), server().password(), 2);
    let mut session = pool.lend(soon()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    let late =
        [text("SELECT pg_sleep(0.6)"), text("SELECT pg_sleep(0.6)"), text("CREATE ROLE late")];
    let failure = session.transaction(&late, end).await.unwrap_err();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Timeout, true));
    drop(session);
    let slow = text("SELECT pg_sleep(60)");
    let mut session = pool.lend(soon()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    assert_eq!(session.execute(&slow, end).await.unwrap_err().kind, FailureKind::Timeout);
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'";
    while value(&mut session, busy).await != "0" {
        tokio::task::yield_now().await;
    }
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'late'";
    assert_eq!(value(&mut session, roles).await, "0");
    let over = session.execute(&text("SELECT 1"), Instant::now()).await.unwrap_err();
    assert_eq!((over.kind, over.request_sent), (FailureKind::Timeout, false));
}

#[tokio::test]
async fn a_statement_that_took_its_timeout_away_is_ended_all_the_same() {
    let pool = pool(server(), server().password(), 1);
    let mut session = pool.lend(soon()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(1);
    let unbounded =
        text("SET statement_timeout = 0; SELECT pg_sleep(3600); CREATE ROLE after_the_end");
    assert_eq!(session.execute(&unbounded, end).await.unwrap_err().kind, FailureKind::Timeout);
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()";
    while value(&mut session, busy).await != "0" {
        tokio::task::yield_now().await;
    }
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'after_the_end'";
    assert_eq!(value(&mut session, roles).await, "0");
}

#[tokio::test]
async fn bounds_what_a_query_may_return() {
    let pool = pool(server(), server().password(), 1);
    for sql in ["SELECT generate_series(1, 1001)", "SELECT repeat('x', 300000)"] {
        let mut session = pool.lend(soon()).await.unwrap();
        let failure = session.query(&text(sql), soon()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{sql}");
    }
    let mut session = pool.lend(soon()).await.unwrap();
    let rows = session.query(&text("SELECT generate_series(1, 1000)"), soon()).await.unwrap();
    assert_eq!(rows.rows.len(), 1000);
}

#[tokio::test]
async fn waits_for_a_connection_no_longer_than_allowed() {
    let pool = pool(server(), server().password(), 1);
    let _lent = pool.lend(soon()).await.unwrap();
    let failure = pool.lend(Instant::now() + Duration::from_millis(20)).await.err().unwrap();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::RateLimited, false));
}

#[tokio::test]
async fn maps_what_the_server_refuses() {
    let wrong = pool(server(), "not the password", 1);
    let failure = wrong.lend(soon()).await.err().unwrap();
    assert_eq!((failure.kind, failure.code.as_deref()), (FailureKind::Denied, Some("28P01")));
    assert!(!failure.message.contains("not the password"), "{}", failure.message);
    let pool = pool(server(), server().password(), 1);
    for (sql, kind, code) in [
        ("CREATE ROLE postgres", FailureKind::Conflict, "42710"),
        ("DROP ROLE nobody_here", FailureKind::NotFound, "42704"),
        ("SELEC 1", FailureKind::InvalidInput, "42601"),
        ("SET ROLE pg_monitor; CREATE ROLE x", FailureKind::Denied, "42501"),
    ] {
        let mut session = pool.lend(soon()).await.unwrap();
        let failure = session.execute(&text(sql), soon()).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_deref()), (kind, Some(code)), "{sql}");
        assert!(failure.request_sent);
    }
}

/// A server whose certificate names `localhost`, and the file of the authority that signed it.
fn tls_server(folder: &std::path::Path) -> (Postgres, std::path::PathBuf) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &issuer).unwrap();
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, authority_certificate.pem()).unwrap();
    let tls = Some((certificate.pem(), key.serialize_pem()));
    (Postgres::start_with(&ClusterOptions { tls, ..ClusterOptions::default() }), ca_file)
}

#[tokio::test]
async fn verify_full_means_this_authority_and_this_name() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ca_file) = tls_server(folder.path());
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let other_ca = folder.path().join("other.pem");
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    for (host, ca_file, refused) in [
        ("localhost", Some(ca_file.clone()), None),
        ("127.0.0.1", Some(ca_file), Some("certificate not valid for name")),
        ("localhost", Some(other_ca), Some("invalid peer certificate")),
    ] {
        let url = format!("postgres://{host}:{}/postgres?sslmode=verify-full", server.port());
        let address = Address::parse(&url).unwrap();
        let password = secret(server.password());
        let login = Login { user: server.superuser().to_owned(), password, next: None };
        let pool = Pool::new(&PoolSpec { address, login, ca_file, connections_max: 1 }).unwrap();
        match (pool.lend(soon()).await, refused) {
            (Ok(mut session), None) => {
                let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
                assert_eq!(value(&mut session, encrypted).await, "t");
            }
            (Err(failure), Some(sentence)) => {
                assert!(failure.message.contains(sentence), "{}", failure.message);
                assert!(!failure.request_sent);
            }
            (lent, _) => assert!(lent.is_err() && refused.is_some(), "{host}"),
        }
    }
}

/// Looks up `literal` as a value and `ident` as a column's name, and returns what came back.
async fn round_trip(literal: &str, ident: &str) -> Result<(String, String), Failure> {
    let mut statement = Statement::default();
    statement.text("SELECT".to_owned());
    statement.literal(literal.to_owned());
    statement.text("AS".to_owned());
    statement.ident(ident.to_owned());
    let sql = statement.render(Dialect::Postgres)?;
    let pool = pool(server(), server().password(), 1);
    let mut rows = pool.lend(soon()).await?.query(&sql, soon()).await?;
    let value = rows.next_page(1)[0][0].clone().unwrap();
    Ok((value, rows.columns.remove(0)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_value_comes_back_as_it_went(
        literal in "([^\\x00]|['\"\\\\$;]){0,200}",
        ident in "([^\\x00]|['\"\\\\$;]){1,15}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let came_back = runtime.block_on(round_trip(&literal, &ident));
        prop_assert_eq!(came_back, Ok((literal, ident)));
    }
}
