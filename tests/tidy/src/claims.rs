//! What SECURITY.md and ARCHITECTURE.md claim to be tested: every test that they name exists. Runs
//! none of them.

use std::collections::BTreeSet;

use crate::Finding;
use crate::source::Source;
use crate::tree::Tree;

/// The claims that no test bears out.
pub fn check(tree: &Tree, sources: &[Source]) -> Vec<Finding> {
    let tests: BTreeSet<_> = sources.iter().flat_map(tests).collect();
    let mut findings = Vec::new();
    for (page, heading) in PAGES {
        let Some(page) = tree.at(page) else { continue };
        let lines = (1..).zip(page.text.lines()).skip_while(|(_, line)| !line.starts_with(heading));
        let rows = lines.filter(|(_, line)| line.starts_with("| "));
        let claims = rows.flat_map(|(at, line)| claims(line).map(move |name| (at, name)));
        findings.extend(claims.filter(|(_, name)| !tests.contains(*name)).map(|(line, name)| {
            let sentence = format!(
                "there is no test `{name}`, so the claim is worth nothing: name the test that \
                 replaced it, or write it"
            );
            Finding::new(&page.path, line, sentence)
        }));
    }
    findings
}

/// The names in the last column of a table of three.
fn claims(row: &str) -> impl Iterator<Item = &str> {
    let columns: Vec<_> = row.trim_matches('|').split(" | ").collect();
    let last = if columns.len() == 3 { columns.last().copied() } else { None };
    let quoted = last.unwrap_or_default().split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains('_') && !name.contains(['/', ' ', '.']))
}

/// The functions marked as tests, by any attribute whose last word is `test`.
fn tests(source: &Source) -> Vec<String> {
    let mut tests = Vec::new();
    let mut marked = false;
    for line in source.text.lines().map(str::trim) {
        let signature = line.trim_start_matches("async ").strip_prefix("fn ");
        match signature.and_then(|rest| rest.split(['(', '<']).next()) {
            Some(name) if marked => {
                tests.push(name.to_owned());
                marked = false;
            }
            Some(_) => marked = false,
            None => marked |= line == "#[test]" || line.starts_with("#[tokio::test"),
        }
    }
    tests
}

/// The pages that name tests, and the heading from which on they do.
const PAGES: [(&str, &str); 2] = [("SECURITY.md", ""), ("ARCHITECTURE.md", "## What must always")];
