//! The certificates and authorities of every TLS listener: in force, and replaced while they
//! serve. What cannot be used replaces nothing. Opens no port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::spiffe::X509SourceUpdates;
use arc_swap::ArcSwap;
use claviger_core::journal::{Entry, Event};
use claviger_core::ports::{Clock, Journal, Ports};
use claviger_core::time::Timestamp;
use rustls::ServerConfig;

use super::material::{self, Described, Material};
use super::spiffe::{self, Checked, Spiffe};
use crate::broker::Broker;
use crate::config::{ConfigError, ConfigFile, Listen, TlsConfig};
use crate::policies::clipped;

/// One listener's section within `[listen]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `tls`: agents.
    Agents,
    /// `admin_tls`: operators.
    Operators,
}

/// What every TLS listener works with.
pub struct Certificates {
    /// As it was at the start: other addresses and other files wait for a restart.
    file: Arc<ConfigFile>,
    spiffe: Option<Spiffe>,
    listeners: Vec<Listener>,
    /// Held while everything is read, so that what was read last is in force last.
    renewing: Mutex<()>,
}

struct Listener {
    section: Section,
    current: Arc<ArcSwap<ServerConfig>>,
    state: Mutex<State>,
}

struct State {
    fingerprint: [u8; 32],
    validity: (Timestamp, Timestamp),
    description: String,
    /// The problem that was told last; told again only when it changes.
    told: Option<String>,
}

/// What came of reading again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Renewal {
    Loaded(String),
    Refused(String),
}

impl Section {
    const ALL: [Self; 2] = [Self::Agents, Self::Operators];

    const fn name(self) -> &'static str {
        match self {
            Self::Agents => "tls",
            Self::Operators => material::ADMIN,
        }
    }

    const fn of(self, listen: &Listen) -> Option<&TlsConfig> {
        match self {
            Self::Agents => listen.tls.as_ref(),
            Self::Operators => listen.admin_tls.as_ref(),
        }
    }

    fn described(self, file: &ConfigFile) -> Option<Described<'_>> {
        let tls = self.of(&file.config().listen)?;
        Some(Described { file, section: self.name(), tls })
    }
}

/// The files of which TLS consists, for those who watch them.
pub fn files(file: &ConfigFile) -> Vec<std::path::PathBuf> {
    let described = Section::ALL.into_iter().filter_map(|section| section.described(file));
    described.flat_map(|described| described.files()).chain(spiffe::files(file)).collect()
}

/// Reads and checks what a listener would start with, and keeps nothing of it.
pub fn check(file: &ConfigFile, now: Timestamp) -> Result<(), ConfigError> {
    let spiffe = Spiffe::check(file)?;
    let mut described = Section::ALL.into_iter().filter_map(|section| section.described(file));
    described.try_for_each(|described| match &spiffe {
        Checked::Api => described.check_files(now),
        Checked::Complete(spiffe) => usable(described, spiffe.as_ref(), now).map(drop),
    })
}

impl Certificates {
    /// Reads what `file` names. A problem anywhere is an error: a listener starts with what it is
    /// configured with, or not at all.
    pub fn load(
        file: &Arc<ConfigFile>,
        spiffe: Option<Spiffe>,
        now: Timestamp,
    ) -> Result<Self, ConfigError> {
        let mut listeners = Vec::new();
        for section in Section::ALL {
            let Some(described) = section.described(file) else { continue };
            let (material, config) = usable(described, spiffe.as_ref(), now)?;
            listeners.push(Listener {
                section,
                current: Arc::new(ArcSwap::from_pointee(config)),
                state: Mutex::new(State::of(&material)),
            });
        }
        Ok(Self { file: Arc::clone(file), spiffe, listeners, renewing: Mutex::new(()) })
    }

    /// The configuration of a listener, which is replaced in place; `None` if there is no such
    /// listener.
    pub fn current(&self, section: Section) -> Option<Arc<ArcSwap<ServerConfig>>> {
        let found = self.listeners.iter().find(|listener| listener.section == section);
        found.map(|listener| Arc::clone(&listener.current))
    }

    /// The entries of what is in force at the start.
    pub fn entries(&self, now: Timestamp) -> Vec<Entry> {
        let sentence = |listener: &Listener| {
            let state = listener.state.lock().unwrap_or_else(PoisonError::into_inner);
            listener.sentence(&state.description)
        };
        self.listeners.iter().map(|listener| loaded(now, &sentence(listener))).collect()
    }

