//! What a change must pass: tests, formatting, lints, dependencies. Runs the tools, judges nothing.

use anyhow::Result;

use crate::javascript;
use crate::paths::Paths;
use crate::plugins;
use crate::setup::{self, Mode};
use crate::step::{Step, probe};

/// Prepares everything that the tests start, then runs them; `args` go to `cargo test`.
pub fn test(paths: &Paths, args: &[String]) -> Result<()> {
    setup::run(paths, Mode::Install)?;
    plugins::build(paths)?;
    // The same targets as the tests, so that every dependency is compiled once: without the tests'
    // own dependencies cargo would choose other features for half of them.
    Step::cargo("build the programs and the tests", &paths.root)
        .args(["build", "--workspace", "--all-targets"])
        .run()?;
    javascript::build(paths)?;
    Step::cargo("run every test", &paths.root)
        .args(["test", "--workspace"])
        .args(args)
        .env("CLAVIGER_PLUGINS", &paths.plugins)
        .env("CLAVIGER_BIN", &paths.bin)
        .env("CLAVIGER_TEST_TOOLS", &paths.test_tools)
        .go_on("run one test alone with `cargo xtask test <part of its name>`")
        .run()
}

/// Formatting, lints and dependencies.
pub fn check(paths: &Paths) -> Result<()> {
    Step::cargo("check the formatting", &paths.root)
        .args(["fmt", "--all", "--check"])
        .go_on("run `cargo fmt --all`")
        .run()?;
    Step::cargo("lint, with every warning an error", &paths.root)
        .args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
        .run()?;
    if probe("cargo-deny", &["--version"]).is_none() {
        println!("xtask: skip cargo-deny, which is not installed (`cargo install cargo-deny`)");
        return Ok(());
    }
    Step::cargo("check licences, duplicates, sources and advisories", &paths.root)
        .args(["deny", "check"])
        .go_on("change the dependency, or write the exception with its reason into `deny.toml`")
        .run()
}

/// Writes the committed gRPC code anew.
pub fn proto(paths: &Paths) -> Result<()> {
    Step::cargo("write proto/src/gen anew from the .proto files", &paths.root)
        .args(["test", "--quiet", "--workspace", "--test", "drift"])
        .env("UPDATE_GENERATED", "1")
        .run()
}
