//! Loads again what has changed: policies and prompt files, or the whole configuration with its
//! plugins, when their files change and on SIGHUP.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_core::ports::{Clock, Ports};
use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::configuration;
use crate::policies::Reloaded;

/// What has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changed {
    /// Policies and prompt files.
    Folders,
    /// The configuration and everything that it names.
    Configuration,
}

/// Runs until it is dropped.
pub async fn on_change_and_hangup(broker: Arc<Broker>) {
    let (changed, mut changes) = mpsc::channel(CHANGES_MAX);
    let mut watching = match Watching::start(&broker, changed) {
        Ok(watching) => Some(watching),
        Err(error) => {
            tracing::warn!(%error, "files cannot be watched: send SIGHUP after a change");
            None
        }
    };
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be received");
            return;
        }
    };
    loop {
        let what = tokio::select! {
            Some(change) = changes.recv() => settle(change, &mut changes).await,
            _ = hangups.recv() => Changed::Configuration,
        };
        reload(&broker, what).await;
        if let Some(watching) = &mut watching {
            watching.follow(&broker);
        }
    }
}

async fn reload(broker: &Arc<Broker>, what: Changed) {
    let reloaded = match what {
        Changed::Folders => broker.policies.reload(broker.journal(), broker.clock().now()).await,
        Changed::Configuration => configuration::reload(broker).await,
    };
    match reloaded {
        Ok(Reloaded::Changed { problems }) => {
            tracing::info!(?what, problems = problems.len(), "reloaded");
            tell(&problems);
        }
        Ok(Reloaded::Same { problems }) => {
            if what == Changed::Configuration {
                tracing::info!("reloaded; nothing that decides has changed");
                tell(&problems);
            }
        }
        Ok(Reloaded::Refused { problems }) => {
            tracing::error!(?what, "what has changed was refused; the earlier goes on deciding");
            tell(&problems);
        }
        Err(error) => {
            tracing::error!(%error, "the reload could not be recorded and does not count")
        }
    }
}

fn tell(problems: &[String]) {
    for problem in problems {
        tracing::warn!(problem, "found while loading");
    }
}

/// Watches the folders of policies and prompt files whole, and of the configuration's files the
/// folders in which they are: an editor puts a new file in the place of the old one.
struct Watching {
    watcher: notify::RecommendedWatcher,
    files: Arc<ArcSwap<BTreeSet<PathBuf>>>,
    folders: BTreeSet<PathBuf>,
}

impl Watching {
    fn start(broker: &Broker, changed: mpsc::Sender<Changed>) -> notify::Result<Self> {
        let files = Arc::new(ArcSwap::from_pointee(BTreeSet::new()));
        let folders = broker.policies.folders();
        // The watcher reports absolute paths.
        let whole = [&folders.policies, &folders.prompts].map(absolute);
        let (within, ours) = (whole.clone(), Arc::clone(&files));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            let is_ours = |path: &PathBuf| ours.load().contains(path);
            let is_in = |path: &PathBuf| {
                within.iter().any(|folder| path != folder && path.starts_with(folder))
            };
            let what = if event.paths.iter().any(is_ours) {
                Changed::Configuration
            } else if event.need_rescan() || event.paths.iter().any(is_in) {
                Changed::Folders
            } else {
                return;
            };
            // Full means that a reload is asked for already, and it will read everything.
            let _asked = changed.try_send(what);
        })?;
        let mut watching = Self { watcher, files, folders: BTreeSet::new() };
        for folder in whole {
            watching.watcher.watch(&folder, RecursiveMode::Recursive)?;
            watching.folders.insert(folder);
        }
        watching.follow(broker);
        Ok(watching)
    }

    /// Watches the files that the configuration names now.
    fn follow(&mut self, broker: &Broker) {
        let files: BTreeSet<_> = broker.configuration.files().iter().map(absolute).collect();
        for folder in files.iter().filter_map(|file| file.parent()).map(Path::to_owned) {
            if self.folders.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder)),
                Err(error) => {
                    let folder = folder.display();
                    tracing::warn!(%folder, %error, "not watched: send SIGHUP after a change");
                }
            }
        }
        self.files.store(Arc::new(files));
    }
}

/// As it is where the working folder is unknown; then the signal is left.
fn absolute(path: impl AsRef<Path>) -> PathBuf {
    std::path::absolute(&path).unwrap_or_else(|_| path.as_ref().to_owned())
}

/// An editor or a checkout changes many files: waits until nothing has changed for a moment, but
/// not for ever.
async fn settle(mut what: Changed, changes: &mut mpsc::Receiver<Changed>) -> Changed {
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    while let Ok(Some(more)) = tokio::time::timeout(SETTLE, changes.recv()).await {
        if more == Changed::Configuration {
            what = more;
        }
        if tokio::time::Instant::now() >= deadline {
            break;
        }
    }
    what
}

/// Longer than the pause between two files of a checkout, shorter than a person notices.
const SETTLE: Duration = Duration::from_millis(100);

/// Somebody who keeps writing must not keep a change from taking effect.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Of the configuration's changes none may be lost behind those of a folder that is written all
/// the time; while a reload runs, a few are remembered.
const CHANGES_MAX: usize = 256;
