//! What a live call takes of memory: many are held in a request that the service does not answer,
//! each kind in a process of its own, whose memory is read before and meanwhile.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use aws_lc_rs::hmac;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::lease::{DueCause, DueLease, LeaseState, Parties};
use claviger_core::ports::Plugins as _;
use claviger_core::prompt::PromptDigest;
use claviger_core::time::Timestamp;
use clavigerd::plugin::{ComponentCache, Plugins, PluginsOptions, TRIAL_SCOPE};
use tokio::task::JoinSet;

use crate::compile::{Column, compared};
use crate::effort::Effort;
use crate::raw::{self, Raw};
use crate::report::{Group, Unit};
use crate::service::{Service, Straight};
use crate::specimen::{self, Specimen};

/// Measures what live calls take, and what a loaded component does.
pub fn measure(
    rust: &Specimen,
    javascript: Option<&Specimen>,
    (service, effort): (&Service, Effort),
) -> Result<Vec<Group>> {
    let cache = tempfile::tempdir().context("no folder for compiled components")?;
    let mut cases = vec![
        ("wasmtime alone: a kept instance, Rust", "instances", rust),
        ("straight: a request under way, no plugin", "requests", rust),
        ("call: a plugin in Rust, waiting for its request", "calls", rust),
    ];
    let in_javascript = |it| ("call: the plugin in JavaScript, likewise", "calls", it);
    cases.extend(javascript.map(in_javascript));
    let mut taken: Vec<Vec<Held>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.times(5) {
        for ((_, kind, specimen), taken) in cases.iter().zip(&mut taken) {
            let count = effort.held(HELD).to_string();
            let port = service.port().to_string();
            taken.push(in_child([*kind, &count, &port], &specimen.path, cache.path())?);
        }
    }
    let columns = |only: &str, figure: fn(&Held) -> f64| {
        let chosen = cases.iter().zip(&taken).filter(|((_, kind, _), _)| kind.starts_with(only));
        let column = |((name, ..), taken): (&(&'static str, _, _), &Vec<Held>)| Column {
            name,
            values: taken.iter().map(figure).collect(),
            cpus: Vec::new(),
        };
        compared(chosen.map(column).collect())
    };
    let group = |name, about, rows| Group { name, about, unit: Unit::Kib, rows };
    let (live, loaded) = (columns("", |held| held.each)?, columns("calls", |held| held.loaded)?);
    Ok(vec![
        group("live memory", "for each of many that live at once", live),
        group("loaded memory", "for each loaded component, shared by its calls", loaded),
    ])
}

/// What a process found out, in bytes.
struct Held {
    /// For each that was held.
    each: f64,
    /// For what was loaded before.
    loaded: f64,
}

fn in_child(kind: [&str; 3], component: &Path, cache: &Path) -> Result<Held> {
    let output = Command::new("/proc/self/exe")
        .arg("memory")
        .args(kind)
        .args([component, cache])
        .stderr(Stdio::inherit())
        .output()
        .context("the process that holds calls does not start")?;
    ensure!(output.status.success(), "the process that holds calls failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let (each, loaded) = text.trim().split_once(' ').context("the process told nothing")?;
    Ok(Held { each: each.parse()?, loaded: loaded.parse()? })
}

/// The process that holds: what, how many, where the service is; the component; the cache.
pub fn child([kind, count, port, component, cache]: [&str; 5]) -> Result<()> {
    let (count, port): (usize, u16) = (count.parse()?, port.parse()?);
    let specimen = Specimen::at(Path::new(component))?;
    let runtime = crate::runtime()?;
    let held = match kind {
        "instances" => instances(&specimen, count),
        "requests" => runtime.block_on(requests(count, port)),
        "calls" => runtime.block_on(calls(&specimen, Path::new(cache), (count, port))),
        _ => Err(anyhow!("nobody can hold `{kind}`")),
    }?;
    println!("{} {}", held.each, held.loaded);
    Ok(())
}

/// Instances that have served a call each.
fn instances(specimen: &Specimen, count: usize) -> Result<Held> {
    let before = memory_bytes()?;
    let raw = Raw::new(&raw::pooling()?, &specimen.wasm)?;
    raw.instance()?.check()?;
    let loaded = memory_bytes()?;
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        let mut instance = raw.instance()?;
        instance.check()?;
        kept.push(instance);
    }
    let each = (memory_bytes()? - loaded) / count as f64;
    drop(kept);
    Ok(Held { each, loaded: loaded - before })
}

/// Requests on connections of their own.
async fn requests(count: usize, port: u16) -> Result<Held> {
    let mut control = Straight::open(port).await?;
    let before = memory_bytes()?;
    Straight::open(port).await?.delete().await?;
    let loaded = memory_bytes()?;
    control.close_gate().await?;
    let mut held = JoinSet::new();
    for _ in 0..count {
        held.spawn(async move { Straight::open(port).await?.delete().await });
    }
    let each = grown(&mut control, loaded, count).await?;
    all(held).await?;
    Ok(Held { each, loaded: loaded - before })
}

/// Calls of the plugin, with room for as many as a broker has.
async fn calls(specimen: &Specimen, cache: &Path, (count, port): (usize, u16)) -> Result<Held> {
    let mut control = Straight::open(port).await?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, CACHE_KEY);
    let cache = Some(ComponentCache::open(cache.to_owned(), key)?);
    let (plugin, backend) = (specimen.plugin()?, specimen::backend(Some(port))?);
    let before = memory_bytes()?;
    let options = PluginsOptions { cache, ..PluginsOptions::default() };
    let plugins = Plugins::load(vec![plugin], vec![backend], options);
    let plugins = Arc::new(plugins.map_err(|errors| specimen::told(&errors))?);
    plugins.revoke(&due()?).await.context("the call failed")?;
    let loaded = memory_bytes()?;
    control.close_gate().await?;
    let mut held = JoinSet::new();
    for _ in 0..count {
        let (plugins, due) = (Arc::clone(&plugins), due()?);
        held.spawn(async move { plugins.revoke(&due).await.context("the call failed") });
    }
    let each = grown(&mut control, loaded, count).await?;
    all(held).await?;
    Ok(Held { each, loaded: loaded - before })
}

