//! Logging: JSON lines when standard error is not a terminal, text when it is. The filter comes
//! from `CLAVIGER_LOG` (`info` without it).

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error.
pub fn start() {
    let filter = EnvFilter::try_from_env("CLAVIGER_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,wasmtime=warn,cranelift=warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.with_target(false).init();
    } else {
        logs.json().flatten_event(true).init();
    }
}

/// One line for the person at the terminal, before or beside the log.
pub fn say(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ignored = writeln!(std::io::stderr(), "{line}");
}
