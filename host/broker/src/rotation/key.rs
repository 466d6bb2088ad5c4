//! Replaces an access key, which the backend makes. Its steps:
//!
//! 1. That there is to be a new one is durable in the journal.
//! 2. The plugin has the backend make it beside the one in force.
//! 3. It is durable in the journal. A crash before this, or an answer that is lost, leaves a key at
//!    the backend that nobody has: the broker goes on with 2, and the plugin deletes it first.
//! 4. The host proves the new one. Only then does it take the place of the other, which retires: its
//!    id stays in the journal. A new one that is never accepted retires instead.
//! 5. A reload: connections sign with the new one.
//! 6. When no call can be using it any more, the plugin has the backend delete what retired. This is
//!    tried until it succeeds, over crashes too, or until the backend says that there is no such
//!    key.
//!
//! Until 6 the backend accepts the one before, so that no call fails on the way.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::BackendName;
use claviger_core::ports::{Clock, PluginError, PluginErrorKind, Ports};
use claviger_core::time::Timestamp;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::backoff::Backoffs;
use super::target::{Target, target};
use super::{RotateError, Rotated, SCHEDULE, Wish, end, let_go};
use crate::broker::Broker;
use crate::egress::{Failure, FailureKind};
use crate::journal::{RetiringKey, RootSecrets, SecretAct, Settlement, Stage, Unsettled};
use crate::plugin::{ConnectionSpec, NewKey, sign_in};

/// Replaces the access key of `target`. What an earlier rotation left is `left`.
pub(super) async fn rotate(
    broker: &Arc<Broker>,
    target: &Target,
    left: Option<&Unsettled>,
    by: String,
) -> Result<Rotated, RotateError> {
    if broker.plugins.current().makes_keys(&target.backend) != Some(true) {
        return Err(RotateError::NotRotating(target.backend.clone()));
    }
    if let Some(left) = left {
        match go_on(broker, target, left, &by).await {
            // It comes to another one than before.
            Err(RotateError::Failed(_)) => {}
            ended => return ended,
        }
    }
    // There is room for two only.
    let mut before = broker.journal.retiring_keys().await?;
    before.retain(|key| target.root.names().contains(&&key.name));
    if let Some((_, why)) = retire(broker, before).await.pop() {
        return Err(RotateError::Failed(format!("the key before is not deleted yet: {why}")));
    }
    let act = SecretAct { by, at: broker.clock().now() };
    let begun = broker.journal.begin_rotation(target.root.clone(), Vec::new(), act.clone());
    if begun.await?.is_none() {
        return Err(RotateError::Unsettled("an earlier rotation has not ended".to_owned()));
    }
    make(broker, target, (act.at, PATIENCE), &act.by).await
}

/// Goes on with what a crash, or a backend that did not answer, left half done.
pub(super) async fn go_on(
    broker: &Arc<Broker>,
    target: &Target,
    left: &Unsettled,
    by: &str,
) -> Result<Rotated, RotateError> {
    match left.stage {
        Stage::Making => make(broker, target, (left.since, PATIENCE_AGAIN), by).await,
        Stage::Pending => settle(broker, target, (left.since, PATIENCE_AGAIN), by).await,
    }
}

/// Deletes at the backends what has retired and is due; each alone, so that one that is down holds
/// up no other. What fails is put off.
pub(super) async fn retire_all(
    broker: &Arc<Broker>,
    backoffs: &mut Backoffs,
) -> Result<(), RotateError> {
    let retiring = broker.journal.retiring_keys().await?;
    if backoffs.due(retiring, Instant::now()).is_empty() {
        return Ok(());
    }
    let _one = broker.rotations.one().await;
    // Looked at again: the rotation that held the lock has deleted its own.
    let retiring = broker.journal.retiring_keys().await?;
    let due = backoffs.due(retiring, Instant::now());
    for (key, why) in retire(broker, due).await {
        tracing::warn!(secret = %key.name, %why, "a key that was replaced is not deleted yet");
        backoffs.put_off(&key, Instant::now());
    }
    Ok(())
}

/// From the record that there is to be a new key.
async fn make(
    broker: &Arc<Broker>,
    target: &Target,
    (since, patience): (Timestamp, Duration),
    by: &str,
) -> Result<Rotated, RotateError> {
    let Some((in_force, _)) = pairs(broker, target).await? else {
        return end(broker, target, (Settlement::Dropped, DELETED.to_owned()), by).await;
    };
    let plugins = broker.plugins.current();
    let id = in_force.id.as_str();
    let NewKey { id, key } = match plugins.make_key(&target.backend, &target.connection, id).await {
        Ok(made) => made,
        Err(error) if may_have_made(&error) && broker.clock().now() <= since.after(LATE_MAX) => {
            return Err(RotateError::Unmade(error.to_string()));
        }
        Err(error) => {
            return end(broker, target, (Settlement::Dropped, error.to_string()), by).await;
        }
    };
    let (made, at) = (vec![Arc::new(Zeroizing::new(id)), key], broker.clock().now());
    if !broker.journal.keep_made(target.root.clone(), made, at).await? {
        // The next one finds it at the backend, where nobody has used it, and has it deleted.
        return end(broker, target, (Settlement::Dropped, DELETED.to_owned()), by).await;
    }
    settle(broker, target, (at, patience), by).await
}

