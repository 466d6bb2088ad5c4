//! Replaces root credentials that the broker keeps: on command, on schedule, and what a crash left
//! half done. `rotation/password.rs` and `rotation/key.rs` have the steps, whose order keeps the
//! broker from being locked out.

mod backoff;
mod key;
mod password;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName, SecretName};
use claviger_core::ports::{Clock, JournalError, Ports};
use claviger_core::time::Timestamp;
use thiserror::Error;

use crate::broker::Broker;
use crate::configuration::{self, Asker};
use crate::journal::{RootSecrets, SecretAct, Settlement, Unsettled};
use crate::policies::Reloaded;
use backoff::Backoffs;
use target::{Target, target, targets};

/// One rotation at a time.
#[derive(Default)]
pub struct Rotations {
    one: tokio::sync::Mutex<()>,
    /// Whether connections may still know what the last rotation replaced.
    is_stale: AtomicBool,
}

impl Rotations {
    async fn one(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.one.lock().await
    }
}

/// Which root credential is meant. What is absent does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Of this backend.
    pub backend: Option<BackendName>,
    /// Of this connection.
    pub connection: Option<ConnectionName>,
    /// Kept under this name.
    pub secret: Option<SecretName>,
}

/// As a phrase for the journal.
impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.backend.as_ref().map(|name| format!("backend `{name}`")),
            self.connection.as_ref().map(|name| format!("connection `{name}`")),
            self.secret.as_ref().map(|name| format!("secret `store:{name}`")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// A root credential that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// Under which name it is kept.
    pub secret: SecretName,
    /// Its version now.
    pub version: u64,
}

/// Why a root credential was not replaced.
#[derive(Debug, Error)]
pub enum RotateError {
    /// There is none.
    #[error(
        "no connection of that name logs in with a password in the broker's keeping, or with an \
         access key for AWS STS: put it with `claviger secret put NAME` and write `password = \
         \"store:NAME\"`, or both parts of the key so"
    )]
    NotKept,
    /// There are several.
    #[error("several root credentials fit: say which backend and connection ({0})")]
    Ambiguous(String),
    /// Others log in with the same secret, and would be locked out.
    #[error("`store:{secret}` is used by `{places}`: give each a secret of its own first")]
    Shared {
        /// The secret.
        secret: SecretName,
        /// Where.
        places: String,
    },
    /// The plugin cannot.
    #[error("the plugin of backend `{0}` does not replace root credentials: change it by hand")]
    NotRotating(BackendName),
    /// The broker could not go on with both credentials.
    #[error("the configuration is refused, and nothing was changed: {0}")]
    Configuration(String),
    /// The backend did not change it.
    #[error("the credential is as it was: {0}")]
    Failed(String),
    /// Nobody knows yet which of the two it accepts.
    #[error(
        "it is not settled which of two credentials the backend accepts; both are kept and used, \
         and the broker looks again by itself: {0}"
    )]
    Unsettled(String),
    /// Nobody knows yet whether the backend has made one.
    #[error(
        "it is not known whether the backend has made a new credential; the one in force stays, \
         and the broker tries again by itself: {0}"
    )]
    Unmade(String),
    /// The journal could not do its part.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl RotateError {
    /// Whether only another configuration helps.
    const fn is_of_configuration(&self) -> bool {
        matches!(self, Self::NotKept | Self::Ambiguous(_) | Self::Shared { .. })
    }
}

/// Replaces the root credential that `wish` names, for `by`.
pub async fn rotate(broker: &Arc<Broker>, wish: Wish, by: String) -> Result<Rotated, RotateError> {
    // On a task of its own: a caller that goes away must not stop it between two steps.
    let own = Arc::clone(broker);
    match tokio::spawn(async move { rotate_one(&own, &wish, by).await }).await {
        Ok(rotated) => rotated,
        Err(panic) => Err(RotateError::Unsettled(panic.to_string())),
    }
}

/// The backend of the root credential that `wish` names, if it names one.
pub fn backend(broker: &Broker, wish: &Wish) -> Option<BackendName> {
    target(&broker.configuration.current(), wish).ok().map(|target| target.backend)
}

/// Settles what a crash left half done, deletes what has retired, and replaces what is due. Runs
/// until it is dropped.
pub async fn tend_always(broker: Arc<Broker>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut failed: BTreeMap<SecretName, Timestamp> = BTreeMap::new();
    let mut deletions = Backoffs::default();
    let mut stranded = BTreeSet::new();
    loop {
        looks.tick().await;
        if let Err(error) = settle_all(&broker, &mut stranded).await {
            tracing::warn!(%error, "a rotation is not settled yet");
        }
        if let Err(error) = key::retire_all(&broker, &mut deletions).await {
            tracing::warn!(%error, "which keys are still to be deleted is not known");
        }
        let due = due(&broker, &failed).await.unwrap_or_default();
        for secret in due {
            let wish = Wish { secret: Some(secret.clone()), ..Wish::default() };
            match rotate(&broker, wish, SCHEDULE.to_owned()).await {
                Ok(rotated) => tracing::info!(secret = %rotated.secret, "root credential replaced"),
                Err(error) => {
                    tracing::error!(%secret, %error, "a root credential was not replaced");
                    failed.insert(secret, broker.clock().now());
                }
            }
        }
    }
}

