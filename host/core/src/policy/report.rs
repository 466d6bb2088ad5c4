//! Collects problems with their places in policy files. Knows nothing of what is wrong with them.

use std::fmt;

use miette::Diagnostic;

use super::{PolicyFile, PolicyProblem};

/// A byte in a policy file.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    file: &'a PolicyFile,
    offset: usize,
}

impl<'a> Place<'a> {
    pub(super) const fn start_of(file: &'a PolicyFile) -> Self {
        Self { file, offset: 0 }
    }

    /// The same file at `offset`; here, if that is not known.
    pub(super) fn at(self, offset: Option<usize>) -> Self {
        Self { offset: offset.unwrap_or(self.offset), ..self }
    }

    /// Where the diagnostic points; here, if it points nowhere.
    pub(super) fn of_diagnostic(self, diagnostic: &dyn Diagnostic) -> Self {
        self.at(diagnostic.labels().and_then(|mut labels| labels.next()).map(|l| l.offset()))
    }

    fn line_and_column(&self) -> (usize, usize) {
        let before = self.file.text.get(..self.offset).unwrap_or(&self.file.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(f, "{}:{line}:{column}", self.file.path)
    }
}

/// The problems found so far.
#[derive(Default)]
pub(super) struct Report {
    problems: Vec<PolicyProblem>,
}

impl Report {
    pub(super) fn add(&mut self, place: &Place<'_>, message: String) {
        let message = match self.problems.len() {
            ..PROBLEMS_MAX => message,
            PROBLEMS_MAX => format!("and more: only the first {PROBLEMS_MAX} are shown"),
            _ => return,
        };
        let (line, column) = place.line_and_column();
        let path = place.file.path.clone();
        self.problems.push(PolicyProblem { path, line, column, message });
    }

    pub(super) fn into_problems(self) -> Vec<PolicyProblem> {
        self.problems
    }
}

/// Nobody reads more at once, and finding the line of each takes time in a large file.
const PROBLEMS_MAX: usize = 200;
