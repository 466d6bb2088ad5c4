//! System calls as an intruder makes them: any number, any arguments. Harmless only as far as the
//! caller chooses harmless arguments.
#![allow(unsafe_code, reason = "an intruder asks no library")]

use std::io;

/// Makes the system call `number`. What it does to memory is bounded by the arguments: tests give
/// pointers that are null, point nowhere, or to a text that is only read.
pub fn call(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers give pointers that are null, that point nowhere, or to a text that the
    // kernel only reads, so it has nothing of this process to write to.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
