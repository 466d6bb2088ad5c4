//! Waiting for what another process does: looks again and again, and fails loudly at the end of
//! its patience. The one place in these tests that waits by the clock.

use std::future::Future;
use std::time::{Duration, Instant};

/// Looks until `look` finds something.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Far more than anything here takes on a loaded machine; only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Often enough not to be noticed, seldom enough to leave the processor to others.
const LOOK_EVERY: Duration = Duration::from_millis(20);
