//! The Python environment of tests and demo: made below `target/`, never in the system's Python.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Mode;
use crate::paths::Paths;
use crate::step::Step;

/// What came of a look at something that must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Met,
    /// Somebody must do what was printed.
    Unmet,
}

/// A Python environment of its own, and what is in it.
#[derive(Clone, Copy)]
pub struct Environment {
    /// Where its packages are named, below the root.
    requirements: &'static str,
    /// Its folder, below those of the tests' programs.
    folder: &'static str,
    /// What it is for.
    why: &'static str,
}

/// What tests and demo run.
pub const TESTS: Environment = Environment {
    requirements: "tests/requirements.txt",
    folder: "python",
    why: "the Python packages of the tests: moto stands in for AWS, boto3 and PyJWT use what is \
          issued, as an agent would",
};

/// What the benches compare with.
pub const PEER: Environment = Environment {
    requirements: "tests/bench/requirements.txt",
    folder: "peer",
    why: "OpenBao, which Claviger is measured beside",
};

/// Installs what the environment's requirements name, unless exactly that is installed.
pub fn install(paths: &Paths, mode: Mode, environment: Environment) -> Result<Outcome> {
    let requirements = paths.root.join(environment.requirements);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = environment.folder(paths);
    let installed = folder.join("installed-requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(Outcome::Met);
    }
    println!("xtask: set-up: missing or of other versions: {}", environment.why);
    // An environment of other versions may hold what nothing asks for any more.
    let make = Step::new(format!("make {}", folder.display()), "python3")
        .args(["-m", "venv", "--clear"])
        .args([&folder]);
    let fill = Step::new(
        format!("install {}", environment.requirements),
        &folder.join("bin/python").to_string_lossy(),
    )
    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
    .args([&requirements])
    .go_on("check the package sources of this machine and run `cargo xtask setup` again");
    if mode == Mode::Print {
        println!("  {}\n  {}", make.line(), fill.line());
        return Ok(Outcome::Unmet);
    }
    make.run()?;
    fill.run()?;
    fs::write(&installed, wanted)
        .with_context(|| format!("cannot write {}", installed.display()))?;
    Ok(Outcome::Met)
}

impl Environment {
    /// Where it is.
    pub fn folder(self, paths: &Paths) -> PathBuf {
        paths.test_tools.join(self.folder)
    }
}
