//! The certificates and authorities of every TLS listener: in force, and replaced while they
//! serve. What cannot be used replaces nothing. Opens no port.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::spiffe::X509SourceUpdates;
use arc_swap::ArcSwap;
use claviger_core::journal::{Entry, Event};
use claviger_core::ports::{Clock, Journal, Ports};
use claviger_core::time::Timestamp;

use super::identity;
use super::listener::InForce;
use super::material::{self, Described, Material, Reading};
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
    current: Arc<ArcSwap<InForce>>,
    state: Mutex<State>,
}

struct State {
    material: Material,
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
        Checked::Complete(spiffe) => {
            let material = read(described, spiffe.as_ref(), now)?.complete()?;
            in_force(described, &material).map(drop)
        }
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
            let material = read(described, spiffe.as_ref(), now)?.complete()?;
            let current = in_force(described, &material)?;
            listeners.push(Listener {
                section,
                current: Arc::new(ArcSwap::from_pointee(current)),
                state: Mutex::new(State { material, told: None }),
            });
        }
        Ok(Self { file: Arc::clone(file), spiffe, listeners, renewing: Mutex::new(()) })
    }

    /// The configuration of a listener, which is replaced in place; `None` if there is no such
    /// listener.
    pub fn current(&self, section: Section) -> Option<Arc<ArcSwap<InForce>>> {
        let found = self.listeners.iter().find(|listener| listener.section == section);
        found.map(|listener| Arc::clone(&listener.current))
    }

    /// The entries of what is in force at the start.
    pub fn entries(&self, now: Timestamp) -> Vec<Entry> {
        let sentence = |listener: &Listener| {
            let state = listener.state.lock().unwrap_or_else(PoisonError::into_inner);
            listener.sentence(&state.material.description())
        };
        self.listeners.iter().map(|listener| loaded(now, &sentence(listener))).collect()
    }

    /// Reads everything again, and puts in force what is usable and new.
    fn renew(&self, now: Timestamp) -> Vec<Renewal> {
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut renewals = Vec::new();
        for listener in &self.listeners {
            let Some(described) = listener.section.described(&self.file) else { continue };
            let reading = read(described, self.spiffe.as_ref(), now);
            renewals.extend(listener.renew(described, reading));
        }
        renewals
    }

    /// Says loudly what will soon expire.
    fn warn_of_expiry(&self, now: Timestamp) {
        for listener in &self.listeners {
            let state = listener.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (begins, ends) = state.material.validity();
            let left = ends.since(now);
            let name = listener.section.name();
            if identity::is_over(ends, now) {
                tracing::error!(listener = name, %ends, "the certificate has expired: whoever connects is refused");
            } else if left < ends.since(begins) / WARN_PART {
                tracing::warn!(listener = name, %ends, "the certificate expires soon and was not replaced yet");
            }
        }
    }
}

impl State {
    /// A refusal, if it is not the one that was told last.
    fn refused(&mut self, problems: &[ConfigError]) -> Option<Renewal> {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let problem = (!problems.is_empty()).then(|| problems.join("; "));
        if problem == self.told {
            return None;
        }
        self.told.clone_from(&problem);
        problem.map(Renewal::Refused)
    }
}

impl Listener {
    fn sentence(&self, what: &str) -> String {
        format!("`listen.{}`: {what}", self.section.name())
    }

    /// Puts in force what is usable and new of what was read.
    fn renew(
        &self,
        described: Described<'_>,
        reading: Result<Reading, ConfigError>,
    ) -> Vec<Renewal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (material, mut problems) = match reading {
            Ok(reading) => reading.or_earlier(&state.material),
            Err(problem) => (state.material.clone(), vec![problem]),
        };
        let mut renewals = Vec::new();
        if material.fingerprint() != state.material.fingerprint() {
            match in_force(described, &material) {
                Ok(current) => {
                    self.current.store(Arc::new(current));
                    renewals.push(Renewal::Loaded(self.sentence(&material.description())));
                    state.material = material;
                }
                Err(problem) => problems.push(problem),
            }
        }
        renewals.extend(state.refused(&problems));
        renewals
    }
}

fn read(
    described: Described<'_>,
    spiffe: Option<&Spiffe>,
    now: Timestamp,
) -> Result<Reading, ConfigError> {
    let view = spiffe.map(|spiffe| spiffe.view(described.file)).transpose()?;
    described.read(view, now)
}

fn in_force(described: Described<'_>, material: &Material) -> Result<InForce, ConfigError> {
    let config = material.server_config();
    let config = config.map_err(|problem| described.problem("client_ca", problem))?;
    let (_, until) = material.validity();
    Ok(InForce { config: Arc::new(config), until })
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
                    "certificates were refused; what they were to replace stays in force"
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
