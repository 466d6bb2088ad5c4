//! One program for all fuzz targets, so that the broker is linked once: `CLAVIGER_FUZZ_TARGET`
//! names the target, and libFuzzer's own `main` reads the arguments. No target stands in here.
#![no_main]

use std::sync::OnceLock;

use claviger_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| (chosen().run)(data));

#[expect(clippy::panic, reason = "without a target there is nothing to run")]
fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("CLAVIGER_FUZZ_TARGET").unwrap_or_default();
        let known = TARGETS.iter().find(|target| target.name == name);
        known.unwrap_or_else(|| {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            panic!("CLAVIGER_FUZZ_TARGET is `{name}`: set it to one of {}", names.join(", "))
        })
    })
}
