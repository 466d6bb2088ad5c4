//! Asks for the limits of an interpreter and takes and touches all the memory that it can get.
//! The operator must grant them first; then their limit must stop it, and not the smaller one.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct InterpretedBomb;

claviger_plugin_sdk::export!(Hostile<InterpretedBomb>, manifest = "interpreted.json");

impl Attack for InterpretedBomb {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let mut hoard = Vec::new();
        loop {
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(MIB).is_err() {
                return Ok(hoard.len().to_string());
            }
            chunk.resize(MIB, 1_u8);
            hoard.push(std::hint::black_box(chunk));
        }
    }
}

const MIB: usize = 1 << 20;
