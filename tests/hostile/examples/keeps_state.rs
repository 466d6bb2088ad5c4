//! Attacks the wall between calls: leaves a marker in a static, in all the memory that it can grow
//! and in the unused part of its stack, and looks for the marker of an earlier call. A fresh, zeroed instance per call
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
        let grown = memory::grow();
        let markers = memory::count_marker();
        if markers != 0 {
            found.push(format!("{markers} markers in memory"));
        }
        memory::leave_marker(grown);
        Ok(if found.is_empty() { "nothing".to_owned() } else { found.join(", ") })
    }
}

/// The instance's own linear memory, as an array of bytes.
#[cfg(target_arch = "wasm32")]
mod memory {
    /// Counts the marker in all of memory, with pages added that the allocator never touched.
    #[expect(unsafe_code, reason = "reads linear memory at addresses that it has")]
    pub fn count_marker() -> usize {
        let mut count = 0;
        // SAFETY: every address below the end is mapped, and no reference is formed to it. Address
        // 0 is left out: a pointer to it counts as null.
        for address in (8..end_bytes() - 8).step_by(8) {
            let word = unsafe { core::ptr::read_volatile(address as *const u64) };
            count += usize::from(word == marker());
        }
        count
    }

    /// Takes all the memory that it may have and tells where it begins. Nothing lives in it: the
    /// allocator knows only of what it has grown itself, and gets a share for the answer first.
    pub fn grow() -> usize {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(ANSWER_BYTES)));
        let own = end_bytes();
        while core::arch::wasm32::memory_grow::<0>(PAGES_AT_ONCE) != usize::MAX {}
        own
    }

    /// Fills with the marker all memory from `grown` on, and the stack below this frame.
    #[expect(unsafe_code, reason = "writes where nothing lives")]
    pub fn leave_marker(grown: usize) {
        let here = 0_u64;
        let frame = std::hint::black_box(&raw const here) as usize;
        // The linker lays the stack first, so that it ends at address 0.
        let stack = (8..frame.saturating_sub(FRAME_BYTES)).step_by(8);
        for address in stack.chain((grown..end_bytes()).step_by(8)) {
            // SAFETY: `grown` is ours alone, and below this frame the stack is unused.
            unsafe { core::ptr::write_volatile(address as *mut u64, marker()) };
        }
    }

    fn end_bytes() -> usize {
        core::arch::wasm32::memory_size::<0>() * PAGE_BYTES
    }

    /// Put together at run time: as a constant it would stand in the code, not in memory, but the
    /// optimiser may spill it.
    fn marker() -> u64 {
        std::hint::black_box(0x5a5a_1234_u64) << 32 | std::hint::black_box(0x0dd0_beef_u64)
    }

    const PAGE_BYTES: usize = 64 * 1024;
    const PAGES_AT_ONCE: usize = 8;
    const ANSWER_BYTES: usize = 512 * 1024;
    /// More than this function and its caller's arguments take.
    const FRAME_BYTES: usize = 4 * 1024;
}

/// Elsewhere there is no instance to look into.
#[cfg(not(target_arch = "wasm32"))]
mod memory {
    pub fn count_marker() -> usize {
        0
    }

    pub fn grow() -> usize {
        0
    }

    pub fn leave_marker(_: usize) {}
}
