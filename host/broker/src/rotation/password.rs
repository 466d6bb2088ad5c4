//! Replaces a password, which the host makes. Its steps:
//!
//! 1. The new one is generated, and durable in the journal beside the one in force.
//! 2. A reload: from here on connections log in with whichever of the two the backend accepts.
//! 3. The plugin has the backend change it.
//! 4. The host logs in with the new one. Only then does it take the place of the other; if the
//!    backend still accepts the other, the new one is dropped. If nobody answers, both stay.
//! 5. A reload: connections know the one password only.
//!
//! A crash between any two leaves the journal with both, and the next start goes on with 4.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ports::{Clock, PluginError, Ports};
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

use super::target::Target;
use super::{RotateError, Rotated, end, reload};
use crate::broker::Broker;
use crate::config::ConfigFile;
use crate::egress::scram::random_secret;
use crate::egress::{Failure, FailureKind};
use crate::journal::{SecretAct, SecretValue, Settlement, Unsettled};
use crate::plugin::{ConnectionSpec, log_in};
use crate::policies::Reloaded;

/// Replaces the password of `target`. What an earlier rotation left is `left`.
pub(super) async fn rotate(
    broker: &Arc<Broker>,
    target: &Target,
    left: Option<&Unsettled>,
    by: String,
) -> Result<Rotated, RotateError> {
    if broker.plugins.current().rotates(&target.backend) != Some(true) {
        return Err(RotateError::NotRotating(target.backend.clone()));
    }
    if let Some(left) = left {
        // Whatever it comes to: a new rotation begins with one credential.
        let _earlier = go_on(broker, target, left, &by).await;
    }
    let began = broker.clock().now();
    let act = SecretAct { by, at: began };
    let secret = random_secret(PASSWORD_BITS)
        .map_err(|_| RotateError::Failed("the system gives no random bytes".to_owned()))?;
    let (root, secret) = (target.root.clone(), Arc::new(secret));
    let begun = broker.journal.begin_rotation(root.clone(), vec![Arc::clone(&secret)], act.clone());
    if begun.await?.is_none() {
        return Err(RotateError::Unsettled("an earlier rotation has not ended".to_owned()));
    }
    if let Reloaded::Refused { problems } = reload(broker).await? {
        // The backend was not asked yet.
        let why = problems.join("; ");
        broker.journal.end_rotation(root, (Settlement::Dropped, why.clone()), act).await?;
        return Err(RotateError::Configuration(why));
    }
    let plugins = broker.plugins.current();
    let called = plugins.rotate_root(&target.backend, &target.connection, secret).await;
    settle(broker, target, Ended::of(called, began), &act.by).await
}

/// Goes on with what a crash left half done.
pub(super) async fn go_on(
    broker: &Arc<Broker>,
    target: &Target,
    left: &Unsettled,
    by: &str,
) -> Result<Rotated, RotateError> {
    settle(broker, target, Ended::crashed(left.since), by).await
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

/// Finds out which password the backend accepts, and keeps that one.
async fn settle(
    broker: &Arc<Broker>,
    target: &Target,
    ended: Ended,
    by: &str,
) -> Result<Rotated, RotateError> {
    let secret = target.root.main();
    let value = broker.journal.secrets([secret.clone()].into()).await?.remove(secret);
    let Some(SecretValue { current, pending: Some(pending) }) = value else {
        return Err(RotateError::Failed("the secret was deleted meanwhile".to_owned()));
    };
    let file = broker.configuration.current();
    let unsettled = |failure: Failure| RotateError::Unsettled(failure.message);
    let settlement = if accepts(&file, target, pending).await.map_err(unsettled)? {
        (Settlement::Accepted, "the backend accepts it".to_owned())
    } else if !accepts(&file, target, current).await.map_err(unsettled)? {
        let neither = "it accepts neither: put the right one with `claviger secret put`";
        return Err(RotateError::Unsettled(neither.to_owned()));
    } else {
        (Settlement::Dropped, still_current(ended, broker.clock().now())?)
    };
    end(broker, target, settlement, by).await
}

/// Why the backend accepts the password in force, if nothing can change that any more.
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

/// Whether the backend lets the connection's user in with this password.
async fn accepts(
    file: &ConfigFile,
    target: &Target,
    password: Zeroizing<String>,
) -> Result<bool, Failure> {
    let ConnectionSpec::Sql(spec) = target.connection_with(file, vec![password])? else {
        return Err(Failure::unsent(FailureKind::InvalidConfig, "the connection is another one"));
    };
    match log_in(spec).await {
        Ok(()) => Ok(true),
        Err(failure) if failure.kind == FailureKind::Denied => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// As the passwords of leases: far beyond 128 bits, from which on a verifier of one iteration
/// cannot be searched.
const PASSWORD_BITS: u32 = 192;

/// A statement that was sent ends with the deadline of its call, after five seconds; the rest is
/// for clocks and networks.
const LATE_MAX: Duration = Duration::from_secs(15);
