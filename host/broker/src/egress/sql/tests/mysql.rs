//! The door for SQL against a real MariaDB.

use std::sync::OnceLock;

use claviger_test_servers::{Mariadb, MariadbOptions};

use super::*;

fn maria() -> &'static Mariadb {
    static SERVER: OnceLock<Mariadb> = OnceLock::new();
    SERVER.get_or_init(Mariadb::start)
}

fn pool_at(url: &str, password: &str, connections_max: usize) -> Pool {
    let login = Login { user: "root".to_owned(), password: secret(password), next: None };
    let address = Address::parse(url).unwrap();
    Pool::new(&PoolSpec { address, login, ca_file: None, connections_max }).unwrap()
}

fn pool_of(connections_max: usize) -> Pool {
    pool_at(&maria().url(), maria().password(), connections_max)
}

fn sql(text: &str) -> Rendered {
    let mut statement = Statement::default();
    statement.text(text.to_owned());
    statement.render(Dialect::Mysql).unwrap()
}

async fn ask(session: &mut Session, text: &str) -> String {
    let mut rows = session.query(&sql(text), soon()).await.unwrap();
    rows.next_page(1)[0][0].clone().unwrap_or_else(|| "NULL".to_owned())
}

#[tokio::test]
async fn runs_statements_queries_and_transactions_on_tcp_and_on_the_socket() {
    let socket = format!("mysql:///app?socket={}", maria().socket().display());
    for url in [maria().url(), socket] {
        let pool = pool_at(&url, maria().password(), 2);
        let mut session = pool.lend(soon()).await.unwrap();
        let create = sql("CREATE TEMPORARY TABLE t (a int PRIMARY KEY, b text)");
        session.execute(&create, soon()).await.unwrap();
        let insert = sql("INSERT INTO t VALUES (1, NULL), (2, 'x')");
        assert_eq!(session.execute(&insert, soon()).await, Ok(2));
        let both = [sql("INSERT INTO t VALUES (3, 'y')"), sql("INSERT INTO t VALUES (1, '')")];
        let failure = session.transaction(&both, soon()).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_deref()), (FailureKind::Conflict, Some("23000")));
        assert_eq!(ask(&mut session, "SELECT COUNT(*) FROM t").await, "2", "rolled back");
        session.transaction(&both[..1], soon()).await.unwrap();
        let mut rows = session.query(&sql("SELECT a, b FROM t ORDER BY a"), soon()).await.unwrap();
        assert_eq!(
            (rows.columns.as_slice(), rows.touched),
            (["a", "b"].map(str::to_owned).as_slice(), 3)
        );
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(rows.next_page(2), [[some("1"), None], [some("2"), some("x")]]);
        assert_eq!(rows.next_page(2), [[some("3"), some("y")]]);
        assert!(rows.next_page(2).is_empty());
    }
}

#[tokio::test]
async fn a_returned_connection_carries_nothing_over() {
    maria().sql("CREATE DATABASE elsewhere; CREATE ROLE actor");
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    let connection = ask(&mut session, "SELECT CONNECTION_ID()").await;
    for text in [
        "SET SESSION sql_mode = ''",
        "SET NAMES latin1",
        "SET SESSION max_statement_time = 0",
        "SET SESSION lock_wait_timeout = 9999",
        "SET @left_behind = 1",
        "SET ROLE actor",
        "USE elsewhere",
        "CREATE TEMPORARY TABLE app.left_behind (a int)",
        "DO GET_LOCK('left_behind', 1)",
    ] {
        session.execute(&sql(text), soon()).await.unwrap();
    }
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    assert_eq!(ask(&mut session, "SELECT CONNECTION_ID()").await, connection, "it is the same one");
    let mode = ask(&mut session, "SELECT @@sql_mode").await;
    assert!(mode.contains("NO_BACKSLASH_ESCAPES"), "{mode}");
    assert_eq!(ask(&mut session, "SELECT @@character_set_client").await, "utf8mb4");
    assert_ne!(ask(&mut session, "SELECT @@max_statement_time").await, "0.000000");
    assert_ne!(ask(&mut session, "SELECT @@lock_wait_timeout").await, "9999");
    assert_eq!(ask(&mut session, "SELECT @left_behind").await, "NULL");
    assert_eq!(ask(&mut session, "SELECT CURRENT_ROLE()").await, "NULL");
    assert_eq!(ask(&mut session, "SELECT DATABASE()").await, "app");
    assert_eq!(ask(&mut session, "SELECT IS_FREE_LOCK('left_behind')").await, "1");
    let gone = session.query(&sql("SELECT * FROM left_behind"), soon()).await.unwrap_err();
    assert_eq!(gone.kind, FailureKind::NotFound);
}

