//! The part of STYLE.md that a machine can check. Reads the project's files; builds and runs
//! nothing, so that it takes a second. What clippy checks is not repeated here.

pub mod claims;
pub mod contracts;
pub mod leftovers;
pub mod manifests;
pub mod places;
pub mod shape;
pub mod source;
pub mod tree;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::source::Source;
use crate::tree::Tree;

/// One thing that is not as STYLE.md wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the project.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was found, why it matters, what to do.
    pub sentence: String,
}

impl Finding {
    /// A finding at `line` of `path`.
    pub fn new(path: &str, line: usize, sentence: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, sentence: sentence.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.sentence)
    }
}

/// Everything that is wrong in the project at `root`, in the order of files and lines.
pub fn check_project(root: &Path) -> Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for file in tree.with_extension("rs") {
        match Source::parse(&file.path, &file.text) {
            Ok(source) => sources.push(source),
            Err(finding) => findings.push(finding),
        }
    }
    for source in &sources {
        findings.extend(check_source(source));
    }
    findings.extend(places::one_bindgen(&sources));
    findings.extend(manifests::check(&tree));
    findings.extend(contracts::check(&tree));
    findings.extend(claims::check(&tree, &sources));
    findings.sort();
    Ok(findings)
}

/// Everything that is wrong in one Rust file.
pub fn check_source(source: &Source) -> Vec<Finding> {
    [shape::check(source), places::check(source), leftovers::check(source)].concat()
}
