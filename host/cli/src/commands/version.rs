//! `claviger version`: the version of this command, not of the broker.

use serde_json::json;

use super::Context;
use crate::exit::Failure;

/// Prints it.
pub fn run(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if context.printer.is_json()? {
        return context.printer.json(&json!({ "version": version }));
    }
    context.printer.text(&format!("claviger {version}\n"))
}
