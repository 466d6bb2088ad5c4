//! Who may not call, must not: every RPC of the contract, with every kind of wrong proof.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, channel, reason};
use claviger_e2e::other_user;
use claviger_e2e::rpc::{authorization, methods, services};
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[tokio::test]
async fn no_call_but_open_session_goes_without_the_token_of_a_live_session() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let closed = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    closed.close().await.expect("closed");
    let good = format!("Bearer {}", agent.token);
    let over = format!("Bearer {}", closed.token);
    let cut = good.get(..good.len() - 1).expect("a token");
    let session_id = format!("Bearer {}", agent.session);
    let cases: [(&str, &[&str], &str); 10] = [
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
    ];
    let channel = channel(&broker.socket()).await;
    for method in methods("AgentService").iter().filter(|method| method.name != "OpenSession") {
        for (case, tokens, expect) in cases {
            let refused = method.call(&channel, &authorization(tokens)).await;
            let refused = refused.expect_err(&format!("{}, {case}", method.name));
            let found = (refused.code(), reason(&refused));
            assert_eq!(
                found,
                (Code::Unauthenticated, expect.to_owned()),
                "{}, {case}",
                method.name
            );
        }
    }
    // The session lived through it, and the same calls with its token are let in: what they are
    // refused for then is their empty message. Closing comes last in the contract, and here.
    for method in methods("AgentService") {
        let answer = method.call(&channel, &authorization(&[&good])).await;
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        let expect = match method.name.as_str() {
            "OpenSession" | "Issue" | "ReleaseLease" => Code::InvalidArgument,
            _ => Code::Ok,
        };
        assert_eq!(code, expect, "{}", method.name);
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
    let lease = issued.lease.lease_id.as_str();
    let commands: [(&str, &[&str]); 6] = [
        ("ListGrants", &["grants"]),
        ("Issue", &["issue", "orders-db/readonly"]),
        ("Watch", &["session", "watch"]),
        ("ListLeases", &["lease", "list"]),
        ("ReleaseLease", &["lease", "release", lease]),
        ("CloseSession", &["session", "close"]),
    ];
    for method in methods("AgentService").iter().filter(|method| method.name != "OpenSession") {
        let found = commands.iter().find(|(name, _)| *name == method.name);
        let (_, args) = found.unwrap_or_else(|| panic!("no command here calls {}", method.name));
        let output = other_user::run(with_token(args));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{}: {told}", method.name);
        assert!(told.contains("the session token is unknown"), "{}: {told}", method.name);
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
    let all = ["AgentService", "AdminService", "SecretService"];
    assert_eq!(services(), all, "a new service needs a place here");
    let token = authorization(&[&format!("Bearer {}", agent.token)]);
    let of_operators = ["AdminService", "SecretService"].map(methods).concat();
    for method in of_operators {
        for metadata in [MetadataMap::new(), token.clone()] {
            let refused = method.call(&agents, &metadata).await.expect_err(&method.name);
            assert_eq!(refused.code(), Code::Unimplemented, "{}", method.name);
        }
        let answer = method.call(&operators, &MetadataMap::new()).await;
        let code = answer.err().map_or(Code::Ok, |status| status.code());
        let expect = match method.name.as_str() {
            "RetryLease" | "LiftQuarantine" => Code::InvalidArgument,
            "PutSecret" | "DeleteSecret" | "RotateRoot" => Code::InvalidArgument,
            "Rekey" => Code::FailedPrecondition,
            _ => Code::Ok,
        };
        assert_eq!(code, expect, "{} on the operators' socket", method.name);
    }
    for method in methods("AgentService") {
        let refused = method.call(&operators, &token).await.expect_err(&method.name);
        assert_eq!(refused.code(), Code::Unimplemented, "{}", method.name);
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
    for args in [
        &["audit", "tail"] as &[&str],
        &["audit", "verify"],
        &["lease", "query"],
        &["lease", "retry", "int_0000000000e0000000000000000"],
        &["plugin", "list"],
        &["plugin", "lift", "postgres"],
        &["secret", "put", "orders-db", "--file", "/etc/passwd"],
        &["secret", "list"],
        &["secret", "delete", "orders-db"],
        &["backend", "rotate", "orders-db"],
        &["journal", "rekey"],
        &["reload"],
    ] {
        let output = other_user::run(claviger(&broker, args));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{args:?}: {told}");
        assert!(told.contains("user 65534 does not operate this broker"), "{args:?}: {told}");
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
    for method in methods("AgentService") {
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
