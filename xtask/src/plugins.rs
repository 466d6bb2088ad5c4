//! Builds the WebAssembly plugins and lays them where configurations and tests look for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths::Paths;
use crate::step::{Step, probe};

/// Builds every plugin to `target/plugins/` and prints what a configuration needs to name them.
pub fn build_own(paths: &Paths) -> Result<()> {
    let packages = packages(paths)?;
    if packages.iter().all(|package| plugin_name(package).is_none()) {
        bail!("no package is called `{PLUGIN_PREFIX}…`: plugins live in plugins/, one crate each");
    }
    for package in &packages {
        let Some(name) = plugin_name(package) else { continue };
        let what = format!("build plugin `{name}`");
        for artifact in compile(paths, &what, &["-p", package, "--lib"])? {
            lay(&artifact.file, &paths.plugins.join(format!("{name}.wasm")))?;
        }
    }
    Ok(())
}

/// Builds the plugins and the components that only tests and benches load: to
/// `target/plugins/hostile/` and `target/plugins/examples/`.
pub fn build(paths: &Paths) -> Result<()> {
    build_own(paths)?;
    for (package, folder, what) in [
        (HOSTILE, "hostile", "build the hostile components that the tests load"),
        (SDK, "examples", "build the examples of the SDK, which are measured"),
    ] {
        for artifact in compile(paths, what, &["-p", package, "--examples"])? {
            let file = format!("{}.wasm", artifact.target);
            lay(&artifact.file, &paths.plugins.join(folder).join(file))?;
        }
    }
    Ok(())
}

/// One component that cargo built.
struct Artifact {
    target: String,
    file: PathBuf,
}

fn packages(paths: &Paths) -> Result<Vec<String>> {
    let metadata = Step::cargo("look for plugins in the workspace", &paths.root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("cargo metadata wrote no JSON")?;
    let packages = metadata
        .pointer("/packages")
        .and_then(Value::as_array)
        .context("cargo metadata names no packages")?;
    Ok(packages.iter().filter_map(|package| text(package, "/name").map(str::to_owned)).collect())
}

/// The name under which a configuration knows the plugin of `package`; the guest SDK and its macros are none.
fn plugin_name(package: &str) -> Option<&str> {
    package.strip_prefix(PLUGIN_PREFIX).filter(|name| !name.starts_with("sdk"))
}

/// Builds for the sandbox. Cargo itself tells which files it wrote, so that no stale component
/// is ever laid out.
fn compile(paths: &Paths, what: &str, selection: &[&str]) -> Result<Vec<Artifact>> {
    let messages = Step::cargo(what, &paths.root)
        .args(["build", "--quiet", "--message-format", "json-render-diagnostics"])
        .args(["--target", WASM_TARGET, "--profile", "plugin"])
        .args(selection)
        .go_on("if the target is missing, run `cargo xtask setup`")
        .output()?;
    let package = selection.get(1).copied().unwrap_or_default();
    Ok(messages.lines().flat_map(|line| artifacts(line, package)).collect())
}

fn artifacts(message: &str, package: &str) -> Vec<Artifact> {
    let Ok(message) = serde_json::from_str::<Value>(message) else { return Vec::new() };
    let id = text(&message, "/package_id").unwrap_or_default();
    let ours = id.contains(&format!("#{package}@"));
    let (Some(target), Some(files)) =
        (text(&message, "/target/name"), message.pointer("/filenames").and_then(Value::as_array))
    else {
        return Vec::new();
    };
    files
        .iter()
        .filter_map(Value::as_str)
        .filter(|file| ours && file.ends_with(".wasm"))
        .map(|file| Artifact { target: target.to_owned(), file: file.into() })
        .collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

fn lay(built: &Path, place: &Path) -> Result<()> {
    let folder = place.parent().context("a plugin has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(built, place).with_context(|| format!("cannot write {}", place.display()))?;
    let size = fs::metadata(place)?.len();
    println!("  {}\n    {size} bytes, sha256 {}", place.display(), sha256(place)?);
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let file = file.to_str().context("the path of the workspace is not UTF-8")?;
    let line = probe("sha256sum", &[file])
        .or_else(|| probe("shasum", &["-a", "256", file]))
        .context("neither `sha256sum` nor `shasum` works: install coreutils")?;
    line.split_whitespace().next().map(str::to_owned).context("`sha256sum` wrote nothing")
}

const WASM_TARGET: &str = "wasm32-wasip2";
const PLUGIN_PREFIX: &str = "claviger-plugin-";
const HOSTILE: &str = "claviger-hostile";
const SDK: &str = "claviger-plugin-sdk";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_plugins_and_not_the_sdk() {
        assert_eq!(plugin_name("claviger-plugin-postgres"), Some("postgres"));
        assert_eq!(plugin_name("claviger-plugin-sdk"), None);
        assert_eq!(plugin_name("claviger-plugin-sdk-macros"), None);
        assert_eq!(plugin_name("claviger-core"), None);
    }

    #[test]
    fn takes_only_the_components_of_the_package_that_it_built() {
        let message = |id: &str| {
            format!(
                r#"{{"package_id":"{id}","target":{{"name":"x"}},"filenames":["/a/x.wasm","/a/libx.rlib"]}}"#
            )
        };
        assert_eq!(
            artifacts(&message("path+file:///w/p#claviger-hostile@0.1.0"), HOSTILE).len(),
            1
        );
        assert_eq!(artifacts(&message("registry+x#serde@1.0.0"), HOSTILE).len(), 0);
        assert_eq!(artifacts("not json", HOSTILE).len(), 0);
    }
}
