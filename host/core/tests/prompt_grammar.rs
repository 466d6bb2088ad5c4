//! The grammar of prompt files and sidecars: what is taken, what is refused, and at which place.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use claviger_core::prompt::{
    AUTHORIZATIONS_MAX, PROMPT_BYTES_MAX, PromptError, PromptFile, Role, SIDECAR_BYTES_MAX,
    Sidecar, parse,
};

const NO_SIDECAR: Option<&str> = None;

fn read(path: &str, prompt: &str, sidecar: Option<&str>) -> Result<Role, PromptError> {
    let sidecar = sidecar.map(|text| Sidecar { path: "p.authz.yaml", bytes: text.as_bytes() });
    parse(&PromptFile { path, bytes: prompt.as_bytes(), sidecar })
}

fn accepts(prompt: &str, sidecar: Option<&str>, expected: &[&str]) {
    let role = read("p.md", prompt, sidecar).unwrap_or_else(|e| panic!("{prompt:?}: {e}"));
    let declared: Vec<_> = role.authorizations.keys().map(|name| name.as_str()).collect();
    assert_eq!(declared, expected, "{prompt:?}");
}

/// `at` is `path:line:column`, `phrase` a part of the sentence that follows.
fn refuses(prompt: &str, sidecar: Option<&str>, at: &str, phrase: &str) {
    let shown = match read("p.md", prompt, sidecar) {
        Ok(role) => panic!("accepted {prompt:?} {sidecar:?} as {role:?}"),
        Err(error) => error.to_string(),
    };
    let sentence = shown.strip_prefix(&format!("{at}: "));
    assert!(sentence.is_some_and(|s| s.contains(phrase)), "{prompt:?} {sidecar:?}: {shown}");
}

#[test]
fn takes_front_matter_however_it_is_written() {
    for (prompt, expected) in [
        ("", &[][..]),
        ("No front matter.\n---\nauthorizations: [a]\n---\n", &[]),
        ("\n---\nauthorizations: [a]\n---\n", &[]),
        ("----\nauthorizations: [a]\n----\n", &[]),
        ("---\n---\n", &[]),
        ("---\n# a comment\n---\n", &[]),
        ("---\nauthorizations: []\n---", &[]),
        ("---\nauthorizations: [b.c, a.b]\n---", &["a.b", "b.c"]),
        ("--- \t\nauthorizations:\n- a\n---  \nbody\n---\n", &["a"]),
        ("---\r\nauthorizations:\r\n  - a\r\n---\r\n", &["a"]),
        ("\u{feff}---\nauthorizations: [a]\n---\n", &["a"]),
        ("---\nd: |\n  text\n  ---\n  more\nauthorizations: [a]\n---\n", &["a"]),
        (
            "---\nauthorizations:\n  - \"a\"\n  - 'b'\n  - c:\n      max_ttl: 1h 30m\n---\n",
            &["a", "b", "c"],
        ),
        (
            "---\nauthorizations: [a: {max_ttl: 1s}, {b: {max_ttl: 12h}}, c: {}]\n---\n",
            &["a", "b", "c"],
        ),
        ("---\nmetadata: text of another tool\n---\n", &[]),
        ("---\nmetadata: { claviger/authorizations: '[a, b: {max_ttl: 1h}]' }\n---\n", &["a", "b"]),
        (
            "---\nmetadata:\n  claviger/authorizations: '[\"a\", {\"b\": {\"max_ttl\": \"1h\"}}]'\n---\n",
            &["a", "b"],
        ),
        ("---\nothers: { no: [1.0, ~, true, 0x1f], \"quoted \\n\": 'x', 5: {} }\n---\n", &[]),
    ] {
        accepts(prompt, NO_SIDECAR, expected);
    }
}

#[test]
fn takes_a_sidecar_for_a_file_without_front_matter_and_with() {
    for sidecar in [
        "authorizations: [a]",
        "\u{feff}# why\nauthorizations:\r\n  - a\r\n",
        "---\nauthorizations:\n- a\n",
    ] {
        accepts("# Guidelines\n", Some(sidecar), &["a"]);
        accepts("---\nname: x\n---\n", Some(sidecar), &["a"]);
    }
    accepts("", Some("authorizations: []"), &[]);
}

