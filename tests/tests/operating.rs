//! What operators rely on: the check before the start, the mode for developers, metrics, health,
//! reflection, and a process that spills nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, channel};
use claviger_e2e::world::{ADMIN_PASSWORD, Settings, World, program};
use claviger_e2e::{other_user, poll, port, refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[test]
fn check_takes_the_good_and_says_where_the_bad_is_wrong() {
    let world = World::new();
    let (code, said) = check(&world);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("1 plugins, 1 backends, 3 scopes, 3 roles"), "{said}");
    let good = std::fs::read_to_string(world.config()).expect("the configuration");
    let pinned = good.lines().find(|line| line.starts_with("sha256")).expect("a pin").to_owned();
    let zeros = format!("sha256 = \"{}\"", "0".repeat(64));
    let digest = pinned.split('"').nth(1).expect("a digest").to_owned();
    // What is replaced by what, the text at whose line the fault lies, and what must be said.
    let faults: [(&str, &str, &str, &[&str]); 7] = [
        ("[sessions]", "[sessions]\ngrace = \"3s\"", "grace =", &["`grace`", "`heartbeat_grace`"]),
        (
            "heartbeat_grace = \"60s\"",
            "heartbeat_grace = \"soon\"",
            "heartbeat_grace",
            &["`soon`", "30s"],
        ),
        (&pinned, &zeros, "[plugins.postgres]", &["plugins.postgres", &digest]),
        (&pinned, "", "[plugins.postgres]", &["review the file and write `sha256 = ", &digest]),
        (
            "grant_role = \"orders_readonly\"",
            "",
            "[backends.orders-db",
            &["readonly", "grant_role"],
        ),
        (
            "grant_role = \"orders_readonly\"",
            "grant_rule = \"x\"",
            "[backends.orders-db",
            &["grant_rule"],
        ),
        (
            "file:secrets/sealing",
            "file:secrets/nothing",
            "sealing_key",
            &["secrets/nothing", "head -c 32"],
        ),
    ];
    for (from, to, at, hints) in faults {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        world.write("claviger.toml", &bad);
        let before = bad.find(at).expect("the place of the fault");
        let line = bad[..before].lines().count() + 1;
        let (code, said) = check(&world);
        assert_eq!(code, 1, "{to}: {said}");
        assert!(said.contains(&format!("claviger.toml:{line}: ")), "{to}, line {line}: {said}");
        for hint in hints {
            assert!(said.contains(hint), "{to}: `{hint}` is missing in: {said}");
        }
    }
    world.write("claviger.toml", &good);
    assert_eq!(check(&world).0, 0, "the good world is good again");
}

#[test]
fn check_says_where_a_policy_or_a_prompt_file_is_wrong() {
    let world = World::new();
    for (file, text, hints) in [
        ("policies/bad.cedar", "permit (principal,\n  action", &["bad.cedar:2"] as &[&str]),
        (
            "policies/bad.cedar",
            "@id(\"x\")\npermit (principal, action == Action::\"isue\", resource);",
            &["bad.cedar", "isue"],
        ),
        (
            "prompts/bad.md",
            "---\nname: bad\nauthorizations: orders.read\n---\nx\n",
            &["bad.md:3", "authorizations"],
        ),
        ("prompts/bad.md", "---\nname: [\n---\nx\n", &["bad.md:"]),
        ("prompts/twin.md", "---\nname: code-reviewer\n---\nx\n", &["twin.md", "code-reviewer.md"]),
    ] {
        world.write(file, text);
        let (code, said) = check(&world);
        assert_eq!(code, 1, "{text}: {said}");
        for hint in hints {
            assert!(said.contains(hint), "{text}: `{hint}` is missing in: {said}");
        }
        std::fs::remove_file(world.path().join(file)).expect("removed");
    }
    assert_eq!(check(&world).0, 0, "the good world is good again");
}

