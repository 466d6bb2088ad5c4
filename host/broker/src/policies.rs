//! Holds the policy snapshot in force, and makes a new one from the policy and prompt folders.
//! A set with a problem never replaces a good one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_core::journal::{Entry, Event};
use claviger_core::policy::{
    PolicyFile, PolicyProblem, PolicySnapshot, PolicySources, SnapshotDigest,
};
use claviger_core::ports::{Journal, JournalError, Policies};
use claviger_core::time::Timestamp;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::prompts;

/// Where the parts of a snapshot come from.
#[derive(Clone, Debug)]
pub struct PolicyFolders {
    /// The folder of `.cedar` files.
    pub policies: PathBuf,
    /// The folder of prompt files.
    pub prompts: PathBuf,
    /// What the plugins and the configuration offer.
    pub fixed: PolicySources,
}

/// A snapshot that was read, with what was left out of it.
pub struct Read {
    /// The snapshot.
    pub snapshot: PolicySnapshot,
    /// Prompt files that failed, and policies that look wrong. Their roles are left out; the
    /// others serve.
    pub problems: Vec<String>,
}

impl PolicyFolders {
    /// Reads both folders and validates the whole.
    pub fn read(&self) -> Result<Read, PolicyLoadError> {
        let roles = prompts::read(&self.prompts)?;
        let sources = PolicySources {
            policies: policy_files(&self.policies)?,
            roles: roles.roles,
            ..self.fixed.clone()
        };
        let snapshot = PolicySnapshot::load(sources).map_err(PolicyLoadError::Invalid)?;
        let problems = roles
            .problems
            .iter()
            .map(ToString::to_string)
            .chain(snapshot.warnings().iter().map(ToString::to_string))
            .collect();
        Ok(Read { snapshot, problems })
    }
}

/// The snapshot in force.
pub struct PolicyStore {
    folders: ArcSwap<PolicyFolders>,
    current: ArcSwap<PolicySnapshot>,
    /// What was left out of it.
    problems: ArcSwap<Vec<String>>,
    /// Told after each swap.
    swapped: Notify,
    /// One reload at a time: two would race for which snapshot is recorded last.
    reloading: tokio::sync::Mutex<()>,
}

/// What a reload came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// A new snapshot is in force.
    Changed {
        /// What was left out of it.
        problems: Vec<String>,
    },
    /// Nothing that decides has changed.
    Same {
        /// What is still left out.
        problems: Vec<String>,
    },
    /// The new set has problems; the earlier one goes on deciding.
    Refused {
        /// The problems.
        problems: Vec<String>,
    },
}

impl PolicyStore {
    /// A store that begins with `snapshot`. The caller records it.
    pub fn new(folders: PolicyFolders, snapshot: PolicySnapshot) -> Self {
        Self {
            folders: ArcSwap::from_pointee(folders),
            current: ArcSwap::from_pointee(snapshot),
            problems: ArcSwap::from_pointee(Vec::new()),
            swapped: Notify::new(),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    /// Reads the folders again. A good set is recorded first and then put in force, so that the
    /// journal names the snapshot of every decision.
    pub async fn reload(
        &self,
        journal: &impl Journal,
        now: Timestamp,
    ) -> Result<Reloaded, JournalError> {
        let _one = self.reloading.lock().await;
        let read = match read_aside(self.folders()).await {
            Ok(read) => read,
            Err(problems) => {
                let entry = Entry::new(now, Event::PoliciesRefused);
                return self.refuse(journal, entry, problems).await;
            }
        };
        self.problems.store(Arc::new(read.problems.clone()));
        if read.snapshot.digest() == self.current.load().digest() {
            return Ok(Reloaded::Same { problems: read.problems });
        }
        journal.record(loaded(&read.snapshot, &read.problems, now)).await?;
        self.put_in_force(read.snapshot);
        Ok(Reloaded::Changed { problems: read.problems })
    }

    /// Reads the folders again for another configuration, and puts both in force or neither.
    pub async fn reconfigure(
        &self,
        journal: &impl Journal,
        change: Reconfiguration<impl FnOnce() -> Result<(), String> + Send, impl FnOnce() + Send>,
    ) -> Result<Reloaded, JournalError> {
        let _one = self.reloading.lock().await;
        let Reconfiguration { fixed, entry, consent, swap } = change;
        let now = entry.at;
        let folders = PolicyFolders { fixed, ..(*self.folders()).clone() };
        let folders = Arc::new(folders);
        let read = match read_aside(Arc::clone(&folders)).await {
            Ok(read) => read,
            Err(problems) => {
                let refused = signed_like(&entry, Event::PoliciesRefused);
                return self.refuse(journal, refused, problems).await;
            }
        };
        // Only now: what is refused for its own faults uses nobody's agreement up.
        if let Err(problem) = consent() {
            let mut refused = signed_like(&entry, Event::ConfigurationRefused);
            // The agreement has just been found void.
            refused.approver = None;
            return self.refuse(journal, refused, vec![problem]).await;
        }
        journal.record(entry).await?;
        let is_same = read.snapshot.digest() == self.current.load().digest();
        if !is_same {
            // From here on the journal opens no intent that was decided under the old catalog,
            // so what is swapped first is seen by none of them.
            journal.record(loaded(&read.snapshot, &read.problems, now)).await?;
        }
        swap();
        self.problems.store(Arc::new(read.problems.clone()));
        self.put_in_force(read.snapshot);
        self.folders.store(folders);
        let problems = read.problems;
        Ok(if is_same { Reloaded::Same { problems } } else { Reloaded::Changed { problems } })
    }

    fn put_in_force(&self, snapshot: PolicySnapshot) {
        self.current.store(Arc::new(snapshot));
        self.swapped.notify_waiters();
    }

    /// Waits, for ever if need be, until another snapshot than `seen` is in force.
    pub async fn changed_from(&self, seen: SnapshotDigest) {
        loop {
            // Made before looking: a swap between the two is then not missed.
            let swapped = self.swapped.notified();
            if self.current.load().digest() != seen {
                return;
            }
            swapped.await;
        }
    }

    /// What was left out of the snapshot in force, or looks wrong in it.
    pub fn problems(&self) -> Arc<Vec<String>> {
        self.problems.load_full()
    }

    /// The same store, which knows what was left out of its first snapshot.
    #[must_use]
    pub fn with_problems(self, problems: Vec<String>) -> Self {
        self.problems.store(Arc::new(problems));
        self
    }

    /// The folders that a reload reads.
    pub fn folders(&self) -> Arc<PolicyFolders> {
        self.folders.load_full()
    }

    async fn refuse(
        &self,
        journal: &impl Journal,
        mut entry: Entry,
        problems: Vec<String>,
    ) -> Result<Reloaded, JournalError> {
        entry.snapshot = Some(self.current.load().digest());
        entry.detail = Some(clipped(&problems));
        journal.record(entry).await?;
        Ok(Reloaded::Refused { problems })
    }
}

/// Another configuration, ready to be put in force.
pub struct Reconfiguration<C, F> {
    /// What the plugins and the configuration offer from now on.
    pub fixed: PolicySources,
    /// What the journal says of it.
    pub entry: Entry,
    /// Uses up what a second operator agreed to, where it takes one: asked last before the record.
    pub consent: C,
    /// Puts the plugins in force, between the record and the decisions.
    pub swap: F,
}

/// The entry of an `event` at whose word `entry` was to be.
fn signed_like(entry: &Entry, event: Event) -> Entry {
    let mut signed = Entry::new(entry.at, event);
    signed.operator.clone_from(&entry.operator);
    signed.approver.clone_from(&entry.approver);
    signed
}

async fn read_aside(folders: Arc<PolicyFolders>) -> Result<Read, Vec<String>> {
    match tokio::task::spawn_blocking(move || folders.read()).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(error.sentences()),
        Err(panic) => Err(vec![panic.to_string()]),
    }
}

impl Policies for PolicyStore {
    fn current(&self) -> Arc<PolicySnapshot> {
        self.current.load_full()
    }

