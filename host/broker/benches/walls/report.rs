//! The figures of one run: as a table for people, as JSON for programs. Measures nothing.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::machine;
use crate::spread::Spread;

/// The figures of one run.
pub struct Report {
    effort: &'static str,
    groups: Vec<Group>,
    left_out: Vec<&'static str>,
}

/// Figures that are compared with one another.
pub struct Group {
    /// A word.
    pub name: &'static str,
    /// What is compared.
    pub about: &'static str,
    /// What the figures count.
    pub unit: Unit,
    /// The first is what the others are compared with.
    pub rows: Vec<Row>,
}

/// What figures count.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Time, kept in nanoseconds and shown in microseconds.
    Micros,
    /// Memory, kept in bytes and shown in KiB.
    Kib,
}

/// The figures of one case.
pub struct Row {
    /// Which.
    pub name: String,
    /// What was measured.
    pub values: Spread,
    /// The processor time that went into it, in nanoseconds.
    pub cpu: Option<f64>,
    /// How many times the first row's, round by round.
    pub ratio: Spread,
}

impl Report {
    /// One without figures.
    pub const fn new(effort: &'static str) -> Self {
        Self { effort, groups: Vec::new(), left_out: Vec::new() }
    }

    /// Adds a group.
    pub fn add(&mut self, group: Group) {
        self.groups.push(group);
    }

    /// Tells that something was not measured.
    pub fn leave_out(&mut self, what: &'static str) {
        self.left_out.push(what);
    }

    /// Fails if a figure cannot be one.
    pub fn check(&self) -> Result<()> {
        for group in &self.groups {
            ensure!(!group.rows.is_empty(), "nothing was measured of `{}`", group.name);
            for row in &group.rows {
                let values = row.values.values().into_iter().chain(row.ratio.values());
                let sound = |value: f64| value.is_finite() && value > 0.0;
                let mut values = values.chain(row.cpu);
                ensure!(values.all(sound), "`{}` of `{}` is no figure", row.name, group.name);
            }
        }
        Ok(())
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = machine::lines(self.effort);
        for group in &self.groups {
            // Writing to a string does not fail.
            let _ = write!(text, "\n{}", group.table());
        }
        for what in &self.left_out {
            let _ = write!(text, "\nnot measured: {what}\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Result<String> {
        let groups: Vec<_> = self.groups.iter().map(Group::json).collect();
        let report = json!({
            "format": FORMAT,
            "effort": self.effort,
            "machine": machine::json(),
            "groups": groups,
            "left_out": self.left_out,
        });
        Ok(format!("{}\n", serde_json::to_string_pretty(&report)?))
    }
}

impl Group {
    fn table(&self) -> String {
        let unit = self.unit.name();
        let mut text = format!(
            "{}: {}, {unit}\n  {:NAME_CHARS$} {:>10} {:>21} {:>10} {:>10}  {}\n",
            self.name, self.about, "", "median", "quartiles", "p99", "processor", "times the first"
        );
        for row in &self.rows {
            let shown = |value: f64| self.unit.shown(value);
            let Spread { median, low, high, p99 } = row.values;
            let quartiles = format!("{} – {}", shown(low), shown(high));
            let cpu = row.cpu.map(|cpu| Unit::Micros.shown(cpu)).unwrap_or_default();
            let ratio = &row.ratio;
            let _ = writeln!(
                text,
                "  {:NAME_CHARS$} {:>10} {quartiles:>21} {:>10} {cpu:>10}  {:.2} ({:.2} – {:.2})",
                row.name,
                shown(median),
                shown(p99),
                ratio.median,
                ratio.low,
                ratio.high
            );
        }
        text
    }

    fn json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let unit = self.unit.stored();
        json!({ "name": self.name, "about": self.about, "unit": unit, "rows": rows })
    }
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "median": self.values.median,
            "quartiles": [self.values.low, self.values.high],
            "p99": self.values.p99,
            "cpu_nanos": self.cpu,
            "ratio": self.ratio.median,
            "ratio_quartiles": [self.ratio.low, self.ratio.high],
        })
    }
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::Kib => "KiB",
        }
    }

    const fn stored(self) -> &'static str {
        match self {
            Self::Micros => "nanoseconds",
            Self::Kib => "bytes",
        }
    }

    fn shown(self, value: f64) -> String {
        let value = match self {
            Self::Micros => value / 1e3,
            Self::Kib => value / 1024.0,
        };
        if value < 1e3 { format!("{value:.2}") } else { format!("{value:.0}") }
    }
}

/// Goes up when a reader of the JSON would have to change.
const FORMAT: u32 = 1;

/// As long as the longest name of a case.
const NAME_CHARS: usize = 58;
