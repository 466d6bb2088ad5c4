//! `clavigerd plugin test`: the conformance suite. Issues and revokes in the real sandbox against a
//! real backend, with a proxy between them that loses answers. Knows no kind of backend.

mod cases;
mod config;
mod issuer;
mod leaks;
mod proxy;
mod report;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;

use super::{Format, answer, read};
use crate::plugin::{ConnectionKind, Manifest, PluginSpec, Terms, Trial};

use self::cases::Suite;
use self::config::{Conformance, Route};
use self::leaks::LogText;
use self::proxy::{Faults, Proxy};
use self::upstream::Upstream;

/// What to test, and against what.
#[derive(Args)]
pub struct TestArgs {
    /// The component
    component: PathBuf,
    /// The backend, one scope, and how to use a credential: see `plugins/README.md`
    #[arg(long, short)]
    config: PathBuf,
    /// How to write the answer
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
}

/// Runs the suite. Exit code 1 if any case failed.
pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(&args.component)?;
    let manifest = Manifest::of_component(&bytes)
        .with_context(|| format!("`{}`", args.component.display()))?;
    let config = Conformance::read(&args.config)?;
    let log = LogText::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context("no runtime")?;
    let plugin = PluginSpec {
        name: "plugin".parse().context("a name")?,
        path: args.component.clone(),
        bytes,
        sha256_pin: None,
        // Whoever tests a plugin has granted it what it asks for.
        terms: Terms::unchecked(manifest.limits_class),
    };
    let report = runtime.block_on(tested(plugin, manifest, config, log))?;
    match args.output {
        Format::Json => answer(&report.json()?)?,
        Format::Table => answer(&report.table())?,
    }
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn tested(
    plugin: PluginSpec,
    manifest: Manifest,
    config: Conformance,
    log: LogText,
) -> anyhow::Result<report::Report> {
    let faults = Arc::new(Faults::default());
    let mut proxies = std::collections::BTreeMap::new();
    for (name, target) in config.plain_addresses()? {
        proxies.insert(name, Proxy::start(target, Arc::clone(&faults)).await?);
    }
    let routes = [
        (cases::DIRECT, Route::Direct),
        (cases::PROXIED, Route::Through(proxies.clone())),
        (cases::DOWN, Route::Down(proxy::closed_port().await?)),
    ];
    let issuer = match manifest.wants(ConnectionKind::Jwt) {
        true => Some(issuer::start().await?),
        false => None,
    };
    let mut backends = Vec::new();
    let mut roots = Vec::new();
    for (name, route) in routes {
        let (backend, secrets) = config.backend(name, &route)?;
        backends.push(backend);
        roots = secrets;
    }
    // Compiling blocks, and checking the configuration starts a runtime of its own.
    let trial = tokio::task::spawn_blocking(move || Trial::load(plugin, backends, issuer)).await?;
    let trial = trial.map_err(|errors| {
        let sentences: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{}", sentences.join("\n"))
    })?;
    let upstream = Upstream::new(&config);
    let suite = Suite {
        trial,
        manifest,
        upstream,
        faults,
        skip: config.skip_network()?,
        life_max_secs: config.life_max_secs()?,
        seen: leaks::Seen::new(roots, log),
    };
    Ok(suite.run().await)
}
