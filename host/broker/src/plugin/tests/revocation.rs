//! The PostgreSQL plugin as an operator runs it, with an administrator that is no superuser: what
//! a login may do, and that revoked means dead.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use claviger_core::ports::PluginErrorKind;

use super::*;

#[tokio::test]
async fn a_login_may_do_what_its_group_may_and_nothing_else() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let parameters =
        r#"{"grant_role": "readers", "connection_limit": 3, "statement_timeout": "7s"}"#;
    let login = Minted::with(&fixture, parameters).await;
    assert_eq!(login.runs("SELECT count(*) FROM orders").unwrap(), "0");
    assert_eq!(login.runs("SHOW statement_timeout").unwrap(), "7s");
    for (forbidden, sentence) in [
        ("INSERT INTO orders VALUES (1)", "permission denied for table orders"),
        ("CREATE TABLE mine (id int)", "permission denied for schema public"),
        ("CREATE ROLE friend", "permission denied to create role"),
        ("SELECT * FROM pg_authid", "permission denied for table pg_authid"),
    ] {
        let error = login.runs(forbidden).unwrap_err();
        assert!(error.contains(sentence), "`{forbidden}`: {error}");
    }
    let attributes = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls, \
                      rolconnlimit, rolvaliduntil BETWEEN now() + '9 min' AND now() + '11 min'";
    assert_eq!(login.look_up(attributes), "f|3|t");
    let comment = login.look_up("shobj_description(oid, 'pg_authid')");
    assert!(comment.ends_with(", role support-triage"), "{comment}");
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
}

#[tokio::test]
async fn an_open_connection_dies_with_its_login() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "readers"}"#).await;
    let mut idle = OpenPsql::start(&login);
    assert_eq!(idle.ask("SELECT 'open';"), "open");
    let mut busy = OpenPsql::start(&login);
    assert_eq!(busy.ask("BEGIN; SELECT 'open' FROM (SELECT count(*) FROM orders) AS o;"), "open");
    let pids = format!(
        "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE usename = '{}'",
        login.user
    );
    let pids = server().psql(&pids);
    fixture.revoke(login.id).await.unwrap();
    let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid IN ({pids})");
    assert_eq!(server().psql(&alive), "0", "no session outlives its role");
    assert_eq!(idle.ask("SELECT 'still alive';"), "");
    assert_eq!(busy.ask("SELECT 'still alive';"), "");
    assert!(!login.exists());
}

#[tokio::test]
async fn several_logins_end_in_one_call_and_one_that_owns_something_ends_none() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let mut logins = Vec::new();
    for _ in 0..3 {
        logins.push(Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await);
    }
    let [first, second, owner] = &logins[..] else { panic!("three logins") };
    let mut idle = OpenPsql::start(second);
    assert_eq!(idle.ask("SELECT 'open';"), "open");
    owner.runs("CREATE TABLE in_the_way ()").unwrap();
    let error = fixture.revoke_all(&[first.id, owner.id]).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("2BP01"), "{error}");
    assert!(first.exists() && owner.exists(), "one transaction drops both or neither");
    let never_minted = intent();
    fixture.revoke_all(&[first.id, never_minted, second.id]).await.unwrap();
    assert!(!first.exists() && !second.exists());
    assert_eq!(idle.ask("SELECT 'still alive';"), "");
    fixture.revoke_all(&[first.id, never_minted]).await.unwrap();
    fixture.revoke(owner.id).await.unwrap();
    assert!(!owner.exists());
}

#[tokio::test]
async fn as_many_logins_as_go_together_end_in_one_call() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let mut logins = Vec::new();
    for _ in 0..ports_at_once(&fixture) {
        logins.push(Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await);
    }
    let ids: Vec<_> = logins.iter().map(|login| login.id).collect();
    fixture.revoke_all(&ids).await.unwrap();
    assert!(logins.iter().all(|login| !login.exists()));
}

#[tokio::test]
async fn a_plugin_without_the_ability_is_never_asked_for_it() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let able = ports_at_once(&fixture);
    let bare = Fixture::load("hostile/forgets_to_revoke", unprivileged_backend(server())).await;
    assert_eq!((able, ports_at_once(&bare)), (32, 1));
    let error = bare.revoke_all(&[intent()]).await.unwrap_err();
    assert!(error.message.contains("one credential at a time"), "{error}");
}

fn ports_at_once(fixture: &Fixture) -> usize {
    claviger_core::ports::Plugins::revoked_at_once(&fixture.plugins, &"backend".parse().unwrap())
}

#[tokio::test]
async fn what_a_login_made_is_dropped_with_it() {
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await;
    login.runs("CREATE TABLE left_behind (); GRANT SELECT ON left_behind TO readers").unwrap();
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
    assert_eq!(server().psql("SELECT to_regclass('left_behind') IS NULL"), "t");
}

#[tokio::test]
async fn what_a_login_made_goes_to_the_heir() {
    let backend = BackendSpec {
        settings: serde_json::json!({"reassign_owned_to": "heir"}),
        ..unprivileged_backend(server())
    };
    let fixture = Fixture::load(POSTGRES, backend).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await;
    login.runs("CREATE TABLE inherited ()").unwrap();
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'inherited'";
    assert_eq!(server().psql(owner), "heir");
}

#[tokio::test]
async fn an_heir_that_does_not_exist_is_not_taken_for_a_login_that_is_gone() {
    let backend = BackendSpec {
        settings: serde_json::json!({"reassign_owned_to": "nobody_here"}),
        ..unprivileged_backend(server())
    };
    let fixture = Fixture::load(POSTGRES, backend).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await;
    login.runs("CREATE TABLE orphaned ()").unwrap();
    let error = fixture.revoke(login.id).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::InvalidConfig, "{error}");
    assert!(error.message.contains("`reassign_owned_to`"), "{error}");
    assert!(login.exists());
    let mended = Fixture::load(POSTGRES, unprivileged_backend(server())).await;
    mended.revoke(login.id).await.unwrap();
    assert!(!login.exists());
}

