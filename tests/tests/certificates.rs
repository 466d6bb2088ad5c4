//! The broker's certificates and those of its clients change, expire and are attacked while it
//! serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claviger_e2e::client::{Agent, journal, last_word, reason};
use claviger_e2e::pki::{Authority, Certified, connect, handshake, presented};
use claviger_e2e::poll;
use claviger_e2e::refusal;
use claviger_e2e::remote::{AGENT, Remote, put};
use claviger_e2e::rpc::methods;
use claviger_e2e::world::{Settings, World, program};
use claviger_proto::v1;
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::agent_service_client::AgentServiceClient;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_rotated_under_load_with_no_failed_call() {
    let remote = Remote::start().await;
    let client = remote.authority.client(&[AGENT]);
    let channel = remote.channel(&client).await;
    let agent = Agent::open_on(channel, "support-triage", None).await.expect("a session");
    let mut watch = agent.watch().await.expect("a stream");
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for kept in [true, true, false, false] {
        let (agent, client, ca) = (agent.clone(), client.clone(), remote.authority.pem());
        let (stop, calls, port) = (Arc::clone(&stop), Arc::clone(&calls), remote.port);
        load.spawn(async move {
            let mut own = agent.client.clone();
            while !stop.load(Ordering::Relaxed) {
                if !kept {
                    // A handshake for each call: none may fail either.
                    let fresh = connect(port, &ca, Some(&client)).await.expect("a handshake");
                    own = AgentServiceClient::new(fresh);
                }
                let request = agent.with_token(v1::ListGrantsRequest {});
                own.list_grants(request).await.expect("a call");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..ROTATIONS {
        let before = calls.load(Ordering::Relaxed);
        remote.rotate(&remote.authority.server()).await;
        poll::until("calls went on", || {
            std::future::ready((calls.load(Ordering::Relaxed) > before + 8).then_some(()))
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no call failed");
    }
    watch.message().await.expect("the stream is open").expect("a heartbeat");
    agent.issue("orders-db/readonly").await.expect("the first connection lives");
    poll::until("the start and every rotation are recorded", || async {
        let loaded = events(&remote, "certificates-loaded").await;
        let of_agents = loaded.iter().filter(|told| told.starts_with("`listen.tls`"));
        (of_agents.count() == ROTATIONS + 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_authority_that_is_removed_counts_no_more_although_the_certificate_cannot_be_used() {
    let remote = Remote::start().await;
    let (removed, next, ca) = (&remote.authority, Authority::new(), remote.authority.pem());
    let [by_removed, by_next] = [removed, &next].map(|authority| authority.client(&[AGENT]));
    let open = async |client: &Certified| {
        let channel = connect(remote.port, &ca, Some(client)).await.ok()?;
        Agent::open_on(channel, "support-triage", None).await.ok()
    };
    open(&by_removed).await.expect("it is trusted");
    remote.world.write("tls/server.pem", "no certificate");
    remote.world.write("tls/ca.pem", &next.pem());
    poll::until("the new authority counts", || open(&by_next)).await;
    assert!(open(&by_removed).await.is_none(), "the removed authority counts");
    assert!(!events(&remote, "certificates-refused").await.is_empty());
}

#[tokio::test]
async fn a_bad_pair_replaces_nothing_and_the_journal_says_so() {
    let remote = Remote::start().await;
    let ca = remote.authority.pem();
    let good = remote.authority.server();
    remote.rotate(&good).await;
    let other = remote.authority.server();
    for (case, bad, hint) in [
        ("another's key", Certified { key: other.key.clone(), ..good.clone() }, "belong together"),
        ("no certificate", Certified { certificate: String::new(), ..good.clone() }, "holds no"),
        ("no key", Certified { key: "garbage".into(), ..good.clone() }, "no private key"),
        ("expired", remote.authority.expired_server(), "expired at 1970"),
    ] {
        put(&remote.world, &bad);
        poll::until(case, || async {
            let refused = events(&remote, "certificates-refused").await;
            refused.iter().any(|told| told.contains(hint)).then_some(())
        })
        .await;
        assert_eq!(presented(remote.port, &ca), Some(good.der()), "{case}");
    }
    for told in events(&remote, "certificates-refused").await {
        assert!(!told.contains("PRIVATE"), "{told}");
    }
    remote.rotate(&other).await;
    // A restart with a bad pair is refused with the sentence, instead of serving nobody.
    put(&remote.world, &Certified { key: good.key.clone(), ..other });
    let Remote { world, broker, .. } = remote;
    broker.stop().await;
    let mut command = std::process::Command::new(program("clavigerd"));
    command.args(["serve", "--config"]).arg(world.config());
    let said = refusal::of(command).await;
    assert!(said.contains("listen.tls") && said.contains("belong together"), "{said}");
}

#[tokio::test]
async fn a_secret_that_kubernetes_mounts_is_followed() {
    let remote = Remote::start().await;
    // As it mounts them: files are links into a folder that is itself a link and is replaced.
    let tls = remote.world.path().join("tls");
    let mount = |name: &str, server: &Certified| {
        remote.world.write(&format!("tls/{name}/server.pem"), &server.certificate);
        remote.world.write(&format!("tls/{name}/server.key"), &server.key);
        std::os::unix::fs::symlink(name, tls.join("..next")).expect("linked");
        std::fs::rename(tls.join("..next"), tls.join("..data")).expect("replaced");
    };
    let (first, second) = (remote.authority.server(), remote.authority.server());
    mount("..2026_01", &first);
    for name in ["server.pem", "server.key"] {
        let link = tls.join(format!("{name}.link"));
        std::os::unix::fs::symlink(format!("..data/{name}"), &link).expect("linked");
        std::fs::rename(link, tls.join(name)).expect("replaced");
    }
    shows(&remote, &first).await;
    mount("..2026_02", &second);
    shows(&remote, &second).await;
}

#[tokio::test]
async fn an_authority_that_was_removed_is_trusted_no_more() {
    let remote = Remote::start().await;
    let (old, next) = (remote.authority.client(&[AGENT]), Authority::new());
    let new = next.client(&[AGENT]);
    let channel = remote.channel(&old).await;
    let agent = Agent::open_on(channel, "support-triage", None).await.expect("a session");
    assert!(opens(&remote, Some(&new)).await.is_err(), "not trusted yet");
    remote.world.write("tls/ca.pem", &next.pem());
    poll::until("the new authority is trusted", || async { opens(&remote, Some(&new)).await.ok() })
        .await;
    let refused = opens(&remote, Some(&old)).await.expect_err("the old one is not");
    assert_eq!(reason(&refused), "", "the call was heard: {refused:?}");
    // What was proven when it connected holds until the certificate expires.
    agent.issue("orders-db/readonly").await.expect("the connection lives");
}

#[tokio::test]
async fn where_certificates_are_optional_a_bad_one_still_ends_the_connection() {
    let remote = Remote::start_with("client_certificates = \"optional\"").await;
    let foreign = Authority::new().client(&[AGENT]);
    let expired = remote.authority.client_until(&[AGENT], Duration::from_hours(24));
    let server = remote.authority.server();
    for (case, client) in [
        ("a foreign authority", &foreign),
        ("expired", &expired),
        ("a server's certificate", &server),
    ] {
        let refused = opens(&remote, Some(client)).await.expect_err(case);
        assert_eq!(reason(&refused), "", "{case}: the call was heard: {refused:?}");
    }
    let good = remote.authority.client(&[AGENT]);
    opens(&remote, Some(&good)).await.expect("a certificate is taken");
    // Without one the connection stands, and proves nobody.
    let channel = connect(remote.port, &remote.authority.pem(), None).await.expect("connected");
    for method in methods("AgentService") {
        let refused = method.call(&channel, &MetadataMap::new()).await.expect_err(&method.name);
        assert_eq!(refused.code(), Code::Unauthenticated, "{}: {refused:?}", method.name);
        assert_ne!(reason(&refused), "", "{}", method.name);
    }
}

#[tokio::test]
async fn where_none_is_asked_for_a_certificate_proves_nothing() {
    let remote = Remote::start_with("client_certificates = \"none\"").await;
    let good = remote.authority.client(&[AGENT]);
    let refused = opens(&remote, Some(&good)).await.expect_err("a token is needed");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    assert_ne!(reason(&refused), "", "it was not heard");
}

#[tokio::test]
async fn a_certificate_that_expires_while_its_connection_is_open_loses_its_standing() {
    let remote = Remote::start().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let short = remote.authority.client_until(&[AGENT], now + STANDING);
    let channel = remote.channel(&short).await;
    let kept = channel.clone();
    let agent = Agent::open_on(channel, "support-triage", None).await.expect("a session");
    let channel = kept;
    let mut watch = agent.watch().await.expect("a stream");
    agent.issue("orders-db/readonly").await.expect("a credential while it is valid");
    let ended = last_word(&mut watch).await;
    assert_eq!(reason(&ended), "CERTIFICATE_EXPIRED", "{ended:?}");
    for method in methods("AgentService") {
        let mut metadata = MetadataMap::new();
        let token = format!("Bearer {}", agent.token).parse().expect("ascii");
        metadata.insert("authorization", token);
        let refused = method.call(&channel, &metadata).await.expect_err(&method.name);
        let found = (refused.code(), reason(&refused));
        let expect = (Code::Unauthenticated, "CERTIFICATE_EXPIRED".to_owned());
        assert_eq!(found, expect, "{}", method.name);
    }
    let refused = opens(&remote, Some(&short)).await.expect_err("no new connection either");
    assert_eq!(reason(&refused), "", "{refused:?}");
    opens(&remote, Some(&remote.authority.client(&[AGENT]))).await.expect("a new certificate");
}

#[tokio::test]
async fn an_operators_stream_ends_with_the_certificate_that_let_it_in() {
    let remote = Remote::start().await;
    let permit = format!(
        "permit (principal == Operator::{AGENT:?}, action == Action::\"admin::read\", resource);\n"
    );
    remote.world.write("policies/auditor.cedar", &permit);
    let operator = async |client: &Certified| {
        let ca = remote.authority.pem();
        let channel = connect(remote.admin_port, &ca, Some(client)).await.expect("connected");
        AdminServiceClient::new(channel)
    };
    let lasting = operator(&remote.authority.client(&[AGENT])).await;
    poll::until("the permit is in force", || async {
        lasting.clone().list_plugins(v1::ListPluginsRequest {}).await.ok()
    })
    .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let mut short = operator(&remote.authority.client_until(&[AGENT], now + STANDING)).await;
    let request = v1::QueryJournalRequest { follow: true, ..Default::default() };
    let mut entries = short.query_journal(request).await.expect("admitted").into_inner();
    entries.message().await.expect("the stream is open").expect("an entry");
    let ended = last_word(&mut entries).await;
    assert_eq!(reason(&ended), "CERTIFICATE_EXPIRED", "{ended:?}");
    let refused = short.list_plugins(v1::ListPluginsRequest {}).await.expect_err("expired");
    assert_eq!(reason(&refused), "CERTIFICATE_EXPIRED", "{refused:?}");
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let remote = Remote::start().await;
    let ca = remote.authority.pem();
    handshake(remote.port, &ca, &rustls::version::TLS13).expect("TLS 1.3");
    let refused = handshake(remote.port, &ca, &rustls::version::TLS12).expect_err("TLS 1.2");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn peers_who_connect_and_say_nothing_hold_nobody_up() {
    let remote = Remote::start().await;
    let connect = || TcpStream::connect(("127.0.0.1", remote.port)).expect("accepted");
    let mut silent: Vec<_> = (0..SILENT).map(|_| connect()).collect();
    opens(&remote, Some(&remote.authority.client(&[AGENT]))).await.expect("room was made");
    // The oldest made way, the newest are still waited for.
    let mut is_open = |which: usize| {
        let peer = &mut silent[which];
        peer.set_nonblocking(true).expect("set");
        match peer.read(&mut [0; 1]) {
            // Nothing to read, ever: it is closed.
            Ok(read) => read > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    };
    assert!(!is_open(0), "the oldest was kept");
    assert!(is_open(SILENT - 1), "room was made by time, not at once");
    // Nobody is waited for without end.
    poll::until("the last silent peer is given up", || {
        std::future::ready((!is_open(SILENT - 1)).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn operators_connect_over_tls_with_a_certificate_and_find_no_agents_service() {
    let remote = Remote::start().await;
    let ca = remote.authority.pem();
    let foreign = Authority::new().client(&[AGENT]);
    for client in [None, Some(&foreign)] {
        let Ok(channel) = connect(remote.admin_port, &ca, client).await else { continue };
        let mut admin = AdminServiceClient::new(channel);
        let refused = admin.list_plugins(v1::ListPluginsRequest {}).await;
        let refused = refused.expect_err("no certificate of the authority");
        assert_eq!(reason(&refused), "", "the call was heard: {refused:?}");
    }
    // A certificate of the authority is heard; whether it is an operator's is not for TLS to say.
    let client = remote.authority.client(&[AGENT]);
    let channel = connect(remote.admin_port, &ca, Some(&client)).await.expect("connected");
    for method in methods("AdminService") {
        let refused = method.call(&channel, &MetadataMap::new()).await.expect_err(&method.name);
        assert_ne!(reason(&refused), "", "{}: {refused:?}", method.name);
    }
    for method in methods("AgentService") {
        let refused = method.call(&channel, &MetadataMap::new()).await.expect_err(&method.name);
        assert_eq!(refused.code(), Code::Unimplemented, "{}", method.name);
    }
}

#[tokio::test]
async fn a_listener_without_tls_is_refused_outside_dev_and_proves_nobody_in_it() {
    let port = claviger_e2e::port::free();
    let more = format!("[listen.plain]\naddress = \"127.0.0.1:{port}\"\n");
    let world = World::with(Settings { more, ..Settings::default() });
    let command = |args: &[&str]| {
        let mut command = std::process::Command::new(program("clavigerd"));
        command.args(args).arg("--config").arg(world.config());
        command
    };
    let said = refusal::of(command(&["serve"])).await;
    assert!(said.contains("for `clavigerd dev` only"), "{said}");
    let said = command(&["check"]).output().expect("it runs").stderr;
    assert!(String::from_utf8_lossy(&said).contains("for `clavigerd dev` only"));
    let folder = world.path().join("dev").display().to_string();
    let log = std::fs::File::create(world.path().join("dev.log")).expect("a log");
    let dev = command(&["dev", "--dir", &folder]).stderr(log).spawn().expect("started");
    let dev = refusal::Ended(dev);
    let address = format!("http://127.0.0.1:{port}");
    let channel = poll::until("the broker listens", || async {
        Endpoint::from_shared(address.clone()).expect("an address").connect().await.ok()
    })
    .await;
    for method in methods("AgentService") {
        let refused = method.call(&channel, &MetadataMap::new()).await.expect_err(&method.name);
        assert_eq!(refused.code(), Code::Unauthenticated, "{}: {refused:?}", method.name);
    }
    let said = std::fs::read_to_string(world.path().join("dev.log")).expect("a log");
    assert!(said.contains("WITHOUT TLS"), "{said}");
    drop(dev);
    world.configure(&format!("127.0.0.1:{port}"), "0.0.0.0:1");
    let said = refusal::of(command(&["dev", "--dir", &folder])).await;
    assert!(said.contains("use a loopback address"), "{said}");
}

/// Waits until the broker presents `server`.
async fn shows(remote: &Remote, server: &Certified) {
    poll::until("the broker shows the mounted certificate", || {
        let shown = presented(remote.port, &remote.authority.pem());
        std::future::ready((shown == Some(server.der())).then_some(()))
    })
    .await;
}

/// Opens a session over a connection of its own.
async fn opens(remote: &Remote, client: Option<&Certified>) -> Result<(), Status> {
    let unheard = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    let channel: Channel =
        connect(remote.port, &remote.authority.pem(), client).await.map_err(unheard)?;
    Agent::open_on(channel, "support-triage", None).await.map(drop)
}

/// The details of the journal's entries of one event.
async fn events(remote: &Remote, event: &str) -> Vec<String> {
    let entries = journal(&remote.broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let of_event = entries.iter().filter(|entry| entry["event"] == event);
    of_event.map(|entry| entry["detail"].as_str().expect("a sentence").to_owned()).collect()
}

/// Enough for a race between a handshake and a rotation to show.
const ROTATIONS: usize = 6;

/// More than the broker shakes hands with at once.
const SILENT: usize = 300;

/// Long enough to open a session on a busy machine.
const STANDING: Duration = Duration::from_secs(10);
