//! Loads again what has changed: policies and prompt files, or the whole configuration with its
//! plugins, when their files change and on SIGHUP.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ports::{Clock, Ports};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::configuration;
use crate::policies::Reloaded;
use crate::tls;
use crate::watching::Changed;

/// Runs until it is dropped.
pub async fn on_change_and_hangup(
    broker: Arc<Broker>,
    mut changes: mpsc::Receiver<Changed>,
    mut hangups: Signal,
) {
    loop {
        let what = tokio::select! {
            Some(change) = changes.recv() => settle(change, &mut changes).await,
            _ = hangups.recv() => BTreeSet::from([Changed::Configuration]),
        };
        for what in what {
            reload(&broker, what).await;
        }
    }
}

async fn reload(broker: &Arc<Broker>, what: Changed) {
    let reloaded = match what {
        Changed::Folders => broker.policies.reload(broker.journal(), broker.clock().now()).await,
        Changed::Configuration => {
            crate::supervisor::reloading();
            let reloaded = configuration::reload(broker, configuration::Asker::default()).await;
            // Also when it was refused: the earlier one serves.
            crate::supervisor::ready(broker);
            reloaded
        }
        Changed::Certificates => {
            // What came of it is logged there.
            tls::reload(broker).await;
            return;
        }
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

/// An editor or a checkout changes many files: waits until nothing has changed for a moment, but
/// not for ever. The configuration includes everything else.
async fn settle(first: Changed, changes: &mut mpsc::Receiver<Changed>) -> BTreeSet<Changed> {
    let mut all = BTreeSet::from([first]);
    let deadline = tokio::time::Instant::now() + SETTLE_MAX;
    while let Ok(Some(more)) = tokio::time::timeout(SETTLE, changes.recv()).await {
        all.insert(more);
        if tokio::time::Instant::now() >= deadline {
            break;
        }
    }
    if all.contains(&Changed::Configuration) {
        all = BTreeSet::from([Changed::Configuration]);
    }
    all
}

/// Longer than the pause between two files of a checkout, shorter than a person notices.
const SETTLE: Duration = Duration::from_millis(100);

/// Somebody who keeps writing must not keep a change from taking effect.
const SETTLE_MAX: Duration = Duration::from_secs(2);