async fn rotate_one(broker: &Arc<Broker>, wish: &Wish, by: String) -> Result<Rotated, RotateError> {
    let _one = broker.rotations.one().await;
    let target = target(&broker.configuration.current(), wish)?;
    let names = target.root.names();
    let left = broker.journal.unsettled_secrets().await?;
    let left = left.iter().find(|left| names.contains(&&left.name));
    match target.root {
        RootSecrets::Password(_) => password::rotate(broker, &target, left, by).await,
        RootSecrets::Key { .. } => key::rotate(broker, &target, left, by).await,
    }
}

/// Records how a rotation ended, and has the connections know what is in force now.
async fn end(
    broker: &Arc<Broker>,
    target: &Target,
    (settlement, why): (Settlement, String),
    by: &str,
) -> Result<Rotated, RotateError> {
    let act = SecretAct { by: by.to_owned(), at: broker.clock().now() };
    broker.rotations.is_stale.store(true, Ordering::SeqCst);
    let ending = broker.journal.end_rotation(target.root.clone(), (settlement, why.clone()), act);
    let ended = ending.await?;
    if let Err(error) = let_go(broker).await {
        // Connections go on with what they know, which the backend accepts still.
        tracing::warn!(%error, "connections read the new credential at the next reload");
    }
    match ended {
        Some((Settlement::Accepted, version)) => {
            Ok(Rotated { secret: target.root.main().clone(), version })
        }
        _ if settlement == Settlement::Accepted => {
            let why = "it was put or deleted by somebody meanwhile";
            Err(RotateError::Failed(why.to_owned()))
        }
        _ => Err(RotateError::Failed(why)),
    }
}

/// Has the connections let go of what is no longer in force, if they have not yet.
/// INVARIANT (in-force-before-deleted): when this is `Ok`, new calls know what the journal keeps.
async fn let_go(broker: &Arc<Broker>) -> Result<(), RotateError> {
    if !broker.rotations.is_stale.load(Ordering::SeqCst) {
        return Ok(());
    }
    if let Reloaded::Refused { problems } = reload(broker).await? {
        return Err(RotateError::Configuration(problems.join("; ")));
    }
    broker.rotations.is_stale.store(false, Ordering::SeqCst);
    Ok(())
}

/// Has the connections read what the journal keeps.
async fn reload(broker: &Arc<Broker>) -> Result<Reloaded, JournalError> {
    configuration::reload(broker, Asker::default()).await
}

/// Settles what can be. What the configuration gives no way to settle is `stranded`: that is said
/// once and listed, and each look sees whether the configuration does by now.
async fn settle_all(
    broker: &Arc<Broker>,
    stranded: &mut BTreeSet<SecretName>,
) -> Result<(), RotateError> {
    if broker.journal.unsettled_secrets().await?.is_empty() {
        stranded.clear();
        return Ok(());
    }
    let _one = broker.rotations.one().await;
    let (mut unsettled, mut seen) = (Ok(()), BTreeSet::new());
    // Looked at again: the rotation that held the lock has settled its own.
    let said = std::mem::take(stranded);
    for left in broker.journal.unsettled_secrets().await? {
        match settle_one(broker, &left, &mut seen).await {
            Ok(()) | Err(RotateError::Failed(_)) => {}
            Err(error) if error.is_of_configuration() => {
                if !said.contains(&left.name) {
                    tracing::warn!(secret = %left.name, %error, "{STRANDED}");
                }
                stranded.insert(left.name);
            }
            // Each alone: a backend that is down holds up no other.
            Err(error) => unsettled = Err(error),
        }
    }
    unsettled
}

/// Settles the credential that this secret is of, unless it was among those `seen`.
async fn settle_one(
    broker: &Arc<Broker>,
    left: &Unsettled,
    seen: &mut BTreeSet<SecretName>,
) -> Result<(), RotateError> {
    let wish = Wish { secret: Some(left.name.clone()), ..Wish::default() };
    let target = target(&broker.configuration.current(), &wish)?;
    if !seen.insert(target.root.main().clone()) {
        return Ok(());
    }
    let settled = match target.root {
        RootSecrets::Password(_) => password::go_on(broker, &target, left, SCHEDULE).await,
        RootSecrets::Key { .. } => key::go_on(broker, &target, left, SCHEDULE).await,
    };
    settled.map(drop)
}

/// What is to be replaced now, by its configuration; each once, however many connections say so.
async fn due(
    broker: &Broker,
    failed: &BTreeMap<SecretName, Timestamp>,
) -> Result<BTreeSet<SecretName>, JournalError> {
    let targets = targets(&broker.configuration.current());
    if targets.iter().all(|target| target.every.is_none()) {
        return Ok(BTreeSet::new());
    }
    let rows = broker.journal.secret_rows().await?;
    let now = broker.clock().now();
    let is_due = |target: &Target| {
        let secret = target.root.main();
        let row = rows.iter().find(|row| row.name == *secret);
        let rests = failed.get(secret).is_some_and(|at| now < at.after(RETRY_AFTER));
        let reached = |every| row.is_some_and(|row| row.put_at.after(every) <= now);
        !rests && target.every.is_some_and(reached)
    };
    let due = targets.into_iter().filter(is_due);
    Ok(due.map(|target| target.root.main().clone()).collect())
}

/// What an operator reads of a secret whose rotation cannot be settled.
const STRANDED: &str = "a rotation stays unsettled until one connection logs in with this secret \
     again, or it is deleted: see `claviger secret list`";

/// Who does what nobody asked for.
const SCHEDULE: &str = "broker";

/// Soon after a start, and late by little where a span is days.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A backend that refuses is not asked again and again, and an operator has time to look.
const RETRY_AFTER: Duration = Duration::from_hours(1);
