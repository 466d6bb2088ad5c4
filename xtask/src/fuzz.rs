//! Searches for faults with libFuzzer: builds the fuzz targets with coverage instrumentation and
//! runs them. Knows no target.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::step::Step;

/// Builds the targets, then runs the named one, or all, one after the other.
pub fn run(paths: &Paths, args: &[String]) -> Result<()> {
    let wanted = Wanted::parse(args)?;
    let seeds = paths.root.join("fuzz/seeds");
    let targets = match wanted.target {
        Some(target) => vec![target],
        None => names(&seeds)?,
    };
    let work = paths.root.join("target/fuzz");
    build(paths, &work)?;
    for target in targets {
        let (corpus, found) = (work.join("corpus").join(&target), work.join("found").join(&target));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let program = paths.bin.join("claviger-fuzz");
        Step::new(format!("fuzz `{target}` for {} s", wanted.seconds), &program.to_string_lossy())
            .env("CLAVIGER_FUZZ_TARGET", &target)
            .args([
                format!("-max_total_time={}", wanted.seconds),
                format!("-artifact_prefix={}/", found.display()),
                "-print_final_stats=1".to_owned(),
                "-timeout=20".to_owned(),
            ])
            .args([corpus, seeds.join(&target)])
            .go_on("mend what it found, and keep the input as a seed in fuzz/seeds/")
            .run()?;
    }
    Ok(())
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: Option<String>,
    seconds: u32,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Self> {
        let words: Vec<_> = args.iter().map(String::as_str).collect();
        let (target, rest) = match words.as_slice() {
            [target, rest @ ..] if !target.starts_with('-') => (Some((*target).to_owned()), rest),
            rest => (None, rest),
        };
        let seconds = match rest {
            [] => SECONDS_DEFAULT,
            ["--seconds", seconds] => seconds.parse().context("`--seconds` takes a number")?,
            _ => bail!("`fuzz` takes a target and `--seconds N`: see `cargo xtask help`"),
        };
        Ok(Self { target, seconds })
    }
}

/// Every target has a folder of seeds; a test says so.
fn names(seeds: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(seeds).context("the workspace has no fuzz/seeds")?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The wrapper instruments the workspace's own crates, and cargo keeps them apart from the ordinary
/// ones. Only the one program is linked: the others have nobody who counts their coverage.
fn build(paths: &Paths, work: &Path) -> Result<()> {
    Step::cargo("build the fuzz targets with coverage instrumentation", &paths.root)
        .args(["build", "--workspace", "--bin", "claviger-fuzz"])
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper(work)?)
        .run()
}

/// A script that calls the compiler as cargo wants, with flags that make libFuzzer see coverage.
fn wrapper(work: &Path) -> Result<PathBuf> {
    let script = work.join("instrumented-rustc");
    fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    let flags = FLAGS.join(" ");
    fs::write(
        &script,
        format!("#!/bin/sh\nrustc=\"$1\"\nshift\nexec \"$rustc\" \"$@\" {flags}\n"),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// LLVM's own coverage for sanitizers, without a sanitizer: works with a stable compiler. One unit
/// of code a crate, for LLVM names the tables of counters by unit. Optimised, to try more inputs.
const FLAGS: [&str; 7] = [
    "-Copt-level=1",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Long enough for libFuzzer to stop finding new paths in inputs of a few kilobytes.
const SECONDS_DEFAULT: u32 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_target_and_seconds_in_this_order() {
        let parse = |line: &str| {
            let args: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            Wanted::parse(&args).ok().map(|wanted| (wanted.target, wanted.seconds))
        };
        let named = |name: &str, seconds| Some((Some(name.to_owned()), seconds));
        assert_eq!(parse(""), Some((None, 600)));
        assert_eq!(parse("manifest"), named("manifest", 600));
        assert_eq!(parse("manifest --seconds 5"), named("manifest", 5));
        assert_eq!(parse("--seconds 5"), Some((None, 5)));
        assert_eq!(parse("--seconds x"), None);
        assert_eq!(parse("manifest prompt"), None);
    }
}
