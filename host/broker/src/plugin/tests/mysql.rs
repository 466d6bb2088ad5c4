//! The MySQL plugin on a real MariaDB, with the rights that its page asks for: what a login may
//! do, and that revoked means dead.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use claviger_core::ports::PluginErrorKind;
use claviger_test_servers::Mariadb;

use super::*;

const MYSQL: &str = "mysql";

fn maria() -> &'static Mariadb {
    static SERVER: OnceLock<Mariadb> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Mariadb::start();
        server.sql(
            "CREATE ROLE readers; CREATE ROLE writers; CREATE ROLE withheld; \
             CREATE TABLE orders (id int); \
             GRANT SELECT ON app.orders TO readers; GRANT ALL ON app.* TO writers; \
             CREATE USER broker IDENTIFIED BY 'of-the-broker'; \
             GRANT CREATE USER, CONNECTION ADMIN ON *.* TO broker; \
             GRANT UPDATE ON mysql.* TO broker; GRANT REFERENCES ON app.* TO broker; \
             GRANT readers TO broker WITH ADMIN OPTION; GRANT writers TO broker WITH ADMIN OPTION; \
             CREATE USER powerless IDENTIFIED BY 'of-nobody'; \
             GRANT SELECT ON app.orders TO powerless",
        );
        server
    })
}

fn backend_as(user: &str, password: &str) -> BackendSpec {
    let connection = ConnectionSpec::Sql(SqlSpec {
        address: format!("mysql://127.0.0.1:{}/app?sslmode=disable", maria().port()),
        user: user.to_owned(),
        next_password: None,
        password: Zeroizing::new(password.to_owned()),
        ca_file: None,
        client: ClientAddress { host: Some("db.example".to_owned()), port: None },
        connections_max: None,
    });
    BackendSpec {
        connections: BTreeMap::from([("admin".parse().unwrap(), connection)]),
        scopes: BTreeMap::from([(
            "readonly".to_owned(),
            serde_json::json!({"grant_role": "readers"}),
        )]),
        ..bare_backend()
    }
}

async fn fixture() -> Fixture {
    Fixture::load(MYSQL, backend_as("broker", "of-the-broker")).await
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
        let fields = fields(issue(fixture, id, parameters).await.unwrap());
        Self { id, user: fields["user"].clone(), password: fields["password"].clone() }
    }

    fn runs(&self, sql: &str) -> Result<String, String> {
        let output = maria().try_sql(&self.user, &self.password, sql);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn exists(&self) -> bool {
        exists(&self.user)
    }
}

async fn issue(fixture: &Fixture, id: IntentId, parameters: &str) -> Result<Issued, PluginError> {
    let request = |settings: &str| issue_request(id, settings, parameters);
    fixture.plugins.mint(&"backend".parse().unwrap(), request).await
}

fn exists(user: &str) -> bool {
    maria().sql(&format!("SELECT COUNT(*) FROM mysql.user WHERE user = '{user}'")) == "1"
}

const READERS: &str = r#"{"grant_role": "readers"}"#;

#[tokio::test]
async fn issues_a_login_that_works_until_it_is_revoked() {
    let fixture = fixture().await;
    let id = intent();
    let issued = fixture.issue(id).await.unwrap();
    assert_eq!(issued.credential.kind, "mysql-login");
    let user = format!("clav_{}", id.bare());
    assert_eq!(issued.join_keys, BTreeMap::from([("db_user".to_owned(), user.clone())]));
    let names: Vec<_> = issued.credential.fields.iter().map(|field| field.name.clone()).collect();
    assert_eq!(names, ["host", "port", "dbname", "user", "password"]);
    let fields = fields(issued);
    assert_eq!((&fields["user"], fields["host"].as_str()), (&user, "db.example"));
    assert_eq!(fields["port"], maria().port().to_string());

    let login = || maria().try_sql(&user, &fields["password"], "SELECT COUNT(*) FROM orders");
    assert!(login().status.success(), "{login:?}", login = login());
    fixture.revoke(id).await.unwrap();
    assert!(!login().status.success());
    assert!(!exists(&user));
    fixture.revoke(id).await.expect("revoking again is fine");
    fixture.revoke(intent()).await.expect("and so is revoking what never was");
    assert!(!maria().log_text().contains(&fields["password"]));
}

