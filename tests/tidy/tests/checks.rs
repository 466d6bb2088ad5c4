//! Checks the checks: each must find what it exists for, and leave its good neighbour alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_tidy::source::Source;
use claviger_tidy::tree::{TextFile, Tree};
use claviger_tidy::{Finding, check_source, claims, contracts, manifests, places};

const ANYWHERE: &str = "host/broker/src/worker.rs";
const FINE: Option<&str> = None;

/// Asserts that the findings on `text` at `path` hold one with `expect` in its sentence, or none.
fn check(path: &str, text: &str, expect: Option<&str>) {
    let source = Source::parse(path, text).expect("the snippet is Rust");
    judge(&check_source(&source), text, expect);
}

fn judge(findings: &[Finding], text: &str, expect: Option<&str>) {
    let shown = |found: &Finding| found.to_string();
    let found: Vec<_> = findings.iter().map(shown).collect();
    match expect {
        None => assert!(found.is_empty(), "found {found:?} in:\n{text}"),
        Some(part) => assert!(
            found.len() == 1 && found.iter().all(|sentence| sentence.contains(part)),
            "expected one finding with {part:?}, found {found:?} in:\n{text}"
        ),
    }
}

fn rust(code: &str) -> String {
    format!("//! A snippet.\n{code}\n")
}

fn fn_of(lines: usize) -> String {
    format!("fn f() {{\n{}}}", "    g();\n".repeat(lines - 2))
}

fn file_of(lines: usize) -> String {
    format!("//! A snippet.\n{}", "const _: () = ();\n".repeat(lines - 1))
}

#[test]
fn files_begin_with_what_they_are() {
    check(ANYWHERE, "//! What it is.\n", FINE);
    check(ANYWHERE, "fn f() {}\n", Some("first line"));
    check(ANYWHERE, "//!\n", Some("first line"));
    check(ANYWHERE, "\n//! Too late.\n", Some("first line"));
}

#[test]
fn functions_and_files_are_short() {
    check(ANYWHERE, &rust(&fn_of(69)), FINE);
    check(ANYWHERE, &rust(&fn_of(70)), Some("`f` has 70 lines"));
    let method = format!("impl T {{ {} }}", fn_of(70));
    check(ANYWHERE, &rust(&method), Some("`f` has 70 lines"));
    let trait_method = format!("impl U for T {{ {} }}", fn_of(70));
    check(ANYWHERE, &rust(&trait_method), Some("`f` has 70 lines"));
    check(ANYWHERE, &file_of(599), FINE);
    check(ANYWHERE, &file_of(600), Some("the file has 600 lines"));
}

#[test]
fn parameters_are_few_and_say_what_they_mean() {
    for (code, expect) in [
        ("fn f(a: A, b: B, c: C, d: D) {}", FINE),
        ("fn f(a: A, b: B, c: C, d: D, e: E) {}", Some("takes 5 parameters")),
        ("impl T { fn f(&self, b: B, c: C, d: D, e: E) {} }", Some("takes 5 parameters")),
        ("impl U for T { fn f(&self, b: B, c: C, d: D, e: bool) {} }", FINE),
        ("trait U { fn f(&self, b: B, c: C, d: D, e: E); }", Some("takes 5 parameters")),
        ("pub fn f(loud: bool) {}", Some("takes a `bool`")),
        ("impl T { pub(crate) fn f(&self, loud: bool) {} }", Some("takes a `bool`")),
        ("trait U { fn f(&self, loud: bool); }", Some("takes a `bool`")),
        ("fn f(loud: bool) {}", FINE),
        ("pub fn f() -> bool { g() }", FINE),
    ] {
        check(ANYWHERE, &rust(code), expect);
    }
}

#[test]
fn types_are_named_by_their_nouns() {
    for (code, expect) in [
        ("struct LeaseManager;", Some("`Manager`")),
        ("enum SqlHelpers {}", Some("`Helper`")),
        ("trait RequestHandler {}", Some("`Handler`")),
        ("type Processor = u8;", Some("`Processor`")),
        ("struct Utils;", Some("`Util`")),
        ("struct Utility;", FINE),
        ("struct Handle; struct Process; struct Managed;", FINE),
    ] {
        check(ANYWHERE, &rust(code), expect);
    }
}

