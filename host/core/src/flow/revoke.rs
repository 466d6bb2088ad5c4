//! One pass of the revoke worker over one backend: idempotent, bounded, without input but time.

use std::time::Duration;

use super::random;
use crate::catalog::RevocationClass;
use crate::lease::{DueLease, LeaseState, RevokeOutcome};
use crate::name::BackendName;
use crate::ports::{Clock, Journal, JournalError, PluginError, Plugins, Policies, Ports};

/// Takes what is due on `backend` now, at most `limit` leases. The caller revokes each with
/// [`revoke`], as many at once as it likes, and takes again when all are done.
pub async fn take<P: Ports>(
    ports: &P,
    backend: &BackendName,
    limit: usize,
) -> Result<Vec<DueLease>, JournalError> {
    ports.journal().take_due(backend, ports.clock().now(), limit).await
}

/// Attempts to revoke one due lease and records what came of it.
pub async fn revoke<P: Ports>(ports: &P, lease: &DueLease) -> Result<LeaseState, JournalError> {
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
    fn backoff_grows_and_stays_bounded() {
        assert_eq!(backoff(1, [0, 0]), Duration::from_millis(500));
        assert_eq!(backoff(1, [255, 255]), Duration::from_millis(1500));
        assert!(backoff(4, [0, 0]) > backoff(1, [255, 255]));
        assert!(backoff(u32::MAX, [255, 255]) <= BACKOFF_MAX.mul_f64(1.5));
    }
}
