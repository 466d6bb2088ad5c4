//! What one run of the benches found, as it stands in `report.json`. Neither measures nor draws.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// One run of the benches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Few rounds, to see that the benches work: not to be quoted.
    pub quick: bool,
    /// When the run ended, as a person reads it.
    pub taken_at: String,
    /// What it ran on.
    pub machine: Machine,
    /// What was measured, by name, in which version.
    pub versions: BTreeMap<String, String>,
    /// The figures that have a goal, in the order of the page.
    pub ratios: Vec<Ratio>,
    /// Throughput against concurrency.
    pub curves: Vec<Curve>,
    /// How long single requests took.
    pub latencies: Vec<Latency>,
    /// Where the time of one request goes, in the order in which it goes there.
    pub stages: Vec<Stage>,
    /// What costs more as something grows.
    pub growths: Vec<Growth>,
    /// What a reader must know to judge the figures, one sentence or more each.
    pub notes: Vec<String>,
}

/// The machine a run took place on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub cpu: String,
    /// How many threads it runs at once.
    pub cores: usize,
    /// Its memory.
    pub memory_mib: u64,
    /// The kernel and its version.
    pub kernel: String,
    /// What the databases wrote to.
    pub disk: String,
}

/// One figure, measured in several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The round in the middle.
    #[serde(deserialize_with = "figure")]
    pub median: f64,
    /// The lowest round.
    #[serde(deserialize_with = "figure")]
    pub min: f64,
    /// The highest round.
    #[serde(deserialize_with = "figure")]
    pub max: f64,
}

/// One of the two things a ratio compares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What was measured.
    pub what: String,
    /// The unit of the figure: `/s`, `µs`, `MiB`, …
    pub unit: String,
    /// The figure.
    pub measured: Spread,
}

/// One figure that has a goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Its name in programs; never changes.
    pub key: String,
    /// Its name for people.
    pub what: String,
    /// Empty for a ratio, otherwise the unit of `value` and `goal`: `µs`, `s`.
    pub unit: String,
    /// The figure.
    #[serde(deserialize_with = "figure")]
    pub value: f64,
    /// What it should reach, or not exceed.
    #[serde(deserialize_with = "figure")]
    pub goal: f64,
    /// Which of the two.
    pub better: Better,
    /// Whether it does.
    pub met: bool,
    /// What Claviger needed.
    pub ours: Side,
    /// What it is compared with, unless the goal is a plain figure.
    pub theirs: Option<Side>,
    /// How many rounds both sides were measured.
    pub rounds: usize,
}

impl Spread {
    /// Of these rounds; not a number where there are none.
    pub fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let (middle, last) = (sorted.len() / 2, sorted.len().wrapping_sub(1));
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
        } else {
            at(middle)
        };
        Self { median, min: at(0), max: at(last) }
    }
}

impl std::fmt::Display for Ratio {
    /// On one line, for a terminal.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, unit, goal, ours, theirs, .. } = self;
        let least = if self.better == Better::More { "at least" } else { "at most" };
        let met = if self.met { "met" } else { "missed" };
        write!(f, "{key:26} {value:8.3} {unit:2} {met:6} (goal: {least} {goal}): ")?;
        write!(f, "{} {:.1} {}", ours.what, ours.measured.median, ours.unit)?;
        match theirs {
            Some(side) => write!(f, ", {} {:.1} {}", side.what, side.measured.median, side.unit),
            None => Ok(()),
        }
    }
}

/// The direction in which a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The goal is a least figure.
    More,
    /// The goal is a most figure.
    Less,
}

/// The throughput of one side at one workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What was asked for.
    pub workload: String,
    /// Who was asked. Starts with `Claviger` where it is ours.
    pub side: String,
    /// One point for every number of clients.
    pub points: Vec<Point>,
}

/// What so many clients got done at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// How many asked at once.
    pub clients: usize,
    /// What they got done in a second.
    pub per_sec: Spread,
    /// What half of the requests took at most.
    #[serde(deserialize_with = "figure")]
    pub p50_us: f64,
    /// What 99 of 100 requests took at most.
    #[serde(deserialize_with = "figure")]
    pub p99_us: f64,
}

/// How long the requests of one side took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// What was asked for.
    pub workload: String,
    /// Who was asked. Starts with `Claviger` where it is ours.
    pub side: String,
    /// How hard: `1 client`, `half of the most it can do`.
    pub load: String,
    /// A quantile from 0 to 1, and what that share of the requests took at most, in µs.
    #[serde(deserialize_with = "figures")]
    pub quantiles: Vec<(f64, f64)>,
}

/// One part of one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What happens in it.
    pub name: String,
    /// What it takes on average.
    #[serde(deserialize_with = "figure")]
    pub mean_us: f64,
}

/// What something costs while something else grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// What grows: `policies`.
    pub of: String,
    /// What is measured meanwhile: `one decision`.
    pub measure: String,
    /// The unit of what is measured.
    pub unit: String,
    /// How many there are, and what it costs then.
    #[serde(deserialize_with = "figures")]
    pub points: Vec<(f64, f64)>,
}

/// JSON has no word for a figure that is not finite: `serde_json` writes `null`. Without this, one
/// division by zero would make the whole report unreadable.
fn figure<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(source)?.unwrap_or(f64::NAN))
}

/// The same for pairs of figures.
fn figures<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<(f64, f64)>, D::Error> {
    let pairs = Vec::<(Option<f64>, Option<f64>)>::deserialize(source)?;
    let known = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
    Ok(pairs.into_iter().map(|(x, y)| (known(x), known(y))).collect())
}

#[cfg(test)]
mod tests {
    use super::{Better, Growth, Spread};

    #[test]
    fn a_spread_is_the_middle_and_the_ends() {
        let spread = |median, min, max| Spread { median, min, max };
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0]), spread(2.5, 1.0, 4.0));
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn a_figure_that_is_not_finite_survives_being_written_and_read() {
        let spread = Spread { median: f64::NAN, min: 1.5, max: f64::INFINITY };
        let read: Spread = serde_json::from_str(&serde_json::to_string(&spread).unwrap()).unwrap();
        assert!(read.median.is_nan() && read.max.is_nan());
        assert_eq!(read.min, 1.5);
    }

    #[test]
    fn a_pair_that_is_not_finite_survives_being_written_and_read() {
        let growth = Growth {
            of: "policies".to_owned(),
            measure: "one decision".to_owned(),
            unit: "µs".to_owned(),
            points: vec![(10.0, f64::NAN), (100.0, 2.0)],
        };
        let read: Growth = serde_json::from_str(&serde_json::to_string(&growth).unwrap()).unwrap();
        assert!(read.points[0].1.is_nan());
        assert_eq!(read.points[1], (100.0, 2.0));
    }

    #[test]
    fn better_is_written_in_lower_case() {
        assert_eq!(serde_json::to_string(&Better::Less).unwrap(), "\"less\"");
    }
}
