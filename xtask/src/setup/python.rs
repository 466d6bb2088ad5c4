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

/// Installs what `tests/requirements.txt` names, unless exactly that is installed.
pub fn install(paths: &Paths, mode: Mode) -> Result<Outcome> {
    let requirements = paths.root.join("tests/requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let (folder, installed) = (folder(paths), folder(paths).join("installed-requirements.txt"));
    if fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Ok(Outcome::Met);
    }
    println!(
        "xtask: set-up: Python packages of the tests are missing or of other versions; moto stands \
         in for AWS, boto3 and PyJWT use what is issued, as an agent would"
    );
    // An environment of other versions may hold what nothing asks for any more.
    let make = Step::new(format!("make {}", folder.display()), "python3")
        .args(["-m", "venv", "--clear"])
        .args([&folder]);
    let fill =
        Step::new("install tests/requirements.txt", &folder.join("bin/python").to_string_lossy())
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
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

fn folder(paths: &Paths) -> PathBuf {
    paths.test_tools.join("python")
}
