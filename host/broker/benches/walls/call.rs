//! What a fresh sandbox costs: a call of a plugin that does nothing.

use anyhow::{Context as _, Result};

use crate::effort::{Effort, Turns};
use crate::raw::{self, Raw};
use crate::report::{Group, Unit};
use crate::rounds::{Case, interleaved};
use crate::specimen::{self, Specimen};

/// Measures calls of `nothing`.
pub async fn measure(nothing: &Specimen, effort: Effort) -> Result<Group> {
    let trial = nothing.trial(None)?;
    let (backend, ask) = (specimen::backend_name()?, specimen::ask());
    let pooled = Raw::new(&raw::pooling()?, &nothing.wasm)?;
    let mapped = Raw::new(&raw::on_demand()?, &nothing.wasm)?;
    let switched = Raw::new(trial.engine(), &nothing.wasm)?;
    let mut kept = pooled.instance()?;
    let cases = vec![
        Case::now("warm: a kept instance on wasmtime alone", || kept.revoke()).repeated(50),
        Case::now("fresh: wasmtime alone, from its pool", || pooled.instance()?.revoke()),
        Case::now("fresh: wasmtime alone, without a pool", || mapped.instance()?.revoke()),
        Case::later("fresh: wasmtime alone, on the sandbox's engine", || {
            Box::pin(switched.revoke_on_fiber())
        }),
        Case::later("fresh: the broker's call, with every limit", || {
            Box::pin(async { trial.revoke(&backend, &ask, None).await.context("the call failed") })
        }),
    ];
    let turns = effort.turns(Turns { rounds: 60, samples: 200 });
    Ok(Group {
        name: "call",
        about: "one `revoke` of a plugin that does nothing",
        unit: Unit::Micros,
        rows: interleaved(cases, turns).await?,
    })
}
