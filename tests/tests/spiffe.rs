//! SPIFFE: the broker's certificate and its trust come from the stream of a Workload API, and
//! change with it while sessions live.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::collections::HashMap;
use std::path::PathBuf;

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, channel, journal, reason};
use claviger_e2e::pki::{Authority, Certified, connect, presented};
use claviger_e2e::svid::{JwtAuthority, bundle};
use claviger_e2e::workload_api::{JwtBundlesResponse, WorkloadApi, X509Svid, X509SvidResponse};
use claviger_e2e::world::{Settings, World};
use claviger_e2e::{poll, port, refusal};
use claviger_proto::v1;
use tonic::Status;

/// A broker whose certificate comes from a Workload API.
struct Spiffe {
    world: World,
    broker: Broker,
    api: WorkloadApi,
    /// What the API said first.
    svid: Certified,
    port: u16,
}

impl Spiffe {
    /// Starts both. `spiffe` stands in the section, with `SOCKET` for the API's path.
    async fn start(authority: &Authority, spiffe: &str) -> Self {
        let (world, port) = world(spiffe, "");
        let svid = authority.svid(BROKER);
        let api = WorkloadApi::start(&socket(&world), response(&svid, &[authority]));
        let broker = Broker::start_with(&world, |command| {
            let uri = format!("unix://{}", socket(&world).display());
            command.env("SPIFFE_ENDPOINT_SOCKET", uri);
        })
        .await;
        Self { world, broker, api, svid, port }
    }

    /// Waits until the broker presents `svid`, signed by `authority`.
    async fn shows(&self, svid: &Certified, authority: &Authority) {
        poll::until("the broker shows its new SVID", || {
            let shown = presented(self.port, &authority.pem());
            std::future::ready((shown == Some(svid.der())).then_some(()))
        })
        .await;
    }

    /// Opens a session with `client`; `authority` signed the broker's certificate.
    async fn open(&self, client: &Certified, authority: &Authority) -> Result<Agent, Status> {
        let channel = connect(self.port, &authority.pem(), Some(client)).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Agent::open_on(channel, "support-triage", None).await
    }
}

#[tokio::test]
async fn an_svid_rotates_while_sessions_live_and_streams_stay_open() {
    let authority = Authority::new();
    let spiffe = Spiffe::start(&authority, "").await;
    spiffe.shows(&spiffe.svid, &authority).await;
    let agent = spiffe.open(&authority.svid(AGENT), &authority).await.expect("a session");
    let mut watch = agent.watch().await.expect("a stream");
    watch.message().await.expect("open").expect("a heartbeat");
    agent.issue("orders-db/readonly").await.expect("a credential");
    for _ in 0..3 {
        let next = authority.svid(BROKER);
        spiffe.api.say(response(&next, &[&authority]));
        spiffe.shows(&next, &authority).await;
        agent.issue("orders-db/readonly").await.expect("the connection lives");
        // New connections work with the new one, and the workload's own may be new too.
        spiffe.open(&authority.svid(AGENT), &authority).await.expect("a session");
    }
    let lease = agent.leases().await.expect("leases").first().expect("a lease").lease_id.clone();
    agent.release(&lease).await.expect("released");
    loop {
        let news = watch.message().await.expect("the stream is open").expect("news");
        if matches!(news.event, Some(v1::watch_response::Event::LeaseChanged(_))) {
            break;
        }
    }
    assert_eq!(loaded(&spiffe.broker).await.len(), 4, "the start and each rotation");
}

#[tokio::test]
async fn a_bundle_rotates_and_with_it_who_is_trusted() {
    let (old, new) = (Authority::new(), Authority::new());
    let spiffe = Spiffe::start(&old, "").await;
    let (by_old, by_new) = (old.svid(AGENT), new.svid(AGENT));
    let agent = spiffe.open(&by_old, &old).await.expect("a session");
    unheard(spiffe.open(&by_new, &old).await, "not trusted yet");
    // As an authority is replaced: first both, then the broker's own SVID, then the new one alone.
    spiffe.api.say(response(&spiffe.svid, &[&old, &new]));
    poll::until("both are trusted", || async { spiffe.open(&by_new, &old).await.ok() }).await;
    spiffe.open(&by_old, &old).await.expect("the old one still is");
    let next = new.svid(BROKER);
    spiffe.api.say(response(&next, &[&new]));
    spiffe.shows(&next, &new).await;
    unheard(spiffe.open(&by_old, &new).await, "its authority was removed");
    spiffe.open(&by_new, &new).await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("the connection lives");
}