#[tokio::test]
async fn a_login_may_do_what_its_role_may_and_nothing_else() {
    let fixture = fixture().await;
    let parameters = r#"{"grant_role": "readers", "max_user_connections": 1}"#;
    let login = Minted::with(&fixture, parameters).await;
    assert_eq!(login.runs("SELECT COUNT(*) FROM orders").unwrap(), "0");
    assert_eq!(login.runs("SELECT CURRENT_ROLE()").unwrap(), "readers");
    for (forbidden, sentence) in [
        ("INSERT INTO orders VALUES (1)", "INSERT command denied"),
        ("CREATE TABLE mine (id int)", "CREATE command denied"),
        ("CREATE USER friend", "CREATE USER privilege"),
        ("SELECT * FROM mysql.global_priv", "denied"),
        ("SET ROLE writers", "Invalid role specification"),
        ("GRANT readers TO powerless", "Access denied"),
    ] {
        let error = login.runs(forbidden).unwrap_err();
        assert!(error.contains(sentence), "`{forbidden}`: {error}");
    }
    let mut open = OpenClient::start(&login);
    assert_eq!(open.ask("SELECT 'open';"), "open");
    let error = login.runs("SELECT 1").unwrap_err();
    assert!(error.contains("max_user_connections"), "{error}");
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
}

#[tokio::test]
async fn an_open_connection_dies_with_its_login() {
    let fixture = fixture().await;
    let login = Minted::with(&fixture, READERS).await;
    let mut idle = OpenClient::start(&login);
    assert_eq!(idle.ask("SELECT 'open';"), "open");
    let mut busy = OpenClient::start(&login);
    assert_eq!(busy.ask("BEGIN; SELECT 'open' FROM (SELECT COUNT(*) FROM orders) AS o;"), "open");
    fixture.revoke(login.id).await.unwrap();
    let alive = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{}'",
        login.user
    );
    assert_eq!(maria().sql(&alive), "0", "no connection outlives its account");
    assert_eq!(idle.ask("SELECT 'still alive';"), "");
    assert_eq!(busy.ask("SELECT 'still alive';"), "");
    assert!(!login.exists());
}

