//! The newest set of keys that somebody published, with when it came, and word of each new one.
//! Fetches none.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::keys::KeySet;

/// Keys that may be replaced at any time.
#[derive(Default)]
pub struct Published {
    current: ArcSwapOption<Stamped>,
    changed: Notify,
}

struct Stamped {
    keys: Arc<KeySet>,
    at: Instant,
}

impl Published {
    /// Puts another set in the place of the one before.
    pub fn put(&self, keys: KeySet) {
        let (keys, at) = (Arc::new(keys), Instant::now());
        self.current.store(Some(Arc::new(Stamped { keys, at })));
        self.changed.notify_waiters();
    }

    /// The newest set, and when it came.
    pub fn newest(&self) -> Option<(Arc<KeySet>, Instant)> {
        let current = self.current.load_full()?;
        Some((Arc::clone(&current.keys), current.at))
    }

    /// The newest set, as soon as it is another than `seen`.
    pub async fn after(&self, seen: Option<&Arc<KeySet>>) -> Arc<KeySet> {
        loop {
            // Made before looking: a set that comes between the two is then not missed.
            let changed = self.changed.notified();
            if let Some((keys, _)) = self.newest()
                && !seen.is_some_and(|seen| Arc::ptr_eq(seen, &keys))
            {
                return keys;
            }
            changed.await;
        }
    }
}
