//! The fuzz targets: each takes any bytes, does with them what the product does with bytes that
//! others wrote, and panics when a promise is broken. Runs nothing by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a fuzz target tells of a fault by panicking"
)]

mod config;
mod manifest;
mod prompt;
mod statement;
mod view;

/// One target.
#[derive(Debug)]
pub struct Target {
    /// What `CLAVIGER_FUZZ_TARGET` calls it; its seeds are in `seeds/<name>/`.
    pub name: &'static str,
    /// Tries these bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "config", run: config::run },
    Target { name: "extract", run: view::extract },
    Target { name: "manifest", run: manifest::run },
    Target { name: "prompt", run: prompt::run },
    Target { name: "statement", run: statement::run },
    Target { name: "view", run: view::run },
];
