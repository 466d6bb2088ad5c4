//! The plugins in force: the core's port `Plugins` over sandboxed components. Immutable; a reload
//! makes a new one on the same sandbox and swaps it in whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::intent::Intent;
use claviger_core::issued::Issued;
use claviger_core::lease::DueLease;
use claviger_core::name::{BackendName, PluginName};
use claviger_core::ports::{self, PluginError, PluginErrorKind};
use thiserror::Error;

use super::admit::{self, AdmitError, Loaded};
use super::backend::{Backend, BackendError, PROBLEMS_MAX};
use super::engine::{EngineError, Sandbox};
use super::link::{Grant, Grants};
use super::manifest::{ConnectionKind, Manifest};
use super::observe::Observe;
use super::request::{IssueRequest, RevokeRequest};
use super::run::{Answer, Run, Task};
use super::spec::{BackendSpec, Limits, PluginSpec};
use crate::issuer::Issuer;

/// The plugins and backends in force.
pub struct Plugins {
    sandbox: Arc<Sandbox>,
    plugins: BTreeMap<PluginName, Arc<Loaded>>,
    backends: BTreeMap<BackendName, (Arc<Loaded>, Arc<Backend>)>,
    observe: Observe,
    issuer: Option<Arc<Issuer>>,
}

/// What the plugins share.
pub struct PluginsOptions {
    /// How long after its record an intent may stay open; calls end well before.
    pub intent_timeout: Duration,
    /// Told about every call.
    pub observer: Observe,
    /// Signs tokens, for connections of that kind.
    pub issuer: Option<Arc<Issuer>>,
}

/// Something that keeps the plugins from being loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// There is nowhere to run them.
    #[error(transparent)]
    Sandbox(#[from] EngineError),
    /// A component was refused.
    #[error("plugin `{plugin}`: `{}` {error}", path.display())]
    Plugin {
        /// Which.
        plugin: PluginName,
        /// Its file.
        path: PathBuf,
        /// Why.
        error: AdmitError,
    },
    /// A backend names a plugin that there is not.
    #[error(
        "backend `{backend}` uses plugin `{plugin}`, which is not configured: add `[plugins.{plugin}]`"
    )]
    NoSuchPlugin {
        /// The backend.
        backend: BackendName,
        /// The plugin.
        plugin: PluginName,
    },
    /// A backend cannot be used.
    #[error("backend `{backend}`: {error}")]
    Backend {
        /// Which.
        backend: BackendName,
        /// Why.
        error: BackendError,
    },
    /// The plugin failed while it checked a backend.
    #[error("backend `{backend}`: the configuration could not be checked: {error}")]
    Check {
        /// Which.
        backend: BackendName,
        /// Why.
        error: PluginError,
    },
}

impl Plugins {
    /// Loads everything or nothing, and reports every problem at once. Blocks while it compiles.
    pub fn load(
        plugins: Vec<PluginSpec>,
        backends: Vec<BackendSpec>,
        options: PluginsOptions,
    ) -> Result<Self, Vec<LoadError>> {
        let sandbox = Sandbox::start(Limits::within(options.intent_timeout));
        let sandbox = sandbox.map_err(|error| vec![error.into()])?;
        Self::load_on(sandbox, plugins, backends, options)
    }

    /// Loads onto a sandbox that others may share.
    pub(super) fn load_on(
        sandbox: Arc<Sandbox>,
        plugins: Vec<PluginSpec>,
        backends: Vec<BackendSpec>,
        options: impl Into<PluginsOptions>,
    ) -> Result<Self, Vec<LoadError>> {
        let mut errors = Vec::new();
        let PluginsOptions { observer: observe, issuer, .. } = options.into();
        let (none, nothing) = (BTreeMap::new(), BTreeMap::new());
        let mut loaded = Self { sandbox, plugins: none, backends: nothing, observe, issuer };
        let configured: BTreeSet<_> = plugins.iter().map(|spec| spec.name.clone()).collect();
        for spec in plugins {
            match loaded.admit(&spec, &backends) {
                Ok(plugin) => drop(loaded.plugins.insert(spec.name, Arc::new(plugin))),
                Err(error) => {
                    errors.push(LoadError::Plugin { plugin: spec.name, path: spec.path, error });
                }
            }
        }
        for spec in backends {
            match loaded.plugins.get(&spec.plugin).cloned() {
                Some(plugin) => errors.extend(loaded.ready(spec, plugin)),
                // Refused above, with the reason.
                None if configured.contains(&spec.plugin) => {}
                None => {
                    errors.push(LoadError::NoSuchPlugin { backend: spec.name, plugin: spec.plugin })
                }
            }
        }
        if errors.is_empty() { Ok(loaded) } else { Err(errors) }
    }

    /// A loaded plugin's manifest, and SHA-256 of the bytes that it is part of.
    pub fn manifest(&self, plugin: &PluginName) -> Option<(&Manifest, &[u8; 32])> {
        self.plugins.get(plugin).map(|loaded| (loaded.manifest.as_ref(), &loaded.sha256))
    }

