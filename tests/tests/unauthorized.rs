//! Who may not call, must not: every RPC of the contract, with every kind of wrong proof. A new RPC
//! needs a row in `ROWS`, and nothing else here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{self, Agent, channel, reason};
use claviger_e2e::pki::Authority;
use claviger_e2e::rpc::{Method, authorization, methods, services};
use claviger_e2e::world::{Settings, World};
use claviger_e2e::{other_user, poll};
use claviger_proto::v1;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One RPC, and what is needed to try it with every wrong proof.
struct Row {
    /// As the contract names it.
    method: &'static str,
    /// What it asks of its caller.
    asks: Asks,
    /// What an empty message comes to when the caller may call.
    empty: Code,
    /// A command line that calls it. `LEASE` and `CERTIFICATE` stand for a lease and a file.
    command: &'static [&'static str],
}

/// What an RPC asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// That the connection proves who it is.
    Identity,
    /// The token of a live session too.
    Session,
    /// To operate the broker. Such an RPC is in a service of the operators' own listener.
    Operator,
}

const fn row(
    method: &'static str,
    asks: Asks,
    empty: Code,
    command: &'static [&'static str],
) -> Row {
    Row { method, asks, empty, command }
}

/// Every RPC. The agents' stand in the order in which they are called at the end of a test with the
/// proof of a live session: the one that ends the session comes last.
const ROWS: &[Row] = &[
    row(
        "OpenSession",
        Asks::Identity,
        Code::InvalidArgument,
        &["run", "--role", "support-triage", "--", "true"],
    ),
    row("ListGrants", Asks::Session, Code::Ok, &["grants"]),
    row("Issue", Asks::Session, Code::InvalidArgument, &["issue", "orders-db/readonly"]),
    row("Watch", Asks::Session, Code::Ok, &["session", "watch"]),
    row("ListLeases", Asks::Session, Code::Ok, &["lease", "list"]),
    row("ReleaseLease", Asks::Session, Code::InvalidArgument, &["lease", "release", "LEASE"]),
    row(
        "OpenChildSession",
        Asks::Session,
        Code::InvalidArgument,
        &["session", "child", "--role", "support-triage"],
    ),
    row(
        "RebindSession",
        Asks::Session,
        Code::InvalidArgument,
        &["session", "rebind", "CERTIFICATE"],
    ),
    row("CloseSession", Asks::Session, Code::Ok, &["session", "close"]),
    row("QueryJournal", Asks::Operator, Code::Ok, &["audit", "tail"]),
    row("JournalHead", Asks::Operator, Code::Ok, &["audit", "verify"]),
    row("QueryLeases", Asks::Operator, Code::Ok, &["lease", "query"]),
    row(
        "RetryLease",
        Asks::Operator,
        Code::InvalidArgument,
        &["lease", "retry", "int_0000000000e0000000000000000"],
    ),
    row("Reload", Asks::Operator, Code::Ok, &["reload"]),
    row("ListPlugins", Asks::Operator, Code::Ok, &["plugin", "list"]),
    row("LiftQuarantine", Asks::Operator, Code::InvalidArgument, &["plugin", "lift", "postgres"]),
    row("ListSessions", Asks::Operator, Code::Ok, &["session", "list"]),
    row("Revoke", Asks::Operator, Code::InvalidArgument, &["revoke", "everything", "--yes"]),
    row("ListPolicies", Asks::Operator, Code::Ok, &["policy", "list"]),
    row("ListRoles", Asks::Operator, Code::Ok, &["role", "list"]),
    row("ListApprovals", Asks::Operator, Code::Ok, &["approve", "list"]),
    row(
        "DecideApproval",
        Asks::Operator,
        Code::InvalidArgument,
        &["approve", "grant", "apr_0000000000e0000000000000000"],
    ),
    row(
        "PutSecret",
        Asks::Operator,
        Code::InvalidArgument,
        &["secret", "put", "orders-db", "--file", "/etc/passwd"],
    ),
    row("ListSecrets", Asks::Operator, Code::Ok, &["secret", "list"]),
    row("DeleteSecret", Asks::Operator, Code::InvalidArgument, &["secret", "delete", "orders-db"]),
    row("RotateRoot", Asks::Operator, Code::InvalidArgument, &["backend", "rotate", "orders-db"]),
    row("Rekey", Asks::Operator, Code::FailedPrecondition, &["journal", "rekey"]),
];

