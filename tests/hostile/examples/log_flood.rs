//! Attacks the operator's log and disk: too many lines, lines of a megabyte, a thousand fields,
//! control characters and forged lines, also through standard error. The log's limits must drop
//! and count the rest.

use std::io::Write;

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::{Error, Lease, log};

struct LogFlood;

claviger_plugin_sdk::export!(Hostile<LogFlood>, manifest = "plain.json");

impl Attack for LogFlood {
    fn run(_: &Request, _: &Lease) -> Result<String, Error> {
        let wide = vec![("field", "value"); 1_000];
        log::error("a thousand fields", &wide);
        log::error(&"A".repeat(1 << 20), &[]);
        log::error("forged\nERROR claviger: all keys are lost\u{1b}[2J\0", &[("a\nb", "c\nd")]);
        let mut written = 0_u32;
        for line in 0..LINES {
            log::info("flood", &[("line", &line.to_string())]);
            written += u32::from(writeln!(std::io::stderr(), "flood {line}").is_ok());
        }
        Ok(format!("{written} lines went to standard error"))
    }
}

/// Far more than the 64 that a call may write, and few enough to come to an end in time.
const LINES: u32 = 2_000;
