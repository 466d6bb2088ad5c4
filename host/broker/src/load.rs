//! From a configuration to the parts that it describes: plugins, catalog, policy folders, sealing
//! key. Serves nothing; `check` and `serve` both begin here.

pub mod connections;
mod identity;
mod plugins;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::catalog::{Backend, Catalog, Scope};
use claviger_core::name::{BackendName, ScopeName};
use claviger_core::policy::PolicySources;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::{Zeroize, Zeroizing};

use crate::app::Mode;
use crate::config::{
    AuthConfig, BackendConfig, ConfigError, ConfigFile, ConnectionConfig, SecretRef, WithStored,
};
use crate::issuer::page::{PageIdentity, PageSpec};
use crate::issuer::{Issuer, IssuerError};
use crate::journal::{SealingKey, SealingKeys};
use crate::plugin::{
    BackendSpec, ComponentCache, ISSUER_WANTED, LoadError, PluginSpec, Plugins, PluginsOptions,
};
use crate::policies::PolicyFolders;

pub use identity::identities;
pub use plugins::requirement;

/// Loads the plugins and checks every backend against its plugin's manifest. Blocks while it
/// compiles them.
pub fn plugins(
    file: WithStored<'_>,
    mode: Mode,
    options: PluginsOptions,
) -> Result<Plugins, Vec<ConfigError>> {
    let (plugins, backends) = specs(file, mode)?;
    let intent_timeout = file.config().journal.intent_timeout.0;
    Plugins::load(plugins, backends, PluginsOptions { intent_timeout, ..options })
        .map_err(|errors| errors.iter().map(|error| located(&file, error)).collect())
}

/// Loads what `file` says now in place of `current`, with its secrets read anew. Blocks as
/// [`plugins`] does.
pub fn plugins_again(
    file: WithStored<'_>,
    mode: Mode,
    current: &Plugins,
) -> Result<Plugins, Vec<ConfigError>> {
    let (plugins, backends) = specs(file, mode)?;
    current
        .load_again(plugins, backends)
        .map_err(|errors| errors.iter().map(|error| located(&file, error)).collect())
}

/// The files that the plugins come from, for those who watch them.
pub fn plugin_files(file: &ConfigFile) -> Vec<PathBuf> {
    let files = |config| {
        let (component, signature) = plugins::files(file, config);
        [component, signature]
    };
    file.config().plugins.values().flat_map(files).collect()
}

/// Where compiled components are kept.
pub fn component_folder(file: &ConfigFile) -> PathBuf {
    let config = file.config();
    config.sandbox.cache.as_ref().map_or_else(
        || {
            let mut beside = file.base().join(&config.journal.path).into_os_string();
            beside.push(".components");
            PathBuf::from(beside)
        },
        |folder| file.base().join(folder),
    )
}

/// The cache of compiled components.
pub fn component_cache(file: &ConfigFile) -> Result<ComponentCache, ConfigError> {
    let folder = component_folder(file);
    let key = sealing_key(file)?.component_key();
    let key = key.map_err(|error| file.problem(&["journal", "sealing_key"], error))?;
    ComponentCache::open(folder.clone(), key).map_err(|error| {
        file.problem(&["sandbox", "cache"], format!("`{}`: {error}", folder.display()))
    })
}

fn specs(
    file: WithStored<'_>,
    mode: Mode,
) -> Result<(Vec<PluginSpec>, Vec<BackendSpec>), Vec<ConfigError>> {
    let (plugins, mut problems) = split(plugins::specs(&file, mode));
    let (backends, more) = split(backend_specs(file));
    problems.extend(more);
    if problems.is_empty() { Ok((plugins, backends)) } else { Err(problems) }
}

fn located(file: &ConfigFile, error: &LoadError) -> ConfigError {
    match error {
        LoadError::Sandbox(_) => file.problem(&["plugins"], error),
        LoadError::Plugin { plugin, .. } => file.problem(&["plugins", plugin.as_str()], error),
        LoadError::NoSuchPlugin { backend, .. } => {
            file.problem(&["backends", backend.as_str(), "plugin"], error)
        }
        LoadError::Backend { backend, .. } | LoadError::Check { backend, .. } => {
            file.problem(&["backends", backend.as_str()], error)
        }
    }
}

