//! Agents on other machines: mutual TLS, with the SPIFFE id of the client certificate as name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::process::Stdio;

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, reason};
use claviger_e2e::pki::{Authority, Certified, connect};
use claviger_e2e::remote::{AGENT, Remote};
use claviger_e2e::rpc::{authorization, methods};
use claviger_e2e::world::program;
use claviger_e2e::{client, poll};
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use claviger_proto::v1::{
    ListGrantsRequest, OpenSessionRequest, QueryJournalRequest, RebindSessionRequest,
};
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;

#[tokio::test]
async fn a_certified_agent_gets_a_credential_and_the_journal_its_name() {
    let remote = Remote::start().await;
    let channel = remote.channel(&remote.authority.client(&[AGENT])).await;
    let agent = Agent::open_on(channel, "support-triage", None).await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    assert_eq!(remote.world.logins().len(), 1);
    let query = ["--output", "json", "audit", "query", "--session", &agent.session];
    let output = claviger(&remote.broker, &query).output().expect("claviger runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut begun = 0;
    for line in text.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("a JSON object a line");
        let entry = entry.get("entry").expect("an entry");
        if entry.get("event").and_then(|event| event.as_str()) == Some("session-begun") {
            assert_eq!(
                entry.get("principal").and_then(|name| name.as_str()),
                Some(AGENT),
                "{entry}"
            );
            begun += 1;
        }
    }
    assert_eq!(begun, 1, "{text}");
    let closed = agent.close().await.expect("closed");
    assert_eq!(closed.leases_due, 1);
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_nobody_connects() {
    let remote = Remote::start().await;
    let foreign = Authority::new();
    let ca = remote.authority.pem();
    let stranger = foreign.client(&[AGENT]);
    // Of the authority, but for a server: it proves no client.
    let server = remote.authority.server();
    for (case, client) in [
        ("no certificate", None),
        ("a foreign authority", Some(&stranger)),
        ("a server's certificate", Some(&server)),
    ] {
        // TLS 1.3 tells a client of the refusal after the handshake: with the first call.
        let Ok(channel) = connect(remote.port, &ca, client).await else { continue };
        let mut raw = AgentServiceClient::new(channel);
        let refused = raw.list_grants(ListGrantsRequest {}).await.expect_err(case);
        assert_eq!(reason(&refused), "", "{case}: the call was heard: {refused:?}");
        let refused = raw.open_session(open_request()).await.expect_err(case);
        assert_eq!(reason(&refused), "", "{case}: the call was heard: {refused:?}");
    }
    // The client, too, takes no server of another authority.
    let client = remote.authority.client(&[AGENT]);
    assert!(connect(remote.port, &foreign.pem(), Some(&client)).await.is_err());
    // In the clear nothing is heard either.
    let plain =
        tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{}", remote.port));
    if let Ok(channel) = plain.expect("an address").connect().await {
        let refused = AgentServiceClient::new(channel).open_session(open_request()).await;
        assert_eq!(reason(&refused.expect_err("no TLS")), "");
    }
    // It was the certificates: with the right one the same broker answers.
    let agent = Agent::open_on(remote.channel(&client).await, "support-triage", None).await;
    agent.expect("a session");
}

#[tokio::test]
async fn a_certificate_that_names_nobody_or_two_opens_no_session() {
    let remote = Remote::start().await;
    for (case, uris) in [
        ("no name", &[] as &[&str]),
        ("two SPIFFE ids", &[AGENT, "spiffe://example.org/other"]),
        ("no SPIFFE id", &["https://example.org/agent"]),
        ("a SPIFFE id and another URI", &[AGENT, "https://example.org/agent"]),
    ] {
        let channel = remote.channel(&remote.authority.client(uris)).await;
        for method in methods("AgentService") {
            let refused = method.call(&channel, &MetadataMap::new()).await.expect_err(case);
            let found = (refused.code(), reason(&refused));
            let expect = (Code::Unauthenticated, "NO_IDENTITY".to_owned());
            assert_eq!(found, expect, "{case}, {}", method.name);
        }
    }
}

#[tokio::test]
async fn a_token_works_only_from_where_it_was_made() {
    let remote = Remote::start().await;
    let tls = remote.channel(&remote.authority.client(&[AGENT])).await;
    let other = remote.channel(&remote.authority.client(&["spiffe://example.org/other"])).await;
    let unix = client::channel(&remote.broker.socket()).await;
    let renewed = remote.channel(&remote.authority.client(&[AGENT])).await;
    let over_tls = Agent::open_on(tls.clone(), "support-triage", None).await.expect("a session");
    let over_unix = Agent::open_on(unix.clone(), "support-triage", None).await.expect("a session");
    for (case, agent, channel) in [
        ("from TLS, with another certificate of the same name", &over_tls, &renewed),
        ("from TLS, by another workload", &over_tls, &other),
        ("from TLS, over the socket", &over_tls, &unix),
        ("from the socket, over TLS", &over_unix, &tls),
    ] {
        let token = authorization(&[&format!("Bearer {}", agent.token)]);
        for method in methods("AgentService").iter().filter(|m| m.name != "OpenSession") {
            let refused = method.call(channel, &token).await.expect_err(case);
            let found = (refused.code(), reason(&refused));
            let expect = (Code::Unauthenticated, "NO_SESSION".to_owned());
            assert_eq!(found, expect, "{case}, {}", method.name);
        }
    }
    assert_eq!(reason_over(&tls, &over_tls).await, "");
    assert_eq!(reason_over(&unix, &over_unix).await, "");
}

/// The reason for which `channel` is not let in with the agent's token; empty if it is.
async fn reason_over(channel: &Channel, agent: &Agent) -> String {
    let mut client = AgentServiceClient::new(channel.clone());
    let answer = client.list_grants(agent.with_token(ListGrantsRequest {})).await;
    answer.err().map(|status| reason(&status)).unwrap_or_default()
}

#[tokio::test]
async fn a_session_outlives_its_certificate_and_moves_to_no_other_workload() {
    let mut remote = Remote::start().await;
    let certificates = [AGENT, AGENT, AGENT].map(|name| remote.authority.client(&[name]));
    let [first, second, third] = &certificates;
    let thief = remote.authority.client(&["spiffe://example.org/thief"]);
    let (old, stolen) = (remote.channel(first).await, remote.channel(&thief).await);
    let agent = Agent::open_on(old.clone(), "support-triage", None).await.expect("a session");
    let rebind = async |over: &Channel, next: &Certified| {
        let request = RebindSessionRequest { certificate_sha256: next.sha256.clone() };
        let mut client = AgentServiceClient::new(over.clone());
        client.rebind_session(agent.with_token(request)).await.map(drop)
    };
    // Another workload does not get in even if its certificate is named.
    rebind(&old, &thief).await.expect("named");
    assert_eq!(reason_over(&stolen, &agent).await, "NO_SESSION");
    // Two at a time: the third replaces the second, and the second the third.
    rebind(&old, third).await.expect("named");
    rebind(&old, second).await.expect("named");
    assert_eq!(reason_over(&remote.channel(third).await, &agent).await, "NO_SESSION");
    assert_eq!(reason_over(&old, &agent).await, "", "until the next is used");
    let new = remote.channel(second).await;
    assert_eq!(reason_over(&new, &agent).await, "");
    assert_eq!(reason_over(&old, &agent).await, "NO_SESSION", "the next was used");
    // The broker remembers it.
    remote.broker.stop().await;
    remote.broker = Broker::start(&remote.world).await;
    let (old, new) = (remote.channel(first).await, remote.channel(second).await);
    assert_eq!(reason_over(&old, &agent).await, "NO_SESSION");
    assert_eq!(reason_over(&new, &agent).await, "");
    let query = QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
    let entries = client::journal(&remote.broker.admin_socket(), query).await;
    let currents = entries.iter().filter(|entry| entry["event"] == "session-rebound");
    let currents: Vec<_> = currents.map(|entry| entry["binding"]["current"].clone()).collect();
    let expect = [&first.sha256, &first.sha256, &first.sha256, &second.sha256];
    assert_eq!(currents, expect.map(String::as_str));
    // A session over the socket has no certificate.
    let local = Agent::open(&remote.broker.socket(), "support-triage").await.expect("a session");
    let request = RebindSessionRequest { certificate_sha256: second.sha256.clone() };
    let refused = local.client.clone().rebind_session(local.with_token(request)).await;
    let refused = refused.expect_err("not bound to a certificate");
    assert_eq!(reason(&refused), "NOT_CERTIFICATE_BOUND");
}

#[tokio::test]
async fn run_goes_over_to_a_renewed_certificate() {
    let remote = Remote::start().await;
    let (first, second) = (remote.authority.client(&[AGENT]), remote.authority.client(&[AGENT]));
    let put = |certified: &Certified| {
        remote.world.write("client.key", &certified.key);
        remote.world.write("client.pem", &certified.certificate);
    };
    put(&first);
    let at = |name: &str| remote.world.path().join(name).display().to_string();
    let address = format!("https://127.0.0.1:{}", remote.port);
    let (ca, cert, key, go) = (at("tls/ca.pem"), at("client.pem"), at("client.key"), at("go"));
    let tls = ["--address", &address, "--ca", &ca, "--cert", &cert, "--key", &key];
    // The command reads the files anew for each call, as any program would.
    let script = format!(
        "until [ -e {go} ]; do sleep 0.05; done; until {} grants; do sleep 0.1; done",
        program("claviger").display()
    );
    let mut run = claviger(&remote.broker, &tls);
    run.args(["run", "--role", "support-triage", "--", "sh", "-c", &script]);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("claviger runs");
    let event = async |wanted: &str| {
        let query = QueryJournalRequest::default();
        let entries = client::journal(&remote.broker.admin_socket(), query).await;
        entries.into_iter().find(|entry| entry["event"] == wanted)
    };
    poll::until("the session has begun", || event("session-begun")).await;
    put(&second);
    remote.world.write("go", "");
    let output = run.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the certificate was renewed"), "{told}");
    let ended = event("session-ended").await.expect("closed with the renewed certificate");
    assert_eq!(ended["cause"], "closed", "{told}");
}

#[tokio::test]
async fn the_command_line_speaks_tls() {
    let remote = Remote::start().await;
    let certified = remote.authority.client(&[AGENT]);
    remote.world.write("client.pem", &certified.certificate);
    remote.world.write("client.key", &certified.key);
    let at = |name: &str| remote.world.path().join(name).display().to_string();
    let address = format!("https://127.0.0.1:{}", remote.port);
    let (ca, cert, key) = (at("tls/ca.pem"), at("client.pem"), at("client.key"));
    let tls = ["--address", &address, "--ca", &ca, "--cert", &cert, "--key", &key];
    let agent = Agent::open_on(remote.channel(&certified).await, "support-triage", None).await;
    let agent = agent.expect("a session");
    let mut grants = claviger(&remote.broker, &tls);
    let output = grants.arg("grants").env("CLAVIGER_SESSION_TOKEN", &agent.token).output();
    let output = output.expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("orders-db/readonly"), "{text}");

    let mut run = claviger(&remote.broker, &tls);
    run.args(["run", "--role", "support-triage", "--grant", "orders-db/readonly", "--"]);
    let output = run.args(["psql", "-At", "-c", "SELECT count(*) FROM orders"]).output();
    let output = output.expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "10", "{told}");

    let untold = claviger(&remote.broker, &["--address", &address, "grants"]).output();
    assert_eq!(untold.expect("claviger runs").status.code(), Some(2), "a certificate is needed");
}

fn open_request() -> OpenSessionRequest {
    OpenSessionRequest { role: "support-triage".into(), ..Default::default() }
}