    async fn other_than(&self, stale: SnapshotDigest) {
        // Made before looking: a swap between the two is then not missed.
        let swapped = self.swapped.notified();
        if self.current.load().digest() == stale {
            let _shown_by_the_next_decision = timeout(OTHER_WITHIN_MAX, swapped).await;
        }
    }
}

/// Between the record of a snapshot and its swap lies no wait, but a busy machine may pause there.
const OTHER_WITHIN_MAX: Duration = Duration::from_secs(2);

/// The entry that puts `snapshot` in force.
pub fn loaded(snapshot: &PolicySnapshot, problems: &[String], now: Timestamp) -> Entry {
    let roles: Vec<_> =
        snapshot.roles().values().map(|role| format!("{} {}", role.name, role.digest)).collect();
    let mut entry = Entry::new(now, Event::PoliciesLoaded);
    entry.snapshot = Some(snapshot.digest());
    entry.detail =
        Some(clipped(&[vec![format!("{} roles", roles.len())], roles, problems.to_vec()].concat()));
    entry
}

fn policy_files(folder: &Path) -> Result<Vec<PolicyFile>, PolicyLoadError> {
    let unreadable = |path: &Path, error: std::io::Error| PolicyLoadError::Unreadable {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        Ok(PolicyFile { path: prompts::name_in(folder, &path), text })
    };
    paths.into_iter().map(read).collect()
}

/// Sentences as the detail of an entry.
pub fn clipped(sentences: &[String]) -> String {
    let mut text = sentences.join("; ");
    if let Some((end, _)) = text.char_indices().nth(DETAIL_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Why no snapshot could be made.
#[derive(Debug, Error)]
pub enum PolicyLoadError {
    /// A folder or file cannot be read.
    #[error("`{}` cannot be read: {problem}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The policies have problems.
    #[error("{}", joined(.0))]
    Invalid(Vec<PolicyProblem>),
}

impl PolicyLoadError {
    /// One sentence a problem.
    pub fn sentences(&self) -> Vec<String> {
        match self {
            Self::Unreadable { .. } => vec![self.to_string()],
            Self::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }
}

fn joined(problems: &[PolicyProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A hundred roles with their digests; more would swell the journal at each reload.
const DETAIL_CHARS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;

    fn snapshot(text: &str) -> PolicySnapshot {
        let file = PolicyFile { path: "teams.cedar".into(), text: text.to_owned() };
        PolicySnapshot::load(PolicySources { policies: vec![file], ..Default::default() })
            .expect("valid policies")
    }

    #[tokio::test]
    async fn who_decided_too_early_waits_for_the_swap() {
        let nowhere = PolicyFolders {
            policies: PathBuf::new(),
            prompts: PathBuf::new(),
            fixed: PolicySources::default(),
        };
        let store = PolicyStore::new(nowhere, snapshot(""));
        let stale = store.current().digest();
        let mut waiting = pin!(store.other_than(stale));
        assert!(poll_once(waiting.as_mut()).await.is_pending(), "the same one decides still");
        store.put_in_force(snapshot("permit (principal, action, resource);"));
        assert!(poll_once(waiting).await.is_ready(), "woken by the swap");
        let mut late = pin!(store.other_than(stale));
        assert!(poll_once(late.as_mut()).await.is_ready(), "another is in force already");
    }

    async fn poll_once(mut future: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }
}
