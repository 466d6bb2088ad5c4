//! The Python environment of the tests: moto, boto3, PyJWT, as `tests/requirements.txt` pins them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command of that Python with nothing of this process's cloud configuration.
pub fn python() -> Command {
    let mut command = Command::new(program("python"));
    for variable in std::env::vars_os().map(|(name, _)| name) {
        if variable.to_string_lossy().starts_with("AWS_") {
            command.env_remove(variable);
        }
    }
    // Nobody's profile, and no search for credentials on the network.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("NO_PROXY", "127.0.0.1");
    command
}

/// A program of the environment, such as `python` or `moto_server`.
pub fn program(name: &str) -> PathBuf {
    let program = tools().join("python/bin").join(name);
    assert!(program.exists(), "`{}` is missing: run `cargo xtask setup`", program.display());
    program
}

/// Where the tests' own programs are.
pub fn tools() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let tools = std::env::var_os("CLAVIGER_TEST_TOOLS").map(PathBuf::from);
    tools.unwrap_or_else(|| root.join(target).join("test-tools"))
}