#[tokio::test]
async fn a_transaction_left_open_is_undone_before_the_next_call() {
    maria().sql("CREATE TABLE app.unfinished (a int)");
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    session.execute(&sql("BEGIN"), soon()).await.unwrap();
    session.execute(&sql("INSERT INTO unfinished VALUES (1)"), soon()).await.unwrap();
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    assert_eq!(ask(&mut session, "SELECT COUNT(*) FROM unfinished").await, "0");
}

#[tokio::test]
async fn a_transaction_that_defines_something_is_not_atomic_as_documented() {
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    let both = [sql("CREATE USER defined"), sql("DROP USER nobody_here")];
    let failure = session.transaction(&both, soon()).await.unwrap_err();
    assert_eq!((failure.kind, failure.code.as_deref()), (FailureKind::NotFound, Some("1396")));
    let defined = "SELECT COUNT(*) FROM mysql.user WHERE user = 'defined'";
    assert_eq!(ask(&mut session, defined).await, "1");
}

#[tokio::test]
async fn one_message_is_one_statement() {
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    for text in [
        "SELECT 1; CREATE USER second_statement",
        "SELECT 'a'; CREATE USER second_statement; --",
        "PREPARE p FROM 'CREATE USER second_statement'",
        "EXECUTE IMMEDIATE 'CREATE USER second_statement'",
    ] {
        session.execute(&sql(text), soon()).await.unwrap_err();
    }
    let second = "SELECT COUNT(*) FROM mysql.user WHERE user = 'second_statement'";
    assert_eq!(ask(&mut session, second).await, "0");
}

/// Nothing may take effect after the deadline: the server ends the statement itself, even though
/// the client is long gone.
#[tokio::test]
async fn the_server_ends_what_the_deadline_overtakes() {
    maria().sql("CREATE TABLE app.locked (a int)");
    let pool = pool_of(3);
    let mut holder = pool.lend(soon()).await.unwrap();
    holder.execute(&sql("LOCK TABLES locked WRITE"), soon()).await.unwrap();
    let mut session = pool.lend(soon()).await.unwrap();
    let waits = sql("DROP TABLE locked");
    let end = Instant::now() + Duration::from_secs(1);
    let failure = session.execute(&waits, end).await.unwrap_err();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Timeout, true));
    let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                   WHERE info LIKE '%DROP TABLE locked%' AND id <> CONNECTION_ID()";
    let mut watcher = pool.lend(soon()).await.unwrap();
    while ask(&mut watcher, waiting).await != "0" {
        tokio::task::yield_now().await;
    }
    holder.execute(&sql("UNLOCK TABLES"), soon()).await.unwrap();
    assert_eq!(ask(&mut watcher, "SELECT COUNT(*) FROM locked").await, "0", "it is still there");
    let over = watcher.execute(&sql("SELECT 1"), Instant::now()).await.unwrap_err();
    assert_eq!((over.kind, over.request_sent), (FailureKind::Timeout, false));
}

#[tokio::test]
async fn a_transaction_does_not_commit_after_the_deadline() {
    maria().sql("CREATE TABLE app.late (a int)");
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    let all = [sql("INSERT INTO late VALUES (1)"), sql("SELECT SLEEP(60)")];
    let end = Instant::now() + Duration::from_secs(1);
    let failure = session.transaction(&all, end).await.unwrap_err();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::Timeout, true));
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    assert_eq!(ask(&mut session, "SELECT COUNT(*) FROM late").await, "0");
}

#[tokio::test]
async fn bounds_what_a_query_may_return_and_closes_the_connection_at_once() {
    let pool = pool_of(1);
    for (text, kind) in [
        ("SELECT seq FROM seq_1_to_1001", FailureKind::InvalidInput),
        ("SELECT seq FROM seq_1_to_100000000000", FailureKind::InvalidInput),
        ("SELECT REPEAT('x', 300000)", FailureKind::InvalidInput),
        ("SELECT REPEAT('x', 3000000)", FailureKind::InvalidInput),
        ("SELECT UNHEX('FF')", FailureKind::InvalidInput),
    ] {
        let mut session = pool.lend(soon()).await.unwrap();
        let failure = session.query(&sql(text), soon()).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{text}: {failure:?}");
        drop(session);
        let mut session = pool.lend(soon()).await.unwrap();
        let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%seq_1_to_1000000%' AND id <> CONNECTION_ID()";
        while ask(&mut session, running).await != "0" {
            tokio::task::yield_now().await;
        }
    }
    let mut session = pool.lend(soon()).await.unwrap();
    let rows = session.query(&sql("SELECT seq FROM seq_1_to_1000"), soon()).await.unwrap();
    assert_eq!(rows.rows.len(), 1000);
}

