//! One pass of the revoke worker over one backend: idempotent, bounded, without input but time.

use std::time::Duration;

use super::random;
use crate::catalog::RevocationClass;
use crate::lease::{DueLease, LeaseState, RevokeOutcome};
use crate::name::BackendName;
use crate::ports::{
    Clock, Journal, JournalError, PluginError, PluginErrorKind, Plugins, Policies, Ports,
};

/// Takes what is due on `backend` now, at most `limit` leases, in groups that can be revoked
/// together. The caller revokes each group with [`revoke`], as many at once as it likes, and takes
/// again when all are done.
pub async fn take<P: Ports>(
    ports: &P,
    backend: &BackendName,
    limit: usize,
) -> Result<Vec<Vec<DueLease>>, JournalError> {
    let due = ports.journal().take_due(backend, ports.clock().now(), limit).await?;
    Ok(groups(due, ports.plugins().revoked_at_once(backend), is_first_attempt))
}

/// Only first attempts go together: what has failed before may fail again, and should then hold up
/// nothing but itself.
fn is_first_attempt(lease: &DueLease) -> bool {
    lease.state == LeaseState::Due && lease.attempts == 0
}

/// Groups of up to `at_once` of those that may go `together`; each of the others by itself.
fn groups<T>(all: Vec<T>, at_once: usize, together: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let (fresh, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(together);
    let mut groups: Vec<Vec<_>> = rest.into_iter().map(|one| vec![one]).collect();
    let mut fresh = fresh.into_iter();
    loop {
        let group: Vec<_> = fresh.by_ref().take(at_once.max(1)).collect();
        if group.is_empty() {
            return groups;
        }
        groups.push(group);
    }
}

/// Attempts to revoke due leases of one backend, together if they are several, and records what
/// came of it. Answers the state of each.
pub async fn revoke<P: Ports>(
    ports: &P,
    leases: &[DueLease],
) -> Result<Vec<LeaseState>, JournalError> {
    let together = leases.len() > 1 && leases.iter().all(|lease| can_end_early(ports, lease));
    let failed =
        if together { revoke_all(ports, leases).await? } else { AllFailed::InTheirOwnWays };
    let mut states = Vec::with_capacity(leases.len());
    for lease in leases {
        states.push(match &failed {
            AllFailed::Not => LeaseState::Revoked,
            AllFailed::InTheirOwnWays => revoke_one(ports, lease).await?,
            AllFailed::Alike(error) => {
                let outcome = self::failed(ports, lease, error);
                ports.journal().record_revocation(lease, &outcome, ports.clock().now()).await?
            }
        });
    }
    Ok(states)
}

/// How an attempt to revoke several leases together failed.
enum AllFailed {
    /// It did not.
    Not,
    /// One of them may have failed for all: each is tried alone.
    InTheirOwnWays,
    /// The backend as a whole cannot be reached, so trying each would only take longer.
    Alike(PluginError),
}

async fn revoke_all<P: Ports>(ports: &P, leases: &[DueLease]) -> Result<AllFailed, JournalError> {
    let Err(error) = ports.plugins().revoke_all(leases).await else {
        ports.journal().record_gone(leases, ports.clock().now()).await?;
        return Ok(AllFailed::Not);
    };
    Ok(match error.kind {
        PluginErrorKind::Unavailable
        | PluginErrorKind::Timeout
        | PluginErrorKind::RateLimited
        | PluginErrorKind::NotLoaded => AllFailed::Alike(error),
        PluginErrorKind::InvalidConfig
        | PluginErrorKind::Denied
        | PluginErrorKind::NotFound
        | PluginErrorKind::Conflict
        | PluginErrorKind::Sandbox
        | PluginErrorKind::Other => AllFailed::InTheirOwnWays,
    })
}

async fn revoke_one<P: Ports>(ports: &P, lease: &DueLease) -> Result<LeaseState, JournalError> {
    let outcome = attempt(ports, lease).await;
    ports.journal().record_revocation(lease, &outcome, ports.clock().now()).await
}

async fn attempt<P: Ports>(ports: &P, lease: &DueLease) -> RevokeOutcome {
    if lease.state == LeaseState::Lapsing {
        return RevokeOutcome::RanOut;
    }
    if !can_end_early(ports, lease) {
        return RevokeOutcome::CannotRevoke;
    }
    match ports.plugins().revoke(lease).await {
        Ok(()) => RevokeOutcome::Gone,
        Err(error) => failed(ports, lease, &error),
    }
}

/// A backend that the configuration no longer has is tried all the same: the failure makes the
/// lease stuck, and so visible, where skipping it would lose it.
fn can_end_early<P: Ports>(ports: &P, lease: &DueLease) -> bool {
    let snapshot = ports.policies().current();
    let backend = snapshot.catalog().backends.get(lease.scope.backend());
    backend.is_none_or(|backend| backend.revocation != RevocationClass::ExpireOnly)
}

fn failed<P: Ports>(ports: &P, lease: &DueLease, error: &PluginError) -> RevokeOutcome {
    let tries = lease.attempts.saturating_add(1);
    let next_attempt_at = (tries < ATTEMPTS_MAX).then(|| {
        let wait =
            backoff(tries, random(ports.entropy())).max(error.retry_after.unwrap_or_default());
        ports.clock().now().after(wait.min(BACKOFF_MAX))
    });
    RevokeOutcome::Failed { error: error.to_string(), next_attempt_at }
}

/// Doubles with each try, between half and one and a half of the nominal wait, so that leases
/// that failed together do not try again together.
fn backoff(tries: u32, jitter: [u8; 2]) -> Duration {
    let nominal =
        BACKOFF_BASE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let share = f64::from(u16::from_be_bytes(jitter)) / f64::from(u16::MAX);
    nominal.mul_f64(0.5 + share)
}

/// The first retry comes after about a second: most failures are a restart or a lost connection.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// No lease waits longer than this for its next try, whatever the upstream says.
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// About half an hour from the first failure to `Stuck`: outlasts a failover, not a weekend.
pub const ATTEMPTS_MAX: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_and_what_goes_alone_goes_alone() {
        let check = |all: &[u32], at_once, expect: &[&[u32]]| {
            let groups = groups(all.to_vec(), at_once, |attempts| *attempts == 0);
            assert_eq!(groups, expect, "{all:?}, {at_once} at once");
        };
        check(&[0; 5], 2, &[&[0, 0], &[0, 0], &[0]]);
        check(&[0; 3], 1, &[&[0], &[0], &[0]]);
        check(&[0, 1, 0], 32, &[&[1], &[0, 0]]);
        check(&[0, 0], 0, &[&[0], &[0]]);
        check(&[], 32, &[]);
    }

    #[test]
    fn backoff_grows_and_stays_bounded() {
        assert_eq!(backoff(1, [0, 0]), Duration::from_millis(500));
        assert_eq!(backoff(1, [255, 255]), Duration::from_millis(1500));
        assert!(backoff(4, [0, 0]) > backoff(1, [255, 255]));
        assert!(backoff(u32::MAX, [255, 255]) <= BACKOFF_MAX.mul_f64(1.5));
    }
}
