//! Manifests and the lock file: who may depend on what, and where versions stand (STYLE.md,
//! rule 13). What cargo-deny checks beyond this is in deny.toml.

use toml::{Table, Value};

use crate::Finding;
use crate::tree::{TextFile, Tree};

/// What is wrong in the manifests and the lock file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.named("Cargo.toml") {
        findings.extend(manifest(file));
    }
    if let Some(file) = tree.at("Cargo.lock") {
        findings.extend(lock(file));
    }
    findings
}

/// What is wrong in one manifest.
pub fn manifest(file: &TextFile) -> Vec<Finding> {
    let table = match file.text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&file.path, 1, format!("not TOML: {error}"))],
    };
    if !table.contains_key("package") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
    if lints.and_then(Value::as_bool) != Some(true) {
        findings.push(Finding::new(&file.path, 1, LINTS));
    }
    for (name, value) in dependencies(&table) {
        if !inherits(value) {
            findings.push(Finding::new(
                &file.path,
                line_of(&file.text, name),
                format!(
                    "`{name}` names its own version or path, so that two crates can disagree: \
                     put it into [workspace.dependencies] and write `{name}.workspace = true`"
                ),
            ));
        }
    }
    findings.extend(core_list(file, &table));
    findings.extend(boundaries(file, &table));
    findings
}

/// What is wrong in the lock file.
pub fn lock(file: &TextFile) -> Vec<Finding> {
    let table = match file.text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&file.path, 1, format!("not TOML: {error}"))],
    };
    let packages = table.get("package").and_then(Value::as_array);
    let packages: Vec<&Value> = packages.into_iter().flatten().collect();
    let text = |package: &Value, key: &str| {
        package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let mut findings = Vec::new();
    for package in &packages {
        let (name, source) = (text(package, "name"), text(package, "source"));
        if !source.is_empty() && source != CRATES_IO {
            let sentence = format!("`{name}` comes from `{source}`: take it from crates.io");
            findings.push(Finding::new(&file.path, 1, sentence));
        }
        if BANNED.contains(&name.as_str()) {
            let sentence = format!(
                "`{name}` is in the build, and TLS is rustls only: turn off the feature that \
                 brings it in (`cargo tree -i {name}`)"
            );
            findings.push(Finding::new(&file.path, 1, sentence));
        }
    }
    for name in ONCE {
        let versions: Vec<_> = packages
            .iter()
            .filter(|package| text(package, "name") == name)
            .map(|package| text(package, "version"))
            .collect();
        if versions.len() > 1 {
            let sentence = format!(
                "`{name}` is built in versions {}, and two copies share no types: bring them \
                 together (`cargo tree -d`)",
                versions.join(" and ")
            );
            findings.push(Finding::new(&file.path, 1, sentence));
        }
    }
    findings
}

fn core_list(file: &TextFile, table: &Table) -> Option<Finding> {
    if file.path != CORE {
        return None;
    }
    let found = table.get("dependencies").and_then(Value::as_table);
    let mut found: Vec<_> = found.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    found.sort_unstable();
    let surplus: Vec<_> = found.iter().filter(|name| !CORE_MAY.contains(name)).copied().collect();
    let gone: Vec<_> = CORE_MAY.iter().filter(|name| !found.contains(name)).copied().collect();
    if surplus.is_empty() && gone.is_empty() {
        return None;
    }
    let line = surplus.first().map_or(1, |name| line_of(&file.text, name));
    let sentence = format!(
        "the core's dependencies are not those of the tidy test (new: `{}`, gone: `{}`), and a \
         runtime or a database among them would end invariant 1: move the I/O behind a port, or \
         change the list there with a reason",
        surplus.join(", "),
        gone.join(", ")
    );
    Some(Finding::new(&file.path, line, sentence))
}

fn boundaries(file: &TextFile, table: &Table) -> Vec<Finding> {
    let rules = BOUNDARIES.iter().filter(|(path, _, _)| *path == file.path);
    let mut findings = Vec::new();
    for (_, refused, why) in rules {
        for (name, _) in dependencies(table).into_iter().filter(|(name, _)| refused.contains(name))
        {
            let sentence = format!("this crate depends on `{name}`, but {why}: take it out");
            findings.push(Finding::new(&file.path, line_of(&file.text, name), sentence));
        }
    }
    findings
}

fn dependencies(table: &Table) -> Vec<(&str, &Value)> {
    let targets = table.get("target").and_then(Value::as_table);
    let per_target = targets.into_iter().flatten().filter_map(|(_, value)| value.as_table());
    let mut found = Vec::new();
    for section in std::iter::once(table).chain(per_target) {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = section.get(kind).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, value)| (name.as_str(), value)));
        }
    }
    found
}

fn inherits(dependency: &Value) -> bool {
    let Some(table) = dependency.as_table() else { return false };
    table.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// The line on which a key stands; line 1 if it is written in a way this does not see.
fn line_of(text: &str, key: &str) -> usize {
    let begins = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    (1..).zip(text.lines()).find(|(_, line)| begins(line)).map_or(1, |(number, _)| number)
}

const LINTS: &str = "the crate does not take the workspace's lints, so that nothing forbids a \
                     panic in it: add `[lints]` and `workspace = true`";

const CORE: &str = "host/core/Cargo.toml";

/// All that the core may depend on: parsing, hashing, Cedar. Nothing that waits, reads or listens.
/// `granit-parser` reads YAML; `miette` is the trait through which Cedar tells where a fault is.
pub const CORE_MAY: [&str; 12] = [
    "cedar-policy",
    "data-encoding",
    "granit-parser",
    "humantime",
    "miette",
    "serde",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "uuid",
    "zeroize",
];

/// Crates that exist to keep something out.
const BOUNDARIES: [(&str, &[&str], &str); 3] = [
    (
        "host/cli/Cargo.toml",
        &["clavigerd", "wasmtime", "wasmtime-wasi", "rusqlite", "cedar-policy"],
        "no server runs inside the agent's box",
    ),
    (
        "tests/Cargo.toml",
        &["clavigerd", "claviger-core", "claviger"],
        "black-box tests cannot reach inside",
    ),
    (
        "proto/Cargo.toml",
        &["clavigerd", "claviger-core"],
        "clients take the contract without the server",
    ),
];

/// Two copies of these double the build, and their types do not fit each other. deny.toml has
/// the same list.
const ONCE: [&str; 7] = ["cedar-policy", "hyper", "prost", "rustls", "tokio", "tonic", "wasmtime"];

/// deny.toml has the same list.
const BANNED: [&str; 3] = ["native-tls", "openssl", "openssl-sys"];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
