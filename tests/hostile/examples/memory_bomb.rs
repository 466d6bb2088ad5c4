//! Attacks the host's memory: takes and touches all it can get. The memory limit must stop it;
//! where growth is refused and not trapped, `report` says how many MiB it got.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct MemoryBomb;

claviger_plugin_sdk::export!(Hostile<MemoryBomb>, manifest = "plain.json");

impl Attack for MemoryBomb {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let mut hoard = Vec::with_capacity(HOARD_MIB_MAX);
        while hoard.len() < HOARD_MIB_MAX {
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(MIB).is_err() {
                break;
            }
            chunk.resize(MIB, 1_u8);
            hoard.push(std::hint::black_box(chunk));
        }
        Ok(hoard.len().to_string())
    }
}

const MIB: usize = 1 << 20;
/// All that 32 bits can address.
const HOARD_MIB_MAX: usize = 4096;
