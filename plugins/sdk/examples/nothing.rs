//! The smallest plugin: hands out a field that says nothing, and reaches nobody. What a call of it
//! costs is what the sandbox costs (`docs/benchmarks.md`).

use claviger_plugin_sdk::{Error, Issue, Lease, Provider, Revoke, Schema};

struct Nothing;

claviger_plugin_sdk::export!(Nothing, manifest = "examples/nothing.json");

/// Of settings and parameters alike.
#[derive(serde::Deserialize, Schema)]
struct None {}

impl Provider for Nothing {
    type Settings = None;
    type Parameters = None;

    fn issue(_: &Issue<None, None>, lease: &Lease) -> Result<(), Error> {
        lease.set_field("note", "nothing")
    }

    fn revoke(_: &Revoke<None>) -> Result<(), Error> {
        Ok(())
    }
}