/// Whether the backend may have made a key of which nobody has heard. A code is its own word on
/// what it did.
const fn may_have_made(error: &PluginError) -> bool {
    error.request_sent && error.code.is_none()
}

/// Proves the new key, and puts it in force.
async fn settle(
    broker: &Arc<Broker>,
    target: &Target,
    (since, patience): (Timestamp, Duration),
    by: &str,
) -> Result<Rotated, RotateError> {
    let Some((in_force, Some(new))) = pairs(broker, target).await? else {
        return end(broker, target, (Settlement::Dropped, DELETED.to_owned()), by).await;
    };
    let unsettled = |failure: Failure| RotateError::Unsettled(failure.message);
    let proven = is_proven(broker, target, (&in_force, &new), patience);
    if proven.await.map_err(unsettled)? {
        let accepted = (Settlement::Accepted, "the backend accepts it".to_owned());
        return end(broker, target, accepted, by).await;
    }
    if broker.clock().now() <= since.after(LATE_MAX) {
        let yet = "it does not accept the new key yet".to_owned();
        return Err(RotateError::Unsettled(yet));
    }
    if owner(broker, target, &in_force).await.map_err(unsettled)?.is_none() {
        let neither = "it accepts neither: put the right key with `claviger secret put`";
        return Err(RotateError::Unsettled(neither.to_owned()));
    }
    let never = "the backend has not accepted the new key for minutes".to_owned();
    end(broker, target, (Settlement::Dropped, never), by).await
}