    /// Reads everything again, and puts in force what is usable and new.
    fn renew(&self, now: Timestamp) -> Vec<Renewal> {
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let renew = |listener: &Listener| {
            let described = listener.section.described(&self.file)?;
            listener.renew(usable(described, self.spiffe.as_ref(), now))
        };
        self.listeners.iter().filter_map(renew).collect()
    }

    /// Says loudly what will soon expire.
    fn warn_of_expiry(&self, now: Timestamp) {
        for listener in &self.listeners {
            let state = listener.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (begins, ends) = state.validity;
            let left = ends.since(now);
            let name = listener.section.name();
            if left.is_zero() {
                tracing::error!(listener = name, %ends, "the certificate has expired: nobody can connect");
            } else if left < ends.since(begins) / WARN_PART {
                tracing::warn!(listener = name, %ends, "the certificate expires soon and was not replaced yet");
            }
        }
    }
}

impl State {
    fn of(material: &Material) -> Self {
        Self {
            fingerprint: material.fingerprint(),
            validity: material.validity(),
            description: material.description(),
            told: None,
        }
    }
}

impl Listener {
    fn sentence(&self, what: &str) -> String {
        format!("`listen.{}`: {what}", self.section.name())
    }

    fn renew(&self, read: Result<(Material, ServerConfig), ConfigError>) -> Option<Renewal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok((material, _)) if material.fingerprint() == state.fingerprint => {
                state.told = None;
                None
            }
            Ok((material, config)) => {
                self.current.store(Arc::new(config));
                *state = State::of(&material);
                Some(Renewal::Loaded(self.sentence(&state.description)))
            }
            Err(problem) => {
                let problem = problem.to_string();
                if state.told.as_ref() == Some(&problem) {
                    return None;
                }
                state.told = Some(problem.clone());
                Some(Renewal::Refused(problem))
            }
        }
    }
}

fn usable(
    described: Described<'_>,
    spiffe: Option<&Spiffe>,
    now: Timestamp,
) -> Result<(Material, ServerConfig), ConfigError> {
    let view = spiffe.map(|spiffe| spiffe.view(described.file)).transpose()?;
    let material = described.read(view, now)?;
    let config = material.server_config();
    let config = config.map_err(|problem| described.problem("client_ca", problem))?;
    Ok((material, config))
}

/// Reads certificates and authorities again, puts in force what is usable, and records both what
/// was and what was not. Returns the new problems. Connections go on as they are.
pub async fn reload(broker: &Arc<Broker>) -> Vec<String> {
    let reading = Arc::clone(broker);
    let now = broker.clock().now();
    let renewed = tokio::task::spawn_blocking(move || reading.certificates.renew(now)).await;
    let mut problems = Vec::new();
    for renewal in renewed.unwrap_or_default() {
        let entry = match renewal {
            Renewal::Loaded(what) => {
                tracing::info!(what, "certificates replaced");
                loaded(now, &what)
            }
            Renewal::Refused(problem) => {
                tracing::error!(
                    problem,
                    "certificates were refused; the earlier ones stay in force"
                );
                problems.push(problem.clone());
                let mut entry = Entry::new(now, Event::CertificatesRefused);
                entry.detail = Some(clipped(&[problem]));
                entry
            }
        };
        // Already in force: an authority that was removed must not be trusted until the disk has
        // room again.
        if let Err(error) = broker.journal().record(entry).await {
            tracing::error!(%error, "the change of certificates could not be recorded");
        }
    }
    problems
}

fn loaded(now: Timestamp, what: &str) -> Entry {
    let mut entry = Entry::new(now, Event::CertificatesLoaded);
    entry.detail = Some(clipped(&[what.to_owned()]));
    entry
}

/// Looks again when the Workload API has said something new, and now and then, so that a change
/// is found where files cannot be watched; and tells what expires. Runs until it is dropped.
pub async fn tend(broker: Arc<Broker>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut updates = broker.certificates.spiffe.as_ref().and_then(Spiffe::updates);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = updated(&mut updates) => {}
        }
        reload(&broker).await;
        broker.certificates.warn_of_expiry(broker.clock().now());
    }
}

/// Returns when a Workload API has said something new; without one, never.
async fn updated(updates: &mut Option<X509SourceUpdates>) {
    let Some(stream) = updates else { return std::future::pending().await };
    if stream.changed().await.is_err() {
        tracing::error!("the Workload API is not listened to any more: restart the broker");
        *updates = None;
    }
}

/// Short against the life of any certificate, and a few small files are read in no time.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whoever renews does so with a third or half of the life left; with a tenth left something is
/// wrong, and there is still time to act.
const WARN_PART: u32 = 10;
