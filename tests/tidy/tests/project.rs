//! Holds the project to the part of STYLE.md that a machine can check.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use std::path::Path;

#[test]
fn the_project_is_as_its_style_guide_wants_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let findings = claviger_tidy::check_project(&root).expect("the project can be read");
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}
