//! Calls a plugin without a broker, for the kit's suite and the benches: the same sandbox, connections and limits,
//! and neither policy nor journal. Not used while serving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ids::{IntentId, SessionId};
use claviger_core::issued::{Handle, Issued};
use claviger_core::name::BackendName;
use claviger_core::ports::{self, PluginError};
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

use super::admit;
use super::components::{Components, Source};
use super::engine::{EngineError, Sandbox};
use super::link::{self, Grants};
use super::manifest::LimitsClass;
use super::plugins::{LoadError, Plugins, PluginsOptions};
use super::request::{IssueRequest, RevokeRequest};
use super::run::Task;
use super::spec::{BackendSpec, Limits, PluginSpec};
use crate::issuer::Issuer;

/// A plugin that answers to nobody but the kit.
pub struct Trial {
    plugins: Plugins,
    /// The parameters of each backend's only scope, as JSON.
    parameters: BTreeMap<BackendName, String>,
}

/// What the kit asks a plugin for. There is no intent behind it: nothing of it reaches an agent.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The intent's id that the plugin is told.
    pub intent: IntentId,
    /// The time that the plugin is told, in Unix seconds.
    pub now_secs: u64,
    /// When the credential must stop working, in Unix seconds.
    pub expires_at_secs: u64,
}

impl Trial {
    /// Loads the plugin for these backends, each with one scope. `issuer` signs tokens, for
    /// connections of that kind.
    pub fn load(
        plugin: PluginSpec,
        backends: Vec<BackendSpec>,
        issuer: Option<Arc<Issuer>>,
    ) -> Result<Self, Vec<LoadError>> {
        let of = |backend: &BackendSpec| {
            let parameters = backend.scopes.values().next().map(ToString::to_string);
            (backend.name.clone(), parameters.unwrap_or_else(|| "{}".to_owned()))
        };
        let parameters = backends.iter().map(of).collect();
        let sandbox = sandbox().map_err(|error| vec![error.into()])?;
        let options = PluginsOptions { issuer, ..PluginsOptions::default() };
        let plugins = Plugins::load_on(sandbox, vec![plugin], backends, options)?;
        Ok(Self { plugins, parameters })
    }

    /// How long a call may take.
    pub fn wall() -> Duration {
        limits().wall
    }

    /// The engine that its calls run on: to measure what a call takes without the broker's part.
    pub fn engine(&self) -> &wasmtime::Engine {
        self.plugins.engine()
    }

    /// Runs the plugin's `issue`.
    pub async fn issue(&self, backend: &BackendName, ask: &Ask) -> Result<Issued, PluginError> {
        let parameters = self.parameters.get(backend).cloned().unwrap_or_default();
        let request = |settings: &str| IssueRequest {
            intent: ask.intent.bare(),
            session: SessionId::mint(Timestamp::from_unix_millis(0), &SESSION).bare(),
            role: "conformance".to_owned(),
            requester: "unix:0".to_owned(),
            scope: format!("{backend}/{SCOPE}"),
            prompt_sha256: "00".repeat(32),
            settings: settings.to_owned(),
            parameters,
            now_secs: ask.now_secs,
            expires_at_secs: ask.expires_at_secs,
        };
        self.plugins.mint(backend, request).await
    }

    /// Runs the plugin's `revoke`, with what `issue` left, or with the intent alone.
    pub async fn revoke(
        &self,
        backend: &BackendName,
        ask: &Ask,
        handle: Option<&Handle>,
    ) -> Result<(), PluginError> {
        let handle = handle.map(|handle| Zeroizing::new(handle.as_str().to_owned()));
        let request =
            |settings: &str| RevokeRequest { handle, ..revoke_request(backend, ask, settings) };
        self.plugins.end(backend, request).await
    }

    /// How many credentials the plugin can end in one call.
    pub fn revoked_at_once(&self, backend: &BackendName) -> usize {
        ports::Plugins::revoked_at_once(&self.plugins, backend)
    }

    /// Runs the plugin's `revoke-all`, with the intents alone.
    pub async fn revoke_all(&self, backend: &BackendName, asks: &[Ask]) -> Result<(), PluginError> {
        self.plugins
            .end_by(backend, |settings| {
                let request = |ask: &Ask| revoke_request(backend, ask, settings);
                Task::RevokeAll(asks.iter().map(request).collect())
            })
            .await
    }
}

fn revoke_request(backend: &BackendName, ask: &Ask, settings: &str) -> RevokeRequest {
    RevokeRequest {
        intent: ask.intent.bare(),
        scope: format!("{backend}/{SCOPE}"),
        settings: settings.to_owned(),
        handle: None,
        now_secs: ask.now_secs,
    }
}

/// Whether the component compiles and fits the contract, if it is granted what it asks for.
pub fn links(bytes: &[u8], class: LimitsClass, grants: Grants) -> Result<(), String> {
    let sandbox = sandbox().map_err(|error| error.to_string())?;
    let sha256 = admit::sha256(bytes);
    let source = Source { wasm: bytes, sha256: &sha256, class };
    let component = sandbox.components.get(&sandbox.engine, &source);
    let component = component.map_err(|error| error.to_string())?;
    let linked = link::link(&component, grants).map_err(|error| error.to_string())?;
    admit::batch(&component, &linked).map_err(|error| error.to_string())?;
    admit::rotating(&component, &linked).map_err(|error| error.to_string())?;
    admit::key_rotating(&component, &linked).map_err(|error| error.to_string())?;
    let plugin = super::bindings::PluginPre::new(linked).map_err(admit::mismatch);
    plugin.map(drop).map_err(|error| error.to_string())
}

/// A sandbox that compiles anew: what is being written changes each time.
fn sandbox() -> Result<Arc<Sandbox>, EngineError> {
    Sandbox::start_with(limits(), Components::new(None))
}

/// What the broker gives a call, but no room for more than a few at once.
fn limits() -> Limits {
    Limits { calls_max: 8, ..Limits::default() }
}

/// The name of the one scope.
pub const SCOPE: &str = "trial";

/// The session that plugins are told; there is none.
const SESSION: [u8; 10] = [7; 10];
