//! `claviger:log`: what plugins tell the operator; bounded and redacted here.

use wasmtime::Result;

use super::generated::claviger::log::log::{Host, Level};
use crate::plugin::call::Call;
use crate::plugin::plain;

impl Host for Call {
    fn write(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> Result<()> {
        if self.used.log_lines >= LINES_MAX {
            self.used.log_lines_dropped = self.used.log_lines_dropped.saturating_add(1);
            return Ok(());
        }
        self.used.log_lines += 1;
        let line = self.line(&message, &fields);
        let plugin = self.plugin.as_str();
        match level {
            Level::Debug => tracing::debug!(target: TARGET, { plugin.name = plugin }, "{line}"),
            Level::Info => tracing::info!(target: TARGET, { plugin.name = plugin }, "{line}"),
            Level::Warn => tracing::warn!(target: TARGET, { plugin.name = plugin }, "{line}"),
            Level::Error => tracing::error!(target: TARGET, { plugin.name = plugin }, "{line}"),
        }
        Ok(())
    }
}

impl Call {
    /// One line, whatever the guest wrote: escaped, so that it cannot pose as several.
    fn line(&self, message: &str, fields: &[(String, String)]) -> String {
        let mut line = message.to_owned();
        for (name, value) in fields.iter().take(FIELDS_MAX) {
            line = format!("{line} {name}={value:?}");
            if line.len() > LINE_BYTES_MAX {
                break;
            }
        }
        plain::line(&self.redactor.clean(&line, LINE_BYTES_MAX), LINE_BYTES_MAX)
    }
}

/// What the operator filters by.
const TARGET: &str = "claviger::plugin";

/// Documented in the plugin contract.
const LINES_MAX: u32 = 64;

/// Documented in the plugin contract.
const LINE_BYTES_MAX: usize = 2 * 1024;

/// Documented in the plugin contract.
const FIELDS_MAX: usize = 16;
