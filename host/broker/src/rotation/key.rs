//! Replaces an access key, which the backend makes. Its steps:
//!
//! 1. That there is to be a new one is durable in the journal.
//! 2. The plugin has the backend make it beside the one in force.
//! 3. It is durable in the journal. A crash before this leaves a key at the backend that nobody has:
//!    the next start goes on with 2, and the plugin deletes it first.
//! 4. The host proves the new one. Only then does it take the place of the other, which retires: its
//!    id stays in the journal. A new one that is never accepted retires instead.
//! 5. A reload: connections sign with the new one.
//! 6. When no call can be using it any more, the plugin has the backend delete what retired. This is
//!    tried until it succeeds, over crashes too.
//!
//! Until 6 the backend accepts the one before, so that no call fails on the way.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ports::{Clock, Ports};
use claviger_core::time::Timestamp;
use tokio::time::Instant;
use zeroize::Zeroizing;

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
    retire(broker, Some(&target.root)).await.map_err(|error| {
        RotateError::Failed(format!("the key before is not deleted yet: {error}"))
    })?;
    let act = SecretAct { by, at: broker.clock().now() };
    let begun = broker.journal.begin_rotation(target.root.clone(), Vec::new(), act.clone());
    if begun.await?.is_none() {
        return Err(RotateError::Unsettled("an earlier rotation has not ended".to_owned()));
    }
    make(broker, target, PATIENCE, &act.by).await
}

/// Goes on with what a crash, or a backend that did not answer, left half done.
pub(super) async fn go_on(
    broker: &Arc<Broker>,
    target: &Target,
    left: &Unsettled,
    by: &str,
) -> Result<Rotated, RotateError> {
    match left.stage {
        Stage::Making => make(broker, target, PATIENCE_AGAIN, by).await,
        Stage::Pending => settle(broker, target, (left.since, PATIENCE_AGAIN), by).await,
    }
}

/// Deletes at the backends what has retired; each alone, so that one that is down holds up no other.
pub(super) async fn retire_all(broker: &Arc<Broker>) -> Result<(), RotateError> {
    if broker.journal.retiring_keys().await?.is_empty() {
        return Ok(());
    }
    let _one = broker.rotations.one().await;
    retire(broker, None).await
}

/// From the record that there is to be a new key.
async fn make(
    broker: &Arc<Broker>,
    target: &Target,
    patience: Duration,
    by: &str,
) -> Result<Rotated, RotateError> {
    let Some((in_force, _)) = pairs(broker, target).await? else {
        return end(broker, target, (Settlement::Dropped, DELETED.to_owned()), by).await;
    };
    let plugins = broker.plugins.current();
    let id = in_force.id.as_str();
    let NewKey { id, key } = match plugins.make_key(&target.backend, &target.connection, id).await {
        Ok(made) => made,
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

/// Deletes what has retired of `of`, or of all.
async fn retire(broker: &Arc<Broker>, of: Option<&RootSecrets>) -> Result<(), RotateError> {
    let is_meant = |key: &RetiringKey| of.is_none_or(|root| root.names().contains(&&key.name));
    let mut keys = broker.journal.retiring_keys().await?;
    keys.retain(is_meant);
    if keys.is_empty() {
        return Ok(());
    }
    // INVARIANT (in-force-before-deleted): no connection signs with what is deleted.
    let_go(broker).await?;
    tokio::time::sleep(CALLS_END).await;
    let mut retired = Ok(());
    for key in keys {
        if let Err(error) = retire_one(broker, key).await {
            retired = Err(error);
        }
    }
    retired
}

async fn retire_one(broker: &Arc<Broker>, key: RetiringKey) -> Result<(), RotateError> {
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
        let plugins = broker.plugins.current();
        let keys = (key.id.as_str(), in_force.id.as_str());
        let deleted = plugins.delete_key(&target.backend, &target.connection, keys).await;
        deleted.map_err(|error| RotateError::Failed(error.to_string()))?;
        let (backend, id) = (&target.backend, key.id.as_str());
        format!("the account of backend `{backend}` has no key `{id}` any more")
    };
    let act = SecretAct { by: SCHEDULE.to_owned(), at: broker.clock().now() };
    broker.journal.end_retirement(key, what, act).await?;
    Ok(())
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
/// there, or never will be.
const LATE_MAX: Duration = Duration::from_secs(300);

/// A call that began with the connections of before is over: it takes five seconds at most.
const CALLS_END: Duration = Duration::from_secs(6);
