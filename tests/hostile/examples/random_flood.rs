//! Attacks the host's generator: asks for a GiB of random bytes at once, and for small portions
//! without end. The one is refused by its size, the other ends with the call's processor time.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease};

struct RandomFlood;

claviger_plugin_sdk::export!(Hostile<RandomFlood>, manifest = "plain.json");

impl Attack for RandomFlood {
    fn run(request: &Request, _: &Lease) -> Result<String, Error> {
        if request.parameters.get("portions").map(String::as_str) == Some("one") {
            return Ok(random(1 << 30).to_string());
        }
        loop {
            std::hint::black_box(random(4 * 1024));
        }
    }
}

/// How many random bytes came when this many were asked for.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "calls the C library, which Rust's own asks for seeds only")]
fn random(bytes: u64) -> usize {
    #[repr(C)]
    struct List {
        start: *mut u8,
        bytes: usize,
    }
    unsafe extern "C" {
        fn random_get_random_bytes(bytes: u64, list: *mut List);
        fn free(start: *mut u8);
    }
    let mut list = List { start: std::ptr::null_mut(), bytes: 0 };
    // SAFETY: the C library's own binding of `wasi:random`; it writes the list, whose memory came
    // from its allocator and is given back to it.
    unsafe {
        random_get_random_bytes(bytes, &raw mut list);
        free(list.start);
    }
    list.bytes
}

/// Elsewhere there is no such host.
#[cfg(not(target_arch = "wasm32"))]
fn random(_: u64) -> usize {
    0
}
