//! Claviger beside its peer and its limits: the same load on Claviger, on OpenBao, on a bare gRPC
//! echo and on bare SQL, in turns. No test of speed: nothing fails because it is slow. `cargo xtask
//! bench` runs it; as a test it runs for a moment, to keep it working. Read `docs/performance.md`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench talks to a person")]

mod again;
mod claviger;
mod credentials;
mod decide;
mod echo;
mod ending;
mod figures;
mod journal;
mod memory;
mod mint;
mod only;
mod openbao;
mod plan;
mod restart;
mod sandbox;
mod soak;
mod sql;
mod stages;
mod storm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use claviger_bench::machine;
use claviger_bench::page;
use claviger_bench::report::{Curve, Growth, Latency, Ratio, Report, Stage};

use crate::plan::{Effort, Plan};

/// What is measured, and what came of it so far.
pub struct Bench {
    effort: Effort,
    bao: Option<PathBuf>,
    report: Report,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["echo", socket] => echo::serve(Path::new(socket)),
        ["load", wanted, clients, secs, ..] => {
            runtime().and_then(|on| on.block_on(only::load([wanted, clients, secs])))
        }
        words => match Plan::parse(words) {
            Some(plan) => run(&plan),
            None => Ok(()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<()> {
    let mut bench = Bench::new(plan.effort)?;
    let measured = runtime()?.block_on(measure(&mut bench, plan));
    if let Err(error) = &measured {
        bench.note(format!("Not everything was measured: {error:#}"));
    }
    bench.report.ratios.sort_by_key(|ratio| figures::order(&ratio.key));
    for ratio in &bench.report.ratios {
        println!("{ratio}");
    }
    for note in &bench.report.notes {
        println!("{note}");
    }
    let Some(out) = &plan.out else { return measured };
    std::fs::create_dir_all(out)?;
    let (json, html) = (out.join("report.json"), out.join("report.html"));
    std::fs::write(&json, serde_json::to_string_pretty(&bench.report)? + "\n")?;
    std::fs::write(&html, page::render(&bench.report))?;
    println!("written to {} and {}", json.display(), html.display());
    measured
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")
}

async fn measure(bench: &mut Bench, plan: &Plan) -> Result<()> {
    if plan.wants("decide") {
        decide::measure(bench)?;
    }
    if plan.wants("sandbox")
        && let Some(path) = std::env::var_os("CLAVIGER_BENCH_WALLS")
    {
        sandbox::take_over(bench, Path::new(&path))?;
    }
    if plan.wants("journal") {
        journal::measure(bench).await.context("the journal")?;
    }
    if plan.wants("mint") {
        mint::measure(bench).await.context("tokens")?;
    }
    if plan.wants("credentials") {
        credentials::measure(bench).await.context("PostgreSQL logins")?;
    }
    if plan.wants("ending") {
        ending::measure(bench).await.context("the end of a session")?;
    }
    if plan.wants("memory") {
        memory::measure(bench).await.context("memory")?;
    }
    if plan.wants("storm") {
        storm::measure(bench).await.context("the storm")?;
    }
    if plan.wants("again") {
        again::measure(bench).await.context("deciding again")?;
    }
    if plan.names("soak") {
        soak::measure(bench).await.context("the soak")?;
    }
    if plan.wants("restart") {
        restart::measure(bench).await.context("restart")?;
    }
    Ok(())
}

impl Bench {
    fn new(effort: Effort) -> Result<Self> {
        let mut report = Report {
            quick: effort != Effort::Full,
            taken_at: now(),
            machine: machine::this(&std::env::temp_dir()),
            ratios: Vec::new(),
            curves: Vec::new(),
            latencies: Vec::new(),
            stages: Vec::new(),
            growths: Vec::new(),
            notes: Vec::new(),
            versions: BTreeMap::new(),
        };
        let versions = &mut report.versions;
        versions.insert("Claviger".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        versions.insert("build".to_owned(), BUILD.to_owned());
        let bao = openbao::binary();
        if let Some(bao) = &bao {
            versions.insert("OpenBao".to_owned(), first_line(bao, "version")?);
        } else {
            report.notes.push("OpenBao was not there: its sides are left out".to_owned());
        }
        Ok(Self { effort, bao, report })
    }

    fn say(&self, what: &str) {
        if self.effort != Effort::Smoke {
            eprintln!("compare: {what}");
        }
    }

    fn ratio(&mut self, ratio: Ratio) {
        self.say(&ratio.to_string());
        self.report.ratios.push(ratio);
    }

    fn curve(&mut self, curve: Curve) {
        if !curve.points.is_empty() {
            self.report.curves.push(curve);
        }
    }

    fn latency(&mut self, latency: Latency) {
        self.report.latencies.push(latency);
    }

    fn stage(&mut self, stage: Stage) {
        self.report.stages.push(stage);
    }

    fn growth(&mut self, growth: Growth) {
        self.report.growths.push(growth);
    }

    fn note(&mut self, note: String) {
        self.report.notes.push(note);
    }
}

fn now() -> String {
    let now = std::time::SystemTime::now();
    humantime::format_rfc3339_seconds(now).to_string()
}

fn first_line(program: &Path, argument: &str) -> Result<String> {
    let output = std::process::Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

const BUILD: &str =
    if cfg!(debug_assertions) { "a debug build, not optimised" } else { "optimised" };
