//! Wires the parts together: build, serve, drain. The order of the steps is the order in which
//! they depend on each other.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use claviger_core::journal::{Entry, Event};
use claviger_core::ports::{Clock, Journal, Ports};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::config::{ConfigError, ConfigFile, Stored, WithStored};
use crate::configuration::Configuration;
use crate::identity::withdrawal;
use crate::issuer::page::Page;
use crate::issuer::{self, Issuer};
use crate::journal::{CommitObserver, JournalOptions, SealingKeys, SqliteJournal};
use crate::plugin::{Observe, PluginStore, PluginsOptions};
use crate::policies::{self, PolicyStore};
use crate::rotation::{self, Rotations};
use crate::sessions::Sessions;
use crate::tls::{self, Certificates, Spiffe};
use crate::watching::Watching;
use crate::{load, metrics_page, reload, serve, telemetry, worker};

/// Returns when the broker shuts down.
pub async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and so the process is about to be.
    let _gone = draining.wait_for(|draining| *draining).await;
}

/// How strictly the broker takes its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For others: everything pinned.
    Serve,
    /// For one developer on this machine: plugins need no pin.
    Dev,
}

/// Runs `future` on the runtime of the broker.
pub fn block_on<F: Future<Output = anyhow::Result<ExitCode>>>(
    future: F,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("claviger")
        .build()
        .context("the runtime cannot be started")?;
    let ended = runtime.block_on(future);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

/// Serves `file` until SIGTERM or SIGINT.
pub async fn serve(
    mode: Mode,
    file: ConfigFile,
    confinement: crate::harden::Confinement,
) -> anyhow::Result<ExitCode> {
    crate::harden::lock_memory(&file)?;
    // Two TLS stacks could be meant; the choice is made once, here.
    let _already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    serve::plain_is_for_dev(mode, &file)?;
    let mut signals = Signals::receive()?;
    let file = Arc::new(file);
    let (watching, changes) = Watching::start(&file);
    let (quarantined, quarantines) = mpsc::channel(QUARANTINES_MAX);
    let start = Start { mode, watching, quarantined, confinement };
    let (broker, issuer) = build(&file, start).await?;
    let broker = Arc::new(broker);
    let (drain, draining) = watch::channel(false);
    let mut background = JoinSet::new();
    let grace = file.config().sessions.heartbeat_grace.0;
    background.spawn(worker::revoke_all(Arc::clone(&broker)));
    background.spawn(worker::reap(Arc::clone(&broker), grace));
    background.spawn(withdrawal::watch_all(Arc::clone(&broker)));
    background.spawn(worker::decide_again(Arc::clone(&broker)));
    background.spawn(tls::tend(Arc::clone(&broker)));
    background.spawn(rotation::tend_always(Arc::clone(&broker)));
    background.spawn(record_quarantines(Arc::clone(&broker), quarantines));
    background.spawn(reload::on_change_and_hangup(Arc::clone(&broker), changes, signals.hangup));
    if let Some(metrics) = &file.config().metrics {
        background.spawn(metrics_page::bind(metrics.address, Arc::clone(&broker)).await?);
    }
    if let Some(issuer) = issuer {
        let journal = Arc::clone(&broker.journal);
        background.spawn(issuer::tend_always(Arc::clone(&issuer), journal));
        if let Some(spec) = load::issuer_page(&file)? {
            background.spawn(Page::bind(&spec, issuer).await?.serve());
        }
    }
    let servers = serve::start(&file, &broker, &draining).await?;
    telemetry::say(&format!("clavigerd serves on {}", file.config().listen.socket.display()));
    tracing::info!(config = %file.path().display(), "serving");
    crate::supervisor::ready(&broker);
    background.spawn(crate::supervisor::keep_alive(Arc::clone(&broker)));
    signals.stop.asked().await;
    crate::supervisor::stopping();
    tracing::info!("draining");
    let _nobody_listens = drain.send(true);
    if tokio::time::timeout(DRAIN_MAX, servers.ended()).await.is_err() {
        tracing::warn!(
            "some calls did not end in time and were cut off; their intents will time out"
        );
    }
    background.shutdown().await;
    let stopped = Entry::new(broker.clock().now(), Event::BrokerStopped);
    if let Err(error) = broker.journal().record(stopped).await {
        tracing::error!(%error, "the stop could not be recorded");
    }
    match Arc::try_unwrap(broker).ok().and_then(Broker::into_journal) {
        Some(journal) => journal.close().await,
        None => tracing::warn!("a call still holds the journal; it is left to be recovered"),
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What the parts begin with.
struct Start {
    mode: Mode,
    watching: Watching,
    quarantined: mpsc::Sender<String>,
    confinement: crate::harden::Confinement,
}

/// Builds everything up to the first entries of this run.
async fn build(
    file: &Arc<ConfigFile>,
    Start { mode, watching, quarantined, confinement }: Start,
) -> anyhow::Result<(Broker, Option<Arc<Issuer>>)> {
    let metrics = Arc::new(crate::metrics::Metrics::new());
    let counts = crate::metrics::plugin_observer(&metrics);
    let issuer = load::issuer(file, mode)?;
    let options = PluginsOptions {
        observer: observer(counts, quarantined),
        cache: Some(load::component_cache(file)?),
        issuer: issuer.clone(),
        ..PluginsOptions::default()
    };
    // Before the plugins: what their connections authenticate with may lie in it.
    let observer = Some(crate::metrics::commit_observer(&metrics));
    let journal = Arc::new(open_journal(file, observer)?);
    let stored =
        Stored::Values(journal.secrets(file.stored_secrets().into_keys().collect()).await?);
    let with_stored = WithStored::new(file, &stored);
    let plugins =
        tokio::task::block_in_place(|| load::plugins(with_stored, mode, options)).map_err(all)?;
    let fixed = load::fixed_sources(file, &plugins).map_err(all)?;
    let folders = load::folders(file, fixed);
    let read = folders.read().context("the policies cannot be put in force")?;
    for problem in &read.problems {
        tracing::warn!(problem, "found while loading");
    }
    let recorded = journal.live_sessions().await?;
    let certificates = Certificates::load(file, Spiffe::start(file).await?, crate::broker::now())?;
    let loaded_policies = policies::loaded(&read.snapshot, &read.problems, crate::broker::now());
    let broker = Broker::new(crate::broker::Parts {
        journal,
        plugins: PluginStore::new(plugins),
        configuration: Configuration::new(mode, Arc::clone(file), watching, confinement),
        policies: PolicyStore::new(folders, read.snapshot).with_problems(read.problems),
        identities: load::identities(file).map_err(all)?,
        sessions: Sessions::new(file.config().sessions.live_max, recorded),
        certificates,
        rotations: Rotations::default(),
        metrics,
    });
    record_start(&broker, file, loaded_policies).await?;
    if let Some(issuer) = &issuer {
        issuer.tend(&broker.journal, crate::broker::now()).await?;
    }
    Ok((broker, issuer))
}

/// Counts each call, and passes on which plugin was quarantined.
fn observer(counts: Observe, quarantined: mpsc::Sender<String>) -> Observe {
    Arc::new(move |seen| {
        counts(seen);
        if let Some(secs) = seen.quarantined_secs {
            let what = format!(
                "plugin `{}` broke the sandbox three times within a minute and is quarantined for {secs} s",
                seen.plugin
            );
            // A plugin is quarantined a few times an hour; whoever floods this is in the log.
            let _full = quarantined.try_send(what);
        }
    })
}

async fn record_quarantines(broker: Arc<Broker>, mut quarantines: mpsc::Receiver<String>) {
    while let Some(what) = quarantines.recv().await {
        let mut entry = Entry::new(broker.clock().now(), Event::PluginQuarantined);
        entry.detail = Some(what);
        if let Err(error) = broker.journal().record(entry).await {
            tracing::error!(%error, "a quarantine could not be recorded");
        }
    }
}

/// The journal of a broker that does not run.
pub fn journal_alone(file: &ConfigFile) -> anyhow::Result<SqliteJournal> {
    open_journal(file, None)
}

fn open_journal(
    file: &ConfigFile,
    commit_observer: Option<CommitObserver>,
) -> anyhow::Result<SqliteJournal> {
    let config = &file.config().journal;
    let SealingKeys { current, previous } = load::sealing_keys(file)?;
    let options = JournalOptions {
        path: file.base().join(&config.path),
        sealing_key: current,
        intent_timeout: config.intent_timeout.0,
        queue_max: JOURNAL_QUEUE_MAX,
        commit_observer,
    };
    Ok(SqliteJournal::open_rekeyed(options, (&previous, crate::broker::now()))?.journal)
}

async fn record_start(broker: &Broker, file: &ConfigFile, policies: Entry) -> anyhow::Result<()> {
    let mut started = Entry::new(broker.clock().now(), Event::BrokerStarted);
    started.detail = Some(format!("clavigerd {}", env!("CARGO_PKG_VERSION")));
    broker.journal().record(started).await?;
    let mut loaded = Entry::new(broker.clock().now(), Event::ConfigurationLoaded);
    loaded.detail = Some(format!("{} sha256 {}", file.path().display(), file.sha256()));
    broker.journal().record(loaded).await?;
    broker.journal().record(policies).await?;
    for entry in broker.certificates.entries(broker.clock().now()) {
        broker.journal().record(entry).await?;
    }
    Ok(())
}

/// The signals that the broker understands. They are received before it serves: whoever sees it
/// serve may send one.
struct Signals {
    hangup: Signal,
    stop: Stop,
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn receive() -> std::io::Result<Self> {
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = Stop { terminate, interrupt };
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop })
    }
}

impl Stop {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn all(problems: Vec<ConfigError>) -> anyhow::Error {
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

/// At 20,000 entries a second a full queue is worked off in a fifth of a second; what comes beyond
/// is refused at once instead of waiting.
const JOURNAL_QUEUE_MAX: usize = 4096;

/// Longer than any plugin call; a supervisor that kills after 30 s does not get to.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Blocking reads that hang (a dead network file system) must not keep the process.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(2);

/// Each plugin is quarantined at most every ten seconds, and the journal takes thousands of
/// entries a second.
const QUARANTINES_MAX: usize = 64;
