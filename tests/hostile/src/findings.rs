//! What an attacker has seen, and the ways in which it tells. Attacks nothing itself.

use claviger_plugin_sdk::log;

/// What was seen, as text.
#[derive(Debug, Default)]
pub struct Findings(Vec<u8>);

impl Findings {
    /// Notes `text`.
    pub fn add(&mut self, what: &str, text: &str) {
        self.0.extend_from_slice(what.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(b'\n');
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Tells the log as much as a call may, and returns as much of the rest as a lease may hold.
    /// Pieces overlap, so that no secret is cut in two.
    pub fn tell(&self) -> String {
        let step = LINE_BYTES - OVERLAP_BYTES;
        let piece = |start: usize, bytes: usize| {
            let end = self.0.len().min(start + bytes);
            String::from_utf8_lossy(self.0.get(start..end).unwrap_or_default()).into_owned()
        };
        for line in 0..LINES {
            log::info(&piece(line * step, LINE_BYTES), &[]);
        }
        piece(LINES * step, REST_BYTES)
    }

    /// Notes every readable run of bytes in the instance's own memory.
    pub fn add_memory(&mut self) {
        memory::add_readable(self);
    }
}

/// Just under the 2 KiB that a line of the log may have.
const LINE_BYTES: usize = 2_000;
const OVERLAP_BYTES: usize = 100;
/// As many lines as a call may write.
const LINES: usize = 64;
/// Leaves room for the other fields in the 64 KiB of a lease.
const REST_BYTES: usize = 32 * 1024;

/// The instance's own linear memory.
#[cfg(target_arch = "wasm32")]
mod memory {
    use super::Findings;

    /// Adds every run of printable bytes that could hold a secret.
    #[expect(unsafe_code, reason = "reads linear memory at addresses that it has")]
    pub fn add_readable(seen: &mut Findings) {
        // Grown before the search and left out of it, so that it does not find itself.
        seen.0.reserve(FINDINGS_BYTES_MAX);
        let own = seen.0.as_ptr() as usize..seen.0.as_ptr() as usize + seen.0.capacity();
        let end = core::arch::wasm32::memory_size::<0>() * 64 * 1024;
        let mut run_start = 1;
        // SAFETY: every address below `end` is mapped, and no reference is formed to it.
        let byte_at = |address: usize| unsafe { core::ptr::read_volatile(address as *const u8) };
        for address in 1..=end {
            let inside = address < end && !own.contains(&address);
            if inside && byte_at(address).is_ascii_graphic() {
                continue;
            }
            let room = seen.0.capacity() - seen.0.len();
            if (RUN_BYTES_MIN..room).contains(&(address - run_start)) {
                seen.0.extend((run_start..address).map(byte_at));
                seen.0.push(b'\n');
            }
            run_start = address + 1;
        }
    }

    /// No secret of the tests is shorter, and shorter runs would fill the report with noise.
    const RUN_BYTES_MIN: usize = 12;
    /// All that the log and the lease can carry.
    const FINDINGS_BYTES_MAX: usize = 160 * 1024;
}

/// Elsewhere there is no instance to look into.
#[cfg(not(target_arch = "wasm32"))]
mod memory {
    pub fn add_readable(_: &mut super::Findings) {}
}