/// The rows that ask for `asks`, each with its method of the contract.
fn rows(asks: Asks) -> Vec<(&'static Row, Method)> {
    let services: &[&str] = match asks {
        Asks::Identity | Asks::Session => &["AgentService"],
        Asks::Operator => &["AdminService", "SecretService"],
    };
    let methods: Vec<_> = services.iter().flat_map(|service| methods(service)).collect();
    let of = |row: &'static Row| {
        let method = methods.iter().find(|method| method.name == row.method);
        let gone = format!("row `{}` is of no RPC of {services:?}: take it out", row.method);
        (row, method.expect(&gone).clone())
    };
    ROWS.iter().filter(|row| row.asks == asks).map(of).collect()
}

#[test]
fn every_rpc_of_the_contract_has_a_row_here() {
    let all = ["AgentService", "AdminService", "SecretService"];
    assert_eq!(services(), all, "a new service needs a place in `rows`");
    for service in services() {
        for method in methods(&service) {
            let found = ROWS.iter().filter(|row| row.method == method.name).count();
            assert_eq!(found, 1, "{service}.{} needs one row in `ROWS`", method.name);
        }
    }
    let tried = [Asks::Identity, Asks::Session, Asks::Operator].map(|asks| rows(asks).len());
    assert_eq!(tried.iter().sum::<usize>(), ROWS.len());
}