#[tokio::test]
async fn another_trust_domain_is_proven_by_its_own_bundle_and_only_if_it_is_listed() {
    let [own, partner, other] = [(); 3].map(|()| Authority::new());
    let spiffe = Spiffe::start(&own, "trust_domains = [\"partner.example\"]").await;
    let mut said = response(&spiffe.svid, &[&own]);
    said.federated_bundles = HashMap::from([
        ("spiffe://partner.example".to_owned(), partner.der()),
        ("spiffe://other.example".to_owned(), other.der()),
    ]);
    spiffe.api.say(said);
    let partners = partner.svid("spiffe://partner.example/agent");
    poll::until("the partner is trusted", || async { spiffe.open(&partners, &own).await.ok() })
        .await;
    for (case, client) in [
        ("our own id, by the partner", partner.svid(AGENT)),
        ("the partner's id, by ourselves", own.svid("spiffe://partner.example/agent")),
        ("a domain that is not listed", other.svid("spiffe://other.example/agent")),
        ("of no path", own.svid("spiffe://example.org")),
        ("no key usage", own.client(&[AGENT])),
    ] {
        unheard(spiffe.open(&client, &own).await, case);
    }
    spiffe.open(&own.svid(AGENT), &own).await.expect("a session");
}

#[tokio::test]
async fn an_outage_of_the_workload_api_changes_nothing_until_it_is_over() {
    let authority = Authority::new();
    let Spiffe { world, broker, api, svid, port } = Spiffe::start(&authority, "").await;
    drop(api);
    poll::until("the outage is told", || {
        std::future::ready(broker.log().contains("the Workload API fails").then_some(()))
    })
    .await;
    let next = authority.svid(BROKER);
    let told_late = response(&next, &[&authority]);
    assert_eq!(presented(port, &authority.pem()), Some(svid.der()));
    let channel = connect(port, &authority.pem(), Some(&authority.svid(AGENT))).await;
    let channel = channel.expect("the last bundle is still trusted");
    Agent::open_on(channel, "support-triage", None).await.expect("a session");
    let api = WorkloadApi::start(&socket(&world), told_late);
    let spiffe = Spiffe { world, broker, api, svid, port };
    spiffe.shows(&next, &authority).await;
    assert_eq!(spiffe.api.listeners(), 1, "it listens again");
}

#[tokio::test]
async fn without_a_workload_api_the_broker_says_so_and_ends() {
    let (world, _) = world("workload_api = \"unix:SOCKET\"", "");
    let said = refusal::of_serve(&world).await;
    assert!(said.contains("gave the broker no X.509-SVID within"), "{said}");
    assert!(said.contains("claviger.toml:"), "{said}");
}

#[tokio::test]
async fn a_bundle_in_a_file_is_followed() {
    let (old, new, server) = (Authority::new(), Authority::new(), Authority::new());
    let files = "certificate = \"tls/server.pem\"\nkey = \"file:tls/server.key\"";
    let (world, port) =
        world("x509_bundle = \"tls/bundle.pem\"\ntrust_domain = \"example.org\"", files);
    let certified = server.server();
    world.write("tls/server.pem", &certified.certificate);
    world.write("tls/server.key", &certified.key);
    world.write("tls/bundle.pem", &old.pem());
    let _broker = Broker::start(&world).await;
    let open = |client: Certified| {
        let ca = server.pem();
        async move {
            let channel = connect(port, &ca, Some(&client)).await;
            let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
            Agent::open_on(channel, "support-triage", None).await
        }
    };
    open(old.svid(AGENT)).await.expect("a session");
    unheard(open(old.svid("spiffe://else.example/agent")).await, "another trust domain");
    unheard(open(new.svid(AGENT)).await, "another authority");
    world.write("tls/bundle.pem", &new.pem());
    poll::until("the new one is trusted", || async { open(new.svid(AGENT)).await.ok() }).await;
    unheard(open(old.svid(AGENT)).await, "the old one no more");
}