    fn admit(&self, spec: &PluginSpec, backends: &[BackendSpec]) -> Result<Loaded, AdmitError> {
        let manifest = admit::inspect(spec)?;
        let bound = backends.iter().any(|b| b.plugin == spec.name && !b.connections.is_empty());
        let grant = |kind| match (manifest.wants(kind), bound) {
            (false, _) => Grant::Unrequested,
            (true, false) => Grant::Unbound,
            (true, true) => Grant::Given,
        };
        let grants = Grants {
            sql: grant(ConnectionKind::Sql),
            http: grant(ConnectionKind::Http),
            jwt: grant(ConnectionKind::Jwt),
        };
        Loaded::admit(&self.sandbox, spec, manifest, grants)
    }

    /// Adds the backend of `spec`, or tells why not.
    fn ready(&mut self, spec: BackendSpec, plugin: Arc<Loaded>) -> Vec<LoadError> {
        let name = spec.name.clone();
        let wrap = |error| LoadError::Backend { backend: name.clone(), error };
        let document = serde_json::json!({ "settings": spec.settings, "scopes": spec.scopes });
        let backend = match Backend::ready(spec, &plugin.manifest, self.issuer.as_ref()) {
            Ok(backend) => Arc::new(backend),
            Err(errors) => return errors.into_iter().map(wrap).collect(),
        };
        match self.run(&plugin, None).perform_blocking(Task::Validate(document.to_string())) {
            Ok(Answer::Problems(problems)) if !problems.is_empty() => {
                let invalid = |problem: super::bindings::Problem| BackendError::Invalid {
                    pointer: problem.pointer,
                    message: problem.message,
                };
                problems.into_iter().take(PROBLEMS_MAX).map(invalid).map(wrap).collect()
            }
            Ok(_) => {
                self.backends.insert(name, (plugin, backend));
                Vec::new()
            }
            Err(error) => vec![LoadError::Check { backend: name, error }],
        }
    }

    fn run<'a>(&'a self, loaded: &'a Arc<Loaded>, backend: Option<Arc<Backend>>) -> Run<'a> {
        Run { sandbox: &self.sandbox, loaded, backend, observe: &self.observe }
    }

    fn backend(&self, name: &BackendName) -> Result<&(Arc<Loaded>, Arc<Backend>), PluginError> {
        self.backends.get(name).ok_or_else(|| PluginError {
            plugin: name.as_str().to_owned(),
            kind: PluginErrorKind::NotLoaded,
            code: None,
            message: format!("backend `{name}` is not configured: add it back to reach it"),
            request_sent: false,
            retry_after: None,
        })
    }

    /// Mints what `request` describes on `backend`.
    pub(super) async fn mint(
        &self,
        backend: &BackendName,
        request: impl FnOnce(&str) -> IssueRequest,
    ) -> Result<Issued, PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let task = Task::Issue(request(&backend.settings));
        match self.run(loaded, Some(Arc::clone(backend))).perform(task).await? {
            Answer::Issued(issued) => Ok(issued),
            Answer::Problems(_) | Answer::Revoked => Err(mixed_up(loaded)),
        }
    }

    /// Ends what `request` describes on `backend`.
    pub(super) async fn end(
        &self,
        backend: &BackendName,
        request: impl FnOnce(&str) -> RevokeRequest,
    ) -> Result<(), PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let task = Task::Revoke(request(&backend.settings));
        match self.run(loaded, Some(Arc::clone(backend))).perform(task).await? {
            Answer::Revoked => Ok(()),
            Answer::Problems(_) | Answer::Issued(_) => Err(mixed_up(loaded)),
        }
    }
}

impl LoadError {
    /// The keys of the configuration that lead to the problem.
    pub fn keys(&self) -> Vec<&str> {
        match self {
            Self::Sandbox(_) => Vec::new(),
            Self::Plugin { plugin, error: AdmitError::Pin { .. }, .. } => {
                vec!["plugins", plugin.as_str(), "sha256"]
            }
            Self::Plugin { plugin, .. } => vec!["plugins", plugin.as_str(), "path"],
            Self::NoSuchPlugin { backend, .. } => vec!["backends", backend.as_str(), "plugin"],
            Self::Backend { backend, .. } | Self::Check { backend, .. } => {
                vec!["backends", backend.as_str()]
            }
        }
    }
}

impl Default for PluginsOptions {
    fn default() -> Self {
        Self { intent_timeout: Duration::from_secs(30), observer: Arc::new(|_| {}), issuer: None }
    }
}

impl From<Observe> for PluginsOptions {
    fn from(observer: Observe) -> Self {
        Self { observer, ..Self::default() }
    }
}

impl ports::Plugins for Plugins {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        let backend = &intent.permit().backend().name;
        self.mint(backend, |settings| IssueRequest::new(intent, settings)).await
    }

    async fn revoke(&self, lease: &DueLease) -> Result<(), PluginError> {
        let backend = lease.scope.backend();
        self.end(backend, |settings| RevokeRequest::new(lease, settings)).await
    }
}

/// A fault of this module: an answer to another question.
fn mixed_up(loaded: &Loaded) -> PluginError {
    PluginError {
        plugin: loaded.name.as_str().to_owned(),
        kind: PluginErrorKind::Other,
        code: None,
        message: "the host mixed up two answers: report this".to_owned(),
        request_sent: true,
        retry_after: None,
    }
}