#[tokio::test]
async fn no_call_but_open_session_goes_without_the_token_of_a_live_session() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let channel = channel(&broker.socket()).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let closed = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    closed.close().await.expect("closed");
    let short = Agent::open_on(channel.clone(), "support-triage", Some(1)).await;
    let short = short.expect("a session of a second");
    poll::until("its life is over", || async { short.leases().await.err() }).await;
    let good = format!("Bearer {}", agent.token);
    let over = format!("Bearer {}", closed.token);
    let expired = format!("Bearer {}", short.token);
    let cut = good.get(..good.len() - 1).expect("a token");
    let session_id = format!("Bearer {}", agent.session);
    let cases: [(&str, &[&str], &str); 11] = [
        ("none", &[], "NO_SESSION_TOKEN"),
        ("empty", &[""], "NO_SESSION_TOKEN"),
        ("no scheme", &[&agent.token], "NO_SESSION_TOKEN"),
        ("another scheme", &["Basic YTpi"], "NO_SESSION_TOKEN"),
        ("twice", &[&good, &good], "NO_SESSION_TOKEN"),
        ("a good and a bad one", &[&good, "Bearer x"], "NO_SESSION_TOKEN"),
        ("garbage", &["Bearer garbage"], "NO_SESSION"),
        ("cut off", &[cut], "NO_SESSION"),
        ("the id instead of the token", &[&session_id], "NO_SESSION"),
        ("of a closed session", &[&over], "NO_SESSION"),
        ("of a session whose life is over", &[&expired], "NO_SESSION"),
    ];
    for (row, method) in rows(Asks::Session) {
        for (case, tokens, expect) in cases {
            let refused = method.call(&channel, &authorization(tokens)).await;
            let refused = refused.expect_err(&format!("{}, {case}", row.method));
            let found = (refused.code(), reason(&refused));
            let expect = (Code::Unauthenticated, expect.to_owned());
            assert_eq!(found, expect, "{}, {case}", row.method);
        }
    }
    // The session lived through it, and the same calls with its token are let in: what they are
    // refused for then is their empty message.
    for (row, method) in rows(Asks::Identity).into_iter().chain(rows(Asks::Session)) {
        let answer = method.call(&channel, &authorization(&[&good])).await;
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, row.empty, "{}", row.method);
    }
    assert_eq!(world.logins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_to_another_user() {
    if !other_user::available("a stolen token is worth nothing to another user") {
        return;
    }
    let world = World::new();
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let with_token = |args: &[&str]| {
        let mut command = claviger(&broker, args);
        command.env("CLAVIGER_SESSION_TOKEN", &agent.token);
        command
    };
    world.write("next.pem", &Authority::new().client(&["spiffe://example.org/thief"]).certificate);
    let certificate = world.path().join("next.pem").display().to_string();
    for (row, _) in rows(Asks::Session) {
        let args = row.command.iter().map(|arg| match *arg {
            "LEASE" => issued.lease.lease_id.as_str(),
            "CERTIFICATE" => &certificate,
            arg => arg,
        });
        let output = other_user::run(with_token(&args.collect::<Vec<_>>()));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{}: {told}", row.method);
        assert!(told.contains("the session token is unknown"), "{}: {told}", row.method);
    }
    // The same user with a session of its own gets in, so it was the token that kept it out.
    let own = claviger(&broker, &["run", "--role", "support-triage", "--", "true"]);
    let output = other_user::run(own);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(world.logins().len(), 1, "the thief released the lease");
    assert!(with_token(&["grants"]).output().expect("claviger runs").status.success());
}

#[tokio::test]
async fn agents_find_no_admin_service_on_their_socket() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let agents = channel(&broker.socket()).await;
    let operators = channel(&broker.admin_socket()).await;
    let token = authorization(&[&format!("Bearer {}", agent.token)]);
    for (row, method) in rows(Asks::Operator) {
        for metadata in [MetadataMap::new(), token.clone()] {
            let refused = method.call(&agents, &metadata).await.expect_err(row.method);
            assert_eq!(refused.code(), Code::Unimplemented, "{}", row.method);
        }
        let answer = method.call(&operators, &MetadataMap::new()).await;
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, row.empty, "{} on the operators' socket", row.method);
    }
    for (row, method) in rows(Asks::Identity).into_iter().chain(rows(Asks::Session)) {
        let refused = method.call(&operators, &token).await.expect_err(row.method);
        assert_eq!(refused.code(), Code::Unimplemented, "{}", row.method);
    }
}

#[tokio::test]
async fn only_operators_operate_even_when_the_socket_is_open_to_all() {
    if !other_user::available("only operators operate") {
        return;
    }
    let audit = |broker: &Broker| -> Command { claviger(broker, &["audit", "tail"]) };
    let check = |output: std::process::Output, code: i32, hint: &str| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{told}");
        assert!(told.contains(hint), "{told}");
    };
    let everybody = std::fs::Permissions::from_mode(0o666);
    let world = World::new();
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    check(other_user::run(audit(&broker)), 6, "no broker answers");
    std::fs::set_permissions(broker.admin_socket(), everybody.clone()).expect("its owner may");
    for (row, _) in rows(Asks::Operator) {
        let output = other_user::run(claviger(&broker, row.command));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{}: {told}", row.method);
        let says = told.contains("no policy lets `unix:65534` do `admin::");
        assert!(says, "{}: {told}", row.method);
    }
    check(audit(&broker).output().expect("claviger runs"), 0, "");
    drop(broker);

    let more = format!("[admin]\noperator_uids = [{}]", other_user::NOBODY);
    let world = World::with(Settings { more, ..Settings::default() });
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    std::fs::set_permissions(broker.admin_socket(), everybody).expect("its owner may");
    check(other_user::run(audit(&broker)), 0, "");
}

