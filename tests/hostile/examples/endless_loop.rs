//! Attacks the processor: never returns and never calls the host. The epoch deadline must end it.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct EndlessLoop;

claviger_plugin_sdk::export!(Hostile<EndlessLoop>, manifest = "plain.json");

impl Attack for EndlessLoop {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let mut turns = 0_u64;
        loop {
            turns = std::hint::black_box(turns.wrapping_add(1));
        }
    }
}