#[test]
fn permits_and_intents_come_from_the_core() {
    let permit = "fn f() { let p = Permit::granted(x); }";
    check("host/core/src/decide.rs", &rust(permit), FINE);
    check("host/core/src/decide/permit.rs", &rust("fn f() { Permit { a } }"), FINE);
    check("host/core/src/flow/issue.rs", &rust(permit), Some("a permit is made"));
    check("host/core/src/fixture.rs", &rust("fn f() { SessionPermit { a } }"), Some("a permit"));
    let in_a_macro = "fn f() { assert_eq!(g(), SessionPermit::granted(x)); }";
    check(ANYWHERE, &rust(in_a_macro), Some("a permit"));
    let in_a_test = "#[cfg(test)] mod tests { fn f() { Permit::granted(x) } }";
    check(ANYWHERE, &rust(in_a_test), Some("a permit"));
    check(ANYWHERE, &rust("fn f(p: &Permit) -> Permit { g(\"Permit::granted\") }"), FINE);
    check(ANYWHERE, &rust("fn f(p: &P) -> &Permit { p.permit() }"), FINE);
    check(ANYWHERE, &rust("fn f() { g(&Permit { a }) }"), Some("a permit is made"));
    check(ANYWHERE, &rust("fn f(e: Effect) { if e == Effect::Permit { g() } }"), FINE);
    let intent = "fn f() { Intent::recorded(id, seq, permit) }";
    check("host/core/src/flow/issue.rs", &rust(intent), FINE);
    check(ANYWHERE, &rust(intent), Some("an intent is made"));
}

#[test]
fn secrets_leave_through_one_file() {
    let code = "fn f() { let text = secret.expose_once(); }";
    check("host/broker/src/rpc/reply.rs", &rust(code), FINE);
    check("host/broker/src/rpc/issue.rs", &rust(code), Some("a secret is exposed"));
    let by_path = "fn f() { secret.map(Secret::expose_once) }";
    check(ANYWHERE, &rust(by_path), Some("a secret is exposed"));
    let in_a_test = format!("#[cfg(test)] mod tests {{ {code} }}");
    check("host/broker/src/rpc/issue.rs", &rust(&in_a_test), FINE);
}

#[test]
fn unsafe_stands_in_one_file() {
    for code in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "#[allow(unsafe_code, reason = \"it is fast\")] fn f() {}",
    ] {
        check(ANYWHERE, &rust(code), Some("the compiler no longer vouches"));
        check("host/broker/src/plugin/artifact.rs", &rust(code), FINE);
    }
}

#[test]
fn statuses_are_made_in_one_file() {
    let code = "fn f() { tonic::Status::not_found(text) }";
    check("host/broker/src/rpc/status.rs", &rust(code), FINE);
    check("host/broker/src/rpc/agent.rs", &rust(code), Some("a gRPC status"));
    check("host/cli/src/main.rs", &rust("fn f(s: &Status) { s.code() }"), FINE);
    check("tests/src/lib.rs", &rust(code), FINE);
}

#[test]
fn proto_types_are_known_in_one_folder() {
    let message = "use claviger_proto::v1;";
    check("host/broker/src/rpc/agent.rs", &rust(message), FINE);
    check("host/broker/src/rpc.rs", &rust(message), FINE);
    check("host/cli/src/view.rs", &rust(message), FINE);
    check("host/broker/src/serve.rs", &rust(message), Some("a proto type is known outside"));
    check(ANYWHERE, &rust(message), Some("a proto type is known outside"));
    check(ANYWHERE, &rust("fn f(d: prost_types::Duration) {}"), Some("a proto type is known"));
    let mounted = "use claviger_proto::v1::agent_service_server::AgentServiceServer;";
    check("host/broker/src/serve.rs", &rust(mounted), FINE);
    check(ANYWHERE, &rust(mounted), Some("a proto type is known outside"));
    check("host/broker/src/serve.rs", &rust("fn f() { g(claviger_proto::DESCRIPTORS) }"), FINE);
}

#[test]
fn policies_do_not_get_to_know_what_is_only_claimed() {
    let code = "fn f(ask: &Ask) { g(ask.claimed_reason) }";
    check("host/core/src/decide/permit.rs", &rust(code), FINE);
    check("host/core/src/policy/evaluate.rs", &rust(code), Some("only claims"));
}

#[test]
fn agents_supply_neither_prompts_nor_authorizations() {
    let request = |field: &str| format!("message AskRequest {{\n  // What for.\n  {field}\n}}");
    for (text, expect) in [
        (request("string scope = 1;"), FINE),
        (request("string claimed_reason = 4;"), FINE),
        (request("repeated string authorizations = 5;"), Some("an agent supplies")),
        (request("optional string prompt_text = 5;"), Some("an agent supplies")),
        (request("string reason = 5;"), Some("call it `claimed_reason`")),
        ("message Grant {\n  string authorization = 2;\n}".to_owned(), FINE),
    ] {
        judge(&contracts::said_by_agents(&file("proto/x.proto", &text)), &text, expect);
    }
}