#[test]
fn refuses_yaml_that_two_readers_could_read_differently() {
    for (prompt, at, phrase) in [
        ("---\na: 1\nb: 2\na: 3\n---\n", "p.md:4:1", "key `a` stands here again, after 2:1"),
        ("---\nhooks: { x: 1, x: 2 }\n---\n", "p.md:2:16", "key `x` stands here again, after 2:10"),
        ("---\na: &x 1\n---\n", "p.md:2:4", "an anchor"),
        ("---\na: &x\n  b: 1\n---\n", "p.md:2:4", "an anchor"),
        ("---\nauthorizations: *x\n---\n", "p.md:2:17", "an alias"),
        ("---\nname: x\nglobs: *.ts\n---\n", "p.md:3:8", "an alias"),
        ("---\na: !secret x\n---\n", "p.md:2:4", "a tag"),
        ("---\na: !!str 1\n---\n", "p.md:2:4", "a tag"),
        ("---\na: !!map\n  b: 1\n---\n", "p.md:2:4", "a tag"),
        ("---\na:\n  <<: { b: 1 }\n---\n", "p.md:3:3", "a merge key"),
        ("---\n%YAML 1.2\n---\n", "p.md:2:1", "not readable as YAML"),
        ("---\n? [a]\n: b\n---\n", "p.md:2:3", "a key has to be text"),
        ("---\na: 1\n--- b\n---\n", "p.md:3:1", "second YAML document"),
        ("---\nname: a\ndescription: Use when: asked\n---\n", "p.md:3:22", "not readable as YAML"),
        ("---\nname: a\n\tb: 1\n---\n", "p.md:2:7", "not readable as YAML"),
        ("---\r\nname: a\r\né: é\r\né: 1\r\n---\r\n", "p.md:4:1", "key `é`"),
        ("---\né: { é: 1, é: 2 }\n---\n", "p.md:2:12", "key `é`"),
        ("---\nname: a\n", "p.md:1:1", "never ends"),
        ("---", "p.md:1:1", "never ends"),
        ("---\njust text\n---\n", "p.md:2:1", "the front matter has to be a mapping"),
        ("---\n- a\n---\n", "p.md:2:1", "the front matter has to be a mapping"),
    ] {
        refuses(prompt, NO_SIDECAR, at, phrase);
    }
}

#[test]
fn refuses_lists_that_do_not_say_clearly_what_is_asked_for() {
    // Each case stands as the value of `authorizations:` on line 2.
    for (list, at, phrase) in [
        ("", "2:15", "has to be a list"),
        (" a.b", "2:17", "has to be a list"),
        (" { a: {} }", "2:17", "has to be a list"),
        (" [Orders.Read]", "2:18", "`Orders.Read` is not a valid authorization name: it takes"),
        (" [\"a\\nb\"]", "2:18", "`a\\nb` is not a valid"),
        (" ['']", "2:18", "`` is not a valid authorization name"),
        ("\n  - a\n  -\n", "4:4", "`` is not a valid authorization name"),
        (" [[a]]", "2:18", "each item has to be an authorization"),
        (" [{}]", "2:18", "each item has to be an authorization"),
        (" [a, b, a]", "2:24", "`a` is declared again, after 2:18"),
        ("\n  - a\n  - a: { max_ttl: 1h }\n", "4:5", "`a` is declared again, after 3:5"),
        ("\n  - a:\n", "3:6", "leave out the colon"),
        ("\n  - a: 15m\n", "3:8", "has to be a mapping"),
        ("\n  - a: {}\n    max_ttl: 15m\n", "4:5", "an item names one authorization"),
        (
            "\n  - a: { ttl: 15m }\n",
            "3:10",
            "`ttl` is not known here: an authorization has only the limit `max_ttl`",
        ),
        ("\n  - a: { max_ttl: 1h, x: 1, b: 2 }\n", "3:23", "`x` is not known"),
        ("\n  - a: { max_ttl: [1h] }\n", "3:19", "`max_ttl` has to be a span of time"),
        ("\n  - a: { max_ttl: 15 }\n", "3:19", "`15` is not a `max_ttl`: write from 1s to 12h"),
        ("\n  - a: { max_ttl: 999ms }\n", "3:19", "`999ms` is not a `max_ttl`"),
        ("\n  - a: { max_ttl: 12h 1s }\n", "3:19", "`12h 1s` is not a `max_ttl`"),
        ("\n  - a: { max_ttl: -1h }\n", "3:19", "`-1h` is not a `max_ttl`"),
    ] {
        let prompt = format!("---\nauthorizations:{list}\n---\n");
        refuses(&prompt, NO_SIDECAR, &format!("p.md:{at}"), phrase);
    }
}

#[test]
fn refuses_a_metadata_string_at_the_place_where_it_begins() {
    for (value, phrase) in [
        ("[a.b]", "has to be a list inside a string"),
        ("''", "has to be a list"),
        ("'a.b'", "has to be a list"),
        ("'[a, a]'", "`a` is declared again"),
        ("'[*x]'", "an alias"),
        ("'[a: {ttl: 1h}]'", "`ttl` is not known"),
        ("'[a'", "not readable as YAML"),
        ("'/etc/authz.yaml'", "has to be a list"),
    ] {
        let prompt = format!("---\nmetadata:\n  claviger/authorizations: {value}\n---\n");
        refuses(&prompt, NO_SIDECAR, "p.md:3:28", phrase);
    }
}