#[tokio::test]
async fn what_a_login_made_stays_and_its_rights_go() {
    let fixture = fixture().await;
    let login = Minted::with(&fixture, r#"{"grant_role": "writers"}"#).await;
    login
        .runs(
            "CREATE TABLE left_behind (id int); CREATE SQL SECURITY DEFINER VIEW seen AS \
             SELECT * FROM left_behind",
        )
        .unwrap();
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
    assert_eq!(maria().sql("SELECT COUNT(*) FROM left_behind"), "0");
    let through_view =
        maria().try_sql(maria().superuser(), maria().password(), "SELECT * FROM seen");
    let error = String::from_utf8_lossy(&through_view.stderr).into_owned();
    assert!(error.contains("definer"), "the view lends nobody's rights: {error}");
}

#[tokio::test]
async fn issuing_twice_leaves_one_login_with_the_later_password() {
    let fixture = fixture().await;
    let id = intent();
    let first = fields(fixture.issue(id).await.unwrap());
    let second = fields(fixture.issue(id).await.unwrap());
    let login = |password: &str| maria().try_sql(&second["user"], password, "SELECT 1").status;
    assert!(!login(&first["password"]).success());
    assert!(login(&second["password"]).success());
    fixture.revoke(id).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_issue_is_finished_or_undone() {
    let fixture = fixture().await;
    for finish in [true, false] {
        let id = intent();
        let user = format!("clav_{}", id.bare());
        maria().sql(&format!("CREATE USER {user} IDENTIFIED BY 'nobody knows'"));
        if finish {
            let fields = fields(fixture.issue(id).await.unwrap());
            let login = maria().try_sql(&user, &fields["password"], "SELECT * FROM orders");
            assert!(login.status.success(), "{login:?}");
        }
        fixture.revoke(id).await.unwrap();
        assert!(!exists(&user));
    }
}

#[tokio::test]
async fn an_interrupted_end_is_finished_and_a_late_issue_opens_nothing() {
    let fixture = fixture().await;
    let login = Minted::with(&fixture, READERS).await;
    maria().sql(&format!("ALTER USER {} ACCOUNT LOCK", login.user));
    if let Ok(issued) = fixture.issue(login.id).await {
        let late = fields(issued);
        let refused = maria().try_sql(&login.user, &late["password"], "SELECT 1");
        assert!(!refused.status.success(), "it stays closed");
    }
    fixture.revoke(login.id).await.unwrap();
    assert!(!login.exists());
}

#[tokio::test]
async fn says_what_is_missing() {
    let fixture = fixture().await;
    for (parameters, kind, code, sentence) in [
        (r#"{"grant_role": "no_role"}"#, PluginErrorKind::NotFound, "OP000", "create the role"),
        (r#"{"grant_role": "withheld"}"#, PluginErrorKind::Denied, "28000", "WITH ADMIN OPTION"),
    ] {
        let id = intent();
        let error = issue(&fixture, id, parameters).await.err().unwrap();
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{error}");
        assert!(error.message.contains(sentence) && error.request_sent, "{error}");
        fixture.revoke(id).await.unwrap();
        assert!(!exists(&format!("clav_{}", id.bare())));
    }
    let powerless = Fixture::load(MYSQL, backend_as("powerless", "of-nobody")).await;
    let error = powerless.issue(intent()).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::Denied, "{error}");
    assert!(error.message.contains("CREATE USER"), "{error}");
}

#[tokio::test]
async fn a_plugin_gets_only_the_dialect_that_it_speaks() {
    let sandbox = Sandbox::start(patient()).unwrap();
    let backend = database_backend(server());
    let loaded =
        Plugins::load_on(sandbox, vec![plugin(MYSQL)], vec![backend], observer(&Seen::default()));
    let text = messages(&loaded.err().unwrap());
    assert!(text.contains("does not speak PostgreSQL"), "{text}");
    let sandbox = Sandbox::start(patient()).unwrap();
    let mut backend = backend_as("broker", "of-the-broker");
    let admin = backend.connections.pop_first().unwrap().1;
    backend.connections.insert("misnamed".parse().unwrap(), admin);
    let loaded =
        Plugins::load_on(sandbox, vec![plugin(MYSQL)], vec![backend], observer(&Seen::default()));
    let text = messages(&loaded.err().unwrap());
    assert!(text.contains("mysql://db.internal:3306/database?sslmode=verify-full"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_a_few_connections() {
    let fixture = Arc::new(fixture().await);
    let calls = (0..32).map(|_| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let id = intent();
            fixture.issue(id).await.map(drop)?;
            fixture.revoke(id).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert!(fixture.outcomes().iter().all(|outcome| *outcome == Outcome::Ok));
}

/// A `mariadb` that stays connected.
struct OpenClient {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OpenClient {
    fn start(login: &Minted) -> Self {
        let mut command = maria().client(&login.user, &login.password);
        command.args(["--unbuffered", "--skip-reconnect"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
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

impl Drop for OpenClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn values_never_become_syntax_in_mysql_either() {
    maria().sql("CREATE TABLE IF NOT EXISTS app.canary (id int)");
    let root = backend_as("broker", "of-the-broker");
    let fixture =
        Fixture::load("hostile/injector", BackendSpec { scopes: BTreeMap::new(), ..root }).await;
    let request = |settings: &str| issue_request(intent(), settings, r#"{"dialect": "mysql"}"#);
    let issued = fixture.plugins.mint(&"backend".parse().unwrap(), request).await.unwrap();
    assert_eq!(fields(issued)["report"], "every value came back as it went");
    maria().sql("SELECT count(*) FROM app.canary");
}
