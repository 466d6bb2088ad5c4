//! Who asks and for whom, proven by tokens that a real OpenID provider signs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, channel, journal, reason};
use claviger_e2e::poll;
use claviger_e2e::runner;
use claviger_e2e::world::{Settings, World};
use claviger_proto::v1;
use claviger_proto::v1::watch_response::Event;
use claviger_test_servers::{KubernetesDouble, OidcProvider};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

/// A broker that takes the word of a provider.
struct Trusting {
    provider: OidcProvider,
    world: World,
    broker: Broker,
}

impl Trusting {
    async fn start(keys: &[&str]) -> Self {
        let provider = OidcProvider::start(keys);
        let more = format!(
            "[identity.issuers.corp]\npreset = \"generic\"\nuse = [\"workload\", \"requester\"]\n\
             issuer = \"{}\"\naudience = \"claviger\"\nreach = [\"loopback\"]\n\
             claims = [\"client_id\"]\nrefresh = \"1s\"\n\
             [teams.payments]\ngroups = [\"corp:payments\"]\n",
            provider.issuer()
        );
        let world = World::with(Settings { more, ..Settings::default() });
        world.write("policies/teams.cedar", POLICIES);
        let broker = Broker::start(&world).await;
        Self { provider, world, broker }
    }

    fn workload(&self) -> String {
        self.provider.workload_token("ci-agent", "claviger")
    }

    async fn open(&self, workload: &str, requester: &str) -> Result<Agent, Status> {
        let request = v1::OpenSessionRequest {
            role: "support-triage".into(),
            claimed_reason: "for the payments team, by ada".into(),
            workload_token: workload.into(),
            requester_token: requester.into(),
            ..Default::default()
        };
        Agent::open_as(channel(&self.broker.socket()).await, request).await
    }

    async fn refused(&self, workload: &str, requester: &str) -> (Code, String) {
        let refused = self.open(workload, requester).await.map(|agent| agent.session);
        let refused = refused.expect_err("it proves too little");
        (refused.code(), reason(&refused))
    }
}

#[tokio::test]
async fn tokens_open_a_session_that_every_entry_names_both_of() {
    let trusting = Trusting::start(&["rsa-1"]).await;
    let (workload, ada) = (trusting.workload(), trusting.provider.id_token("ada"));
    let exchanged = trusting.provider.exchanged(&ada, &workload);
    for (case, requester, act) in
        [("an ID token", &ada, json!(null)), ("an exchanged one", &exchanged, json!(["ci-agent"]))]
    {
        let agent = trusting.open(&workload, requester).await.expect(case);
        let issued = agent.issue("orders-db/readonly").await.expect(case);
        agent.release(&issued.lease.lease_id).await.expect(case);
        let query =
            v1::QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
        let entries = journal(&trusting.broker.admin_socket(), query).await;
        assert!(entries.len() >= 3, "{case}: {entries:?}");
        for entry in &entries {
            assert_eq!(entry["principal"], "oidc:corp:ci-agent", "{case}: {entry}");
            assert_eq!(entry["requester"], "oidc:corp:ada", "{case}: {entry}");
            assert_eq!(entry["act"], act, "{case}: {entry}");
        }
        let begun = entries.iter().find(|entry| entry["event"] == "session-begun").expect(case);
        assert_eq!(begun["requester_name"], "ada@corp.example", "{case}");
        assert_eq!(begun["requester_groups"], json!(["corp:oncall", "corp:payments"]), "{case}");
        assert_eq!(begun["claimed_reason"], "for the payments team, by ada", "{case}");
        agent.close().await.expect(case);
        let replayed = agent.issue("orders-db/readonly").await.expect_err("closed");
        assert_eq!(reason(&replayed), "NO_SESSION", "{case}: a token works after its session");
    }
    trusting.world.until_no_logins().await;
}

