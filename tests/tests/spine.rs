//! The main job, end to end: from a prompt file to a database login that dies with the session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, reason};
use claviger_e2e::poll;
use claviger_e2e::world::{ADMIN_PASSWORD, World};
use claviger_proto::v1;
use tokio_postgres::NoTls;
use tonic::Code;

#[tokio::test]
async fn a_login_works_as_granted_and_dies_with_the_session() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");

    let (client, connection) = tokio_postgres::connect(&issued.dsn(), NoTls).await.expect("login");
    let alive = tokio::spawn(connection);
    let row = client.query_one("SELECT count(*) FROM orders", &[]).await.expect("may read");
    assert_eq!(row.get::<_, i64>(0), 10);
    let refused = client.execute("DELETE FROM orders", &[]).await.expect_err("may not write");
    assert_eq!(refused.code().map(|code| code.code().to_owned()), Some("42501".to_owned()));

    let closed = agent.close().await.expect("closed");
    assert_eq!(closed.leases_due, 1);
    // The open connection is ended from the server's side; nothing asks it anything meanwhile.
    alive.await.expect("joined").expect_err("the server ends the open connection");
    let again = tokio_postgres::connect(&issued.dsn(), NoTls).await;
    assert!(again.is_err(), "a login after the end of the session must fail");
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
    let after = agent.issue("orders-db/readonly").await.expect_err("the session is over");
    assert_eq!((after.code(), reason(&after).as_str()), (Code::Unauthenticated, "NO_SESSION"));
}

#[tokio::test]
async fn psql_works_with_the_environment_that_the_plugin_names() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let mut run = claviger(
        &broker,
        &["run", "--role", "support-triage", "--grant", "orders-db/readonly", "--"],
    );
    let output = run.args(["psql", "-At", "-c", "SELECT sum(total_cents) FROM orders"]).output();
    let output = output.expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "5500", "{told}");
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
}

#[tokio::test]
async fn a_refusal_says_what_would_have_to_change_and_is_recorded() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let cases = [
        ("support-triage", "orders-db/readwrite", "UNDECLARED_AUTHORIZATION", "`orders.write`"),
        ("incident-responder", "orders-db/owner", "SENSITIVE_SCOPE", "never handed out"),
        ("code-reviewer", "orders-db/readonly", "UNDECLARED_AUTHORIZATION", "`orders.read`"),
        ("support-triage", "orders-db/nothing", "UNKNOWN_SCOPE", "not configured"),
    ];
    for (role, scope, code, hint) in cases {
        let agent = Agent::open(&broker.socket(), role).await.expect("a session");
        let refused = agent.issue(scope).await.expect_err("refused");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, code));
        assert!(refused.message().contains(hint), "{}", refused.message());
        let info = tonic_types::StatusExt::get_details_error_info(&refused).expect("details");
        let denial = info.metadata.get("denial_id").expect("a denial id");
        let why = claviger(&broker, &["why", denial]).output().expect("claviger runs");
        let text = String::from_utf8_lossy(&why.stdout).into_owned();
        assert!(text.contains(role) && text.contains(hint), "{text}");
    }
    assert_eq!(world.logins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_longer_life_than_allowed_is_refused_with_the_limit() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let request = v1::IssueRequest {
        scope: "orders-db/readonly".into(),
        ttl: Some(prost_types::Duration { seconds: 7200, nanos: 0 }),
        ..Default::default()
    };
    let refused = agent.issue_as(request).await.expect_err("refused");
    assert_eq!(reason(&refused), "TTL_TOO_LONG");
    assert!(refused.message().contains("30m"), "{}", refused.message());
}

#[tokio::test]
async fn one_idempotency_key_mints_one_credential() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let request = v1::IssueRequest {
        scope: "orders-db/readonly".into(),
        idempotency_key: "step-1".into(),
        ..Default::default()
    };
    let first = agent.issue_as(request.clone()).await.expect("a credential");
    let again = agent.issue_as(request).await.expect_err("the key was used");
    assert_eq!(
        (again.code(), reason(&again).as_str()),
        (Code::AlreadyExists, "IDEMPOTENCY_KEY_USED")
    );
    assert!(again.message().contains(&first.lease.lease_id));
    assert_eq!(world.logins().len(), 1);
}

#[tokio::test]
async fn a_released_lease_is_revoked_and_only_by_its_own_session() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let lease_id = issued.lease.lease_id.clone();
    let release = |agent: &Agent| {
        let request = agent.with_token(v1::ReleaseLeaseRequest { lease_id: lease_id.clone() });
        let mut client = agent.client.clone();
        async move { client.release_lease(request).await }
    };
    let refused = release(&other).await.expect_err("not its lease");
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(world.logins().len(), 1);
    release(&agent).await.expect("released");
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
}

#[tokio::test]
async fn the_journal_tells_the_whole_story_and_no_secret() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    agent.close().await.expect("closed");
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
    let story = poll::until("the revocation is recorded", || {
        let query =
            claviger(&broker, &["--output", "json", "audit", "query", "--session", &agent.session])
                .output()
                .expect("claviger runs");
        let text = String::from_utf8_lossy(&query.stdout).into_owned();
        std::future::ready(text.contains("lease-revoked").then_some(text))
    })
    .await;
    for event in
        ["session-begun", "intent-opened", "lease-issued", "session-ended", "lease-revoked"]
    {
        assert!(story.contains(event), "{event} is missing in {story}");
    }
    assert!(story.contains(issued.field("user")), "the join key is recorded");
    let verify = claviger(&broker, &["audit", "verify"]).output().expect("claviger runs");
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));

    // The canaries: in no file of the broker's, in no log of either side.
    let secrets = [ADMIN_PASSWORD, issued.field("password"), agent.token.as_str()];
    let log = broker.log();
    assert!(broker.stop().await.success());
    let mut seen = vec![
        ("log".to_owned(), log.into_bytes()),
        ("server log".to_owned(), world.postgres.log_text().into_bytes()),
    ];
    for entry in std::fs::read_dir(world.path().join("state")).expect("the journal's folder") {
        let path = entry.expect("an entry").path();
        // Compiled components are made of plugins, before there is any secret.
        if path.is_dir() {
            continue;
        }
        seen.push((path.display().to_string(), std::fs::read(&path).expect("readable")));
    }
    for (place, bytes) in &seen {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret stands in {place}");
        }
    }
}
