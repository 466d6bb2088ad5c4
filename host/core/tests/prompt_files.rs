//! Whole prompt files as people write them for the tools of today: what role each makes.
//! The grammar's details stand in `prompt_grammar.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::path::Path;
use std::process::Command;

use claviger_core::prompt::{PromptError, PromptFault, PromptFile, Role, Sidecar, collect, parse};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn load(path: &str) -> Result<Role, PromptError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prompts");
    let bytes = std::fs::read(root.join(path)).expect("the sample exists");
    let sidecar_path = format!("{path}.authz.yaml");
    let beside = std::fs::read(root.join(&sidecar_path)).ok();
    let sidecar = beside.as_deref().map(|bytes| Sidecar { path: &sidecar_path, bytes });
    parse(&PromptFile { path, bytes: &bytes, sidecar })
}

/// `authorization[=seconds]` of each, in name order.
fn declared(role: &Role) -> String {
    let one = |(name, limits): (&claviger_core::name::Authorization, &_)| {
        let claviger_core::prompt::AuthorizationLimits { ttl_max } = limits;
        ttl_max.map_or(name.to_string(), |ttl| format!("{name}={}", ttl.as_secs()))
    };
    role.authorizations.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn files_of_todays_tools_make_the_roles_that_a_reader_expects() {
    let cases = [
        ("support-triage.md", "support-triage", "orders.read tickets.refund=900"),
        ("code-reviewer.md", "code-reviewer", ""),
        ("planner.agent.md", "planner", "issues.write=1800 repo.read"),
        ("release-notes.prompt.md", "release-notes", ""),
        ("skills/pdf-forms/SKILL.md", "pdf-forms", "files.read files.write=600"),
        ("AGENTS.md", "AGENTS", ""),
        ("authz/explorer.toml", "explorer", "ci.logs.read=7200 repo.read"),
        ("windows.md", "Windows Author", "orders.read"),
    ];
    for (path, name, authorizations) in cases {
        let role = load(path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (role.name.as_str(), declared(&role).as_str()),
            (name, authorizations),
            "{path}"
        );
        assert_eq!(role.path, path);
    }
}

#[test]
fn the_description_keeps_its_lines() {
    let role = load("windows.md").unwrap();
    assert_eq!(role.description.as_deref(), Some("Two lines,\nwith a rule below:\n---\n"));
    let folded = load("code-reviewer.md").unwrap().description.unwrap();
    assert!(
        folded.starts_with("Use this agent after a logical chunk of code was written. Examples: <")
    );
}

#[test]
fn the_digest_is_the_one_that_sha256sum_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/prompts/windows.md");
    let output = Command::new("sha256sum").arg(path).output().expect("coreutils are installed");
    let printed = String::from_utf8(output.stdout).unwrap();
    let digest = load("windows.md").unwrap().digest.to_string();
    assert_eq!(printed.split(' ').next(), Some(digest.as_str()));
}

#[test]
fn every_byte_of_prompt_and_sidecar_changes_the_digest() {
    let digest = |prompt: &[u8], beside: Option<&[u8]>| {
        let sidecar = beside.map(|bytes| Sidecar { path: "a.md.authz.yaml", bytes });
        parse(&PromptFile { path: "a.md", bytes: prompt, sidecar }).unwrap().digest
    };
    let none = b"authorizations: []".as_slice();
    let digests = [
        digest(b"x", None),
        digest(b"x ", None),
        digest(b"x", Some(none)),
        digest(b"x ", Some(none)),
        digest(b"x", Some(b"authorizations: [] ")),
    ];
    let mut distinct = digests.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), digests.len());
}

#[test]
fn one_bad_file_leaves_the_others_serving() {
    let bad = PromptFile { path: "bad.md", bytes: b"---\nname: [\n---\n", sidecar: None };
    let roles = collect([load("support-triage.md"), parse(&bad), load("AGENTS.md")]);
    let names: Vec<_> = roles.roles.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["AGENTS", "support-triage"]);
    assert_eq!(roles.problems.len(), 1);
    assert_eq!(roles.problems[0].path, "bad.md");
}

#[test]
fn files_that_claim_the_same_role_are_all_left_out_and_all_reported() {
    let file = |path| parse(&PromptFile { path, bytes: b"---\nname: a\n---\n", sidecar: None });
    let roles = collect([file("x/1.md"), file("x/2.md"), load("AGENTS.md"), file("y/3.md")]);
    let names: Vec<_> = roles.roles.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["AGENTS"]);
    let shown: Vec<_> = roles.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "x/1.md:1:1: role `a` is claimed by `x/2.md` as well, so neither is loaded: rename one",
            "x/2.md:1:1: role `a` is claimed by `x/1.md` as well, so neither is loaded: rename one",
            "y/3.md:1:1: role `a` is claimed by `x/1.md` as well, so neither is loaded: rename one",
        ]
    );
    assert!(matches!(roles.problems[0].fault, PromptFault::RoleClaimedTwice { .. }));
}

/// Bytes that get past the first checks often enough: pieces of real files in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "---",
        "\n",
        "\r\n",
        "\u{feff}",
        "name: a",
        "authorizations:",
        "metadata:",
        "  - orders.read",
        "  claviger/authorizations: ",
        "'[a.b]'",
        "[a, b: {max_ttl: 1h}]",
        "  ",
        "- ",
        "{",
        "}",
        "]",
        ": ",
        "*x",
        "&x ",
        "!t ",
        "<<: ",
        "|",
        ">",
        "\"",
        "'",
        "é",
        "\t",
        "\0",
        "? ",
        "#",
        "%YAML 1.2",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

fn never_panics(bytes: &[u8], beside: Option<&[u8]>) -> Result<(), TestCaseError> {
    for path in ["a.md", "skills/x/SKILL.md", "SKILL.md", "a.toml"] {
        let sidecar = beside.map(|bytes| Sidecar { path: "s.yaml", bytes });
        let Ok(role) = parse(&PromptFile { path, bytes, sidecar }) else { continue };
        let mut digest: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(beside) = beside {
            let beside: [u8; 32] = Sha256::digest(beside).into();
            digest = Sha256::digest([digest, beside].concat()).into();
        }
        prop_assert_eq!(role.digest.bytes(), &digest);
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_what_parses_has_their_digest(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        beside in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
    ) {
        never_panics(&bytes, beside.as_deref())?;
    }

    #[test]
    fn pieces_of_real_files_never_panic_and_what_parses_has_their_digest(
        block in pieces(),
        beside in prop::option::of(pieces()),
    ) {
        never_panics(&block, beside.as_deref())?;
        never_panics(&[b"---\n", block.as_slice(), b"\n---\nbody"].concat(), None)?;
    }
}
