//! Replaces root credentials that the broker keeps: on command, on schedule, and what a crash left
//! half done. The order of the steps is what keeps the broker from being locked out.
//!
//! 1. The new credential is generated, and durable in the journal beside the one in force.
//! 2. A reload: from here on connections log in with whichever of the two the backend accepts.
//! 3. The plugin has the backend change it.
//! 4. The host logs in with the new one. Only then does it take the place of the other; if the
//!    backend still accepts the other, the new one is dropped. If nobody answers, both stay.
//! 5. A reload: connections know the one credential only.
//!
//! A crash between any two leaves the journal with both, and the next start goes on with 4.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName, SecretName};
use claviger_core::ports::{Clock, JournalError, PluginError, Ports};
use claviger_core::time::Timestamp;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::broker::Broker;
use crate::config::{AuthConfig, ConfigFile, SecretRef, Stored, WithStored};
use crate::configuration::{self, Asker};
use crate::egress::scram::random_secret;
use crate::egress::{Failure, FailureKind};
use crate::journal::{SecretAct, SecretValue, Settlement};
use crate::load::connections;
use crate::plugin::{ConnectionSpec, log_in};
use crate::policies::Reloaded;

/// One rotation at a time.
#[derive(Default)]
pub struct Rotations(tokio::sync::Mutex<()>);

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
        "no connection of that name logs in with a password in the broker's keeping: put it with \
         `claviger secret put NAME` and write `password = \"store:NAME\"`"
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
    /// The journal could not do its part.
    #[error(transparent)]
    Journal(#[from] JournalError),
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

/// Settles what a crash left half done, and replaces what is due. Runs until it is dropped.
pub async fn tend_always(broker: Arc<Broker>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut failed: BTreeMap<SecretName, Timestamp> = BTreeMap::new();
    loop {
        looks.tick().await;
        if let Err(error) = settle_all(&broker).await {
            tracing::warn!(%error, "a rotation is not settled yet");
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

/// A root credential that can be replaced.
#[derive(Clone, Debug)]
struct Target {
    backend: BackendName,
    connection: ConnectionName,
    secret: SecretName,
    every: Option<Duration>,
}

async fn rotate_one(broker: &Arc<Broker>, wish: &Wish, by: String) -> Result<Rotated, RotateError> {
    let _one = broker.rotations.0.lock().await;
    let target = target(&broker.configuration.current(), wish)?;
    if broker.plugins.current().rotates(&target.backend) != Some(true) {
        return Err(RotateError::NotRotating(target.backend));
    }
    if let Some(began) = pending_since(broker, &target.secret).await? {
        // Whatever it comes to: a new rotation begins with one credential.
        let _earlier = settle(broker, &target, Ended::crashed(began), &by).await;
    }
    let began = broker.clock().now();
    let act = SecretAct { by, at: began };
    let secret = random_secret(PASSWORD_BITS)
        .map_err(|_| RotateError::Failed("the system gives no random bytes".to_owned()))?;
    let secret = Arc::new(secret);
    let begun =
        broker.journal.begin_rotation(target.secret.clone(), Arc::clone(&secret), act.clone());
    if begun.await?.is_none() {
        return Err(RotateError::Unsettled("an earlier rotation has not ended".to_owned()));
    }
    if let Reloaded::Refused { problems } = reload(broker).await? {
        // The backend was not asked yet.
        let why = problems.join("; ");
        let dropped = (Settlement::Dropped, why.clone());
        broker.journal.end_rotation(target.secret, dropped, act).await?;
        return Err(RotateError::Configuration(why));
    }
    let plugins = broker.plugins.current();
    let called = plugins.rotate_root(&target.backend, &target.connection, secret).await;
    settle(broker, &target, Ended::of(called, began), &act.by).await
}

/// What is known of the plugin's call.
enum Ended {
    /// It came to an end: nothing of it can take effect any more.
    Answered(Result<(), PluginError>),
    /// What was sent may still take effect.
    Unknown {
        /// Since when.
        began: Timestamp,
        /// Why nobody knows.
        why: String,
    },
}

impl Ended {
    /// A code is the backend's own word that it refused; without one, what was sent may be on its way.
    fn of(called: Result<(), PluginError>, began: Timestamp) -> Self {
        match called {
            Err(error) if error.request_sent && error.code.is_none() => {
                Self::Unknown { began, why: error.to_string() }
            }
            answered => Self::Answered(answered),
        }
    }

    /// The broker crashed, or stopped, before it knew.
    fn crashed(began: Timestamp) -> Self {
        Self::Unknown { began, why: "the broker stopped before it had an answer".to_owned() }
    }
}

/// Finds out which credential the backend accepts, and keeps that one.
async fn settle(
    broker: &Arc<Broker>,
    target: &Target,
    ended: Ended,
    by: &str,
) -> Result<Rotated, RotateError> {
    let asked = [target.secret.clone()].into();
    let value = broker.journal.secrets(asked).await?.remove(&target.secret);
    let Some(SecretValue { current, pending: Some(pending) }) = value else {
        return Err(RotateError::Failed("the secret was deleted meanwhile".to_owned()));
    };
    let file = broker.configuration.current();
    let unsettled = |failure: Failure| RotateError::Unsettled(failure.message);
    let (settlement, why) = if accepts(&file, target, pending).await.map_err(unsettled)? {
        (Settlement::Accepted, "the backend accepts it".to_owned())
    } else if !accepts(&file, target, current).await.map_err(unsettled)? {
        let neither = "it accepts neither: put the right one with `claviger secret put`";
        return Err(RotateError::Unsettled(neither.to_owned()));
    } else {
        (Settlement::Dropped, still_current(ended, broker.clock().now())?)
    };
    let act = SecretAct { by: by.to_owned(), at: broker.clock().now() };
    let ending =
        broker.journal.end_rotation(target.secret.clone(), (settlement, why.clone()), act).await?;
    if let Reloaded::Refused { problems } = reload(broker).await? {
        // Connections know both credentials and go on with either.
        tracing::warn!(problems = problems.join("; "), "the next reload drops the old credential");
    }
    match (settlement, ending) {
        (Settlement::Accepted, Some(version)) => {
            Ok(Rotated { secret: target.secret.clone(), version })
        }
        _ => Err(RotateError::Failed(why)),
    }
}

/// Why the backend accepts the credential in force, if nothing can change that any more.
fn still_current(ended: Ended, now: Timestamp) -> Result<String, RotateError> {
    match ended {
        Ended::Answered(Err(error)) => Ok(error.to_string()),
        Ended::Answered(Ok(())) => Ok("the plugin said it was done, and it was not".to_owned()),
        Ended::Unknown { began, why } if began.after(LATE_MAX) < now => Ok(why),
        Ended::Unknown { why, .. } => {
            Err(RotateError::Unsettled(format!("what was sent may still take effect: {why}")))
        }
    }
}

/// Has the connections read what the journal keeps.
async fn reload(broker: &Arc<Broker>) -> Result<Reloaded, JournalError> {
    configuration::reload(broker, Asker::default()).await
}

async fn settle_all(broker: &Arc<Broker>) -> Result<(), RotateError> {
    if broker.journal.pending_secrets().await?.is_empty() {
        return Ok(());
    }
    let _one = broker.rotations.0.lock().await;
    let mut unsettled = Ok(());
    // Looked at again: the rotation that held the lock has settled its own.
    for (secret, began) in broker.journal.pending_secrets().await? {
        match settle_one(broker, secret, began).await {
            Ok(_) | Err(RotateError::Failed(_)) => {}
            // Each alone: a backend that is down holds up no other.
            Err(error) => unsettled = Err(error),
        }
    }
    unsettled
}

async fn settle_one(
    broker: &Arc<Broker>,
    secret: SecretName,
    began: Timestamp,
) -> Result<Rotated, RotateError> {
    let wish = Wish { secret: Some(secret), ..Wish::default() };
    let target = target(&broker.configuration.current(), &wish)?;
    settle(broker, &target, Ended::crashed(began), SCHEDULE).await
}

async fn pending_since(
    broker: &Broker,
    secret: &SecretName,
) -> Result<Option<Timestamp>, JournalError> {
    let pending = broker.journal.pending_secrets().await?;
    Ok(pending.into_iter().find(|(name, _)| name == secret).map(|(_, began)| began))
}

/// What is to be replaced now, by its configuration.
async fn due(
    broker: &Broker,
    failed: &BTreeMap<SecretName, Timestamp>,
) -> Result<Vec<SecretName>, JournalError> {
    let targets = targets(&broker.configuration.current());
    if targets.iter().all(|target| target.every.is_none()) {
        return Ok(Vec::new());
    }
    let rows = broker.journal.secret_rows().await?;
    let now = broker.clock().now();
    let is_due = |target: &Target| {
        let row = rows.iter().find(|row| row.name == target.secret);
        let rests = failed.get(&target.secret).is_some_and(|at| now < at.after(RETRY_AFTER));
        let reached = |every| row.is_some_and(|row| row.put_at.after(every) <= now);
        !rests && target.every.is_some_and(reached)
    };
    Ok(targets.into_iter().filter(is_due).map(|target| target.secret).collect())
}

/// Whether the backend lets the connection's user in with this password.
async fn accepts(
    file: &ConfigFile,
    target: &Target,
    password: Zeroizing<String>,
) -> Result<bool, Failure> {
    let value = SecretValue { current: password, pending: None };
    let stored = Stored::Values([(target.secret.clone(), value)].into());
    let backend = file.config().backends.get(&target.backend);
    let config = backend.and_then(|backend| backend.connections.get(&target.connection));
    let gone = || Failure::unsent(FailureKind::InvalidConfig, "the connection is gone");
    let config = config.ok_or_else(gone)?;
    let keys = ["backends", target.backend.as_str(), "connections", target.connection.as_str()];
    let spec = connections::spec(WithStored::new(file, &stored), &keys, config);
    let invalid = |error: crate::config::ConfigError| {
        Failure::unsent(FailureKind::InvalidConfig, error.to_string())
    };
    let ConnectionSpec::Sql(spec) = spec.map_err(invalid)? else { return Err(gone()) };
    match log_in(spec).await {
        Ok(()) => Ok(true),
        Err(failure) if failure.kind == FailureKind::Denied => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The one root credential that `wish` names.
fn target(file: &ConfigFile, wish: &Wish) -> Result<Target, RotateError> {
    let fits = |target: &Target| {
        wish.backend.as_ref().is_none_or(|backend| *backend == target.backend)
            && wish.connection.as_ref().is_none_or(|connection| *connection == target.connection)
            && wish.secret.as_ref().is_none_or(|secret| *secret == target.secret)
    };
    let mut found: Vec<_> = targets(file).into_iter().filter(fits).collect();
    let Some(target) = found.pop() else { return Err(RotateError::NotKept) };
    let places = file.stored_secrets().remove(&target.secret).unwrap_or_default();
    if places.len() > 1 {
        let places = places.join("`, `");
        return Err(RotateError::Shared { secret: target.secret, places });
    }
    if !found.is_empty() {
        found.push(target);
        let named = found.iter().map(|target| format!("{} {}", target.backend, target.connection));
        return Err(RotateError::Ambiguous(named.collect::<Vec<_>>().join(", ")));
    }
    Ok(target)
}

/// Every root credential that can be replaced: passwords in the broker's keeping.
fn targets(file: &ConfigFile) -> Vec<Target> {
    let mut targets = Vec::new();
    for (backend, config) in &file.config().backends {
        for (connection, bound) in &config.connections {
            if let Some(AuthConfig::Password { password: SecretRef::Store(secret), .. }) =
                &bound.auth
            {
                targets.push(Target {
                    backend: backend.clone(),
                    connection: connection.clone(),
                    secret: secret.clone(),
                    every: bound.rotate_every.map(|span| span.0),
                });
            }
        }
    }
    targets
}

/// Who does what nobody asked for.
const SCHEDULE: &str = "broker";

/// As the passwords of leases: far beyond 128 bits, from which on a verifier of one iteration
/// cannot be searched.
const PASSWORD_BITS: u32 = 192;

/// Soon after a start, and late by little where a span is days.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A backend that refuses is not asked again and again, and an operator has time to look.
const RETRY_AFTER: Duration = Duration::from_hours(1);

/// A statement that was sent ends with the deadline of its call, after five seconds; the rest is
/// for clocks and networks.
const LATE_MAX: Duration = Duration::from_secs(15);
