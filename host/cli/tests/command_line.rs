//! The built command against a broker by script: what it sends, prints and ends with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_imports,
    missing_docs,
    reason = "a test may panic"
)]

mod broker;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use broker::{Running, Script, TOKEN, journal, refusal, start};
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

fn command(running: &Running, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command
        .args(args)
        .env("CLAVIGER_SOCKET", running.path("agent.sock"))
        .env("CLAVIGER_ADMIN_SOCKET", running.path("admin.sock"))
        .env_remove("CLAVIGER_ADDRESS")
        .env_remove("CLAVIGER_SESSION_TOKEN")
        .env("GITHUB_TOKEN", "inherited")
        .env("PGPASSWORD", "inherited");
    command
}

fn output(running: &Running, args: &[&str]) -> Output {
    command(running, args).output().unwrap()
}

fn in_session(running: &Running, args: &[&str]) -> Output {
    command(running, args).env("CLAVIGER_SESSION_TOKEN", TOKEN).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn run_hands_over_what_was_granted_and_nothing_inherited() {
    let running = start(Script::default());
    let script = "echo $PGUSER:$PGPASSWORD:$GITHUB_TOKEN:$CLAVIGER_ADMIN_SOCKET:$CLAVIGER_SESSION_TOKEN:$CLAVIGER_SOCKET; exit 9";
    let args = ["run", "--role", "triage", "--grant", "db/r", "--", "sh", "-c", script];
    let output = output(&running, &args);
    let socket = running.path("agent.sock");
    let expect = format!("cv_1:it's secret:::{TOKEN}:{}\n", socket.display());
    assert_eq!(text(&output.stdout), expect);
    assert_eq!(output.status.code(), Some(9));
    assert!(!text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    let calls = running.calls();
    assert_eq!(calls[0], "open triage");
    assert!(calls[1].starts_with("issue db/r ") && calls[1].ends_with(&format!(" as {TOKEN}")));
    assert_eq!(calls[2], format!("close as {TOKEN}"));
}

#[test]
fn run_starts_nothing_and_closes_its_session_when_a_grant_is_denied() {
    let said = [("denial_id", "den_1"), ("next", "declare it")];
    let denied = refusal(Code::PermissionDenied, "NO_PERMIT", &said);
    let running = start(Script { issue_refusals: vec![denied], ..Script::default() });
    let args = ["run", "--role", "triage", "--grant", "db/r", "--", "echo", "started"];
    let output = output(&running, &args);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("error: refused: NO_PERMIT\ndenial: den_1\nnext: declare it\n"),
        "{stderr}"
    );
    assert_eq!(running.calls().last().unwrap(), &format!("close as {TOKEN}"));
}

#[test]
fn run_passes_a_signal_on_and_ends_as_the_command_does() {
    let running = start(Script::default());
    let script = "trap 'exit 7' TERM; echo ready; read -r line; exit 1";
    let args = ["run", "--role", "triage", "--", "sh", "-c", script];
    let mut child =
        command(&running, &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let _stdin = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert_eq!(running.calls().last().unwrap(), &format!("close as {TOKEN}"));
}

#[test]
fn run_ends_as_shells_do_when_there_is_no_such_command() {
    let running = start(Script::default());
    let output = output(&running, &["run", "--role", "triage", "--", "/nowhere/command"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(running.calls().last().unwrap(), &format!("close as {TOKEN}"));
}

#[test]
fn issue_tries_once_more_with_the_same_key_when_nothing_was_recorded() {
    let full = || refusal(Code::Unavailable, "JOURNAL_UNWRITABLE", &[]);
    let running = start(Script { issue_refusals: vec![full()], ..Script::default() });
    let output = in_session(&running, &["issue", "db/r", "--output", "export"]);
    assert_eq!(output.status.code(), Some(0));
    let expect = "export PGUSER=cv_1\nexport PGPASSWORD='it'\\''s secret'\n";
    assert_eq!(text(&output.stdout), expect);
    let calls = running.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0], calls[1]);

    let running = start(Script { issue_refusals: vec![full(), full()], ..Script::default() });
    assert_eq!(in_session(&running, &["issue", "db/r"]).status.code(), Some(6));
    assert_eq!(running.calls().len(), 2);
}

#[test]
fn issue_hides_secrets_in_a_table() {
    let running = start(Script::default());
    let output = in_session(&running, &["issue", "db/r"]);
    assert!(text(&output.stdout).contains("(hidden)"), "{}", text(&output.stdout));
    assert!(!text(&output.stdout).contains("secret"));
    assert!(text(&output.stderr).contains("claviger lease release int_1"));
    let shown = in_session(&running, &["issue", "db/r", "--show-secrets"]);
    assert!(text(&shown.stdout).contains("it's secret"));
}

#[test]
fn issue_gives_the_lease_back_after_its_command() {
    let running = start(Script::default());
    let args = ["issue", "db/r", "--", "sh", "-c", "echo $PGPASSWORD; exit 4"];
    let output = in_session(&running, &args);
    assert_eq!((text(&output.stdout), output.status.code()), ("it's secret\n", Some(4)));
    assert_eq!(running.calls().last().unwrap(), &format!("release int_1 as {TOKEN}"));
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let running = start(Script::default());
    for (args, exit, part) in [
        (["grants", "--output", "json"].as_slice(), 5, "the session has ended"),
        (["nonsense", "--output", "json"].as_slice(), 2, "unrecognized subcommand"),
        (["why", "den_1", "-o", "json", "--admin-socket", "/nowhere"].as_slice(), 6, "/nowhere"),
    ] {
        let output = in_session(&running, args);
        assert_eq!(output.status.code(), Some(exit), "{args:?}");
        let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["exit_code"], exit, "{args:?}");
        assert!(error["error"].as_str().unwrap().contains(part), "{error}");
    }
}

#[test]
fn without_a_session_says_how_to_get_one() {
    let running = start(Script::default());
    let output = output(&running, &["lease", "list"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("CLAVIGER_SESSION_TOKEN is not set"));
    assert!(running.calls().is_empty());
}

#[test]
fn operators_see_and_retry_what_is_stuck() {
    let running = start(Script::default());
    let rows = output(&running, &["lease", "query", "--state", "stuck", "--output", "json"]);
    let row: serde_json::Value = serde_json::from_slice(&rows.stdout).unwrap();
    assert_eq!((&row["lease_id"], &row["attempts"]), (&"int_9".into(), &8.into()));
    let retried = output(&running, &["lease", "retry", "int_9"]);
    assert_eq!(text(&retried.stdout), "int_9 is due\n");
    let reloaded = output(&running, &["reload"]);
    assert_eq!(reloaded.status.code(), Some(1));
    assert!(text(&reloaded.stdout).contains("roles/a.md:1:1: no\nnot loaded"));
}

#[test]
fn an_export_is_verified_without_a_broker_and_a_forgery_is_found() {
    let entries = journal(&[r#"{"event":"broker-started"}"#, r#"{"event":"denied"}"#]);
    let running = start(Script { entries, ..Script::default() });
    let exported = output(&running, &["audit", "export"]);
    let file = running.path("journal.jsonl");
    std::fs::write(&file, &exported.stdout).unwrap();
    let verify = ["audit", "verify", file.to_str().unwrap(), "--admin-socket", "/nowhere"];
    let intact = output(&running, &verify);
    assert_eq!(intact.status.code(), Some(0), "{}", text(&intact.stderr));
    assert!(text(&intact.stdout).contains("\nhead: 2:"), "{}", text(&intact.stdout));

    std::fs::write(&file, text(&exported.stdout).replace("denied", "issued")).unwrap();
    let forged = output(&running, &verify);
    assert_eq!(forged.status.code(), Some(1));
    assert!(text(&forged.stdout).starts_with("BROKEN: entry 2 was changed"));
}

#[test]
fn the_brokers_own_journal_is_verified_up_to_its_head() {
    let mut entries = journal(&["{}", "{}", "{}"]);
    let running = start(Script { entries: entries.clone(), ..Script::default() });
    assert_eq!(output(&running, &["audit", "verify"]).status.code(), Some(0));
    entries.remove(1);
    let running = start(Script { entries, ..Script::default() });
    let broken = output(&running, &["audit", "verify", "--output", "json"]);
    let answer: serde_json::Value = serde_json::from_slice(&broken.stdout).unwrap();
    assert_eq!((broken.status.code(), &answer["intact"]), (Some(1), &false.into()));
    assert!(answer["problem"].as_str().unwrap().contains("entry 2 is missing"), "{answer}");
}

#[test]
fn plugins_are_listed_and_a_quarantine_is_lifted_by_name() {
    let running = start(Script::default());
    let listed = output(&running, &["plugin", "list"]);
    let table = text(&listed.stdout);
    for word in ["postgres", "claviger.postgres", "nobody", "orders-db", "3"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let json = output(&running, &["plugin", "list", "-o", "json"]);
    let plugins: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(plugins[0]["traps"], 3);
    let lifted = output(&running, &["plugin", "lift", "postgres"]);
    assert_eq!(text(&lifted.stdout), "postgres works again\n");
    assert_eq!(running.calls().last().map(String::as_str), Some("lift postgres"));
}

#[test]
fn a_child_runs_with_a_token_of_its_own_below_that_of_the_environment() {
    let running = start(Script::default());
    let script = "echo $CLAVIGER_SESSION_TOKEN";
    let child = in_session(&running, &["run", "--child", "--role", "r", "--", "sh", "-c", script]);
    assert_eq!(text(&child.stdout), "token-of-the-child\n");
    let expect = [format!("open child r as {TOKEN}"), "close as token-of-the-child".to_owned()];
    assert_eq!(running.calls(), expect);
    let orphan = output(&running, &["run", "--child", "--role", "r", "--", "true"]);
    assert_eq!(orphan.status.code(), Some(2), "{}", text(&orphan.stderr));
}

#[test]
fn revoke_looks_first_and_ends_nothing_unless_told_to() {
    let running = start(Script::default());
    let output = output(&running, &["revoke", "requester", "unix:7", "--reason", "left"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("would end: 1 sessions, 2 leases"));
    assert_eq!(running.calls(), ["revoke true left"]);
}

#[test]
fn revoke_tells_how_far_it_has_come_and_fails_when_something_is_stuck() {
    let running = start(Script::default());
    let args = ["revoke", "role", "triage", "--yes", "-o", "json"];
    let output = output(&running, &args);
    assert_eq!(output.status.code(), Some(1), "one of two leases is stuck");
    assert_eq!(running.calls(), ["revoke false "]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["stage"], &told["leases_stuck"]), (&"done".into(), &1.into()));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("1 sessions ended; 0 of 2 leases gone"), "{stderr}");
    assert!(stderr.contains("resource == Role::\"triage\""), "how to refuse new ones: {stderr}");
}
