//! Where figures were measured: what they depend on, and nothing that tells whose machine it is.

use std::num::NonZero;

use serde_json::{Value, json};

/// For people.
pub fn lines(effort: &str) -> String {
    format!(
        "{} × {}, Linux {}\n{BUILD}, wasmtime {}, effort {effort}\n",
        cores(),
        processor(),
        kernel(),
        wasmtime()
    )
}

/// For programs.
pub fn json() -> Value {
    json!({
        "cores": cores(),
        "processor": processor(),
        "kernel": kernel(),
        "build": BUILD,
        "wasmtime": wasmtime(),
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "an unknown processor".to_owned(), |(_, model)| model.to_owned())
}

/// The numbers of the release: what a distribution adds may name the machine's owner.
fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default().to_owned()
}

fn wasmtime() -> &'static str {
    let lock = include_str!("../../../../Cargo.lock");
    let package = lock.split("name = \"wasmtime\"\nversion = \"").nth(1);
    package.and_then(|rest| rest.split('"').next()).unwrap_or("of an unknown version")
}

const BUILD: &str = if cfg!(debug_assertions) {
    "a debug build, not optimised"
} else {
    "profile bench: optimised, without the optimisation across crates"
};