#[tokio::test]
async fn what_the_tokens_do_not_prove_opens_nothing_whatever_is_claimed() {
    let trusting = Trusting::start(&["ec-1"]).await;
    let provider = &trusting.provider;
    let (workload, ada) = (trusting.workload(), provider.id_token("ada"));
    let other = provider.workload_token("other-agent", "claviger");
    let elsewhere = provider.workload_token("ci-agent", "vault");
    let others = provider.exchanged(&ada, &other);
    let changed = {
        let (head, tail) = workload.split_at(workload.len() - 10);
        let first = if tail.starts_with('A') { "B" } else { "A" };
        format!("{head}{first}{}", &tail[1..])
    };
    let denied = (Code::PermissionDenied, "NO_PERMIT".to_owned());
    let no_workload = (Code::Unauthenticated, "WORKLOAD_REFUSED".to_owned());
    let no_requester = (Code::Unauthenticated, "REQUESTER_REFUSED".to_owned());
    for (case, workload, requester, expect) in [
        ("no token at all", "", "", &denied),
        ("the engineer alone", "", ada.as_str(), &denied),
        ("the workload alone", &workload, "", &denied),
        ("an engineer of another group", &workload, &provider.id_token("bob"), &denied),
        ("another workload", &other, &ada, &denied),
        ("a token for somebody else", &elsewhere, &ada, &no_workload),
        ("a changed token", &changed, &ada, &no_workload),
        ("a word", "ci-agent", &ada, &no_workload),
        ("a token that lets another act", &workload, &others, &no_requester),
        ("a changed engineer", &workload, &format!("{ada}A"), &no_requester),
    ] {
        assert_eq!(&trusting.refused(workload, requester).await, expect, "{case}");
    }
    let log = trusting.broker.log();
    for token in [&workload, &ada, &changed] {
        assert!(!log.contains(token.as_str()), "a token stands in the log");
    }
    trusting.open(&workload, &ada).await.expect("it was what they proved");
}

#[tokio::test]
async fn the_groups_of_a_requester_count_after_a_restart() {
    let trusting = Trusting::start(&["ec-1"]).await;
    let ada = trusting.provider.id_token("ada");
    let agent = trusting.open(&trusting.workload(), &ada).await.expect("a session");
    let Trusting { world, broker, provider } = trusting;
    assert!(broker.stop().await.success());
    let broker = Broker::start(&world).await;
    let agent = agent.reconnected(&broker.socket()).await;
    agent.issue("orders-db/readonly").await.expect("the policy asks for the group");
    drop(provider);
}

#[tokio::test]
async fn an_outage_ends_no_session_and_a_withdrawn_key_ends_those_that_it_proved() {
    let mut trusting = Trusting::start(&["rsa-1"]).await;
    let ada = trusting.provider.id_token("ada");
    let first = trusting.open(&trusting.workload(), &ada).await.expect("a session");
    first.issue("orders-db/readonly").await.expect("a credential");
    let mut news = first.watch().await.expect("news");
    trusting.provider.stop();
    poll::until("the outage is noticed", || {
        let noticed = trusting.broker.log().contains("could not be fetched");
        std::future::ready(noticed.then_some(()))
    })
    .await;
    first.issue("orders-db/readonly").await.expect("an outage takes nothing away");

    trusting.provider.restart_with(&["ec-2", "rsa-1"]);
    let ada = trusting.provider.id_token("ada");
    let workload = trusting.workload();
    let (broker, workload, ada) = (&trusting, &workload, &ada);
    let opened = || async move { broker.open(workload, ada).await.ok() };
    let second = poll::until("the new key is known", opened).await;
    first.leases().await.expect("the old key is published still");

    trusting.provider.restart_with(&["ec-2"]);
    let cause = loop {
        let event = news.next().await.expect("the end is told").expect("news").event;
        if let Some(Event::SessionEnding(ending)) = event {
            break ending.cause;
        }
    };
    assert_eq!(cause, "key-withdrawn");
    trusting.world.until_no_logins().await;
    assert_eq!(reason(&first.leases().await.expect_err("over")), "NO_SESSION");
    second.issue("orders-db/readonly").await.expect("the other key is published still");
    let query = v1::QueryJournalRequest { session_id: first.session.clone(), ..Default::default() };
    let entries: Vec<Value> = journal(&trusting.broker.admin_socket(), query).await;
    let ended = entries.iter().find(|entry| entry["event"] == "session-ended").expect("ended");
    assert_eq!(ended["cause"], "key-withdrawn");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sends_the_tokens_of_its_environment_and_hands_none_on() {
    let trusting = Trusting::start(&["ec-1"]).await;
    let (workload, ada) = (trusting.workload(), trusting.provider.id_token("ada"));
    trusting.world.write("tokens/workload", &workload);
    let file = trusting.world.path().join("tokens/workload").display().to_string();
    let script = ["--", "sh", "-c", "env; psql -At -c 'SELECT count(*) FROM orders'"];
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = claviger(&trusting.broker, &["run", "--role", "support-triage"]);
        command.args(["--grant", "orders-db/readonly"]).args(args).args(script);
        command.envs(variables.iter().copied());
        command.output().expect("claviger runs")
    };
    let requester = ("CLAVIGER_REQUESTER_TOKEN", ada.as_str());
    for (case, args, variables) in [
        ("a file", vec!["--workload-token-file", &file], vec![requester]),
        ("a variable", vec![], vec![requester, ("CLAVIGER_WORKLOAD_TOKEN", workload.as_str())]),
    ] {
        let output = run(&args, &variables);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("10"), "{case}: {told}");
        for token in [&workload, &ada] {
            assert!(!text.contains(token.as_str()), "{case}: the agent inherits a token");
            assert!(!told.contains(token.as_str()), "{case}: a token was told");
        }
    }
    let job = runner::variables(workload.clone(), "claviger").await;
    let mut variables = vec![requester];
    variables.extend(job.iter().map(|(name, value)| (*name, value.as_str())));
    let output = tokio::task::block_in_place(|| {
        run(&["--github-actions", "--audience", "claviger"], &variables)
    });
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");

    let output = run(&[], &[requester]);
    assert_eq!(output.status.code(), Some(3), "without the workload's token it is denied");
    let output = run(&["--workload-token-file", &file], &[("CLAVIGER_REQUESTER_TOKEN", "x.y.z")]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("the requester's token is refused"), "{told}");
    let output =
        claviger(&trusting.broker, &["run", "--role", "r", "--workload-token", "x", "--", "true"])
            .output();
    assert_eq!(output.expect("claviger runs").status.code(), Some(2), "a token is no argument");
}

