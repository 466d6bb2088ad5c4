//! How much is measured, and where the report goes, as the command line says.

use std::path::PathBuf;
use std::time::Duration;

use claviger_bench::load::Spell;

/// What the command line asks for.
pub struct Plan {
    /// How much is measured.
    pub effort: Effort,
    /// The folder that the report goes to.
    pub out: Option<PathBuf>,
    /// Measures only the parts of these names.
    pub only: Vec<String>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As much as makes the figures steady.
    Full,
    /// As much as shows where they lie.
    Quick,
    /// As much as shows that every part still works.
    Smoke,
}

impl Plan {
    /// What `words` ask for; `None` if they select other tests than this. Cargo passes `--bench`
    /// to a bench and nothing to a test; what else it passes is meant for its own harness.
    pub fn parse(words: &[&str]) -> Option<Self> {
        let mut plan = Self { effort: Effort::Smoke, out: None, only: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--bench" if plan.effort == Effort::Smoke => plan.effort = Effort::Full,
                "--quick" => plan.effort = Effort::Quick,
                "--out" => plan.out = words.next().map(PathBuf::from),
                "--only" => plan.only.extend(words.next().map(|name| (*name).to_owned())),
                "--list" => return None,
                flag if flag.starts_with('-') => {}
                filter if NAME.contains(filter) => {}
                _ => return None,
            }
        }
        Some(plan)
    }

    /// Whether the part of this name is measured.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == part)
    }

    /// Whether the part is measured that takes too long to be measured with the others.
    pub fn names(&self, part: &str) -> bool {
        self.only.iter().any(|name| name == part) || self.effort == Effort::Smoke
    }
}

impl Effort {
    /// How often two sides take turns.
    pub const fn rounds(self) -> usize {
        match self {
            Self::Full => 5,
            Self::Quick => 2,
            Self::Smoke => 1,
        }
    }

    /// How long each turn takes.
    pub const fn spell(self) -> Spell {
        match self {
            Self::Full => spell(500, 3000),
            Self::Quick => spell(200, 1000),
            Self::Smoke => spell(0, 400),
        }
    }

    /// How long each point of a curve takes: it shows a shape, and no goal hangs on it.
    pub const fn glance(self) -> Spell {
        match self {
            Self::Full => spell(300, 2000),
            Self::Quick => spell(100, 400),
            Self::Smoke => spell(0, 300),
        }
    }

    /// The points of a curve, of which the second only makes it smoother.
    pub fn points(self, all: &[usize]) -> impl Iterator<Item = &usize> {
        let skipped = if self == Self::Full { None } else { Some(1) };
        all.iter().enumerate().filter_map(move |(at, point)| (Some(at) != skipped).then_some(point))
    }

    /// How long a stretch of the soak takes.
    pub const fn stretch(self) -> Duration {
        match self {
            Self::Full | Self::Quick => Duration::from_secs(10),
            Self::Smoke => Duration::from_millis(300),
        }
    }

    /// Of a number of things, as many as this effort allows.
    pub const fn of(self, full: usize, quick: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Smoke => 20,
        }
    }
}

const fn spell(warm_ms: u64, counted_ms: u64) -> Spell {
    Spell { warm: Duration::from_millis(warm_ms), counted: Duration::from_millis(counted_ms) }
}

/// What a filter of tests must be a part of.
const NAME: &str = "compare";
