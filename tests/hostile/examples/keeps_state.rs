//! Attacks the wall between calls: leaves a marker in a static, on the heap, in grown memory and
//! on the stack, and looks for the marker of an earlier call. A fresh, zeroed instance per call
//! must leave `report` at `nothing`.

use std::sync::atomic::{AtomicU32, Ordering};

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct KeepsState;

claviger_plugin_sdk::export!(Hostile<KeepsState>, manifest = "plain.json");

static CALLS: AtomicU32 = AtomicU32::new(0);

impl Attack for KeepsState {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let mut found = Vec::new();
        if CALLS.fetch_add(1, Ordering::SeqCst) != 0 {
            found.push("a static".to_owned());
        }
        // Nothing of this call may hold the marker before the search is over.
        let markers = memory::count_marker();
        if markers != 0 {
            found.push(format!("{markers} markers in memory"));
        }
        memory::leave_marker();
        Ok(if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })
    }
}

/// The instance's own linear memory, as an array of bytes.
#[cfg(target_arch = "wasm32")]
mod memory {
    /// Counts the marker in all of memory, with pages added that the allocator never touched.
    #[expect(unsafe_code, reason = "reads linear memory at addresses that it has")]
    pub fn count_marker() -> usize {
        core::arch::wasm32::memory_grow::<0>(PAGES_MORE);
        let end = core::arch::wasm32::memory_size::<0>() * PAGE_BYTES;
        let mut count = 0;
        // SAFETY: every address below `end` is mapped, and no reference is formed to it. Address
        // 0 is left out: a pointer to it counts as null.
        for address in (8..end - 8).step_by(8) {
            let word = unsafe { core::ptr::read_volatile(address as *const u64) };
            count += usize::from(word == marker());
        }
        count
    }

    /// Fills a MiB of heap and the last page with the marker.
    #[expect(unsafe_code, reason = "writes a page that it grew itself")]
    pub fn leave_marker() {
        std::mem::forget(std::hint::black_box(vec![marker(); 128 * 1024]));
        let grown = core::arch::wasm32::memory_grow::<0>(1);
        if grown == usize::MAX {
            return;
        }
        let page = grown * PAGE_BYTES;
        for address in (page..page + PAGE_BYTES).step_by(8) {
            // SAFETY: the page was grown just now and belongs to nobody else.
            unsafe { core::ptr::write_volatile(address as *mut u64, marker()) };
        }
    }

    /// Put together at run time: as a constant it would stand in the code, not in memory, but the
    /// optimiser may spill it.
    fn marker() -> u64 {
        std::hint::black_box(0x5a5a_1234_u64) << 32 | std::hint::black_box(0x0dd0_beef_u64)
    }

    const PAGE_BYTES: usize = 64 * 1024;
    const PAGES_MORE: usize = 64;
}

/// Elsewhere there is no instance to look into.
#[cfg(not(target_arch = "wasm32"))]
mod memory {
    pub fn count_marker() -> usize {
        0
    }

    pub fn leave_marker() {}
}