#[tokio::test]
async fn the_brokers_files_cannot_be_asked_for() {
    maria().sql("CREATE TABLE app.loaded (a text)");
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    let load = sql("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE loaded");
    session.execute(&load, soon()).await.unwrap_err();
    drop(session);
    let mut session = pool.lend(soon()).await.unwrap();
    assert_eq!(ask(&mut session, "SELECT COUNT(*) FROM loaded").await, "0");
}

#[tokio::test]
async fn waits_for_a_connection_no_longer_than_allowed_and_replaces_a_dead_one() {
    let pool = pool_of(1);
    let mut session = pool.lend(soon()).await.unwrap();
    let failure = pool.lend(Instant::now() + Duration::from_millis(20)).await.err().unwrap();
    assert_eq!((failure.kind, failure.request_sent), (FailureKind::RateLimited, false));
    let connection = ask(&mut session, "SELECT CONNECTION_ID()").await;
    drop(session);
    maria().sql(&format!("KILL {connection}"));
    let mut session = pool.lend(soon()).await.unwrap();
    assert_ne!(ask(&mut session, "SELECT CONNECTION_ID()").await, connection);
}

#[tokio::test]
async fn maps_what_the_server_refuses() {
    let wrong = pool_at(&maria().url(), "not the password", 1);
    let failure = wrong.lend(soon()).await.err().unwrap();
    assert_eq!((failure.kind, failure.code.as_deref()), (FailureKind::Denied, Some("28000")));
    assert!(!failure.message.contains("not the password"), "{}", failure.message);
    assert!(!failure.request_sent);
    maria().sql("CREATE USER present; CREATE USER powerless IDENTIFIED BY 'p'");
    let pool = pool_of(1);
    for (text, kind, code) in [
        ("CREATE USER present", FailureKind::Conflict, "1396"),
        ("DROP USER nobody_here", FailureKind::NotFound, "1396"),
        ("GRANT no_role TO present", FailureKind::NotFound, "OP000"),
        ("SELEC 1", FailureKind::InvalidInput, "1064"),
        ("SELECT * FROM no_table", FailureKind::NotFound, "42S02"),
        ("SELECT ?", FailureKind::Other, "1210"),
    ] {
        let mut session = pool.lend(soon()).await.unwrap();
        let failure = session.execute(&sql(text), soon()).await.unwrap_err();
        assert_eq!((failure.kind, failure.code.as_deref()), (kind, Some(code)), "{text}");
        assert!(failure.request_sent);
    }
}

/// A certificate for `localhost` with its key, and the authority that signed it.
fn certificate() -> ((String, String), String) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&key, &issuer).unwrap();
    ((certificate.pem(), key.serialize_pem()), authority_certificate.pem())
}

#[tokio::test]
async fn verify_full_means_this_authority_and_this_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let (own, authority) = certificate();
    let (_, stranger) = certificate();
    let ca_file = file("ca.pem", &authority);
    let server = Mariadb::start_with(&MariadbOptions { tls: Some(own) });
    let plain = maria();
    for (host, port, ca_file, refused) in [
        ("localhost", server.port(), ca_file.clone(), None),
        ("127.0.0.1", server.port(), ca_file.clone(), Some("certificate not valid for name")),
        (
            "localhost",
            server.port(),
            file("other.pem", &stranger),
            Some("invalid peer certificate"),
        ),
        ("localhost", plain.port(), ca_file, Some("does not have this capability")),
    ] {
        let url = format!("mysql://{host}:{port}/app?sslmode=verify-full");
        let address = Address::parse(&url).unwrap();
        let login =
            Login { user: "root".to_owned(), password: secret(server.password()), next: None };
        let spec = PoolSpec { address, login, ca_file: Some(ca_file), connections_max: 1 };
        match (Pool::new(&spec).unwrap().lend(soon()).await, refused) {
            (Ok(mut session), None) => {
                let cipher = "SELECT variable_value <> '' FROM information_schema.session_status \
                              WHERE variable_name = 'Ssl_cipher'";
                assert_eq!(ask(&mut session, cipher).await, "1");
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
    let sql = statement.render(Dialect::Mysql)?;
    let pool = pool_of(1);
    let mut rows = pool.lend(soon()).await?.query(&sql, soon()).await?;
    let value = rows.next_page(1)[0][0].clone().unwrap();
    Ok((value, rows.columns.remove(0)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // The server takes no space at an identifier's end, and none beyond the basic plane.
    #[test]
    fn any_value_comes_back_as_it_went_from_mysql_too(
        literal in "([^\\x00]|['\"`\\\\;@%?:-]){0,200}",
        ident in "([\\x21-\\x7e]|['\"`\\\\;@%?:é-]){1,60}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let came_back = runtime.block_on(round_trip(&literal, &ident));
        prop_assert_eq!(came_back, Ok((literal, ident)));
    }
}
