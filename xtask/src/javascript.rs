//! Builds the plugin that is written in JavaScript. Its tools come from npm into `target/`; without
//! Node.js it is left out, and says so.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::step::{Step, probe};

/// Builds `plugins/js-token` to `target/plugins/js-token.wasm`.
pub fn build(paths: &Paths) -> Result<()> {
    if probe("npm", &["--version"]).is_none() {
        println!("xtask: skip the plugin in JavaScript: there is no npm (`cargo xtask setup`)");
        return Ok(());
    }
    let source = paths.root.join("plugins/js-token");
    let built = paths.plugins.join("js-token.wasm");
    if is_fresh(&built, &source)? {
        return Ok(());
    }
    let tools = paths.plugins.with_file_name("js-tools");
    let compiler = tools.join("node_modules/.bin/componentize-js");
    if !compiler.exists() {
        let prefix = tools.to_str().context("the path of the workspace is not UTF-8")?;
        Step::new("fetch the compiler for JavaScript", "npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix", prefix, COMPILER])
            .go_on("check the network: npm fetches it once")
            .run()?;
    }
    let wit = tools.join("wit");
    lay_wit(paths, &source, &wit)?;
    let bare = tools.join("bare.wasm");
    Step::new("build plugin `js-token`, which takes half a minute", &compiler.to_string_lossy())
        .args([&source.join("plugin.js")])
        .arg_pair("--wit", &wit)
        .args(["--world-name", "plugin", "--disable"])
        .args(["stdio", "random", "clocks", "http", "fetch-event"])
        .arg_pair("--out", &bare)
        .run()?;
    fs::create_dir_all(&paths.plugins)?;
    let clavigerd = paths.bin.join("clavigerd");
    if !clavigerd.exists() {
        Step::cargo("build the programs, which hold the plugin kit", &paths.root)
            .args(["build", "--workspace", "--all-targets"])
            .run()?;
    }
    Step::new("put the manifest into plugin `js-token`", &clavigerd.to_string_lossy())
        .args(["plugin", "embed-manifest"])
        .args([&source.join("manifest.json"), &bare, &built])
        .run()
}

/// Whether the component is newer than everything that it is made of.
fn is_fresh(built: &Path, source: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(built).and_then(|metadata| metadata.modified()) else {
        return Ok(false);
    };
    for file in ["plugin.js", "world.wit", "manifest.json"] {
        let changed = fs::metadata(source.join(file)).and_then(|metadata| metadata.modified());
        if changed.with_context(|| format!("no {file}"))? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The plugin's world and, as its dependencies, the packages of the contract.
fn lay_wit(paths: &Paths, source: &Path, wit: &Path) -> Result<()> {
    let deps = wit.join("deps");
    fs::create_dir_all(&deps).with_context(|| format!("cannot make {}", deps.display()))?;
    fs::copy(source.join("world.wit"), wit.join("world.wit")).context("no world")?;
    for package in fs::read_dir(paths.root.join("wit"))? {
        let package = package?;
        if !package.file_type()?.is_dir() {
            continue;
        }
        let folder = deps.join(package.file_name());
        fs::create_dir_all(&folder)?;
        for file in fs::read_dir(package.path())? {
            let file = file?;
            fs::copy(file.path(), folder.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// The version that the plugin was tested with.
const COMPILER: &str = "@bytecodealliance/componentize-js@0.23.0";
