//! What was meant to be temporary: unfinished code, silenced tests, waiting by the clock.

use crate::Finding;
use crate::source::Source;

/// What was left over in `source`.
pub fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (tokens, sentence) in CODE {
        findings.extend(
            source.runs(tokens).map(|(line, _)| Finding::new(&source.path, line, *sentence)),
        );
    }
    for (line, text) in (1..).zip(source.text.lines()) {
        let Some((_, comment)) = text.split_once("//") else { continue };
        let mut words = comment.split(|c: char| !c.is_alphanumeric());
        if words.any(|word| NOTES.contains(&word)) {
            findings.push(Finding::new(&source.path, line, NOTE));
        }
    }
    findings.extend(sleeps(source));
    findings
}

/// Waiting by the clock in test code.
fn sleeps(source: &Source) -> Vec<Finding> {
    if SLEEP_FILES.iter().any(|path| source.path.starts_with(path)) {
        return Vec::new();
    }
    SLEEPS
        .iter()
        .flat_map(|tokens| source.runs(tokens).map(|(line, _)| line).collect::<Vec<_>>())
        .filter(|line| source.is_test(*line))
        .map(|line| Finding::new(&source.path, line, SLEEP))
        .collect()
}

const CODE: &[(&[&str], &str)] = &[
    (&["todo", "!"], "`todo!` panics in front of a user: finish it, or leave the feature out"),
    (
        &["unimplemented", "!"],
        "`unimplemented!` panics in front of a user: finish it, or leave the feature out",
    ),
    (&["dbg", "!"], "`dbg!` prints whatever it is given, secrets too: take it out"),
    (
        &["#", "[", "ignore"],
        "an ignored test guards nothing and looks as if it did: mend it or delete it",
    ),
    (
        &["allow", "(", "dead_code"],
        "dead code is kept alive: delete it, git remembers (STYLE.md, rule 9)",
    ),
];

const SLEEPS: [&[&str]; 4] = [
    &["thread", ":", ":", "sleep"],
    &["time", ":", ":", "sleep"],
    &["time", ":", ":", "sleep_until"],
    &["time", ":", ":", "{", "sleep"],
];

/// Test code that may wait by the clock.
///
/// `tests/src/poll.rs` asks a real server again until something is true or a generous limit has
/// passed: other processes cannot be told to use a simulated clock. Hostile plugins may sleep,
/// since that is what the sandbox must survive.
const SLEEP_FILES: [&str; 2] = ["tests/src/poll.rs", "tests/hostile/"];

const SLEEP: &str = "a test sleeps, so that it is slow on a fast machine and fails on a slow one: \
                     use the simulated clock, or wait for the event (tests/src/poll.rs)";

/// Written in halves, so that this file does not find itself.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

const NOTE: &str = "a note to oneself that nobody else will act on: do it now, or write it into \
                    the list of open points with its consequence";
