//! The figures that have a goal: what each is, what it should be, and how measurements become one.

use anyhow::{Context, Result};
use claviger_bench::report::Spread;
use claviger_bench::report::{Better, Ratio, Side};

/// What the rounds of a comparison came to.
pub struct Compared<'a> {
    /// The goal's key.
    pub key: &'a str,
    /// Claviger's figure, one for each round.
    pub ours: Named<'a>,
    /// The other side's.
    pub theirs: Named<'a>,
}

/// Measurements of one side.
pub struct Named<'a> {
    /// Which side, in a word or two.
    pub what: &'a str,
    /// What its figures count.
    pub unit: &'a str,
    /// One for each round.
    pub values: &'a [f64],
}

/// Ours by theirs, round by round.
pub fn ratio(compared: &Compared<'_>) -> Result<Ratio> {
    let pairs = compared.ours.values.iter().zip(compared.theirs.values);
    let values: Vec<_> = pairs.map(|(ours, theirs)| ours / theirs).collect();
    row(compared, &values)
}

/// Ours less theirs, round by round.
pub fn difference(compared: &Compared<'_>) -> Result<Ratio> {
    let pairs = compared.ours.values.iter().zip(compared.theirs.values);
    let values: Vec<_> = pairs.map(|(ours, theirs)| ours - theirs).collect();
    row(compared, &values)
}

/// Ours alone.
pub fn absolute(key: &str, ours: &Named<'_>) -> Result<Ratio> {
    let goal = goal(key)?;
    let value = Spread::of(ours.values).median;
    Ok(goal.row(value, (side(ours), None), ours.values.len()))
}

fn row(compared: &Compared<'_>, values: &[f64]) -> Result<Ratio> {
    let goal = goal(compared.key)?;
    let value = Spread::of(values).median;
    let sides = (side(&compared.ours), Some(side(&compared.theirs)));
    Ok(goal.row(value, sides, values.len()))
}

fn side(named: &Named<'_>) -> Side {
    Side {
        what: named.what.to_owned(),
        unit: named.unit.to_owned(),
        measured: Spread::of(named.values),
    }
}

struct Goal {
    key: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: f64,
    better: Better,
}

impl Goal {
    fn row(&self, value: f64, (ours, theirs): (Side, Option<Side>), rounds: usize) -> Ratio {
        let met = match self.better {
            Better::More => value >= self.goal,
            Better::Less => value <= self.goal,
        };
        Ratio {
            key: self.key.to_owned(),
            what: self.what.to_owned(),
            unit: self.unit.to_owned(),
            value,
            goal: self.goal,
            better: self.better,
            met,
            ours,
            theirs,
            rounds,
        }
    }
}

fn goal(key: &str) -> Result<&'static Goal> {
    GOALS.iter().find(|goal| goal.key == key).with_context(|| format!("no goal is called `{key}`"))
}

/// In the order of the report.
pub fn order(key: &str) -> usize {
    GOALS.iter().position(|goal| goal.key == key).unwrap_or(GOALS.len())
}

const fn at_least(key: &'static str, goal: f64, what: &'static str) -> Goal {
    Goal { key, what, unit: "", goal, better: Better::More }
}

const fn at_most(key: &'static str, goal: f64, what: &'static str) -> Goal {
    Goal { key, what, unit: "", goal, better: Better::Less }
}

const GOALS: [Goal; 11] = [
    at_least("pg_vs_openbao_16", 15.0, "PostgreSQL logins a second, 16 clients, to OpenBao's"),
    at_least(
        "pg_vs_raw_sql_16",
        0.6,
        "PostgreSQL logins a second, 16 clients, to the same SQL straight over as many connections",
    ),
    at_least(
        "mint_vs_openbao_64",
        6.0,
        "credentials minted without a backend a second, 64 clients, to OpenBao's leased tokens",
    ),
    at_least(
        "issue_vs_echo_256",
        0.2,
        "durable, sandboxed issues a second, 256 in flight, to a gRPC server that only echoes",
    ),
    at_most(
        "issue_p50_vs_echo_p50_1",
        6.0,
        "median time of an issue, one in flight, to that of the echo",
    ),
    Goal {
        unit: "µs",
        ..at_most("fresh_minus_warm_us", 15.0, "a new sandbox for each call, less a kept one")
    },
    at_most("decide_10k_vs_10", 1.5, "time of a decision among 10,000 policies to among 10"),
    at_most(
        "session_end_1000_vs_raw",
        1.5,
        "end of a session with 1,000 logins until the last is dead, to the same DROPs straight",
    ),
    at_most(
        "kill_switch_1000_vs_raw",
        1.5,
        "from `claviger revoke requester` to the last of 1,000 logins dead, to the same DROPs straight",
    ),
    at_most("rss_30k_vs_openbao", 0.2, "resident memory with 30,000 leases, to OpenBao's"),
    Goal {
        unit: "s",
        ..at_most("restart_1m_secs", 2.0, "ready to serve after a restart with 1,000,000 leases")
    },
];
