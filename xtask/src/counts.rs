//! Has callgrind count the instructions of a decision and of an issue, and compares them with the
//! committed counts. Instructions do not depend on what else the machine does; they do on the
//! compiler, so that a new one may need a new baseline.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::paths::Paths;
use crate::step::{Step, probe};

/// What to do with the committed counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// Fail if something has grown.
    Check,
    /// Write them anew.
    Update,
}

/// Counts, and compares or updates.
pub fn run(paths: &Paths, baseline: Baseline) -> Result<()> {
    if probe("valgrind", &["--version"]).is_none() {
        bail!("valgrind is missing: install the package `valgrind`");
    }
    let program = build(paths)?;
    let mut counted = Map::new();
    for what in COUNTED {
        let (few, many) = (instructions(&program, what, FEW)?, instructions(&program, what, MANY)?);
        counted.insert(what.to_owned(), (many.saturating_sub(few) / (MANY - FEW)).into());
    }
    let file = paths.root.join(BASELINE);
    if baseline == Baseline::Update {
        fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&counted)?))?;
        println!("xtask: written to {}", file.display());
        return Ok(());
    }
    let text = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let known: Map<String, Value> = serde_json::from_slice(&text)?;
    let grown: Vec<_> = COUNTED.iter().filter(|what| !holds(what, &counted, &known)).collect();
    ensure!(
        grown.is_empty(),
        "more instructions than the committed counts allow: find out why, or run `cargo xtask \
         bench counts --update` and say in the commit why it is worth it"
    );
    Ok(())
}

/// Prints a line, and tells whether it is within the bound.
fn holds(what: &str, counted: &Map<String, Value>, known: &Map<String, Value>) -> bool {
    let figure = |counts: &Map<String, Value>| counts.get(what).and_then(Value::as_f64);
    let (Some(now), Some(then)) = (figure(counted), figure(known)) else { return false };
    let percent = (now / then - 1.0) * 100.0;
    println!("xtask: {what}: {now} instructions, {percent:+.1} % against {then}");
    percent <= GROWTH_PERCENT_MAX
}

/// The path of the program, as cargo tells it.
fn build(paths: &Paths) -> Result<PathBuf> {
    let messages = Step::cargo("build what is counted", &paths.root)
        .args(["bench", "--workspace", "--bench", "counts", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"])
        .output()?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message.pointer("/target/name")? == "counts";
        message.get("executable")?.as_str().filter(|_| is_it).map(PathBuf::from)
    };
    messages.lines().find_map(executable).context("cargo built no `counts`")
}

/// Of a whole run that does it `times` times.
fn instructions(program: &PathBuf, what: &str, times: u64) -> Result<u64> {
    println!("xtask: count the instructions of {times} × {what}");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([what, &times.to_string()])
        .stdout(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`{what}` failed under valgrind:\n{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = collected.context("valgrind collected nothing")?;
    Ok(number.trim().parse()?)
}

const COUNTED: [&str; 2] = ["decide", "issue"];

/// The difference of two runs is free of what each does once.
const FEW: u64 = 100;
const MANY: u64 = 300;

/// Less is noise of hash seeds; a change that costs more should know it.
const GROWTH_PERCENT_MAX: f64 = 3.0;

const BASELINE: &str = "host/broker/benches/counts/baseline.json";