#[test]
fn refuses_a_sidecar_that_says_anything_else() {
    for (sidecar, at, phrase) in [
        ("", "1:1", "a mapping with the one key `authorizations`"),
        ("# nothing\n", "1:1", "a mapping with the one key `authorizations`"),
        ("{}", "1:1", "a mapping with the one key `authorizations`"),
        ("[a]", "1:1", "a mapping with the one key `authorizations`"),
        ("name: x\nauthorizations: []\n", "1:1", "`name` is not known here: a sidecar has only"),
        ("authorizations: []\nversion: 1\n", "2:1", "`version` is not known here"),
        ("authorizations: []\nauthorizations: []\n", "2:1", "stands here again"),
        ("authorizations: []\n---\nauthorizations: []\n", "2:1", "second YAML document"),
        ("\u{feff}authorizations: [&a a]\n", "1:18", "an anchor"),
        ("authorizations: [A]\n", "1:18", "`A` is not a valid authorization name"),
    ] {
        refuses("", Some(sidecar), &format!("p.authz.yaml:{at}"), phrase);
    }
}

#[test]
fn refuses_two_places_and_names_both() {
    let front = "---\nname: x\nauthorizations: []\n---\n";
    let metadata = "---\nmetadata:\n  claviger/authorizations: '[]'\n---\n";
    let both = "---\nmetadata: { claviger/authorizations: '[]' }\nauthorizations: []\n---\n";
    let sidecar = Some("# why\nauthorizations: []\n");
    refuses(front, sidecar, "p.md:3:1", "here and at p.authz.yaml:2:1 as well");
    refuses(metadata, sidecar, "p.md:3:3", "here and at p.authz.yaml:2:1 as well");
    refuses(both, NO_SIDECAR, "p.md:2:13", "here and at p.md:3:1 as well");
}

#[test]
fn refuses_more_than_the_bounds() {
    let items = |n: usize| (0..n).map(|i| format!("- a{i}\n")).collect::<String>();
    let prompt = |n| format!("---\nauthorizations:\n{}---\n", items(n));
    assert!(read("p.md", &prompt(AUTHORIZATIONS_MAX), None).is_ok());
    refuses(&prompt(AUTHORIZATIONS_MAX + 1), None, "p.md:259:3", "more than 256 authorizations");

    let body = "x".repeat(PROMPT_BYTES_MAX);
    assert!(read("p.md", &body, None).is_ok());
    refuses(&format!("{body}x"), None, "p.md:1:1", "has 262145 bytes: at most 262144 are read");

    let padded = format!("authorizations: []{}", " ".repeat(SIDECAR_BYTES_MAX - 18));
    assert!(read("p.md", "", Some(&padded)).is_ok());
    refuses("", Some(&format!("{padded} ")), "p.authz.yaml:1:1", "at most 65536 are read");

    let deep = format!("---\na: {}{}\n---\n", "[".repeat(1000), "]".repeat(1000));
    assert!(read("p.md", &deep, None).is_err());
}

#[test]
fn refuses_bytes_that_are_not_utf8_where_they_stand() {
    let check = |bytes: &[u8], sidecar: Option<&[u8]>, expected: &str| {
        let sidecar = sidecar.map(|bytes| Sidecar { path: "s.yaml", bytes });
        let error = parse(&PromptFile { path: "p.md", bytes, sidecar }).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{expected}: this byte is not UTF-8: save the file as UTF-8")
        );
    };
    check(b"---\nname: a\n---\nbody\n\xc3\xa9\xff\n", None, "p.md:5:2");
    check(b"", Some(b"authorizations: [\xff]"), "s.yaml:1:18");
}

#[test]
fn names_the_role_by_front_matter_then_by_its_file() {
    let front = "---\nname: Code Reviewer\n---\n";
    for (path, prompt, name) in [
        ("agents/x.md", front, "Code Reviewer"),
        ("x/SKILL.md", front, "Code Reviewer"),
        ("agents/planner.agent.md", "", "planner"),
        ("prompts/notes.prompt.md", "", "notes"),
        ("a/b/triage.md", "", "triage"),
        ("triage.v2.md", "", "triage.v2"),
        ("skills/pdf-forms/SKILL.md", "", "pdf-forms"),
        ("agents/explorer.toml", front, "explorer"),
        ("agents/plain", front, "plain"),
        ("agents/UPPER.MD", front, "Code Reviewer"),
    ] {
        let role = read(path, prompt, None).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(role.name.as_str(), name, "{path}");
    }
}

#[test]
fn refuses_a_name_that_is_none_and_says_what_is() {
    for (path, prompt, expected) in [
        (
            "p.md",
            "---\nname: a/b\n---\n",
            "p.md:2:7: `a/b` is not a valid role name: it takes 1 to 64",
        ),
        ("p.md", "---\nname:\n---\n", "p.md:2:5: `` is not a valid role name"),
        ("p.md", "---\nname: [a]\n---\n", "p.md:2:7: `name` has to be text"),
        ("p.md", "---\nname: \"a\\nb.md:1:1: x\"\n---\n", "p.md:2:7: `a\\nb.md:1:1: x` is not"),
        ("a,b.md", "", "a,b.md:1:1: `a,b` is not a valid role name"),
        ("SKILL.md", "", "SKILL.md:1:1: neither front matter nor path name the role"),
        (".md", "", ".md:1:1: neither front matter nor path name the role"),
    ] {
        let error = read(path, prompt, None).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