#[test]
fn the_core_reads_no_clock_and_does_no_io() {
    for (code, expect) in [
        ("fn f() { SystemTime::now() }", Some("invariant 1")),
        ("use std::fs::File;", Some("invariant 1")),
        ("use std::time::{Duration, SystemTime};", FINE),
    ] {
        check("host/core/src/time.rs", &rust(code), expect);
        check(ANYWHERE, &rust(code), FINE);
    }
}

#[test]
fn bindings_stand_in_one_host_file() {
    let parse = |path: &str| {
        let code = rust("wasmtime::component::bindgen!({ path: \"wit\" });");
        Source::parse(path, &code).expect("the snippet is Rust")
    };
    let one = parse("host/broker/src/plugin/contract.rs");
    let other = parse("host/broker/src/plugin/sql.rs");
    let guest = parse("plugins/sdk/src/lib.rs");
    judge(&places::one_bindgen(&[guest]), "one", FINE);
    let findings = places::one_bindgen(&[one, other]);
    assert_eq!(findings.len(), 2, "each of the two places is named: {findings:?}");
}

#[test]
fn nothing_temporary_is_left_over() {
    for (code, expect) in [
        ("fn f() { todo!() }", Some("`todo!`")),
        ("fn f() { unimplemented!(\"later\") }", Some("`unimplemented!`")),
        ("fn f() { g(dbg!(x)) }", Some("`dbg!`")),
        ("#[test]\n#[ignore = \"flaky\"]\nfn f() {}", Some("ignored test")),
        ("#[allow(dead_code, reason = \"soon\")]\nfn f() {}", Some("dead code")),
        (concat!("// FIX", "ME: later"), Some("a note to oneself")),
        (concat!("/// TO", "DO(me): later\nfn f() {}"), Some("a note to oneself")),
        ("fn f() { g(\"todo!() dbg!()\") } // ignored, todo", FINE),
    ] {
        check(ANYWHERE, &rust(code), expect);
    }
}

#[test]
fn tests_do_not_sleep() {
    let sleep = "async fn f() { tokio::time::sleep(d).await }";
    let thread = "fn f() { std::thread::sleep(d) }";
    let import = "use tokio::time::{sleep};";
    check(ANYWHERE, &rust(sleep), FINE);
    for code in [sleep, thread, import] {
        check("tests/src/session.rs", &rust(code), Some("a test sleeps"));
        check("host/core/tests/simulation.rs", &rust(code), Some("a test sleeps"));
        let module = format!("#[cfg(test)] mod tests {{ {code} }}");
        check(ANYWHERE, &rust(&module), Some("a test sleeps"));
        check("tests/src/poll.rs", &rust(code), FINE);
    }
}

fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn manifests_take_versions_and_lints_from_the_workspace() {
    let check = |path: &str, rest: &str, expect| {
        let text = format!("[package]\nname = \"x\"\n[lints]\nworkspace = true\n{rest}");
        judge(&manifests::manifest(&file(path, &text)), &text, expect);
    };
    let any = "plugins/x/Cargo.toml";
    check(any, "[dependencies]\nserde.workspace = true\n", FINE);
    check(any, "[dev-dependencies]\nserde = { workspace = true, features = [\"rc\"] }\n", FINE);
    check(any, "[dependencies]\nserde = \"1\"\n", Some("`serde` names its own version"));
    check(any, "[dev-dependencies]\nx = { path = \"../x\" }\n", Some("`x` names its own"));
    check(any, "[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n", Some("`libc` names"));
    check("host/cli/Cargo.toml", "[dependencies]\nwasmtime.workspace = true\n", Some("no server"));
    check("tests/Cargo.toml", "[dependencies]\nclavigerd.workspace = true\n", Some("black-box"));
    let bare = file(any, "[package]\nname = \"x\"\n");
    judge(&manifests::manifest(&bare), &bare.text, Some("lints"));
    let root = file("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\n");
    judge(&manifests::manifest(&root), &root.text, FINE);
}

