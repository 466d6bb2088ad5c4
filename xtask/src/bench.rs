//! Runs the benches, each on what it needs, and leaves their figures in `target/bench/`. Measures
//! nothing itself.

use anyhow::{Result, bail};

use crate::paths::Paths;
use crate::step::Step;
use crate::{javascript, plugins};

/// Runs the benches of these names, or all.
pub fn run(paths: &Paths, names: &[String]) -> Result<()> {
    let known = BENCHES.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no bench `{unknown}`: there is {}", known.join(", "));
    }
    for (name, bench) in BENCHES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            bench(paths)?;
        }
    }
    Ok(())
}

/// A bench and how it is run.
type Bench = (&'static str, fn(&Paths) -> Result<()>);

/// What the walls round a plugin cost. With the workspace's features, as everything else is built.
fn walls(paths: &Paths) -> Result<()> {
    plugins::build(paths)?;
    javascript::build(paths)?;
    Step::cargo("measure the walls (the first build takes a quarter of an hour)", &paths.root)
        .env("CLAVIGER_PLUGINS", &paths.plugins)
        .args(["bench", "--workspace", "--bench", "walls", "--", "--out"])
        .args([paths.bench.join("walls.json")])
        .run()
}

const BENCHES: [Bench; 1] = [("walls", walls)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_refused_before_anything_is_built() {
        let refusal = run(&Paths::find().unwrap(), &["walls".to_owned(), "wall".to_owned()]);
        let refusal = refusal.unwrap_err().to_string();
        assert_eq!(refusal, "there is no bench `wall`: there is walls");
    }
}