/// Waits until all are held, and lets them go.
async fn grown(control: &mut Straight, before: f64, count: usize) -> Result<f64> {
    control.wait_for_held(count).await?;
    let meanwhile = memory_bytes()?;
    control.open_gate().await?;
    Ok((meanwhile - before) / count as f64)
}

async fn all(mut held: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = held.join_next().await {
        ended??;
    }
    Ok(())
}

/// What a worker would give the plugin.
fn due() -> Result<DueLease> {
    let ask = specimen::ask();
    let at = Timestamp::from_unix_millis(ask.now_secs * 1000);
    Ok(DueLease {
        id: IntentId::mint(at, &[7; 10]),
        session: SessionId::mint(at, &[7; 10]),
        role: "bench".parse().context("a name")?,
        prompt_digest: PromptDigest::from_bytes([7; 32]),
        parties: Parties {
            principal: "unix:1000".to_owned(),
            requester: "unix:1000".to_owned(),
            act: Vec::new(),
        },
        ancestors: Vec::new(),
        scope: format!("{}/{TRIAL_SCOPE}", specimen::backend_name()?).parse().context("a name")?,
        state: LeaseState::Due,
        cause: DueCause::Released,
        attempts: 0,
        due_at: at,
        expires_at: at,
        handle: None,
    })
}

/// This process's share of the memory that it has: pages that instances share count once.
fn memory_bytes() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no `Pss`")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}

/// As many as make what is allocated once for all of them small, and no more than a broker of the
/// default size runs at once.
const HELD: usize = 128;

/// The cache lies in a folder that is made for one run and that nobody else may enter.
const CACHE_KEY: &[u8] = b"only for this run";
