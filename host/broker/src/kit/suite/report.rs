//! What the suite found, case by case, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

/// The outcome of every case.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The plugin's id.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The cases in the order in which they ran.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Serialize)]
pub struct Case {
    /// A stable name.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen, or why nothing was.
    pub sentence: String,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As the contract wants it.
    Ok,
    /// Otherwise.
    Failed,
    /// It cannot be tested here.
    Skipped,
}

/// What a case comes to: a sentence about what was seen, or about what is wrong.
pub type Verdict = Result<Passed, String>;

/// A case that did not fail.
pub enum Passed {
    /// It was tested.
    Ok(String),
    /// It cannot be tested here, and why.
    Skipped(String),
}

impl Report {
    /// Adds a case.
    pub fn add(&mut self, name: &'static str, verdict: Verdict) {
        let (outcome, sentence) = match verdict {
            Ok(Passed::Ok(sentence)) => (Outcome::Ok, sentence),
            Ok(Passed::Skipped(sentence)) => (Outcome::Skipped, sentence),
            Err(sentence) => (Outcome::Failed, sentence),
        };
        self.cases.push(Case { name, outcome, sentence });
    }

    /// Whether any case failed.
    pub fn failed(&self) -> bool {
        self.count(Outcome::Failed) > 0
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// As lines.
    pub fn table(&self) -> String {
        let mut text = format!("{} {}\n", self.plugin, self.version);
        for case in &self.cases {
            let word = match case.outcome {
                Outcome::Ok => "ok  ",
                Outcome::Failed => "FAIL",
                Outcome::Skipped => "skip",
            };
            let _always = writeln!(text, "{word}  {:<22}  {}", case.name, case.sentence);
        }
        let counts = [Outcome::Ok, Outcome::Failed, Outcome::Skipped].map(|o| self.count(o));
        let [passed, failed, skipped] = counts;
        let _always = writeln!(text, "{passed} ok, {failed} failed, {skipped} skipped");
        text
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.cases.iter().filter(|case| case.outcome == outcome).count()
    }
}