#[test]
fn the_core_depends_on_what_is_listed() {
    let line = |name: &&str| format!("{name}.workspace = true\n");
    let list: String = manifests::CORE_MAY.iter().map(line).collect();
    let manifest = format!("[package]\n[lints]\nworkspace = true\n[dependencies]\n{list}");
    let path = "host/core/Cargo.toml";
    judge(&manifests::manifest(&file(path, &manifest)), &manifest, FINE);
    let more = manifest.replace("[dependencies]", "[dependencies]\ntokio.workspace = true");
    judge(&manifests::manifest(&file(path, &more)), &more, Some("new: `tokio`"));
    let fewer = manifest.replace("uuid.workspace = true", "");
    judge(&manifests::manifest(&file(path, &fewer)), &fewer, Some("gone: `uuid`"));
}

#[test]
fn the_lock_file_holds_big_crates_once_and_from_one_place() {
    let check = |packages: &[(&str, &str, &str)], expect| {
        let entry = |(name, version, source): &(&str, &str, &str)| {
            let name = format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
            format!("{name}source = \"{source}\"\n")
        };
        let text: String = packages.iter().map(entry).collect();
        judge(&manifests::lock(&file("Cargo.lock", &text)), &text, expect);
    };
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    let git = "git+https://example.org/x#1";
    check(&[("syn", "2.0.0", crates_io), ("syn", "3.0.0", crates_io)], FINE);
    check(&[("tokio", "1.0.0", crates_io), ("tokio", "2.0.0", crates_io)], Some("`tokio`"));
    check(&[("openssl", "1.0.0", crates_io)], Some("rustls only"));
    check(&[("x", "1.0.0", git)], Some("crates.io"));
}

#[test]
fn contracts_are_documented() {
    for (text, expect) in [
        ("/// A door.\ninterface sql {\n  /// Opens.\n  open: func() -> u8;\n}", FINE),
        ("interface sql {\n}", Some("`interface sql`")),
        ("/// A door.\ninterface sql {\n  open: static func() -> u8;\n}", Some("`open: static")),
        ("/// A thing.\n@since(version = 0.1.0)\nresource x;", FINE),
        ("/// A thing.\nrecord x {\n  type-of: u8,\n}", FINE),
    ] {
        judge(&contracts::wit_items(&file("wit/x.wit", text)), text, expect);
    }
    for (text, expect) in [
        ("// Serves.\nservice S {\n  // Asks.\n  rpc Ask(A) returns (B);\n}", FINE),
        ("// Serves.\nservice S {\n  rpc Ask(A) returns (B);\n}", Some("`rpc Ask")),
        ("message AskRequest {\n  string rpc = 1;\n}", FINE),
        ("message Lease {\n}", Some("`message Lease`")),
    ] {
        judge(&contracts::proto_items(&file("proto/x.proto", text)), text, expect);
    }
}

#[test]
fn decision_notes_are_numbered_without_gaps() {
    for (names, expect) in [
        (&["0001-a.md", "0002-b.md"][..], FINE),
        (&["0001-a.md", "0003-b.md"][..], Some("decision 3 stands where 2")),
        (&["0001-a.md", "0001-b.md"][..], Some("decision 1 stands where 2")),
        (&["notes.md"][..], Some("NNNN-title.md")),
    ] {
        judge(&contracts::decisions(names), &names.join(" "), expect);
    }
}

#[test]
fn a_claim_without_its_test_is_found() {
    let code =
        rust("#[test]\nfn it_is_so() {}\n#[tokio::test]\nasync fn and_so() {}\nfn not_me() {}");
    let sources = [Source::parse(ANYWHERE, &code).expect("the snippet is Rust")];
    for (row, expect) in [
        ("| attack | what | `it_is_so`, `and_so` |", FINE),
        ("| attack | `broker/plugin` | `not_me` |", Some("there is no test `not_me`")),
        ("| attack | what | `it_was_so` |", Some("there is no test `it_was_so`")),
        ("| it tries | `host_fn` |", FINE),
    ] {
        let page = TextFile { path: "SECURITY.md".to_owned(), text: row.to_owned() };
        judge(&claims::check(&Tree { files: vec![page] }, &sources), row, expect);
    }
    let row = "| 1 | it holds | `it_was_so` |";
    for (text, expect) in [
        (format!("## The house\n\n{row}"), FINE),
        (format!("## What must always hold\n\n{row}"), Some("there is no test `it_was_so`")),
    ] {
        let page = TextFile { path: "ARCHITECTURE.md".to_owned(), text };
        judge(&claims::check(&Tree { files: vec![page] }, &sources), row, expect);
    }
}
