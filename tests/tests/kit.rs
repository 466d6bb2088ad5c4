//! The plugin kit as an author and a reviewer use it: what `new` writes builds and passes, `check`
//! objects to what the broker would refuse, `inspect` prints what the broker accepts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use claviger_e2e::token_api::TokenApi;
use claviger_e2e::world::{plugins, program};
use serde_json::Value;

#[tokio::test]
async fn what_new_writes_passes_its_tests_the_check_and_the_suite() {
    let folder = tempfile::tempdir().expect("a folder");
    // Shared by both kinds and kept for the next run: the SDK is compiled once.
    let target = workspace().join("target/kit");
    for kind in ["http", "sql"] {
        let name = format!("my-{kind}");
        let made = kit("clavigerd", folder.path(), &["plugin", "new", &name, "--kind", kind]);
        assert_ok(&made, kind);
        let told = String::from_utf8_lossy(&made.stdout).into_owned();
        assert!(told.contains("plugins/sdk"), "it says where the SDK is: {told}");
        let cargo = |arguments: &[&str]| {
            let mut cargo = Command::new("cargo");
            cargo.args(arguments).arg("--offline").current_dir(folder.path().join(&name));
            cargo.env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
            cargo.output().expect("cargo runs")
        };
        assert_ok(&cargo(&["test"]), kind);
        assert_ok(&cargo(&["build", "--target", "wasm32-wasip2", "--profile", "plugin"]), kind);
        let component = target.join(format!("wasm32-wasip2/plugin/my_{kind}.wasm"));
        let component = component.display().to_string();
        let check = kit("claviger", folder.path(), &["plugin", "check", &component]);
        assert_ok(&check, kind);
        if kind == "http" {
            assert_conforms(&folder.path().join(&name), &component).await;
        }
    }
    let again = kit("clavigerd", folder.path(), &["plugin", "new", "my-sql"]);
    assert!(!again.status.success(), "an existing folder is left alone");
}

#[test]
fn check_says_what_is_wrong_and_what_to_do() {
    for (component, about, sentence) in [
        ("postgres.wasm", "", ""),
        ("hostile/foreign_socket.wasm", "imports", "wasi:sockets"),
        ("oidc-token.wasm", "", ""),
    ] {
        let path = plugins().join(component).display().to_string();
        let output = kit("clavigerd", Path::new("/"), &["plugin", "check", &path, "-o", "json"]);
        let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = findings.as_array().expect("a list");
        let named = findings.iter().find(|finding| {
            finding["about"] == about
                && finding["problem"].as_str().is_some_and(|problem| problem.contains(sentence))
        });
        assert_eq!(named.is_none(), about.is_empty(), "{component}: {findings:#?}");
        assert_eq!(output.status.success(), findings.is_empty(), "{component}");
        for finding in findings {
            assert_ne!(finding["remedy"], "", "{finding}");
        }
    }
}

#[test]
fn the_stanza_that_inspect_prints_is_one_that_the_broker_accepts() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = plugins().join("postgres.wasm").display().to_string();
    let shown = kit("claviger", folder.path(), &["-o", "json", "plugin", "inspect", &component]);
    assert_ok(&shown, "inspect");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let stanza = shown["stanza"].as_str().expect("a stanza");
    // What only the operator knows: the secret's file.
    std::fs::write(folder.path().join("secret"), "x").expect("written");
    std::fs::write(folder.path().join("key"), "5a".repeat(32)).expect("written");
    std::fs::create_dir_all(folder.path().join("policies")).expect("made");
    std::fs::create_dir_all(folder.path().join("prompts")).expect("made");
    let stanza = stanza.replace("file:/run/secrets/my-postgres", "file:secret");
    let rest = "[listen]\nsocket = \"a\"\nadmin_socket = \"b\"\n\
                [journal]\npath = \"j\"\nsealing_key = \"file:key\"\n\
                [policies]\npath = \"policies\"\n[prompts]\npath = \"prompts\"\n";
    std::fs::write(folder.path().join("c.toml"), format!("{stanza}\n{rest}")).expect("written");
    let check = kit("clavigerd", folder.path(), &["check", "-c", "c.toml"]);
    assert_ok(&check, stanza.as_str());
    let screen = kit("clavigerd", folder.path(), &["plugin", "inspect", &component]);
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    for part in ["claviger.postgres", "password* (PGPASSWORD)", "db_user", "because it creates"] {
        assert!(screen.contains(part), "{part} is missing in {screen}");
    }
}

/// Runs the suite with the configuration that `new` wrote, on the service that it names.
async fn assert_conforms(folder: &Path, component: &str) {
    let service = TokenApi::start(folder).await;
    let path = folder.join("conformance.toml");
    let config = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, config.replace("7878", &service.port().to_string())).expect("written");
    let arguments = ["plugin", "test", component, "--config", "conformance.toml"];
    let report = kit("clavigerd", folder, &arguments);
    assert_ok(&report, component);
    let told = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(!told.contains("skip") || told.contains("0 skipped"), "{told}");
}

fn kit(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program(name)).args(arguments).current_dir(folder).output().expect("it runs")
}

fn assert_ok(output: &Output, about: &str) {
    let told = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{about}: {}", told.join("\n"));
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}
