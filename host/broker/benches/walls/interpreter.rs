//! What an interpreter inside the sandbox costs: the same plugin in Rust and in JavaScript.

use anyhow::{Context as _, Result};
use clavigerd::plugin::Trial;

use crate::effort::{Effort, Turns};
use crate::report::{Group, Unit};
use crate::rounds::{Case, interleaved};
use crate::specimen::{self, Specimen};

/// Measures calls of both, with the service at `port`.
pub async fn measure(
    (rust, javascript): (&Specimen, &Specimen),
    port: u16,
    effort: Effort,
) -> Result<Group> {
    let (rust, javascript) = (rust.trial(Some(port))?, javascript.trial(Some(port))?);
    let cases = vec![
        revoke("Rust: `revoke`, one request", &rust),
        revoke("JavaScript: `revoke`, one request", &javascript),
    ];
    let turns = effort.turns(Turns { rounds: 40, samples: 20 });
    Ok(Group {
        name: "interpreter",
        about: "one call of the same plugin in two languages",
        unit: Unit::Micros,
        rows: interleaved(cases, turns).await?,
    })
}

/// The broker's `revoke`.
pub fn revoke<'a>(name: &'static str, trial: &'a Trial) -> Case<'a> {
    Case::later(name, move || {
        Box::pin(async move {
            let (backend, ask) = (specimen::backend_name()?, specimen::ask());
            trial.revoke(&backend, &ask, None).await.context("the call failed")
        })
    })
}
