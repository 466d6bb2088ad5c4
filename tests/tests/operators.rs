//! What operators end with one command, and who may: on a real PostgreSQL, by the real command.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use claviger_e2e::broker::{Broker, claviger, run};
use claviger_e2e::client::{Agent, channel, journal, last_word, lease_rows, reason};
use claviger_e2e::pki::connect;
use claviger_e2e::remote::{AGENT, Remote};
use claviger_e2e::world::World;
use claviger_e2e::{other_user, poll};
use claviger_proto::v1;
use claviger_proto::v1::admin_service_client::AdminServiceClient;
use claviger_proto::v1::watch_response::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;

/// Sessions for one requester, and leases in each of them.
const SESSIONS: usize = 4;
const LEASES: usize = 50;

/// Agents that begin anew at once.
const AGENTS: usize = 16;

/// A policy that changes nothing for operators.
const OTHER: &str = "forbid (principal, action == Action::\"issue\", resource == Scope::\"orders-db/readwrite\");\n";

#[tokio::test]
async fn one_command_ends_everything_done_for_a_requester_and_nothing_else() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    let others = other_user::available("others' leases outlive a revocation");
    let bystander = others.then(|| run_for_another_user(&broker));
    let untouched = poll::until("the other user has a login", || {
        let logins = world.logins();
        std::future::ready((logins.len() == usize::from(others)).then_some(logins))
    })
    .await;
    let mut agents = Vec::new();
    for _ in 0..SESSIONS {
        agents.push(Agent::open(&broker.socket(), "support-triage").await.expect("a session"));
    }
    let mut issuing = JoinSet::new();
    for agent in agents.iter().flat_map(|agent| std::iter::repeat_n(agent.clone(), LEASES)) {
        issuing
            .spawn(async move { agent.issue("orders-db/readonly").await.expect("a credential") });
    }
    let issued = issuing.join_all().await;
    assert_eq!(world.logins().len(), SESSIONS * LEASES + untouched.len());
    let (_client, connection) =
        tokio_postgres::connect(&issued[7].dsn(), NoTls).await.expect("login");
    let mut news = agents[0].watch().await.expect("a stream");

    let me = format!("unix:{}", rustix::process::geteuid().as_raw());
    let args = ["revoke", "requester", &me, "--reason", "has left", "--yes", "-o", "json"];
    let (code, told, progress) = run(claviger(&broker, &args));
    assert_eq!(code, 0, "{told} {progress}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let of = |name: &str| told[name].as_u64().unwrap();
    assert_eq!((of("sessions_matched"), of("sessions_ended")), (4, 4), "{told}");
    assert_eq!((of("leases_matched"), of("leases_gone")), (200, 200), "{told}");
    assert!(progress.contains("of 200 leases gone"), "{progress}");
    assert!(
        progress.contains(&format!("Requester::\"{me}\"")),
        "the way to keep it so: {progress}"
    );

    // When the command says so, it is so.
    assert_eq!(world.logins(), untouched);
    connection.await.expect_err("the server ended the open connection");
    assert_eq!(ending(&mut news).await, "operator");
    for agent in &agents {
        let refused = agent.issue("orders-db/readonly").await.expect_err("the session is over");
        assert_eq!(reason(&refused), "NO_SESSION");
    }
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let ended: Vec<_> = entries.iter().filter(|entry| entry["event"] == "session-ended").collect();
    assert_eq!(ended.len(), SESSIONS);
    for entry in ended {
        let found = (&entry["cause"], &entry["operator"], &entry["claimed_reason"]);
        assert_eq!(found, (&"operator".into(), &me.clone().into(), &"has left".into()), "{entry}");
    }
    let act = entries.iter().find(|entry| entry["action"] == "admin::revoke").expect("an entry");
    assert_eq!(act["resource"], format!("Requester::\"{me}\""));
    drop(bystander);
}

