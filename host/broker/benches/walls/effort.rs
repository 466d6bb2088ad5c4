//! How much is measured, and where the report goes, as the command line says.

use std::path::PathBuf;

/// What the command line asks for.
pub struct Plan {
    /// How much is measured.
    pub effort: Effort,
    /// Where the report goes, besides the terminal.
    pub out: Option<PathBuf>,
    /// Measures only the group `call`: what another bench takes over.
    pub only_call: Option<()>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// As much as makes the figures steady: some minutes.
    Full,
    /// As much as shows that every part still works.
    Smoke,
}

/// How often a case is run: rounds of samples, the cases taking turns.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// How many rounds.
    pub rounds: usize,
    /// How many samples in a row each case takes in a round.
    pub samples: usize,
}

impl Plan {
    /// What `words` ask for; `None` if they select other tests than this. Cargo passes `--bench`
    /// to a bench and nothing to a test; what else it passes is meant for its own harness.
    pub fn parse(words: &[&str]) -> Option<Self> {
        let mut plan = Self { effort: Effort::Smoke, out: None, only_call: None };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--bench" => plan.effort = Effort::Full,
                "--only-call" => plan.only_call = Some(()),
                "--out" => plan.out = words.next().map(PathBuf::from),
                "--list" => return None,
                flag if flag.starts_with('-') => {}
                filter if NAME.contains(filter) => {}
                _ => return None,
            }
        }
        Some(plan)
    }
}

impl Effort {
    /// As the report names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Smoke => "smoke",
        }
    }

    /// `turns`, or a moment's worth of them.
    pub fn turns(self, turns: Turns) -> Turns {
        match self {
            Self::Full => turns,
            Self::Smoke => Turns { rounds: 2, samples: 2 },
        }
    }

    /// `count` times, or once.
    pub const fn times(self, count: usize) -> usize {
        match self {
            Self::Full => count,
            Self::Smoke => 1,
        }
    }

    /// How many calls are held alive at once.
    pub const fn held(self, count: usize) -> usize {
        match self {
            Self::Full => count,
            Self::Smoke => 8,
        }
    }

    /// Whether the plugin in JavaScript is measured: compiling it takes minutes in a debug build.
    pub const fn javascript(self) -> Option<()> {
        match self {
            Self::Full => Some(()),
            Self::Smoke => None,
        }
    }
}

/// What a filter of tests must be a part of.
const NAME: &str = "walls";
