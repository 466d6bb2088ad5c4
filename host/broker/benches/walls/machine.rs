//! Where figures were measured: what they depend on, and nothing that tells whose machine it is.

use claviger_bench::machine::{cores, kernel, processor};
use serde_json::{Value, json};

/// For people.
pub fn lines(effort: &str) -> String {
    format!(
        "{} × {}, {}\n{BUILD}, wasmtime {}, effort {effort}\n",
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
