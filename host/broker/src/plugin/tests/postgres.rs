//! The PostgreSQL plugin, end to end: what it issues logs in, what it revokes does not.

use claviger_core::ports::PluginErrorKind;

use super::*;

#[tokio::test]
async fn issues_a_login_that_works_until_it_is_revoked() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, database_backend(server)).await;
    let id = intent();
    let issued = fixture.issue(id).await.unwrap();
    assert_eq!(issued.credential.kind, "postgres-login");
    let user = format!("clav_{}", id.bare());
    assert_eq!(issued.join_keys, BTreeMap::from([("db_user".to_owned(), user.clone())]));
    let names: Vec<_> = issued.credential.fields.iter().map(|field| field.name.clone()).collect();
    assert_eq!(names, ["host", "port", "dbname", "user", "password"]);
    let fields = fields(issued);
    assert_eq!((&fields["user"], fields["host"].as_str()), (&user, "db.example"));

    let login = || server.try_psql(&user, &fields["password"], "SELECT count(*) FROM orders");
    assert!(login().status.success(), "{login:?}", login = login());
    fixture.revoke(id).await.unwrap();
    assert!(!login().status.success());
    fixture.revoke(id).await.expect("revoking again is fine");
    fixture.revoke(intent()).await.expect("and so is revoking what never was");
    let log = server.log_text();
    assert!(!log.contains(&fields["password"]));
}

#[tokio::test]
async fn issuing_twice_leaves_one_login_with_the_later_password() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, database_backend(server)).await;
    let id = intent();
    let first = fields(fixture.issue(id).await.unwrap());
    let second = fields(fixture.issue(id).await.unwrap());
    let login = |password: &str| server.try_psql(&second["user"], password, "SELECT 1").status;
    assert!(!login(&first["password"]).success());
    assert!(login(&second["password"]).success());
    fixture.revoke(id).await.unwrap();
}

#[tokio::test]
async fn a_verifier_of_many_iterations_logs_in_too() {
    let server = server();
    let backend = BackendSpec {
        settings: serde_json::json!({"scram_iterations": 20_000}),
        ..database_backend(server)
    };
    let fixture = Fixture::load(POSTGRES, backend).await;
    let id = intent();
    let fields = fields(fixture.issue(id).await.unwrap());
    assert!(server.try_psql(&fields["user"], &fields["password"], "SELECT 1").status.success());
    fixture.revoke(id).await.unwrap();
}

#[tokio::test]
async fn says_which_group_is_missing() {
    let server = server();
    let fixture = Fixture::load(POSTGRES, database_backend(server)).await;
    let request =
        |settings: &str| issue_request(intent(), settings, r#"{"grant_role": "nobody_here"}"#);
    let error = fixture.plugins.mint(&"backend".parse().unwrap(), request).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::NotFound);
    assert_eq!(error.code.as_deref(), Some("42704"));
    assert!(error.message.contains("nobody_here"), "{error}");
    assert!(error.request_sent);
}

#[tokio::test]
async fn an_unreachable_database_fails_without_sending_and_recovers() {
    let server = Postgres::start();
    server.psql("CREATE ROLE readers");
    let fixture = Fixture::load(POSTGRES, database_backend(&server)).await;
    fixture.issue(intent()).await.unwrap();
    server.stop();
    let error = fixture.issue(intent()).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::Unavailable, "{error}");
    server.start_again();
    let id = intent();
    fixture.issue(id).await.expect("dead connections are not lent again");
    fixture.revoke(id).await.unwrap();
}

#[tokio::test]
async fn a_backend_that_is_not_configured_is_named() {
    let sandbox = Sandbox::start(patient()).unwrap();
    let plugins = Plugins::load_on(sandbox, vec![], vec![], observer(&Seen::default())).unwrap();
    let request = |settings: &str| revoke_request(intent(), settings);
    let error = plugins.end(&"gone".parse().unwrap(), request).await.err().unwrap();
    assert_eq!(error.kind, PluginErrorKind::NotLoaded);
    assert!(error.message.contains("`gone` is not configured"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_a_few_connections() {
    let server = server();
    let fixture = Arc::new(Fixture::load(POSTGRES, database_backend(server)).await);
    let calls = (0..64).map(|_| {
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
    let open = "SELECT count(*) <= 20 FROM pg_stat_activity WHERE application_name = 'claviger'";
    assert_eq!(server.psql(open), "t");
}