#[tokio::test]
async fn a_revocation_ends_what_it_names_and_spares_the_rest() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let workload = format!("unix:{}", rustix::process::geteuid().as_raw());
    // What is revoked, and which of the three sessions live on: two of `support-triage`, one of
    // `incident-responder`.
    let cases: [(&str, [bool; 3]); 5] = [
        ("session", [false, true, true]),
        ("role", [false, false, true]),
        ("prompt", [false, false, true]),
        ("workload", [false, false, false]),
        ("everything", [false, false, false]),
    ];
    for (kind, expect) in cases {
        let mut agents = Vec::new();
        for role in ["support-triage", "support-triage", "incident-responder"] {
            let agent = Agent::open(&broker.socket(), role).await.expect("a session");
            agent.issue("orders-db/readonly").await.expect("a credential");
            agents.push(agent);
        }
        let (_, rows, _) = run(claviger(&broker, &["session", "list", "-o", "json"]));
        let rows: Vec<Value> =
            rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows.iter().all(|row| row["leases"] == 1), "{rows:?}");
        let first = rows.iter().find(|row| row["session_id"] == agents[0].session).expect("a row");
        let name = match kind {
            "session" => vec![agents[0].session.as_str()],
            "role" => vec!["support-triage"],
            "prompt" => vec![first["prompt_digest"].as_str().unwrap()],
            "workload" => vec![workload.as_str()],
            _ => vec![],
        };
        let args = [&["revoke", kind] as &[&str], &name].concat();
        let (code, _, said) = run(claviger(&broker, &args));
        assert_eq!(code, 2, "nobody could be asked: {said}");
        let (code, told, _) = run(claviger(&broker, &[&args as &[&str], &["--dry-run"]].concat()));
        let ends = expect.iter().filter(|lives| !**lives).count();
        let sum = format!("would end: {ends} sessions, {ends} leases");
        assert!(code == 0 && told.contains(&sum), "{kind}: {told}");
        assert_eq!(world.logins().len(), 3, "{kind}: a dry run ends nothing");
        let (code, told, said) = run(claviger(&broker, &[&args as &[&str], &["--yes"]].concat()));
        assert_eq!(code, 0, "{kind}: {told} {said}");
        assert_eq!(world.logins().len(), 3 - ends, "{kind}");
        for (agent, lives) in agents.iter().zip(expect) {
            assert_eq!(agent.issue("orders-db/readonly").await.is_ok(), lives, "{kind}");
            let _over = agent.close().await;
        }
        poll::until("nothing is left to revoke", || async {
            lease_rows(&broker.admin_socket(), &[]).await.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_revocation_follows_what_had_ended_before_it_until_it_is_gone() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for _ in 0..2 {
        agent.issue("orders-db/readonly").await.expect("a credential");
    }
    // The backend is down, and the agent closes its session before anybody can end it.
    world.postgres.stop();
    assert_eq!(agent.close().await.expect("closed").leases_due, 2);
    let me = format!("unix:{}", rustix::process::geteuid().as_raw());
    for target in [
        &["session", agent.session.as_str()] as &[&str],
        &["role", "support-triage"],
        &["requester", me.as_str()],
        &["workload", me.as_str()],
        &["backend", "orders-db"],
        &["everything"],
    ] {
        let args = [&["revoke"] as &[&str], target].concat();
        let (code, told, _) = run(claviger(&broker, &[&args as &[&str], &["--dry-run"]].concat()));
        assert!(code == 0 && told.contains("0 sessions, 2 leases"), "{target:?}: {told}");
        let hurried = [&args as &[&str], &["--yes", "--no-wait"]].concat();
        let (code, told, said) = run(claviger(&broker, &hurried));
        assert_eq!(code, 0, "{target:?}: {told} {said}");
        assert!(told.contains("0 sessions ended; 0 of 2 leases gone"), "{target:?}: {told}");
    }

    let mut command = claviger(&broker, &["revoke", "requester", &me, "--yes"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("claviger starts");
    let mut said = BufReader::new(running.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says how far it has come");
    assert!(line.contains("0 sessions ended; 0 of 2 leases gone"), "{line}");
    world.postgres.start_again();
    said.read_to_string(&mut line).expect("it ends");
    let mut told = String::new();
    let mut output = running.stdout.take().expect("piped");
    output.read_to_string(&mut told).expect("it ends");
    assert_eq!(running.wait().expect("waited").code(), Some(0), "{told} {line}");
    assert!(told.contains("0 sessions ended; 2 of 2 leases gone"), "{told}");
    assert_eq!(world.logins(), Vec::<String>::new(), "when the command says so, it is so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_begins_anew_is_ended_again_and_a_policy_refuses_it_for_good() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let channel = channel(&broker.socket()).await;
    let mut agents: JoinSet<()> = JoinSet::new();
    for _ in 0..AGENTS {
        let channel = channel.clone();
        agents.spawn(async move {
            loop {
                let _refused_in_the_end =
                    Agent::open_on(channel.clone(), "support-triage", None).await;
            }
        });
    }
    let revoke = || {
        let command = claviger(&broker, &["revoke", "everything", "--yes", "-o", "json"]);
        let (code, told, said) = run(command);
        let told: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told} {said}"));
        (code, told, said)
    };
    poll::until("the agents have begun", || {
        let listed = run(claviger(&broker, &["session", "list", "-o", "json"]));
        std::future::ready((!listed.1.is_empty()).then_some(()))
    })
    .await;
    let (code, told, said) = revoke();
    let sessions = told["sessions_ended"].as_u64().expect("a number");
    assert!(sessions >= 1, "{told} {said}");
    // Whether there was a moment without a session is a race, which both sides tell alike.
    let is_complete = told["still_beginning"] == false;
    assert_eq!(code == 0, is_complete, "{told} {said}");
    let policy = "forbid (principal, action == Action::\"open_session\", resource);";
    assert!(said.contains("new sessions may begin") && said.contains(policy), "{said}");
    let outcome = last_outcome(&broker).await;
    let not_complete = outcome.ends_with("; not complete: new sessions keep beginning");
    assert_eq!(not_complete, !is_complete, "{outcome}");

    // The advice helps.
    world.write("policies/no-more.cedar", policy);
    poll::until("the policy is in force", || async {
        let refused = Agent::open(&broker.socket(), "support-triage").await.err()?;
        (refused.code() == Code::PermissionDenied).then_some(())
    })
    .await;
    let (code, told, said) = revoke();
    assert_eq!((code, &told["still_beginning"]), (0, &false.into()), "{told} {said}");
    let outcome = last_outcome(&broker).await;
    assert!(!outcome.contains("not complete"), "{outcome}");
}

/// What the journal says the last revocation came to.
async fn last_outcome(broker: &Broker) -> String {
    let request = v1::QueryJournalRequest { action: "admin::revoke".into(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    let last = entries.last().expect("an entry");
    last["detail"].as_str().expect("a sentence").to_owned()
}

/// An operator by a certificate, who may do what `policy` says and nothing else.
async fn certified(remote: &Remote, policy: &str) -> AdminServiceClient<Channel> {
    remote.world.write("policies/auditor.cedar", policy);
    let client = remote.authority.client(&[AGENT]);
    let channel = connect(remote.admin_port, &remote.authority.pem(), Some(&client)).await;
    let operator = AdminServiceClient::new(channel.expect("connected"));
    poll::until("the permit is in force", || async {
        operator.clone().list_plugins(v1::ListPluginsRequest {}).await.ok()
    })
    .await;
    operator
}

#[tokio::test]
async fn what_an_operator_follows_ends_when_it_is_no_longer_permitted() {
    let remote = Remote::start().await;
    let permit = format!(
        "permit (principal == Operator::{AGENT:?}, action == Action::\"admin::read\", resource);\n"
    );
    let forbid = format!(
        "@id(\"left\") @reason(\"has left\")\n\
         forbid (principal == Operator::{AGENT:?}, action == Action::\"admin::read\", resource);\n"
    );
    let cases = [
        // The permit is gone, or a policy forbids what it permits.
        ("policies/auditor.cedar", "", "NO_PERMIT"),
        ("policies/left.cedar", forbid.as_str(), "FORBIDDEN"),
    ];
    for (number, (file, text, code)) in (1..).zip(cases) {
        let mut operator = certified(&remote, &permit).await;
        let request = v1::QueryJournalRequest { last: 1, follow: true, ..Default::default() };
        let mut entries = operator.query_journal(request).await.expect("admitted").into_inner();
        entries.message().await.expect("the stream is open").expect("an entry");
        // A change that takes nothing from it is read like any other entry.
        let other = format!("@id(\"other-{number}\") {OTHER}");
        remote.world.write("policies/other.cedar", &other);
        loop {
            let entry = entries.message().await.expect("it goes on").expect("an entry");
            if entry.json.contains("policies-loaded") {
                break;
            }
        }
        remote.world.write(file, text);
        let ended = last_word(&mut entries).await;
        assert_eq!(reason(&ended), code, "{ended:?}");
        let denied = v1::QueryJournalRequest {
            event: "denied".into(),
            operator: AGENT.into(),
            code: code.into(),
            last: 1,
            ..Default::default()
        };
        let denied = journal(&remote.broker.admin_socket(), denied).await;
        assert_eq!(denied[0]["detail"].as_str(), Some(ended.message()), "the end is an entry");
    }
}

#[tokio::test]
async fn a_revocation_goes_on_when_its_operator_may_hear_no_more_of_it() {
    let remote = Remote::start().await;
    let may = |actions: &str| {
        format!("permit (principal == Operator::{AGENT:?}, action in [{actions}], resource);\n")
    };
    let both = may("Action::\"admin::read\", Action::\"admin::revoke\"");
    let mut operator = certified(&remote, &both).await;
    let agent = Agent::open(&remote.broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    remote.world.postgres.stop();
    let selector = v1::revoke_request::Selector::Everything(v1::Everything {});
    let request = v1::RevokeRequest { selector: Some(selector), ..Default::default() };
    let mut told = operator.revoke(request).await.expect("admitted").into_inner();
    told.message().await.expect("the stream is open").expect("how far it has come");
    remote.world.write("policies/auditor.cedar", &may("Action::\"admin::read\""));
    let ended = last_word(&mut told).await;
    assert_eq!(reason(&ended), "NO_PERMIT", "{ended:?}");
    let refused = agent.issue("orders-db/readonly").await.expect_err("the session is over");
    assert_eq!(reason(&refused), "NO_SESSION");
    remote.world.postgres.start_again();
    remote.world.until_no_logins().await;
}

#[tokio::test]
async fn who_may_end_a_roles_sessions_may_revoke_what_an_ended_one_left() {
    let remote = Remote::start().await;
    let policy = format!(
        "permit (principal == Operator::{AGENT:?}, action == Action::\"admin::read\", resource);\n\
         permit (principal == Operator::{AGENT:?}, action == Action::\"admin::revoke\", \
             resource in Role::\"support-triage\");\n"
    );
    let mut operator = certified(&remote, &policy).await;
    let agent = Agent::open(&remote.broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    // The backend is down, and the agent closes its session before anybody can end it.
    remote.world.postgres.stop();
    assert_eq!(agent.close().await.expect("closed").leases_due, 1);
    let selector = v1::revoke_request::Selector::SessionId(agent.session.clone());
    let request = v1::RevokeRequest { selector: Some(selector), ..Default::default() };
    let mut told = operator.revoke(request).await.expect("admitted").into_inner();
    remote.world.postgres.start_again();
    let mut last = None;
    while let Some(progress) = told.message().await.expect("the stream is open") {
        last = Some((progress.leases_matched, progress.leases_gone));
    }
    assert_eq!(last, Some((1, 1)));
    remote.world.until_no_logins().await;
}

#[tokio::test]
async fn a_backends_leases_end_and_their_sessions_go_on() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    let (code, told, _) = run(claviger(&broker, &["revoke", "backend", "nowhere", "--yes"]));
    assert!(code == 0 && told.contains("0 of 0 leases"), "{told}");
    assert_eq!(world.logins(), [issued.field("user")]);
    let args = ["revoke", "backend", "orders-db", "--yes", "--reason", "leaked"];
    let (code, told, said) = run(claviger(&broker, &args));
    assert_eq!(code, 0, "{told} {said}");
    assert_eq!(world.logins(), Vec::<String>::new());
    agent.issue("orders-db/readonly").await.expect("the session goes on");
    let request = v1::QueryJournalRequest { lease_id: issued.lease.lease_id, ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    let due = entries.iter().find(|entry| entry["event"] == "lease-due").expect("an entry");
    assert_eq!((&due["cause"], &due["claimed_reason"]), (&"operator".into(), &"leaked".into()));
}

#[tokio::test]
async fn a_policy_narrows_what_operators_do_and_each_call_is_an_entry() {
    let world = World::new();
    world.write(
        "policies/operators.cedar",
        "@id(\"not-all\") @reason(\"end one team at a time\")\n\
         forbid (principal, action == Action::\"admin::revoke\", resource == Broker::\"this\");\n\
         @id(\"blind\")\nforbid (principal, action == Action::\"admin::read\", resource);\n",
    );
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let (code, _, said) = run(claviger(&broker, &["revoke", "everything", "--yes"]));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("forbidden by policy `not-all`: end one team at a time"), "{said}");
    let denial = said.lines().find_map(|line| line.strip_prefix("denial: ")).expect("an id");
    // The broker's own user keeps the way back, whatever is forbidden.
    let (code, told, said) = run(claviger(&broker, &["why", denial, "-o", "json"]));
    assert_eq!(code, 0, "{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let me = format!("unix:{}", rustix::process::geteuid().as_raw());
    assert_eq!(told["entry"]["operator"], me);
    assert_eq!(told["entry"]["action"], "admin::revoke");
    agent.issue("orders-db/readonly").await.expect("nothing was ended");
    let (code, _, said) = run(claviger(&broker, &["revoke", "role", "support-triage", "--yes"]));
    assert_eq!(code, 0, "{said}");
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let acts: Vec<_> = entries
        .iter()
        .filter(|entry| entry["event"] == "operator-act" && entry["decision"] == "permit")
        .map(|entry| (entry["action"].as_str().unwrap(), entry["detail"].as_str().unwrap()))
        .collect();
    let expect = [
        ("admin::read", "entries of the journal"),
        ("admin::revoke", "revocation: every session of role `support-triage`"),
        ("admin::read", "entries of the journal"),
    ];
    assert_eq!(acts, expect);
}

#[tokio::test]
async fn a_permit_for_all_makes_no_operator_of_another_user_and_a_named_one_does() {
    if !other_user::available("a permit makes an operator of another user") {
        return;
    }
    let world = World::new();
    world.write("policies/all.cedar", "permit (principal, action, resource);\n");
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(broker.admin_socket(), everybody).expect("its owner may");
    let as_nobody = |args: &[&str]| {
        let output = other_user::run(claviger(&broker, args));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = as_nobody(&["session", "list"]);
    assert!(code == Some(3) && said.contains("no policy lets `unix:65534`"), "{said}");
    world.write(
        "policies/reader.cedar",
        "permit (principal == Operator::\"unix:65534\", action == Action::\"admin::read\", resource);\n",
    );
    poll::until("the policy is in force", || {
        std::future::ready((as_nobody(&["session", "list"]).0 == Some(0)).then_some(()))
    })
    .await;
    let (code, said) = as_nobody(&["revoke", "role", "support-triage", "--yes"]);
    assert!(code == Some(3) && said.contains("do `admin::revoke`"), "{said}");
}

/// A command that holds a login for as long as it runs, as another user.
fn run_for_another_user(broker: &Broker) -> Ended {
    use std::os::unix::process::CommandExt;
    let args = ["run", "--role", "support-triage", "--grant", "orders-db/readonly", "--", "sleep"];
    let mut command = claviger(broker, &[&args as &[&str], &["1000"]].concat());
    command.uid(other_user::NOBODY).gid(other_user::NOBODY).current_dir("/");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ended(command.spawn().expect("claviger starts"))
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Passed on to its child, which would otherwise outlive it.
        let pid = Pid::from_raw(self.0.id().cast_signed()).expect("not zero");
        let _ended_already = kill_process(pid, Signal::TERM);
        let _reaped_already = self.0.wait();
    }
}

async fn ending(news: &mut tonic::Streaming<v1::WatchResponse>) -> String {
    loop {
        let answer = news.next().await.expect("the stream goes on").expect("an event");
        if let Some(Event::SessionEnding(ending)) = answer.event {
            return ending.cause;
        }
    }
}