#[tokio::test]
async fn a_developer_needs_no_pins_no_key_and_no_sockets() {
    let world = World::new();
    let config = for_developers(&world, "");
    let folder = world.path().join("dev");
    let said = world.path().join("dev.log");
    let mut command = dev(&config, &folder);
    command.stderr(std::fs::File::create(&said).expect("a log"));
    let mut child = command.spawn().expect("clavigerd starts");
    let agent = poll::until("the broker listens", || {
        let socket = folder.join("agent.sock");
        let ended = child.try_wait().expect("waited");
        assert!(ended.is_none(), "{}", std::fs::read_to_string(&said).unwrap_or_default());
        async move {
            UnixStream::connect(&socket).await.ok()?;
            Some(Agent::open(&socket, "support-triage").await.expect("a session"))
        }
    })
    .await;
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    assert_eq!(world.logins(), [issued.field("user")]);
    let text = std::fs::read_to_string(&said).expect("a log");
    let socket = folder.canonicalize().expect("there").join("agent.sock");
    let variable = format!("export CLAVIGER_SOCKET={}", socket.display());
    assert!(text.contains("NOT FOR PRODUCTION") && text.contains(&variable), "{text}");
    let key = std::fs::metadata(folder.join("sealing.key")).expect("a key");
    assert_eq!(key.mode() & 0o077, 0, "the key is the developer's alone");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).expect("not zero");
    agent.close().await.expect("closed");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let ended = poll::until("the broker has stopped", || {
        std::future::ready(child.try_wait().expect("waited"))
    })
    .await;
    assert!(ended.success());
}

#[tokio::test]
async fn a_developers_broker_serves_no_other_machine() {
    let world = World::new();
    let listen = "[listen]\nsocket = \"a.sock\"\nadmin_socket = \"b.sock\"\n[listen.tls]\n\
                  address = \"0.0.0.0:0\"\ncertificate = \"c\"\nkey = \"file:k\"\nclient_ca = \"a\"\n";
    let config = for_developers(&world, listen);
    let said = refusal::of(dev(&config, &world.path().join("dev"))).await;
    assert!(said.contains("`0.0.0.0:0`") && said.contains("use a loopback address"), "{said}");
}

#[tokio::test]
async fn the_metrics_page_counts_what_happened_and_tells_no_secret() {
    let port = port::free();
    let more = format!("[metrics]\naddress = \"127.0.0.1:{port}\"");
    let world = World::with(Settings { more, ..Settings::default() });
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    let issued = agent.issue("orders-db/readonly").await.expect("a credential");
    agent.issue("orders-db/readwrite").await.expect_err("refused");
    let page = metrics(port).await;
    for (name, labels, expect) in [
        (
            "claviger_decisions_total",
            &["action=\"open_session\"", "decision=\"permit\""] as &[&str],
            "1",
        ),
        ("claviger_decisions_total", &["action=\"issue\"", "decision=\"permit\""], "1"),
        (
            "claviger_decisions_total",
            &["action=\"issue\"", "code=\"UNDECLARED_AUTHORIZATION\""],
            "1",
        ),
        (
            "claviger_plugin_call_seconds_count",
            &["plugin=\"postgres\"", "call=\"issue\"", "outcome=\"ok\""],
            "1",
        ),
        ("claviger_leases", &["state=\"active\""], "1"),
        ("claviger_leases", &["state=\"revoked\""], "0"),
        ("claviger_sessions", &[], "1"),
        ("claviger_journal_writable", &[], "1"),
    ] {
        assert_eq!(sample(&page, name, labels), Some(expect), "{name} {labels:?} in\n{page}");
    }
    let sealing_key = "5a".repeat(32);
    let (password, user) = (issued.field("password"), issued.field("user"));
    for secret in
        [ADMIN_PASSWORD, password, user, &agent.token, &agent.session, &sealing_key, "ticket 4711"]
    {
        assert!(!page.contains(secret), "`{secret}` stands on the page");
    }
    agent.close().await.expect("closed");
    poll::until("the revocation is counted", || async {
        let page = metrics(port).await;
        let revoked = sample(&page, "claviger_leases", &["state=\"revoked\""]) == Some("1");
        let lag = sample(&page, "claviger_revocation_lag_seconds_count", &[]) == Some("1");
        (revoked && lag).then_some(())
    })
    .await;
}

#[tokio::test]
async fn metrics_are_served_to_this_machine_only() {
    let more = "[metrics]\naddress = \"0.0.0.0:0\"".to_owned();
    let world = World::with(Settings { more, ..Settings::default() });
    let said = refusal::of_serve(&world).await;
    assert!(
        said.contains("`metrics.address` is `0.0.0.0:0`") && said.contains("loopback"),
        "{said}"
    );
}

