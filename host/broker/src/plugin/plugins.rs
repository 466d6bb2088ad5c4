//! The plugins in force: the core's port `Plugins` over sandboxed components. Immutable; a reload
//! makes a new one on the same sandbox and swaps it in whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::catalog;
use claviger_core::intent::Intent;
use claviger_core::issued::Issued;
use claviger_core::lease::DueLease;
use claviger_core::name::{BackendName, ConnectionName, PluginName};
use claviger_core::ports::{self, PluginError, PluginErrorKind};
use data_encoding::HEXLOWER;
use thiserror::Error;

use super::admit::{self, AdmitError, Loaded};
use super::backend::{Backend, BackendError};
use super::cache::ComponentCache;
use super::components::Components;
use super::engine::{EngineError, Sandbox};
use super::link::{Grant, Grants};
use super::manifest::{ConnectionKind, Manifest};
use super::observe::Observe;
use super::request::{
    DeleteKeyRequest, IssueRequest, MakeKeyRequest, NewKey, RevokeRequest, RotateRequest,
};
use super::run::{Answer, Run, Task};
use super::signature::SignatureState;
use super::spec::{BackendSpec, Limits, PluginSpec};
use crate::egress::redact::SharedSecret;
use crate::issuer::Issuer;

/// The plugins and backends in force.
pub struct Plugins {
    sandbox: Arc<Sandbox>,
    plugins: BTreeMap<PluginName, Arc<Loaded>>,
    backends: BTreeMap<BackendName, Ready>,
    /// Backends that a reload removed or gave to another version of their plugin. No policy
    /// snapshot grants them any more; what they minted can still be revoked, and what was
    /// permitted on them before the reload is still minted by the code that was permitted.
    earlier: BTreeMap<BackendName, Ready>,
    observe: Observe,
    issuer: Option<Arc<Issuer>>,
}

type Ready = (Arc<Loaded>, Arc<Backend>);

/// What operators see of a plugin.
#[derive(Clone, Debug)]
pub struct PluginInfo {
    /// Its name in the configuration.
    pub name: PluginName,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// What is known of who made it.
    pub signature: SignatureState,
    /// The backends that use it.
    pub backends: Vec<BackendName>,
    /// How long it is still quarantined.
    pub quarantined_secs: Option<u64>,
    /// How often it trapped since the broker started.
    pub traps: u64,
}

