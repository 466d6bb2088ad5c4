//! The keys that seal the journal now: one, or two for the moment of a rotation. Makes none.

use std::sync::Arc;

use arc_swap::ArcSwap;
use claviger_core::journal::ChainHead;

use super::seal::Seals;

/// Shared by the writer, which changes it, and those who read.
///
/// A commit and the change of a variable are not one moment. So the writer announces the next keys
/// before the commit that puts them in force, and forgets the last ones after it: in between, what
/// either has sealed is the broker's own.
pub(super) struct Ring(ArcSwap<Vec<Arc<Seals>>>);

impl Ring {
    pub(super) fn new(seals: Arc<Seals>) -> Self {
        Self(ArcSwap::from_pointee(vec![seals]))
    }

    /// Every key that may be in force, the newest first.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Seals>>> {
        self.0.load_full()
    }

    /// The next commit puts `next` in force.
    pub(super) fn announce(&self, next: &Arc<Seals>) {
        let mut all = vec![Arc::clone(next)];
        all.extend(self.all().iter().filter(|seals| !Arc::ptr_eq(seals, next)).cloned());
        self.0.store(Arc::new(all));
    }

    /// `seals` alone is in force.
    pub(super) fn settle(&self, seals: &Arc<Seals>) {
        self.0.store(Arc::new(vec![Arc::clone(seals)]));
    }

    /// Whether a key that may be in force sealed `head`.
    pub(super) fn is_sealed(&self, head: &ChainHead, seal: &[u8]) -> bool {
        self.all().iter().any(|seals| seals.is_sealed(head, seal))
    }
}
