//! A new sandbox for each call, less a kept one. The bench `walls` measures it; this takes its
//! figures over.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Bench;
use crate::figures::{Compared, Named, difference};

/// Takes over from the report of `walls` at `path`.
pub fn take_over(bench: &mut Bench, path: &Path) -> Result<()> {
    let text = std::fs::read(path).with_context(|| format!("no {}", path.display()))?;
    let report: Value = serde_json::from_slice(&text)?;
    let rows = report.pointer("/groups/0/rows").and_then(Value::as_array);
    let rows = rows.context("`walls` measured no calls")?;
    let micros = |name: &str| -> Result<f64> {
        let is_it = |row: &&Value| {
            row.get("name").and_then(Value::as_str).is_some_and(|found| found.starts_with(name))
        };
        let nanos = rows.iter().find(is_it).and_then(|row| row.get("median")?.as_f64());
        Ok(nanos.with_context(|| format!("`walls` has no row `{name}`"))? / 1e3)
    };
    let (fresh, warm) = (micros("fresh: the broker's call")?, micros("warm")?);
    bench.ratio(difference(&Compared {
        key: "fresh_minus_warm_us",
        ours: Named { what: "a call in a new sandbox", unit: "µs", values: &[fresh] },
        theirs: Named { what: "a kept instance on wasmtime alone", unit: "µs", values: &[warm] },
    })?);
    Ok(())
}