/// What the plugins share.
pub struct PluginsOptions {
    /// How long after its record an intent may stay open; calls end well before.
    pub intent_timeout: Duration,
    /// Told about every call.
    pub observer: Observe,
    /// Where compiled components are kept; without it they are compiled at each load.
    pub cache: Option<ComponentCache>,
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
        mut options: PluginsOptions,
    ) -> Result<Self, Vec<LoadError>> {
        let limits = Limits::within(options.intent_timeout);
        let sandbox = Sandbox::start_with(limits, Components::new(options.cache.take()));
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
        let PluginsOptions { observer: observe, issuer, .. } = options.into();
        let empty = Self {
            sandbox,
            plugins: BTreeMap::new(),
            backends: BTreeMap::new(),
            earlier: BTreeMap::new(),
            observe,
            issuer,
        };
        empty.load_again(plugins, backends)
    }

    /// What these become with another configuration, on the same sandbox. Plugins of the same
    /// bytes are not compiled again and keep their quarantine; connections are opened anew, with
    /// the secrets of `backends`. Loads everything or nothing; `self` is as it was either way.
    pub fn load_again(
        &self,
        plugins: Vec<PluginSpec>,
        backends: Vec<BackendSpec>,
    ) -> Result<Self, Vec<LoadError>> {
        let mut errors = Vec::new();
        let mut loaded = Self {
            sandbox: Arc::clone(&self.sandbox),
            plugins: BTreeMap::new(),
            backends: BTreeMap::new(),
            earlier: BTreeMap::new(),
            observe: Arc::clone(&self.observe),
            issuer: self.issuer.clone(),
        };
        let configured: BTreeSet<_> = plugins.iter().map(|spec| spec.name.clone()).collect();
        for spec in plugins {
            match self.admit(&spec, &backends) {
                Ok(plugin) => drop(loaded.plugins.insert(spec.name, plugin)),
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
        if !errors.is_empty() {
            return Err(errors);
        }
        loaded.earlier = self.left_behind(&loaded);
        loaded.sandbox.components.tidy();
        Ok(loaded)
    }

    /// The backends that `new` does not have, or has with other code.
    fn left_behind(&self, new: &Self) -> BTreeMap<BackendName, Ready> {
        let kept = |name: &BackendName, (plugin, _): &Ready| {
            new.backends.get(name).is_some_and(|(newer, _)| newer.sha256 == plugin.sha256)
        };
        let mut left = self.earlier.clone();
        left.extend(self.backends.iter().map(|(name, ready)| (name.clone(), ready.clone())));
        left.retain(|name, ready| !kept(name, ready));
        left
    }

    /// A loaded plugin's manifest, and SHA-256 of the bytes that it is part of.
    pub fn manifest(&self, plugin: &PluginName) -> Option<(&Manifest, &[u8; 32])> {
        self.plugins.get(plugin).map(|loaded| (loaded.manifest.as_ref(), &loaded.sha256))
    }

    /// The plugins as operators see them.
    pub fn list(&self) -> Vec<PluginInfo> {
        let backends_of = |plugin: &PluginName| {
            let uses = self.backends.iter().filter(|(_, (used, _))| used.name == *plugin);
            uses.map(|(backend, _)| backend.clone()).collect()
        };
        let info = |loaded: &Arc<Loaded>| PluginInfo {
            name: loaded.name.clone(),
            manifest: Arc::clone(&loaded.manifest),
            sha256: loaded.sha256,
            signature: loaded.signature.clone(),
            backends: backends_of(&loaded.name),
            quarantined_secs: loaded.quarantined_secs(),
            traps: loaded.traps(),
        };
        self.plugins.values().map(info).collect()
    }

    /// Whether the plugin is quarantined; `None` if there is none of that name.
    pub fn is_quarantined(&self, plugin: &PluginName) -> Option<bool> {
        Some(self.plugins.get(plugin)?.quarantined_secs().is_some())
    }

    /// Lets the plugin work again at once; false if nothing kept it from it.
    pub fn lift_quarantine(&self, plugin: &PluginName) -> bool {
        self.plugins.get(plugin).is_some_and(|loaded| loaded.lift_quarantine())
    }

    fn admit(
        &self,
        spec: &PluginSpec,
        backends: &[BackendSpec],
    ) -> Result<Arc<Loaded>, AdmitError> {
        let inspected = admit::inspect(spec)?;
        let manifest = &inspected.manifest;
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
        Loaded::admit(&self.sandbox, (spec, inspected), grants, self.plugins.get(&spec.name))
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
                problems.into_iter().map(invalid).map(wrap).collect()
            }
            Ok(_) => {
                self.backends.insert(name, (plugin, backend));
                Vec::new()
            }
            Err(error) => vec![LoadError::Check { backend: name, error }],
        }
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        &self.sandbox.engine
    }

    fn run<'a>(&'a self, loaded: &'a Arc<Loaded>, backend: Option<Arc<Backend>>) -> Run<'a> {
        Run { sandbox: &self.sandbox, loaded, backend, observe: &self.observe }
    }

    fn backend(&self, name: &BackendName) -> Result<&Ready, PluginError> {
        self.backends.get(name).or_else(|| self.earlier.get(name)).ok_or_else(|| PluginError {
            plugin: name.as_str().to_owned(),
            kind: PluginErrorKind::NotLoaded,
            code: None,
            message: format!("backend `{name}` is not configured: add it back to reach it"),
            request_sent: false,
            retry_after: None,
        })
    }

    /// The backend as it was permitted: of the code whose digest the decision knew. An intent may
    /// become durable just before a reload and be minted just after it.
    fn permitted(&self, permitted: &catalog::Backend) -> Result<&Ready, PluginError> {
        let same = |ready: &&Ready| HEXLOWER.encode(&ready.0.sha256) == permitted.plugin_sha256;
        let now = self.backends.get(&permitted.name).filter(same);
        match now.or_else(|| self.earlier.get(&permitted.name).filter(same)) {
            Some(ready) => Ok(ready),
            None => Err(PluginError {
                plugin: permitted.plugin.as_str().to_owned(),
                kind: PluginErrorKind::NotLoaded,
                code: None,
                message: "it was replaced since the credential was permitted: ask again".to_owned(),
                request_sent: false,
                retry_after: None,
            }),
        }
    }

    /// Mints what `request` describes on `backend`, for tests and the kit's suite.
    pub(super) async fn mint(
        &self,
        backend: &BackendName,
        request: impl FnOnce(&str) -> IssueRequest,
    ) -> Result<Issued, PluginError> {
        self.mint_on(self.backend(backend)?, request).await
    }

    async fn mint_on(
        &self,
        (loaded, backend): &Ready,
        request: impl FnOnce(&str) -> IssueRequest,
    ) -> Result<Issued, PluginError> {
        let task = Task::Issue(request(&backend.settings));
        match self.run(loaded, Some(Arc::clone(backend))).perform(task).await? {
            Answer::Issued(issued) => Ok(issued),
            _ => Err(mixed_up(loaded)),
        }
    }

    /// Ends what `request` describes on `backend`.
    pub(super) async fn end(
        &self,
        backend: &BackendName,
        request: impl FnOnce(&str) -> RevokeRequest,
    ) -> Result<(), PluginError> {
        self.end_by(backend, |settings| Task::Revoke(request(settings))).await
    }

    /// Has `task` end something on `backend`.
    pub(super) async fn end_by(
        &self,
        backend: &BackendName,
        task: impl FnOnce(&str) -> Task,
    ) -> Result<(), PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let task = task(&backend.settings);
        match self.run(loaded, Some(Arc::clone(backend))).perform(task).await? {
            Answer::Revoked => Ok(()),
            _ => Err(mixed_up(loaded)),
        }
    }

    /// Whether the plugin of this backend replaces root credentials; `None` if there is none.
    pub fn rotates(&self, backend: &BackendName) -> Option<bool> {
        self.backends.get(backend).map(|(loaded, _)| loaded.rotating.is_some())
    }

    /// Has the plugin give the account of `connection` the password `secret`.
    pub async fn rotate_root(
        &self,
        backend: &BackendName,
        connection: &ConnectionName,
        secret: SharedSecret,
    ) -> Result<(), PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let task = Task::Rotate(RotateRequest::new(connection, &backend.settings, secret));
        match self.run(loaded, Some(Arc::clone(backend))).perform(task).await? {
            Answer::Rotated => Ok(()),
            _ => Err(mixed_up(loaded)),
        }
    }

    /// Whether the plugin of this backend has root credentials made and deleted; `None` if there
    /// is none.
    pub fn makes_keys(&self, backend: &BackendName) -> Option<bool> {
        self.backends.get(backend).map(|(loaded, _)| loaded.key_rotating.is_some())
    }

    /// Has the plugin have another key made for the account of `connection`.
    pub async fn make_key(
        &self,
        backend: &BackendName,
        connection: &ConnectionName,
        id_in_force: &str,
    ) -> Result<NewKey, PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let request = MakeKeyRequest::new(connection, &backend.settings, id_in_force);
        let run = self.run(loaded, Some(Arc::clone(backend)));
        match run.perform(Task::MakeKey(request)).await? {
            Answer::Made(key) => Ok(key),
            _ => Err(mixed_up(loaded)),
        }
    }

    /// Has the plugin delete the first of these keys; the second one is in force.
    pub async fn delete_key(
        &self,
        backend: &BackendName,
        connection: &ConnectionName,
        keys: (&str, &str),
    ) -> Result<(), PluginError> {
        let (loaded, backend) = self.backend(backend)?;
        let request = DeleteKeyRequest::new(connection, &backend.settings, keys);
        let run = self.run(loaded, Some(Arc::clone(backend)));
        match run.perform(Task::DeleteKey(request)).await? {
            Answer::Deleted => Ok(()),
            _ => Err(mixed_up(loaded)),
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
        Self {
            intent_timeout: Duration::from_secs(30),
            observer: Arc::new(|_| {}),
            cache: None,
            issuer: None,
        }
    }
}

