//! What compiling a component takes, once for each version of a plugin: the broker's own compiling
//! child, which tells at its end what it used.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clavigerd::plugin::{LimitsClass, compile_child};
use rustix::time::{ClockId, clock_gettime};

use crate::effort::Effort;
use crate::report::{Group, Row, Unit};
use crate::rounds::nanos;
use crate::specimen::Specimen;
use crate::spread::Spread;

/// The child, as the sandbox and [`measure`] start it. Whoever wants only the machine code reads no
/// standard error of a child that succeeds.
pub fn child(class: &str) -> ExitCode {
    let Ok(class) = class.parse::<LimitsClass>() else { return ExitCode::FAILURE };
    // Under its limits the child can open nothing any more; what is open it can read.
    let status = File::open("/proc/self/status");
    let code = compile_child(class);
    if let Some(peak) = status.ok().and_then(peak_bytes) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let nanos = cpu.tv_sec as f64 * 1e9 + cpu.tv_nsec as f64;
        eprintln!("{peak} {nanos}");
    }
    code
}

/// Compiles both in turns.
pub fn measure(rust: &Specimen, javascript: &Specimen, effort: Effort) -> Result<Vec<Group>> {
    let specimens = [("Rust", rust), ("JavaScript", javascript)];
    let mut taken = specimens.map(|_| Vec::new());
    for _ in 0..effort.times(3) {
        for ((_, specimen), taken) in specimens.iter().zip(&mut taken) {
            taken.push(compile(specimen)?);
        }
    }
    let names = specimens.map(|(name, _)| name);
    let group = |name, (about, unit), figure: fn(&Compiled) -> f64| {
        let cpu = matches!(unit, Unit::Micros);
        let columns = names.iter().zip(&taken).map(|(name, taken)| Column {
            name,
            values: taken.iter().map(figure).collect(),
            cpus: if cpu { taken.iter().map(|one| one.cpu).collect() } else { Vec::new() },
        });
        Ok(Group { name, about, unit, rows: compared(columns.collect())? })
    };
    let process = "in a process of its own, once for each version of a plugin";
    [
        group("compile time", (process, Unit::Micros), |one| one.wall),
        group("compile memory", ("the most that the process has", Unit::Kib), |one| one.peak),
        group("machine code", ("what comes out", Unit::Kib), |one| one.bytes),
    ]
    .into_iter()
    .collect()
}

/// Figures that were not taken in rounds.
pub struct Column<'a> {
    /// The row's name.
    pub name: &'a str,
    /// What was measured.
    pub values: Vec<f64>,
    /// The processor time that went into it, if it counts.
    pub cpus: Vec<f64>,
}

/// Each as so many times the median of the first.
pub fn compared(columns: Vec<Column<'_>>) -> Result<Vec<Row>> {
    let base = columns.first().and_then(|first| Spread::of(first.values.clone()));
    let base = base.context("nothing was measured")?.median;
    let row = |column: Column<'_>| {
        let ratios = column.values.iter().map(|value| value / base).collect();
        Some(Row {
            name: column.name.to_owned(),
            values: Spread::of(column.values)?,
            cpu: Spread::of(column.cpus).map(|cpu| cpu.median),
            ratio: Spread::of(ratios)?,
        })
    };
    columns.into_iter().map(row).collect::<Option<_>>().context("nothing was measured")
}

/// What compiling once took.
struct Compiled {
    wall: f64,
    cpu: f64,
    peak: f64,
    bytes: f64,
}

fn compile(specimen: &Specimen) -> Result<Compiled> {
    let began = Instant::now();
    let mut child = Command::new("/proc/self/exe")
        .args(["compile-component", specimen.class.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the compiling process does not start")?;
    // It reads to the end before it writes.
    child.stdin.take().context("no pipe")?.write_all(&specimen.wasm)?;
    let output = child.wait_with_output()?;
    let wall = nanos(began);
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} was not compiled: {told}", specimen.path.display());
    let (peak, cpu) = told.trim().split_once(' ').context("the process told nothing")?;
    let (peak, cpu) = (peak.parse()?, cpu.parse()?);
    Ok(Compiled { wall, cpu, peak, bytes: output.stdout.len() as f64 })
}

/// The most memory that the process has had.
fn peak_bytes(mut status: File) -> Option<f64> {
    let mut text = String::new();
    status.rewind().ok()?;
    status.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
