//! Attacks the host's stack: recurses until something gives way. The guest's stack limit must
//! trap before the host's own guard page is reached.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct StackOverflow;

claviger_plugin_sdk::export!(Hostile<StackOverflow>, manifest = "plain.json");

impl Attack for StackOverflow {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        Ok(descend(0).to_string())
    }
}

/// Small frames, so that the engine's stack ends before the guest's own shadow stack does.
fn descend(depth: u32) -> u32 {
    if std::hint::black_box(depth) == u32::MAX {
        return depth;
    }
    std::hint::black_box(descend(depth.wrapping_add(1))).wrapping_add(1)
}