impl From<Observe> for PluginsOptions {
    fn from(observer: Observe) -> Self {
        Self { observer, ..Self::default() }
    }
}

impl ports::Plugins for Plugins {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        let ready = self.permitted(intent.permit().backend())?;
        self.mint_on(ready, |settings| IssueRequest::new(intent, settings)).await
    }

    async fn revoke(&self, lease: &DueLease) -> Result<(), PluginError> {
        let backend = lease.scope.backend();
        self.end(backend, |settings| RevokeRequest::new(lease, settings)).await
    }

    fn revoked_at_once(&self, backend: &BackendName) -> usize {
        match self.backend(backend) {
            Ok((loaded, _)) if loaded.batch.is_some() => REVOKED_AT_ONCE_MAX,
            Ok(_) | Err(_) => 1,
        }
    }

    async fn revoke_all(&self, leases: &[DueLease]) -> Result<(), PluginError> {
        let Some(first) = leases.first() else { return Ok(()) };
        self.end_by(first.scope.backend(), |settings| {
            let requests = leases.iter().map(|lease| RevokeRequest::new(lease, settings));
            Task::RevokeAll(requests.collect())
        })
        .await
    }
}

/// Documented in `wit/batch`: one statement for each and a few more stay under a call's 64.
const REVOKED_AT_ONCE_MAX: usize = 32;

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
