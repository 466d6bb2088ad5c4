//! The Node.js packages of the tests: installed below `target/`, never in the system's.

use std::fs;

use anyhow::{Context, Result};

use super::Mode;
use super::python::Outcome;
use crate::paths::Paths;
use crate::step::Step;

/// Installs exactly what the lock file names, unless that is installed.
pub fn install(paths: &Paths, mode: Mode) -> Result<Outcome> {
    let source = paths.root.join("tests/servers/node");
    let lock = source.join("package-lock.json");
    let wanted =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let folder = paths.test_tools.join("node");
    let installed = folder.join("installed-package-lock.json");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(Outcome::Met);
    }
    println!("xtask: set-up: missing or of other versions: {WHY}");
    let prefix = folder.to_str().context("the path of the workspace is not UTF-8")?;
    let step = Step::new("install tests/servers/node/package-lock.json", "npm")
        .args(["ci", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix", prefix])
        .go_on("check the package sources of this machine and run `cargo xtask setup` again");
    if mode == Mode::Print {
        println!("  {}", step.line());
        return Ok(Outcome::Unmet);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(source.join(name), folder.join(name)).with_context(|| format!("no {name}"))?;
    }
    step.run()?;
    fs::write(&installed, wanted)
        .with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(Outcome::Met)
}

const WHY: &str = "the Node.js packages of the tests: a certified OpenID provider signs the tokens \
                   by which workloads and engineers prove themselves";
