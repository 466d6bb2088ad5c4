//! Where things stand in the project. Finds folders, makes none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders that every command works with, all absolute.
pub struct Paths {
    /// The root of the workspace.
    pub root: PathBuf,
    /// Where built plugins go: `CLAVIGER_PLUGINS`.
    pub plugins: PathBuf,
    /// Where `clavigerd` and `claviger` are: `CLAVIGER_BIN`.
    pub bin: PathBuf,
    /// Where the tests' own programs are: `CLAVIGER_TEST_TOOLS`.
    pub test_tools: PathBuf,
    /// Where benches leave their figures.
    pub bench: PathBuf,
}

impl Paths {
    /// Where the programs are that are measured.
    pub fn release(&self) -> PathBuf {
        self.bin.with_file_name("release")
    }

    /// The paths of the workspace that this script was built in.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the xtask crate has no parent folder: run `cargo xtask` in the workspace")?
            .to_path_buf();
        // A relative CARGO_TARGET_DIR counts from the folder in which cargo runs: the root, here.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        let target = root.join(target);
        Ok(Self {
            plugins: target.join("plugins"),
            bin: target.join("debug"),
            test_tools: target.join("test-tools"),
            bench: target.join("bench"),
            root,
        })
    }
}