/// What can be granted, and by whom: the parts of a policy snapshot that the configuration fixes.
pub fn fixed_sources(
    file: &ConfigFile,
    plugins: &Plugins,
) -> Result<PolicySources, Vec<ConfigError>> {
    let mut backends = BTreeMap::new();
    let mut problems = identity::unknown_groups(file);
    for (name, config) in &file.config().backends {
        // Every configured backend has its plugin: `Plugins::load` refused the others.
        let Some((manifest, sha256)) = plugins.manifest(&config.plugin) else { continue };
        let scopes = match scopes(file, name, config) {
            Ok(scopes) => scopes,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let backend = Backend {
            name: name.clone(),
            plugin: config.plugin.clone(),
            plugin_sha256: HEXLOWER.encode(sha256),
            revocation: manifest.revocation.class,
            residual_exposure: manifest.residual_exposure(),
            ttl_min: manifest.ttl_min(),
            orphan_ttl_max: manifest.orphan_ttl_max(),
            scopes,
        };
        backends.insert(name.clone(), Arc::new(backend));
    }
    problems.extend(lost_budgets(file));
    if !problems.is_empty() {
        return Err(problems);
    }
    let catalog = Catalog { backends };
    let config = file.config();
    let (teams, budgets) = (config.teams.clone(), config.budgets.clone());
    Ok(PolicySources { catalog, teams, budgets, ..PolicySources::default() })
}

/// Budgets of backends that there are not: a misspelt limit must not be none. Roles and
/// requesters come and go, so theirs may wait for them.
fn lost_budgets(file: &ConfigFile) -> Vec<ConfigError> {
    let config = file.config();
    let lost = config.budgets.backends.keys().filter(|name| !config.backends.contains_key(*name));
    lost.map(|name| {
        let problem =
            format!("there is no backend `{name}`: correct the name, or remove its budget");
        file.problem(&["budgets", "backends", name.as_str()], problem)
    })
    .collect()
}

/// The folders of policies and prompt files.
pub fn folders(file: &ConfigFile, fixed: PolicySources) -> PolicyFolders {
    let [policies, prompts] = folder_paths(file);
    PolicyFolders { policies, prompts, fixed }
}

/// Where the policies are, and the prompt files.
pub fn folder_paths(file: &ConfigFile) -> [PathBuf; 2] {
    let config = file.config();
    [&config.policies.path, &config.prompts.path].map(|path| file.base().join(path))
}

/// The broker as an issuer of tokens, if it is configured as one.
pub fn issuer(file: &ConfigFile, mode: Mode) -> Result<Option<Arc<Issuer>>, ConfigError> {
    let Some(config) = &file.config().issuer else { return Ok(None) };
    if mode == Mode::Serve && !config.url.starts_with("https://") {
        let problem = "write `https://…`: others trust the keys that they find there";
        return Err(file.problem(&["issuer", "url"], problem));
    }
    let issuer = Issuer::new(&config.url, config.rotate_every.0).map_err(|error| {
        let key = match error {
            IssuerError::Url { .. } => "url",
            IssuerError::RotateEvery => "rotate_every",
        };
        file.problem(&["issuer", key], error)
    })?;
    Ok(Some(Arc::new(issuer)))
}

/// Where the issuer's page is served, with the certificate read and checked.
pub fn issuer_page(file: &ConfigFile) -> Result<Option<PageSpec>, ConfigError> {
    let Some(config) = &file.config().issuer else { return Ok(None) };
    let tls = match (&config.certificate, &config.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let path = file.base().join(certificate);
            let certificate = std::fs::read(&path).map_err(|error| {
                let problem = format!("`{}`: {error}", path.display());
                file.problem(&["issuer", "certificate"], problem)
            })?;
            let key = key.read(file.base());
            let key = key.map_err(|error| file.problem(&["issuer", "key"], error))?;
            let identity = PageIdentity { certificate, key };
            identity
                .acceptor()
                .map_err(|error| file.problem(&["issuer", "certificate"], format!("{error:#}")))?;
            Some(identity)
        }
        _ => {
            let problem =
                "`certificate` and `key` go together: write both, or neither behind a proxy";
            return Err(file.problem(&["issuer"], problem));
        }
    };
    Ok(Some(PageSpec { address: config.address, tls }))
}

/// The key that seals the journal.
pub fn sealing_key(file: &ConfigFile) -> Result<SealingKey, ConfigError> {
    read_key(file, "sealing_key", &file.config().journal.sealing_key)
}

/// The same, and those that the journal may still be under.
pub fn sealing_keys(file: &ConfigFile) -> Result<SealingKeys, ConfigError> {
    let previous = &file.config().journal.previous_sealing_keys;
    let previous = previous.iter().map(|key| read_key(file, "previous_sealing_keys", key));
    let previous = previous.collect::<Result<_, _>>()?;
    Ok(SealingKeys { current: sealing_key(file)?, previous })
}