#[tokio::test]
async fn health_and_reflection_need_no_token() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let services = ["", "claviger.v1.AgentService", "claviger.v1.AdminService"];
    for socket in [broker.socket(), broker.admin_socket()] {
        let health = HealthClient::new(channel(&socket).await);
        for service in services {
            poll::until("the health is told", || {
                let mut health = health.clone();
                async move {
                    let request = HealthCheckRequest { service: service.to_owned() };
                    let status = health.check(request).await.ok()?.into_inner().status();
                    (status == ServingStatus::Serving).then_some(())
                }
            })
            .await;
        }
        let unknown = HealthCheckRequest { service: "nobody".to_owned() };
        assert!(health.clone().check(unknown).await.is_err());
        let list = MessageRequest::ListServices(String::new());
        let MessageResponse::ListServicesResponse(listed) = reflected(&socket, list).await else {
            panic!("no list")
        };
        let names: Vec<_> = listed.service.iter().map(|service| service.name.as_str()).collect();
        assert!(names.contains(&"claviger.v1.AgentService"), "{names:?}");
        let symbol =
            MessageRequest::FileContainingSymbol("claviger.v1.AgentService.Issue".to_owned());
        let answer = reflected(&socket, symbol).await;
        assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    }
}

#[tokio::test]
async fn the_broker_leaves_no_core_and_lets_no_process_of_its_user_look_inside() {
    let world = World::new();
    let as_root = rustix::process::geteuid().is_root();
    if as_root {
        // Everything of root's is root's: only a broker of another user shows the difference.
        give_away(world.path());
    }
    let broker = Broker::start_with(&world, |command| {
        if as_root {
            command.uid(other_user::NOBODY).gid(other_user::NOBODY);
        }
    })
    .await;
    let mut other = Command::new("sleep");
    if as_root {
        other.uid(other_user::NOBODY).gid(other_user::NOBODY);
    }
    let mut other = other.arg("1000").spawn().expect("sleep starts");
    let owner = |pid: u32, file: &str| {
        std::fs::metadata(format!("/proc/{pid}/{file}")).expect("a process").uid()
    };
    let ordinary = poll::until("the other program runs as its user", || {
        let uid = owner(other.id(), "environ");
        std::future::ready((uid != 0).then_some(uid))
    })
    .await;
    for file in ["environ", "mem", "maps"] {
        assert_eq!(owner(broker.pid(), file), 0, "`{file}` is readable for user {ordinary}");
    }
    other.kill().expect("killed");
    other.wait().expect("reaped");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    let numbers: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
    // It works as that user, so what is closed to others is not in its own way.
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
}

fn check(world: &World) -> (i32, String) {
    let mut command = Command::new(program("clavigerd"));
    let output = command.args(["check", "--config"]).arg(world.config()).output();
    let output = output.expect("clavigerd runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().expect("an exit code"), said)
}

/// The world's configuration as a developer would write it: backends, prompt files, no more.
fn for_developers(world: &World, more: &str) -> std::path::PathBuf {
    let full = std::fs::read_to_string(world.config()).expect("the configuration");
    let backends = full.find("[plugins.postgres]").expect("the plugins");
    let unpinned: Vec<_> =
        full[backends..].lines().filter(|line| !line.starts_with("sha256")).collect();
    world.write(
        "dev.toml",
        &format!("[prompts]\npath = \"prompts\"\n{}\n{more}", unpinned.join("\n")),
    );
    world.path().join("dev.toml")
}

fn dev(config: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program("clavigerd"));
    command.args(["dev", "-c"]).arg(config).arg("--dir").arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

async fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the page");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("answered");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("# EOF"), "the page is complete: {text}");
    text
}

/// The value of the sample with that name and all those labels.
fn sample<'a>(page: &'a str, name: &str, labels: &[&str]) -> Option<&'a str> {
    page.lines().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let named = series.split('{').next() == Some(name);
        (named && labels.iter().all(|label| series.contains(label))).then_some(value)
    })
}

async fn reflected(socket: &Path, request: MessageRequest) -> MessageResponse {
    let mut client = ServerReflectionClient::new(channel(socket).await);
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = client.server_reflection_info(tokio_stream::once(request)).await;
    let answer = asked.expect("reflection").into_inner().message().await.expect("an answer");
    answer.and_then(|answer| answer.message_response).expect("a response")
}

fn give_away(folder: &Path) {
    let nobody = Some(other_user::NOBODY);
    std::os::unix::fs::chown(folder, nobody, nobody).expect("root may");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            give_away(&path);
        } else {
            std::os::unix::fs::chown(&path, nobody, nobody).expect("root may");
        }
    }
}
