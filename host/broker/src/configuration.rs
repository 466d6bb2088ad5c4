//! The configuration in force, and how another one takes its place while the broker runs: plugins,
//! backends and teams by a swap, everything else at the next start.

use std::sync::Arc;

use arc_swap::ArcSwap;
use claviger_core::ids::ApprovalId;
use claviger_core::journal::{Entry, Event};
use claviger_core::policy::PolicySources;
use claviger_core::ports::{Clock, Journal, JournalError, Policies, Ports};
use thiserror::Error;

use crate::app::Mode;
use crate::approvals::{Asked, Present, RequestDigest};
use crate::broker::Broker;
use crate::config::{ConfigError, ConfigFile, Stored, TwoPerson, WithStored};
use crate::guard::Guards;
use crate::journal::{RekeyAct, RekeyError, Resealed};
use crate::plugin::Plugins;
use crate::policies::{Reconfiguration, Reloaded, clipped};
use crate::watching::Watching;
use crate::{load, tls};

/// The configuration in force.
pub struct Configuration {
    mode: Mode,
    /// As it was at the start: what a restart would change is what differs from it.
    started: Arc<ConfigFile>,
    current: ArcSwap<ConfigFile>,
    watching: Watching,
    /// What was opened at the start: a configuration that leads elsewhere waits for a restart.
    confinement: crate::harden::Confinement,
    /// One reload at a time: each begins with the plugins and the guards that the one before left.
    reloading: tokio::sync::Mutex<Guards>,
}

/// What a configuration describes, loaded and checked, in force nowhere.
struct Described {
    file: ConfigFile,
    plugins: Plugins,
    fixed: PolicySources,
}

impl Configuration {
    /// Begins with `file`, as the process did; `watching` has begun with it too.
    pub fn new(
        mode: Mode,
        file: Arc<ConfigFile>,
        watching: Watching,
        confinement: crate::harden::Confinement,
    ) -> Self {
        let current = ArcSwap::new(Arc::clone(&file));
        let reloading = tokio::sync::Mutex::new(Guards::new(mode));
        Self { mode, started: file, current, watching, confinement, reloading }
    }

    /// The configuration in force.
    pub fn current(&self) -> Arc<ConfigFile> {
        self.current.load_full()
    }

    /// Whether this takes a second operator: as it was at the start, so that no reload lifts it.
    pub fn takes_two(&self, what: TwoPerson) -> bool {
        self.started.config().admin.two_person.contains(&what)
    }
}

/// Who asks for a reload, and what was approved.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// The operator; none when a file changed or a signal came.
    pub operator: Option<String>,
    /// What a second operator granted.
    pub approval: Option<ApprovalId>,
}

/// Reads configuration, plugins, secrets, policies and prompt files again. A configuration with a
/// problem changes nothing.
pub async fn reload(broker: &Arc<Broker>, asker: Asker) -> Result<Reloaded, JournalError> {
    // On a task of its own: a caller that goes away must not stop it between record and swap.
    let (own, who) = (Arc::clone(broker), asker.clone());
    match tokio::spawn(async move { reload_whole(&own, &asker).await }).await {
        Ok(reloaded) => reloaded,
        Err(panic) => refuse(broker, &who, vec![panic.to_string()]).await,
    }
}

async fn reload_whole(broker: &Arc<Broker>, asker: &Asker) -> Result<Reloaded, JournalError> {
    let configuration = &broker.configuration;
    let mut guards = configuration.reloading.lock().await;
    // First, and whatever becomes of the rest: certificates have nothing to do with plugins.
    let of_tls = tls::reload(broker).await;
    let for_reading = Arc::clone(broker);
    let described = tokio::task::spawn_blocking(move || describe(&for_reading)).await;
    let Described { file, plugins, fixed } = match described {
        Ok(Ok(described)) => described,
        Ok(Err(problems)) => return refuse(broker, asker, problems).await,
        Err(panic) => return refuse(broker, asker, vec![panic.to_string()]).await,
    };
    let consent = match consent(broker, &guards, &file, asker) {
        Ok(consent) => consent,
        Err(problem) => return refuse(broker, asker, vec![problem]).await,
    };
    let waiting: Vec<_> = configuration
        .started
        .sections_changed(&file, &RELOADED)
        .into_iter()
        .map(|section| waits(&section))
        .collect();
    let mut entry = Entry::new(broker.clock().now(), Event::ConfigurationLoaded);
    let what = format!("{} sha256 {}", file.path().display(), file.sha256());
    entry.detail = Some(clipped(&[vec![what], waiting.clone()].concat()));
    entry.operator.clone_from(&asker.operator);
    entry.approver = consent.as_ref().map(|consent| consent.approver.clone());
    let consent = || consent.map_or(Ok(()), |consent| consent.use_up(broker));
    let swap = || {
        guards.replaced(configuration.current.load().config(), file.config());
        broker.plugins.replace(plugins);
        configuration.current.store(Arc::new(file));
    };
    let change = Reconfiguration { fixed, entry, consent, swap };
    let reloaded = broker.policies.reconfigure(broker.journal(), change).await?;
    Ok(with(reloaded, &[of_tls, waiting].concat()))
}

/// A second operator's agreement to what a file loosens, not used up yet.
struct Consent {
    id: ApprovalId,
    approver: String,
    operator: String,
    what: String,
    request: RequestDigest,
}