/// 32 bytes in hex or base64.
fn read_key(
    file: &ConfigFile,
    key: &str,
    reference: &SecretRef,
) -> Result<SealingKey, ConfigError> {
    let keys = ["journal", key];
    let text = reference.read(file.base()).map_err(|error| {
        file.problem(&keys, format!("{error}; make one with `head -c 32 /dev/urandom | base64`, readable by the broker alone"))
    })?;
    let decoded = HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .or_else(|_| BASE64.decode(text.as_bytes()))
        .map(Zeroizing::new)
        .ok()
        .filter(|bytes| bytes.len() == 32);
    let Some(decoded) = decoded else {
        return Err(file.problem(&keys, "it is not 32 bytes in hexadecimal digits or base64: make one with `head -c 32 /dev/urandom | base64`"));
    };
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&decoded);
    let key = SealingKey::take(&mut bytes);
    bytes.zeroize();
    Ok(key)
}

fn backend_specs(file: WithStored<'_>) -> Vec<Result<BackendSpec, ConfigError>> {
    let spec = |(name, config): (&BackendName, &BackendConfig)| {
        let mut connections = BTreeMap::new();
        for (connection, bound) in &config.connections {
            let keys = ["backends", name.as_str(), "connections", connection.as_str()];
            if needs_issuer(bound) && file.config().issuer.is_none() {
                return Err(file.problem(&keys, ISSUER_WANTED));
            }
            if bound.rotate_every.is_some_and(|every| every.0 < ROTATE_EVERY_MIN) {
                let problem = "write `1s` or more; a month, `30days`, is usual";
                return Err(file.problem(&[&keys[..], &["rotate_every"]].concat(), problem));
            }
            if bound.rotate_every.is_some() && bound.rotating().is_none() {
                let problem = "only a password in the broker's keeping is replaced, or an access key for AWS STS: write `auth = { password = { user = \"…\", password = \"store:…\" } }`, or `sigv4` with `service = \"sts\"` and `store:…` for both parts of the key";
                return Err(file.problem(&[&keys[..], &["rotate_every"]].concat(), problem));
            }
            connections.insert(connection.clone(), connections::spec(file, &keys, bound)?);
        }
        let parameters = |scope: &crate::config::ScopeConfig| scope.parameters.clone().into();
        Ok(BackendSpec {
            name: name.clone(),
            plugin: config.plugin.clone(),
            settings: config.settings.clone(),
            connections,
            scopes: config
                .scopes
                .iter()
                .map(|(name, scope)| (name.clone(), parameters(scope)))
                .collect(),
        })
    };
    let checkable = |(_, config): &(&BackendName, &BackendConfig)| !file.is_uncheckable(config);
    file.config().backends.iter().filter(checkable).map(spec).collect()
}

/// A rotation takes two reloads: oftener than this and the broker would do nothing else.
const ROTATE_EVERY_MIN: Duration = Duration::from_secs(1);

/// Whether the broker signs tokens on this connection.
const fn needs_issuer(connection: &ConnectionConfig) -> bool {
    match &connection.auth {
        Some(AuthConfig::TokenExchange { .. } | AuthConfig::WebIdentity { .. }) => true,
        Some(_) => false,
        None => connection.address.is_none(),
    }
}

fn scopes(
    file: &ConfigFile,
    name: &BackendName,
    config: &BackendConfig,
) -> Result<BTreeMap<ScopeName, Arc<Scope>>, ConfigError> {
    let mut scopes = BTreeMap::new();
    for (scope_name, scope) in &config.scopes {
        let keys = ["backends", name.as_str(), "scopes", scope_name];
        let full = ScopeName::new(name, scope_name).map_err(|error| file.problem(&keys, error))?;
        let scope = Scope {
            name: full.clone(),
            authorization: scope.authorization.clone(),
            tier: scope.tier,
            ttl_max: scope.max_ttl.0,
            short_ttl: scope.short_ttl,
            parameters: scope.parameters.clone().into(),
        };
        scopes.insert(full, Arc::new(scope));
    }
    Ok(scopes)
}

fn split<T, E>(results: Vec<Result<T, E>>) -> (Vec<T>, Vec<E>) {
    let mut parts = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => parts.0.push(value),
            Err(error) => parts.1.push(error),
        }
    }
    parts
}
