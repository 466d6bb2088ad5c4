//! The plugins in force, which a reload replaces whole. Calls that run keep those they began with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use claviger_core::intent::Intent;
use claviger_core::issued::Issued;
use claviger_core::lease::DueLease;
use claviger_core::name::BackendName;
use claviger_core::ports::{self, PluginError};

use super::plugins::Plugins;

/// Holds the plugins in force.
pub struct PluginStore {
    current: ArcSwap<Plugins>,
}

impl PluginStore {
    /// A store that begins with `plugins`.
    pub fn new(plugins: Plugins) -> Self {
        Self { current: ArcSwap::from_pointee(plugins) }
    }

    /// The plugins in force.
    pub fn current(&self) -> Arc<Plugins> {
        self.current.load_full()
    }

    /// Puts `plugins` in force.
    pub fn replace(&self, plugins: Plugins) {
        self.current.store(Arc::new(plugins));
    }
}

impl ports::Plugins for PluginStore {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        self.current().issue(intent).await
    }

    async fn revoke(&self, lease: &DueLease) -> Result<(), PluginError> {
        self.current().revoke(lease).await
    }

    fn revoked_at_once(&self, backend: &BackendName) -> usize {
        self.current().revoked_at_once(backend)
    }

    async fn revoke_all(&self, leases: &[DueLease]) -> Result<(), PluginError> {
        self.current().revoke_all(leases).await
    }
}
