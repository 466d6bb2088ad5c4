//! Attacks the processor behind the clock's back: fills and copies most of its memory, one bulk
//! instruction at a time, without end. No clock interrupts a bulk instruction; the memory limit
//! keeps each one short, and the clock must end the loop between two of them.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct BulkMemory;

claviger_plugin_sdk::export!(Hostile<BulkMemory>, manifest = "plain.json");

impl Attack for BulkMemory {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let mut bytes = vec![0_u8; BYTES];
        let mut turn = 0_u8;
        loop {
            turn = std::hint::black_box(turn.wrapping_add(1));
            std::hint::black_box(bytes.as_mut_slice()).fill(turn);
            std::hint::black_box(bytes.as_mut_slice()).copy_within(..BYTES - 1, 1);
        }
    }
}

/// Most of what a call may have.
const BYTES: usize = 24 << 20;
