//! `clavigerd check`: everything that would keep the broker from serving as meant, found without
//! serving and without reaching any backend.

use std::path::Path;
use std::process::ExitCode;

use crate::app::Mode;
use crate::config::{ConfigFile, Stored, WithStored};
use crate::plugin::PluginsOptions;
use crate::{load, serve, telemetry, tls};

/// Checks the configuration at `path` and tells what it found. Fails on any problem, also on a
/// prompt file that would merely be left out. The journal stays closed: a broker may hold it, and
/// where the check runs there may be none. So any name of the store counts as kept, and is named.
pub fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let file = ConfigFile::read(path)?;
    let mut problems = Vec::new();
    if let Err(problem) = load::sealing_keys(&file) {
        problems.push(problem.to_string());
    }
    if let Err(problem) = load::issuer_page(&file) {
        problems.push(problem.to_string());
    }
    if let Err(found) = load::identities(&file) {
        problems.extend(found.iter().map(ToString::to_string));
    }
    if let Err(problem) = serve::plain_is_for_dev(Mode::Serve, &file) {
        problems.push(problem.to_string());
    }
    if let Err(problem) = tls::check(&file, crate::broker::now()) {
        problems.push(problem.to_string());
    }
    for (name, places) in file.stored_secrets() {
        let places = places.join("`, `");
        telemetry::say(&format!(
            "not checked: whether the broker keeps `store:{name}`, which `{places}` refers to"
        ));
    }
    match parts(&file) {
        Ok((summary, left_out)) => {
            telemetry::say(&summary);
            problems.extend(left_out);
        }
        Err(found) => problems.extend(found),
    }
    for problem in &problems {
        telemetry::say(&format!("problem: {problem}"));
    }
    if problems.is_empty() {
        telemetry::say("no problem found");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn parts(file: &ConfigFile) -> Result<(String, Vec<String>), Vec<String>> {
    let sentences = |problems: Vec<crate::config::ConfigError>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let issuer = load::issuer(file, Mode::Serve).map_err(|problem| vec![problem.to_string()])?;
    let options = PluginsOptions { issuer, ..PluginsOptions::default() };
    let with_stand_ins = WithStored::new(file, &Stored::Unknown);
    let plugins = load::plugins(with_stand_ins, Mode::Serve, options).map_err(sentences)?;
    let fixed = load::fixed_sources(file, &plugins).map_err(sentences)?;
    let scopes = fixed.catalog.scopes().count();
    let read = load::folders(file, fixed).read().map_err(|error| error.sentences())?;
    let summary = format!(
        "{} plugins, {} backends, {scopes} scopes, {} roles, policy snapshot {}",
        file.config().plugins.len(),
        file.config().backends.len(),
        read.snapshot.roles().len(),
        read.snapshot.digest()
    );
    Ok((summary, read.problems))
}
