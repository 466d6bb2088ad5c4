//! The walls round a plugin, as an operator meets them: signatures, the cache, the quarantine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::{Agent, journal};
use claviger_e2e::poll;
use claviger_e2e::world::{Settings, World, plugins, program, sha256_of};
use claviger_proto::v1;

#[tokio::test]
async fn a_signed_plugin_serves_and_one_that_was_changed_does_not() {
    let world = World::new();
    let file = world.path().join("postgres.wasm");
    std::fs::copy(plugins().join("postgres.wasm"), &file).expect("copied");
    let key = world.path().join("signing.key");
    let made = kit(&["keygen", "--without-password", "--key"], &key);
    let trusted = trusted_key(&made);
    let key_text = key.to_str().expect("a path");
    kit(&["sign", "--without-password", "--key", key_text], &file);
    kit(&["verify", "--trusted-key", &trusted], &file);

    let digest = sha256_of(&file);
    let shipped = plugins().join("postgres.wasm");
    world.configure(&format!("path = \"{}\"", shipped.display()), "path = \"postgres.wasm\"");
    world.configure(&format!("sha256 = \"{digest}\""), "");
    let signing = |keys: &str| format!("[signing]\ntrusted_keys = [{keys}]\n[prompts]");
    world.configure("[prompts]", &signing(&format!("\"{trusted}\"")));
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a signature stands in for the pin");
    let listed = claviger(&broker, &["plugin", "list", "-o", "json"]).output().expect("runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&trusted));
    drop(broker);

    let other =
        trusted_key(&kit(&["keygen", "--without-password", "--key"], &key.with_extension("2")));
    let good = std::fs::read(&file).expect("read");
    let refused = |expect: &str| {
        let output = clavigerd(&["check", "--config"], &world.config());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{expect}: {told}");
        assert!(told.contains(expect), "{expect}: {told}");
    };
    world.configure(&trusted, &other);
    refused("is signed with a key that is not trusted");
    world.configure(&format!("\"{other}\""), "");
    refused("no key is trusted");
    world.configure("trusted_keys = []", &format!("trusted_keys = [\"{trusted}\"]"));
    std::fs::write(&file, [&good[..], &[0, 5, 4, b'c', b'o', b'p', b'y']].concat())
        .expect("written");
    refused("is not what was signed");
    std::fs::write(&file, &good).expect("written");
    std::fs::remove_file(world.path().join("postgres.wasm.minisig")).expect("removed");
    refused("is not signed: there is no");
}

#[test]
fn keys_are_private_encrypted_unless_asked_otherwise_and_never_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("postgres.wasm");
    std::fs::copy(plugins().join("postgres.wasm"), &file).expect("copied");
    let key = folder.path().join("k");
    let keygen = ["keygen", "--key", key.to_str().expect("a path")];
    assert!(!with_password(&keygen, "").status.success(), "an empty password is none");
    assert!(with_password(&keygen, "correct horse").status.success());
    let mode = std::fs::metadata(&key).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!with_password(&keygen, "correct horse").status.success(), "a key is not replaced");
    let path = file.to_str().expect("a path");
    let sign = ["sign", "--key", key.to_str().expect("a path"), path];
    assert!(!with_password(&sign, "wrong").status.success());
    assert!(with_password(&sign, "correct horse").status.success());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let refused = with_password(&sign, "correct horse");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chmod 600"));
}

#[tokio::test]
async fn compiled_components_are_found_again_and_foreign_ones_are_not_run() {
    let world = World::new();
    let cache = world.path().join("state/journal.db.components");
    let files = || {
        let entries = std::fs::read_dir(&cache).expect("the cache");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let serve = || async {
        let broker = Broker::start(&world).await;
        let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
        agent.issue("orders-db/readonly").await.expect("issued");
        broker.log()
    };
    serve().await;
    let [file] = <[_; 1]>::try_from(files()).expect("one component");
    let written = |path: &Path| std::fs::metadata(path).expect("there").modified().expect("a time");
    let first = written(&file);
    serve().await;
    assert_eq!(written(&file), first, "it was compiled again");
    std::fs::write(&file, b"\x7fELF machine code of somebody else").expect("written");
    let log = serve().await;
    assert!(log.contains("a file of the component cache was removed"), "{log}");
    assert!(std::fs::metadata(&file).expect("there").len() > 10_000, "it was compiled anew");
}

#[tokio::test]
async fn a_quarantine_is_recorded_listed_and_lifted() {
    let panicking = plugins().join("hostile/panic.wasm");
    let more = format!(
        "[plugins.bad]\npath = \"{}\"\nsha256 = \"{}\"\n[backends.bad-db]\nplugin = \"bad\"\n\
         [backends.bad-db.scopes.any]\nauthorization = \"orders.read\"\n",
        panicking.display(),
        sha256_of(&panicking)
    );
    let world = World::with(Settings { more, ..Settings::default() });
    world.write(
        "policies/bad.cedar",
        "@id(\"bad\")\npermit (principal, action == Action::\"issue\", resource == Scope::\"bad-db/any\");",
    );
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    for _ in 0..3 {
        agent.issue("bad-db/any").await.expect_err("it panics");
    }
    poll::until("the quarantine is recorded", || async {
        let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
        entries.iter().any(|entry| entry["event"] == "plugin-quarantined").then_some(())
    })
    .await;
    let run = |args: &[&str]| {
        let output = claviger(&broker, args).output().expect("claviger runs");
        let both = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&both).into_owned())
    };
    let (_, listed) = run(&["plugin", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["name"], &listed[0]["traps"]), (&"bad".into(), &3.into()));
    assert_ne!(listed[0]["quarantined_until"], "");
    assert_eq!(listed[1]["quarantined_until"], "");
    assert_eq!(run(&["plugin", "lift", "bad"]), (Some(0), "bad works again\n".to_owned()));
    let (code, told) = run(&["plugin", "lift", "bad"]);
    assert!(code == Some(1) && told.contains("is not quarantined"), "{told}");
    let (code, told) = run(&["plugin", "lift", "nothing"]);
    assert!(code == Some(1) && told.contains("there is no plugin `nothing`"), "{told}");
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let lifted = "lift of the quarantine of plugin `bad`";
    let lifts = entries.iter().filter(|entry| entry["detail"] == lifted).count();
    assert_eq!(
        lifts, 2,
        "every call of an operator is an entry, also one that finds nothing to do"
    );
}

/// Runs `clavigerd plugin` on a file, which must succeed.
fn kit(args: &[&str], path: &Path) -> String {
    let output = clavigerd(&[&["plugin"], args].concat(), path);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {told}");
    told
}

fn clavigerd(args: &[&str], path: &Path) -> Output {
    Command::new(program("clavigerd")).args(args).arg(path).output().expect("clavigerd runs")
}

fn with_password(args: &[&str], password: &str) -> Output {
    let mut child = Command::new(program("clavigerd"))
        .arg("plugin")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("clavigerd starts");
    let mut stdin = child.stdin.take().expect("piped");
    // One that refuses before it asks has closed it.
    let _closed = stdin.write_all(format!("{password}\n").as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn trusted_key(told: &str) -> String {
    let key = told.split('"').find(|word| word.starts_with("RW"));
    key.unwrap_or_else(|| panic!("no key in {told}")).to_owned()
}