/// Whether the backend accepts the new key several times in a row: what it has just made may be known
/// to some of its servers and not yet to others.
async fn is_proven(
    broker: &Broker,
    target: &Target,
    keys: (&AccessKey, &AccessKey),
    patience: Duration,
) -> Result<bool, Failure> {
    let until = Instant::now() + patience;
    let (mut in_a_row, mut pause) = (0, PAUSE_MIN);
    loop {
        let accepted = accepts(broker, target, keys).await;
        in_a_row = if matches!(accepted, Ok(true)) { in_a_row + 1 } else { 0 };
        if in_a_row >= PROOFS {
            return Ok(true);
        }
        pause = if in_a_row > 0 { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
        if Instant::now() + pause > until {
            return accepted.map(|_| false);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether the backend accepts the new key, and as one of the same owner: a key of somebody else
/// would be good too, for somebody else's purposes.
async fn accepts(
    broker: &Broker,
    target: &Target,
    (in_force, new): (&AccessKey, &AccessKey),
) -> Result<bool, Failure> {
    let Some(new) = owner(broker, target, new).await? else { return Ok(false) };
    let own = owner(broker, target, in_force).await?;
    // If the one in force is worth nothing any more, the new one is the way back.
    Ok(own.is_none_or(|own| own == new))
}

/// To whom the key belongs, if the backend accepts it.
async fn owner(
    broker: &Broker,
    target: &Target,
    AccessKey { id, key }: &AccessKey,
) -> Result<Option<String>, Failure> {
    let file = broker.configuration.current();
    match target.connection_with(&file, vec![id.clone(), key.clone()])? {
        ConnectionSpec::Http(spec) => sign_in(spec).await,
        ConnectionSpec::Sql(_) | ConnectionSpec::Jwt(_) => {
            Err(Failure::unsent(FailureKind::InvalidConfig, "the connection is another one"))
        }
    }
}

/// Deletes what has retired. Answers what was not, and why.
async fn retire(broker: &Arc<Broker>, keys: Vec<RetiringKey>) -> Vec<(RetiringKey, String)> {
    if keys.is_empty() {
        return Vec::new();
    }
    // INVARIANT (in-force-before-deleted): no connection signs with what is deleted.
    if let Err(error) = let_go(broker).await {
        let why = error.to_string();
        return keys.into_iter().map(|key| (key, why.clone())).collect();
    }
    tokio::time::sleep(CALLS_END).await;
    let mut failed = Vec::new();
    for key in keys {
        let retired = retire_one(broker, &key).await;
        if let Err(error) = retired {
            failed.push((key, error.to_string()));
        }
    }
    failed
}

async fn retire_one(broker: &Arc<Broker>, key: &RetiringKey) -> Result<(), RotateError> {
    let wish = Wish { secret: Some(key.name.clone()), ..Wish::default() };
    let target = target(&broker.configuration.current(), &wish)?;
    let Some((in_force, new)) = pairs(broker, &target).await? else {
        return Err(RotateError::Failed(DELETED.to_owned()));
    };
    let is_it = |kept: &AccessKey| kept.id.as_str() == key.id.as_str();
    let what = if is_it(&in_force) || new.as_ref().is_some_and(is_it) {
        // An operator put it again.
        "it is in force again and stays".to_owned()
    } else {
        let (plugins, backend) = (broker.plugins.current(), &target.backend);
        let keys = (key.id.as_str(), in_force.id.as_str());
        let deleted = plugins.delete_key(backend, &target.connection, keys).await;
        what_became_of(key.id.as_str(), backend, deleted)?
    };
    let act = SecretAct { by: SCHEDULE.to_owned(), at: broker.clock().now() };
    broker.journal.end_retirement(key.clone(), what, act).await?;
    Ok(())
}

/// What is recorded of the key `id`, which was to be deleted, if there is nothing left to try. A
/// key that is not found may be gone, deleted by a call whose answer was lost. Or an operator has
/// put another user's key meanwhile, and this one goes on working.
fn what_became_of(
    id: &str,
    backend: &BackendName,
    deleted: Result<(), PluginError>,
) -> Result<String, RotateError> {
    match deleted {
        Ok(()) => Ok(format!("key `{id}` is deleted at backend `{backend}`")),
        Err(error) if error.request_sent && error.kind == PluginErrorKind::NotFound => Ok(format!(
            "key `{id}` is not among the keys of the user whose key is in force at backend \
             `{backend}`: if it was another user's, delete it by hand"
        )),
        Err(error) => Err(RotateError::Failed(error.to_string())),
    }
}

/// What is kept of an access key.
struct AccessKey {
    id: Zeroizing<String>,
    key: Zeroizing<String>,
}

/// The access key in force and the one that is taking its place; none if a part of it is deleted.
async fn pairs(
    broker: &Broker,
    target: &Target,
) -> Result<Option<(AccessKey, Option<AccessKey>)>, RotateError> {
    let RootSecrets::Key { id, key } = &target.root else { return Ok(None) };
    let mut values = broker.journal.secrets([id.clone(), key.clone()].into()).await?;
    let (Some(id), Some(key)) = (values.remove(id), values.remove(key)) else { return Ok(None) };
    let new = id.pending.zip(key.pending).map(|(id, key)| AccessKey { id, key });
    Ok(Some((AccessKey { id: id.current, key: key.current }, new)))
}

const DELETED: &str = "a secret of it was deleted meanwhile";

/// IAM mostly knows a new key everywhere within ten seconds; the command has an answer within 30,
/// and what takes longer is looked at again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks follow each other closely, and others wait for their turn meanwhile.
const PATIENCE_AGAIN: Duration = Duration::from_secs(5);

/// With a pause of half a second between them.
const PROOFS: u32 = 3;

const PAUSE_MIN: Duration = Duration::from_millis(500);

const PAUSE_MAX: Duration = Duration::from_secs(4);

/// No backend takes minutes to know a key that it has made. What is not accepted by then was deleted
/// there, or never will be. What was not made by then is left to the next rotation.
const LATE_MAX: Duration = Duration::from_secs(300);

/// A call that began with the connections of before is over: it takes five seconds at most.
const CALLS_END: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// What a plugin says after it has sent something.
    fn refused(kind: PluginErrorKind, code: Option<&str>) -> PluginError {
        PluginError {
            plugin: "aws-sts".to_owned(),
            kind,
            code: code.map(str::to_owned),
            message: "no".to_owned(),
            request_sent: true,
            retry_after: None,
        }
    }

    #[test]
    fn only_a_deleted_key_is_said_to_be_deleted() {
        let backend: BackendName = "aws".parse().unwrap();
        let what = |deleted| what_became_of("AKIA1", &backend, deleted);
        assert!(what(Ok(())).unwrap().contains("`AKIA1` is deleted"));
        let none = refused(PluginErrorKind::NotFound, Some("NoSuchEntity"));
        let told = what(Err(none.clone())).unwrap();
        assert!(told.contains("delete it by hand") && !told.contains("is deleted"), "{told}");
        let unsent = PluginError { request_sent: false, ..none };
        for error in [unsent, refused(PluginErrorKind::Unavailable, Some("503"))] {
            assert!(what(Err(error)).is_err(), "it is tried again");
        }
    }

    #[test]
    fn a_key_may_have_been_made_if_nobody_said_otherwise() {
        let lost = refused(PluginErrorKind::Timeout, None);
        assert!(may_have_made(&lost));
        assert!(!may_have_made(&PluginError { request_sent: false, ..lost }));
        assert!(!may_have_made(&refused(PluginErrorKind::Conflict, Some("LimitExceeded"))));
    }
}