#[tokio::test]
async fn objects_in_another_database_keep_the_login_closed_and_say_so() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server)).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "readers"}"#).await;
    server.psql("CREATE DATABASE elsewhere");
    let elsewhere = server.dsn().replace("dbname=postgres", "dbname=elsewhere");
    let own = format!("CREATE TABLE far (); ALTER TABLE far OWNER TO {}", login.user);
    let owned = Command::new("psql").args(["-X", "-q", &elsewhere, "-c", &own]).status().unwrap();
    assert!(owned.success());
    for _ in 0..2 {
        let error = fixture.revoke(login.id).await.unwrap_err();
        assert_eq!(error.kind, PluginErrorKind::Conflict, "{error}");
        assert_eq!(error.code.as_deref(), Some("2BP01"));
        assert!(error.message.contains("in another database"), "{error}");
        let refused = login.runs("SELECT 1").unwrap_err();
        assert!(refused.contains("is not permitted to log in"), "{refused}");
    }
    server.psql("DROP DATABASE elsewhere");
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
}

#[tokio::test]
async fn a_late_issue_does_not_open_a_login_whose_end_has_begun() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server)).await;
    let login = Minted::with(&fixture, r#"{"grant_role": "readers"}"#).await;
    server.psql(&format!("ALTER ROLE {} NOLOGIN", login.user));
    let error = fixture.issue(login.id).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::Conflict, "{error}");
    login.runs("SELECT 1").unwrap_err();
    fixture.revoke(login.id).await.unwrap();
}

#[tokio::test]
async fn a_role_of_somebody_else_is_not_taken_over() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, unprivileged_backend(server)).await;
    let id = intent();
    let user = format!("clav_{}", id.bare());
    server.psql(&format!("CREATE ROLE {user} LOGIN PASSWORD 'theirs'"));
    let error = fixture.issue(id).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::Conflict, "{error}");
    assert!(server.try_psql(&user, "theirs", "SELECT 1").status.success(), "it is as it was");
}

#[tokio::test]
async fn an_administrator_without_rights_is_told_what_to_grant() {
    let server = server();
    server.psql("CREATE ROLE powerless LOGIN PASSWORD 'of-nobody'");
    let backend = backend_of(server, "powerless", "of-nobody");
    let fixture = Fixture::load(POSTGRES, backend).await;
    let error = fixture.issue(intent()).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::Denied, "{error}");
    assert_eq!(error.code.as_deref(), Some("42501"));
    assert!(error.message.contains("needs CREATEROLE"), "{error}");
}

/// The backend with the rights that `plugins/postgres/README.md` asks for, and no more.
fn unprivileged_backend(server: &Postgres) -> BackendSpec {
    static PREPARED: OnceLock<()> = OnceLock::new();
    PREPARED.get_or_init(|| {
        server.psql(
            "CREATE ROLE broker LOGIN CREATEROLE PASSWORD 'of-the-broker'; \
             GRANT pg_signal_backend TO broker; CREATE ROLE heir; GRANT heir TO broker; \
             CREATE ROLE writers; GRANT CREATE ON SCHEMA public TO writers, heir",
        );
        if server.psql("SELECT current_setting('server_version_num')::int >= 160000") == "t" {
            server.psql("GRANT readers, writers TO broker WITH ADMIN OPTION, INHERIT FALSE");
        }
    });
    backend_of(server, "broker", "of-the-broker")
}

fn backend_of(server: &Postgres, admin: &str, its_password: &str) -> BackendSpec {
    let mut backend = database_backend(server);
    for connection in backend.connections.values_mut() {
        if let ConnectionSpec::Sql(spec) = connection {
            admin.clone_into(&mut spec.user);
            spec.password = Zeroizing::new(its_password.to_owned());
        }
    }
    backend
}

/// A login that was minted, and how to use it.
struct Minted {
    id: IntentId,
    user: String,
    password: String,
}

impl Minted {
    async fn with(fixture: &Fixture, parameters: &str) -> Self {
        let id = intent();
        let request = |settings: &str| issue_request(id, settings, parameters);
        let issued = fixture.plugins.mint(&"backend".parse().unwrap(), request).await.unwrap();
        let fields = fields(issued);
        Self { id, user: fields["user"].clone(), password: fields["password"].clone() }
    }

    fn runs(&self, sql: &str) -> Result<String, String> {
        let output = server().try_psql(&self.user, &self.password, sql);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn exists(&self) -> bool {
        self.look_up("1") == "1"
    }

    fn look_up(&self, columns: &str) -> String {
        let user = &self.user;
        server().psql(&format!("SELECT {columns} FROM pg_roles WHERE rolname = '{user}'"))
    }
}

/// A `psql` that stays connected.
struct OpenPsql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OpenPsql {
    fn start(login: &Minted) -> Self {
        let mut child = Command::new("psql")
            .args(["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-p", &server().port().to_string()])
            .args(["-U", &login.user, "-d", "postgres"])
            .env("PGPASSWORD", &login.password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// What it answers; nothing once it has lost its connection.
    fn ask(&mut self, sql: &str) -> String {
        let mut line = String::new();
        if writeln!(self.input, "{sql}").is_ok() {
            self.output.read_line(&mut line).unwrap();
        }
        line.trim_end().to_owned()
    }
}

impl Drop for OpenPsql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