impl Consent {
    /// Uses it up, if it still counts.
    fn use_up(&self, broker: &Broker) -> Result<(), String> {
        let policies = broker.policies.current();
        let present = Present { policies: &policies, now: broker.clock().now() };
        let Self { operator, what, request, .. } = self;
        let asked = Asked { operator, what, request: *request };
        let taken = broker.approvals().take(self.id, &asked, present);
        taken.map(drop).map_err(|error| error.to_string())
    }
}

/// Who agreed to what `file` loosens; nobody if it loosens nothing, or nobody need be asked.
/// INVARIANT (two-persons): bound to the bytes of the file and to what they loosen now, which grows
/// when something is tightened meanwhile; and by somebody else who may approve.
/// It is used up when the rest of the reload has been found good, and before it is recorded.
fn consent(
    broker: &Broker,
    guards: &Guards,
    file: &ConfigFile,
    asker: &Asker,
) -> Result<Option<Consent>, String> {
    let configuration = &broker.configuration;
    let loosened = guards.loosened(configuration.current.load().config(), file.config());
    if !configuration.takes_two(TwoPerson::Loosen) || loosened.is_empty() {
        return Ok(None);
    }
    let what = format!("a configuration that loosens guards: {}", loosened.join(", "));
    let Some(operator) = asker.operator.clone() else {
        return Err(format!("{what}: it takes two operators, so run `claviger reload`"));
    };
    let bound = format!("{}\n{}", file.sha256(), loosened.join("\n"));
    let request = RequestDigest::of("reload", bound.as_bytes());
    let asked = Asked { operator: &operator, what: &what, request };
    let now = broker.clock().now();
    let Some(id) = asker.approval else {
        let waits = broker.approvals().ask(&asked, broker.mint_approval(), now);
        let id = waits.map_err(|error| error.to_string())?.id;
        return Err(format!(
            "{what}: have another operator run `claviger approve grant {id}`, then run `claviger reload --approval {id}`"
        ));
    };
    let policies = broker.policies.current();
    let present = Present { policies: &policies, now };
    let approver = broker.approvals().check(id, &asked, present);
    let approver = approver.map_err(|error| error.to_string())?;
    Ok(Some(Consent { id, approver, operator, what, request }))
}

fn describe(broker: &Broker) -> Result<Described, Vec<String>> {
    let sentences =
        |problems: Vec<ConfigError>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let configuration = &broker.configuration;
    let file = configuration.started.read_again().map_err(|problem| vec![problem.to_string()])?;
    // Of a refused configuration the files are watched too: one of them may be what is mended.
    configuration.watching.follow([&file, &*configuration.current.load()]);
    configuration.confinement.covers(&file).map_err(|problem| vec![problem.to_string()])?;
    let current = broker.plugins.current();
    let stored = stored(broker, &file).map_err(|problem| vec![problem.to_string()])?;
    let with_stored = WithStored::new(&file, &stored);
    let plugins =
        load::plugins_again(with_stored, configuration.mode, &current).map_err(sentences)?;
    let fixed = load::fixed_sources(&file, &plugins).map_err(sentences)?;
    Ok(Described { file, plugins, fixed })
}

fn waits(section: &str) -> String {
    let other_key = match section {
        "journal" => ". Another `sealing_key` alone: `claviger journal rekey`",
        _ => "",
    };
    format!("`[{section}]` has changed: restart the broker to use it{other_key}")
}

/// Puts the journal under the sealing key that the configuration names now.
pub async fn rekey(broker: &Broker, act: RekeyAct) -> Result<Resealed, RekeyFault> {
    let configuration = &broker.configuration;
    let _one = configuration.reloading.lock().await;
    let keys = configuration.started.read_again().and_then(|file| load::sealing_keys(&file))?;
    Ok(broker.journal.rekey(keys, act).await??)
}

/// Why the journal was not put under another key.
#[derive(Debug, Error)]
pub enum RekeyFault {
    /// The configuration is wrong, or a key cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys do not fit.
    #[error(transparent)]
    Keys(#[from] RekeyError),
    /// The journal could not do it.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The secrets of the store that `file` refers to. Blocks, on a thread that may.
fn stored(broker: &Broker, file: &ConfigFile) -> Result<Stored, JournalError> {
    let names = file.stored_secrets().into_keys().collect();
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(broker.journal.secrets(names)).map(Stored::Values)
}

async fn refuse(
    broker: &Broker,
    asker: &Asker,
    problems: Vec<String>,
) -> Result<Reloaded, JournalError> {
    let mut entry = Entry::new(broker.clock().now(), Event::ConfigurationRefused);
    entry.operator.clone_from(&asker.operator);
    entry.detail = Some(clipped(&problems));
    broker.journal().record(entry).await?;
    Ok(Reloaded::Refused { problems })
}

fn with(reloaded: Reloaded, waiting: &[String]) -> Reloaded {
    let more = |problems: Vec<String>| [waiting, problems.as_slice()].concat();
    match reloaded {
        Reloaded::Changed { problems } => Reloaded::Changed { problems: more(problems) },
        Reloaded::Same { problems } => Reloaded::Same { problems: more(problems) },
        Reloaded::Refused { problems } => Reloaded::Refused { problems },
    }
}

/// The sections that a reload puts in force. `signing` decides which plugins are loaded, so it
/// goes with them.
const RELOADED: [&str; 5] = ["plugins", "backends", "teams", "budgets", "signing"];