#[tokio::test]
async fn a_message_of_more_than_64_kib_is_refused() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let ask = |bytes: usize| {
        let request = v1::IssueRequest {
            scope: "orders-db/readonly".into(),
            claimed_reason: "x".repeat(bytes),
            ..Default::default()
        };
        agent.issue_as(request)
    };
    let refused = ask(64 * 1024).await.expect_err("too large for the listener");
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    let refused = ask(63 * 1024).await.expect_err("read, and too long for the field");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let mut padded = MetadataMap::new();
    padded.insert("x-padding", "x".repeat(32 * 1024).parse().expect("ascii"));
    let channel = channel(&broker.socket()).await;
    for (_, method) in rows(Asks::Identity).into_iter().chain(rows(Asks::Session)) {
        let refused = method.call(&channel, &padded).await.expect_err(&method.name);
        assert_ne!(
            refused.code(),
            Code::Unauthenticated,
            "{}: headers of 32 KiB were read",
            method.name
        );
    }
    ask(512).await.expect("the session goes on");
}

#[tokio::test]
async fn a_lease_of_another_session_is_as_unknown_as_one_that_never_was() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let other = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = other.issue("orders-db/readonly").await.expect("a credential");
    let foreign = issued.lease.lease_id;
    let (head, last) = foreign.split_at(foreign.len() - 1);
    let never = format!("{head}{}", if last == "0" { "4" } else { "0" });
    let release = |lease_id: &str| {
        let request = agent.with_token(v1::ReleaseLeaseRequest { lease_id: lease_id.to_owned() });
        let mut client = agent.client.clone();
        async move { client.release_lease(request).await.expect_err("not its lease") }
    };
    let seen = |status: &Status, id: &str| {
        let details = format!("{:?}", status.get_error_details());
        (
            status.code(),
            reason(status),
            status.message().replace(id, "ID"),
            details.replace(id, "ID"),
        )
    };
    let (foreign_answer, never_answer) = (release(&foreign).await, release(&never).await);
    assert_eq!(seen(&foreign_answer, &foreign), seen(&never_answer, &never));
    assert_eq!(
        (foreign_answer.code(), reason(&foreign_answer).as_str()),
        (Code::NotFound, "NO_LEASE")
    );
    assert_eq!(world.logins().len(), 1);
}

/// INVARIANT (denied-is-unknown): otherwise the names of roles could be collected by asking.
#[tokio::test]
async fn a_role_that_may_not_be_run_is_as_unknown_as_one_that_never_was() {
    let world = World::new();
    world.write("policies/teams.cedar", ONE_ROLE_ONLY);
    let broker = Broker::start(&world).await;
    let seen = |status: &Status, role: &str| {
        let info = status.get_details_error_info().expect("details");
        let denial = info.metadata.get("denial_id").expect("a denial").clone();
        let plain = |text: &str| text.replace(role, "ROLE").replace(&denial, "DENIAL");
        // Sorted, since a map of details shows them in any order.
        let mut told: Vec<_> =
            info.metadata.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
        told.sort();
        ((status.code(), reason(status), plain(status.message()), told), denial)
    };
    let mut answers = Vec::new();
    for (role, recorded) in [
        ("incident-responder", "NO_PERMIT"),
        ("code-reviewer", "FORBIDDEN"),
        ("no-such-role", "UNKNOWN_ROLE"),
    ] {
        let refused = Agent::open(&broker.socket(), role).await.err().expect(role);
        let (answer, denial_id) = seen(&refused, role);
        let query = v1::QueryJournalRequest { denial_id, ..Default::default() };
        let entries = client::journal(&broker.admin_socket(), query).await;
        let codes: Vec<_> = entries.iter().filter_map(|entry| entry.get("code")).collect();
        assert_eq!(codes, [recorded], "the journal keeps the reason: {entries:?}");
        answers.push((role, answer));
    }
    for (role, answer) in &answers {
        assert_eq!(answer, &answers[0].1, "{role}");
    }
    Agent::open(&broker.socket(), "support-triage").await.expect("the one that may be run");
}

const ONE_ROLE_ONLY: &str = r#"
permit (principal, action == Action::"open_session", resource == Role::"support-triage");
permit (principal, action == Action::"open_session", resource == Role::"code-reviewer");
forbid (principal, action == Action::"open_session", resource == Role::"code-reviewer");
"#;
