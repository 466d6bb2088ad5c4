//! Loads policies and prompt files again when they change and on SIGHUP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ports::{Clock, Ports};
use notify::{RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::policies::Reloaded;

/// Runs until it is dropped.
pub async fn on_change_and_hangup(broker: Arc<Broker>) {
    let (changed, mut changes) = mpsc::channel(1);
    let folders = broker.policies.folders();
    let _watching = match watch(&[&folders.policies, &folders.prompts], changed.clone()) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "folders cannot be watched: send SIGHUP after a change");
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
        tokio::select! {
            _ = changes.recv() => settle(&mut changes).await,
            _ = hangups.recv() => {}
        }
        reload(&broker).await;
    }
}

async fn reload(broker: &Broker) {
    match broker.policies.reload(broker.journal(), broker.clock().now()).await {
        Ok(Reloaded::Changed { problems }) => {
            tracing::info!(problems = problems.len(), "policies and prompt files reloaded");
            tell(&problems);
        }
        Ok(Reloaded::Same { .. }) => {}
        Ok(Reloaded::Refused { problems }) => {
            tracing::error!("the new policies were refused; the earlier ones go on deciding");
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

fn watch(
    folders: &[&Path],
    changed: mpsc::Sender<()>,
) -> notify::Result<notify::RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let reads = event.as_ref().is_ok_and(|event| event.kind.is_access());
        if !reads {
            // Full means that a reload is already asked for.
            let _asked = changed.try_send(());
        }
    })?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::Recursive)?;
    }
    Ok(watcher)
}

/// An editor or a checkout changes many files: waits until nothing has changed for a moment, but
/// not for ever.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    while tokio::time::timeout(SETTLE, changes.recv()).await.is_ok_and(|change| change.is_some()) {
        if tokio::time::Instant::now() >= deadline {
            return;
        }
    }
}

/// Longer than the pause between two files of a checkout, shorter than a person notices.
const SETTLE: Duration = Duration::from_millis(100);

/// Somebody who keeps writing must not keep a change from taking effect.
const SETTLE_MAX: Duration = Duration::from_secs(2);
