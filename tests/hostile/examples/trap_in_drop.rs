//! Attacks the moment after the answer: panics while a host handle is dropped, or traps when the
//! host has the answer and lets the guest free its memory. Neither answer may count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, ErrorKind, Lease, Secret};

struct TrapInDrop;

claviger_plugin_sdk::export!(Hostile<TrapInDrop>, manifest = "plain.json");

impl Attack for TrapInDrop {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        if request.parameters.get("when").map(String::as_str) == Some("afterwards") {
            lease.set_field("report", "set before the trap")?;
            ARMED.store(true, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Denied, "a trap follows"));
        }
        let bomb = Bomb(Some(Secret::generate(128)?));
        lease.set_field("report", "set before the trap")?;
        drop(bomb);
        Ok("not reached".to_owned())
    }
}

struct Bomb(Option<Secret>);

impl Drop for Bomb {
    #[expect(clippy::panic, reason = "it is the attack")]
    fn drop(&mut self) {
        drop(self.0.take());
        panic!("trap in drop");
    }
}

static ARMED: AtomicBool = AtomicBool::new(false);

/// Traps on the first memory that is given back once it is armed. The error's message is: the host
/// has it freed after it has read the answer.
struct TrappingAllocator;

#[global_allocator]
static ALLOCATOR: TrappingAllocator = TrappingAllocator;

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: hands everything to the system's allocator, or ends the instance.
unsafe impl GlobalAlloc for TrappingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if ARMED.load(Ordering::SeqCst) && layout.size() == MESSAGE_BYTES {
            trap();
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

/// The size of the message above, so that nothing else sets off the trap before the host has it.
const MESSAGE_BYTES: usize = "a trap follows".len();

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {}
