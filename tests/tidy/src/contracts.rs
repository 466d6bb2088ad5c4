//! What others build against is documented: WIT items, gRPC calls, decision notes.

use crate::Finding;
use crate::tree::{TextFile, Tree};

/// What is undocumented or out of order.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let wit = tree.with_extension("wit").filter(|file| file.path.starts_with("wit/"));
    let mut findings: Vec<_> = wit.flat_map(wit_items).collect();
    findings.extend(tree.with_extension("proto").flat_map(proto_items));
    findings.extend(tree.at(AGENT_CONTRACT).into_iter().flat_map(said_by_agents));
    let notes: Vec<_> =
        tree.with_extension("md").filter_map(|file| file.path.strip_prefix(DECISIONS)).collect();
    findings.extend(decisions(&notes));
    findings
}

/// WIT items without a doc comment.
pub fn wit_items(file: &TextFile) -> Vec<Finding> {
    undocumented(file, "///", |line| {
        let word = line.split_whitespace().next().unwrap_or_default();
        let named = ["package", "interface", "world", "record", "enum", "variant", "flags"];
        let function = line.split_once(':').is_some_and(|(_, kind)| {
            let kind = kind.trim_start();
            ["func(", "static func(", "async func("].iter().any(|start| kind.starts_with(start))
        });
        named.contains(&word) || ["resource", "type"].contains(&word) || function
    })
}

/// gRPC services, calls and messages without a comment. A request or a response is explained by
/// its call.
pub fn proto_items(file: &TextFile) -> Vec<Finding> {
    undocumented(file, "//", |line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let explained = name.ends_with("Request")
            || name.ends_with("Response")
            || SELF_EVIDENT_MESSAGES.contains(&name);
        matches!(word, "service" | "rpc") || (word == "message" && !explained)
    })
}

/// Fields of agents' requests that supply what the broker reads itself, or that are free text and
/// do not say that they are only claimed.
pub fn said_by_agents(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_request = false;
    for (number, line) in (1..).zip(file.text.lines()) {
        let line = line.trim();
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["message", name, ..] => in_request = name.ends_with("Request"),
            ["//", ..] => {}
            [.., _, name, "=", _] if in_request => {
                findings.extend(said(name).map(|what| Finding::new(&file.path, number, what)));
            }
            _ => {}
        }
    }
    findings
}

/// What is wrong with a field of that name.
fn said(field: &str) -> Option<String> {
    let part = |parts: &[&str]| field.split('_').any(|word| parts.contains(&word));
    if part(&["authorization", "authorizations", "policy", "policies", "prompt", "tier"]) {
        return Some(format!(
            "an agent supplies `{field}`, so that it could widen its own reach: the broker reads \
             it from the reviewed files itself (invariant 5)"
        ));
    }
    (part(&["claim", "note", "purpose", "reason", "ticket"]) && !field.starts_with("claimed_"))
        .then(|| {
            format!(
                "`{field}` is what an agent says about itself, and somebody will take it for \
                 proven: call it `claimed_{field}`, record it and let it decide nothing (invariant 5)"
            )
        })
}

/// Decision notes that are misnamed or leave gaps. Takes the file names.
pub fn decisions(names: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut numbers = Vec::new();
    for name in names {
        let path = format!("{DECISIONS}{name}");
        let number = name.split_once('-').map(|(digits, _)| digits);
        match number
            .filter(|digits| digits.len() == 4)
            .and_then(|digits| digits.parse::<usize>().ok())
        {
            Some(number) => numbers.push((number, path)),
            None => findings.push(Finding::new(&path, 1, NOTE_NAME)),
        }
    }
    numbers.sort();
    for (expected, (number, path)) in (1_usize..).zip(numbers) {
        if number != expected {
            let sentence = format!(
                "decision {number} stands where {expected} is due, so that readers look for a \
                 note that does not exist or find two: number the notes without gaps"
            );
            findings.push(Finding::new(&path, 1, sentence));
            break;
        }
    }
    findings
}

fn undocumented(file: &TextFile, marker: &str, is_item: fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = "";
    for (number, line) in (1..).zip(file.text.lines()) {
        let line = line.trim();
        if is_item(line) && !before.starts_with(marker) {
            let sentence = format!(
                "`{}` has no comment, and others build against it without seeing our code: say \
                 what it means and what its limits are",
                line.trim_end_matches(" {")
            );
            findings.push(Finding::new(&file.path, number, sentence));
        }
        // An attribute such as `@since` may stand between the comment and its item.
        if !line.starts_with('@') {
            before = line;
        }
    }
    findings
}

/// What agents send, and what they get.
const AGENT_CONTRACT: &str = "proto/claviger/v1/agent.proto";

const DECISIONS: &str = "docs/decisions/";

const NOTE_NAME: &str = "a decision note is called `NNNN-title.md`, so that notes sort in the \
                         order in which they were taken: rename it";

/// Explained by the one field that carries them, in `ListGrantsResponse`, `Credential` and
/// `QueryLeases`.
const SELF_EVIDENT_MESSAGES: [&str; 3] = ["Grant", "Field", "LeaseRow"];
