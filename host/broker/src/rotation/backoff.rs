//! When a deletion that failed is tried again: later each time, and for each key by itself, so that
//! one that cannot be deleted holds up no other. Deletes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger_core::name::SecretName;
use tokio::time::Instant;

use super::{LOOK_EVERY, RETRY_AFTER};
use crate::journal::RetiringKey;

/// The pauses of all keys whose deletion failed, by the secret of the id and its version.
#[derive(Default)]
pub(super) struct Backoffs(BTreeMap<(SecretName, u64), Backoff>);

struct Backoff {
    not_before: Instant,
    pause: Duration,
}

impl Backoffs {
    /// Those of `retiring` whose turn it is. What is not among `retiring` any more is forgotten.
    pub fn due(&mut self, mut retiring: Vec<RetiringKey>, now: Instant) -> Vec<RetiringKey> {
        self.0.retain(|kept, _| retiring.iter().any(|key| version_of(key) == *kept));
        retiring.retain(|key| {
            let backoff = self.0.get(&version_of(key));
            backoff.is_none_or(|backoff| backoff.not_before <= now)
        });
        retiring
    }

    /// Its deletion has failed.
    pub fn put_off(&mut self, key: &RetiringKey, now: Instant) {
        let before = self.0.get(&version_of(key)).map_or(Duration::ZERO, |backoff| backoff.pause);
        let pause = (before * 2).clamp(LOOK_EVERY, RETRY_AFTER);
        self.0.insert(version_of(key), Backoff { not_before: now + pause, pause });
    }
}

fn version_of(key: &RetiringKey) -> (SecretName, u64) {
    (key.name.clone(), key.version)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use zeroize::Zeroizing;

    use super::*;

    fn key(name: &str, version: u64) -> RetiringKey {
        let id = Zeroizing::new("AKIA".to_owned());
        RetiringKey { name: name.parse().unwrap(), version, id }
    }

    /// Which of the keys, all of which retire, are due at `now`.
    fn check(backoffs: &mut Backoffs, now: Instant, keys: &[RetiringKey], expect: &[&str]) {
        let due = backoffs.due(keys.to_vec(), now);
        let due: Vec<_> = due.iter().map(|key| format!("{}@{}", key.name, key.version)).collect();
        assert_eq!(due, expect);
    }

    #[test]
    fn a_key_that_cannot_be_deleted_holds_up_no_other() {
        let (mut backoffs, began) = (Backoffs::default(), Instant::now());
        let both = [key("other", 1), key("stuck", 1)];
        check(&mut backoffs, began, &both, &["other@1", "stuck@1"]);
        for _ in 0..20 {
            backoffs.put_off(&key("stuck", 1), began);
        }
        check(&mut backoffs, began, &both, &["other@1"]);
        let late = began + RETRY_AFTER;
        check(&mut backoffs, late, &both, &["other@1", "stuck@1"]);
    }

    #[test]
    fn each_pause_is_longer_and_ends_with_what_it_is_for() {
        let (mut backoffs, began) = (Backoffs::default(), Instant::now());
        let stuck = [key("stuck", 1)];
        for pause in [LOOK_EVERY, LOOK_EVERY * 2, LOOK_EVERY * 4] {
            backoffs.put_off(&key("stuck", 1), began);
            check(&mut backoffs, began + pause - Duration::from_millis(1), &stuck, &[]);
            check(&mut backoffs, began + pause, &stuck, &["stuck@1"]);
        }
        check(&mut backoffs, began, &[key("stuck", 2)], &["stuck@2"]);
        check(&mut backoffs, began, &stuck, &["stuck@1"]);
    }
}