#[tokio::test]
async fn jwt_svids_are_proven_by_the_stream_and_a_key_that_it_drops_ends_what_it_proved() {
    let more = "[identity.spiffe]\nworkload_api = \"unix:SOCKET\"\n\
                trust_domain = \"example.org\"\naudience = \"claviger\"\n";
    let world = World::with(Settings { more: more.into(), ..Settings::default() });
    world.configure("SOCKET", &socket(&world).display().to_string());
    let api = WorkloadApi::start(&socket(&world), X509SvidResponse::default());
    let (old, new) = (JwtAuthority::new("svid-1"), JwtAuthority::new("svid-2"));
    let say = |keys: &[&JwtAuthority]| {
        let own = ("spiffe://example.org".to_owned(), bundle(keys));
        let other = ("spiffe://else.example".to_owned(), bundle(&[&old, &new]));
        api.say_jwt(JwtBundlesResponse { bundles: HashMap::from([own, other]) });
    };
    say(&[&old]);
    let broker = Broker::start(&world).await;
    let open = async |token: String| {
        let role = "support-triage".into();
        let request = v1::OpenSessionRequest { role, workload_token: token, ..Default::default() };
        let opened = Agent::open_as(channel(&broker.socket()).await, request).await;
        opened.map_err(|refused| reason(&refused))
    };
    let first = poll::until("the bundle is known", || async {
        open(old.svid(AGENT, "claviger")).await.ok()
    })
    .await;
    let issued = first.issue("orders-db/readonly").await;
    issued.expect("a credential");
    for (case, token) in [
        ("a key that is not told", new.svid(AGENT, "claviger")),
        ("another audience", old.svid(AGENT, "vault")),
        ("another trust domain", old.svid("spiffe://else.example/agent", "claviger")),
    ] {
        assert_eq!(open(token).await.err().as_deref(), Some("WORKLOAD_REFUSED"), "{case}");
    }
    say(&[&old, &new]);
    let second = poll::until("the new key is known", || async {
        open(new.svid(AGENT, "claviger")).await.ok()
    })
    .await;
    first.leases().await.expect("the old key counts still");
    say(&[&new]);
    world.until_no_logins().await;
    assert_eq!(reason(&first.leases().await.expect_err("over")), "NO_SESSION");
    second.issue("orders-db/readonly").await.expect("its key counts");
    let refused = open(old.svid(AGENT, "claviger")).await.err();
    assert_eq!(refused.as_deref(), Some("WORKLOAD_REFUSED"), "the old key no more");
}

/// A world with a TLS listener, `spiffe` in its section and `tls` in the listener's, with the
/// API's path in the place of `SOCKET`.
fn world(spiffe: &str, tls: &str) -> (World, u16) {
    let port = port::free();
    let more = format!(
        "[listen.tls]\naddress = \"127.0.0.1:{port}\"\n{tls}\n[identity.spiffe]\n{spiffe}\n"
    );
    let world = World::with(Settings { more, ..Settings::default() });
    let text = std::fs::read_to_string(world.config()).expect("read");
    world.write("claviger.toml", &text.replace("SOCKET", &socket(&world).display().to_string()));
    (world, port)
}

fn socket(world: &World) -> PathBuf {
    world.path().join("workload.sock")
}

/// What a Workload API says of the broker.
fn response(svid: &Certified, bundle: &[&Authority]) -> X509SvidResponse {
    let svid = X509Svid {
        spiffe_id: BROKER.to_owned(),
        x509_svid: svid.der(),
        x509_svid_key: svid.key_der(),
        bundle: bundle.iter().flat_map(|authority| authority.der()).collect(),
        hint: String::new(),
    };
    X509SvidResponse { svids: vec![svid], ..Default::default() }
}

/// Refused before a call was heard.
fn unheard(opened: Result<Agent, Status>, case: &str) {
    let Err(refused) = opened else { panic!("{case}: a session was opened") };
    assert_eq!(reason(&refused), "", "{case}: the call was heard: {refused:?}");
}

/// The journal's entries of certificates that were put in force.
async fn loaded(broker: &Broker) -> Vec<serde_json::Value> {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries.into_iter().filter(|entry| entry["event"] == "certificates-loaded").collect()
}

const BROKER: &str = "spiffe://example.org/claviger";

const AGENT: &str = "spiffe://example.org/agent";