#[tokio::test]
async fn a_service_account_is_who_the_api_server_says_and_nobody_once_its_pod_is_gone() {
    let kubernetes = KubernetesDouble::start();
    let more = format!(
        "[identity.issuers.shop]\npreset = \"kubernetes\"\nuse = [\"workload\"]\n\
         issuer = \"{}\"\naudience = \"claviger\"\nreach = [\"loopback\"]\n\
         review = {{ url = \"{}\", token = \"file:secrets/reviewer\" }}\n",
        kubernetes.issuer(),
        kubernetes.url()
    );
    let world = World::with(Settings { more, ..Settings::default() });
    world.write("policies/teams.cedar", KUBERNETES_POLICIES);
    world.write("secrets/reviewer", kubernetes.reviewer_token());
    let broker = Broker::start(&world).await;
    let open = async |token: &str| {
        let request = v1::OpenSessionRequest {
            role: "support-triage".into(),
            workload_token: token.into(),
            ..Default::default()
        };
        let opened = Agent::open_as(channel(&broker.socket()).await, request).await;
        opened.map_err(|refused| reason(&refused))
    };
    let token = kubernetes.token("agent", "claviger");
    let agent = open(&token).await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let query = v1::QueryJournalRequest { session_id: agent.session.clone(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), query).await;
    assert_eq!(entries[0]["principal"], "oidc:shop:system:serviceaccount:shop:agent");

    let other = kubernetes.token("other", "claviger");
    assert_eq!(open(&other).await.err().as_deref(), Some("NO_PERMIT"), "another account");
    let asked = kubernetes.asked();
    let elsewhere = kubernetes.token("agent", "vault");
    let refused = Some("WORKLOAD_REFUSED");
    assert_eq!(open(&elsewhere).await.err().as_deref(), refused, "another audience");
    assert_eq!(kubernetes.asked(), asked, "the API server was asked about a token for others");
    let forged = format!("{token}AA");
    assert_eq!(open(&forged).await.err().as_deref(), refused, "a changed token");
    kubernetes.delete_pod(&token);
    assert_eq!(open(&token).await.err().as_deref(), refused, "the pod is gone");
    world.write("secrets/reviewer", "another");
    let token = kubernetes.token("agent", "claviger");
    let unavailable = Some("ISSUER_UNAVAILABLE");
    assert_eq!(open(&token).await.err().as_deref(), unavailable, "the broker's own token ended");
    world.write("secrets/reviewer", kubernetes.reviewer_token());
    open(&token).await.expect("its token is read anew");
    assert!(!broker.log().contains(kubernetes.reviewer_token()), "a token stands in the log");
}

const KUBERNETES_POLICIES: &str = r#"
@id("sessions")
permit (principal, action == Action::"open_session", resource)
when { principal.hasTag("namespace") && principal.getTag("namespace") == "shop" &&
       principal.hasTag("serviceaccount_uid") && principal.hasTag("serviceaccount") &&
       principal.getTag("serviceaccount") == "agent" };

@id("orders.readonly")
permit (principal, action == Action::"issue", resource == Scope::"orders-db/readonly");
"#;

const POLICIES: &str = r#"
@id("sessions")
permit (principal, action == Action::"open_session", resource)
when { principal.hasTag("client_id") && principal.getTag("client_id") == "ci-agent" &&
       context.requester in Team::"payments" };

@id("orders.readonly")
permit (principal, action == Action::"issue", resource == Scope::"orders-db/readonly")
when { principal.requester in Team::"payments" };
"#;
