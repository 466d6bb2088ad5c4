//! The plugins that are measured, and the backend that each is given. Runs none of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use claviger_core::ids::IntentId;
use claviger_core::name::BackendName;
use claviger_core::time::Timestamp;
use clavigerd::egress::http::{HttpAuth, Reach};
use clavigerd::plugin::{
    Ask, BackendSpec, ConnectionSpec, HttpSpec, LimitsClass, LoadError, Manifest, PluginSpec,
    TRIAL_SCOPE, Terms, Trial,
};
use serde_json::json;
use zeroize::Zeroizing;

/// A component.
pub struct Specimen {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub wasm: Vec<u8>,
    /// What its calls may take.
    pub class: LimitsClass,
}

impl Specimen {
    /// An example of the SDK.
    pub fn example(name: &str) -> Result<Self> {
        let path = folder().join("examples").join(name).with_extension("wasm");
        Self::at(&path)
    }

    /// The plugin in JavaScript, if it was built.
    pub fn javascript() -> Result<Option<Self>> {
        let path = folder().join("js-token.wasm");
        path.exists().then(|| Self::at(&path)).transpose()
    }

    /// The component at `path`.
    pub fn at(path: &Path) -> Result<Self> {
        let wasm = std::fs::read(path).with_context(|| {
            format!("no component at {}: run `cargo xtask plugins`", path.display())
        })?;
        // Whoever measures a plugin has granted it what it asks for.
        let class = Manifest::of_component(&wasm)?.limits_class;
        Ok(Self { path: path.to_owned(), wasm, class })
    }

    /// As a configuration would name it.
    pub fn plugin(&self) -> Result<PluginSpec> {
        Ok(PluginSpec {
            name: "plugin".parse().context("a name")?,
            path: self.path.clone(),
            bytes: self.wasm.clone(),
            sha256_pin: None,
            terms: Terms::unchecked(self.class),
        })
    }

    /// Its calls in the real sandbox, with the service at `port`, if it needs one.
    pub fn trial(&self, port: Option<u16>) -> Result<Trial> {
        Trial::load(self.plugin()?, vec![backend(port)?], None).map_err(|errors| told(&errors))
    }
}

/// The one backend.
pub fn backend(port: Option<u16>) -> Result<BackendSpec> {
    let connection = |port| Ok(("api".parse()?, ConnectionSpec::Http(service(port))));
    let connections = port.map(connection).transpose().map_err(|e: anyhow::Error| e)?;
    let parameters = if port.is_some() { json!({ "scopes": ["orders:read"] }) } else { json!({}) };
    Ok(BackendSpec {
        name: backend_name()?,
        plugin: "plugin".parse().context("a name")?,
        settings: json!({}),
        connections: connections.into_iter().collect(),
        scopes: BTreeMap::from([(TRIAL_SCOPE.to_owned(), parameters)]),
    })
}

/// Its name.
pub fn backend_name() -> Result<BackendName> {
    "backend".parse().context("a name")
}

/// What every call is asked for.
pub fn ask() -> Ask {
    let now = Timestamp::from_unix_millis(NOW_MILLIS);
    Ask {
        intent: IntentId::mint(now, &[7; 10]),
        now_secs: now.unix_secs(),
        expires_at_secs: now.unix_secs() + 600,
    }
}

/// Everything that is wrong, in one sentence.
pub fn told(errors: &[LoadError]) -> anyhow::Error {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    anyhow!("{}", errors.join("\n"))
}

fn service(port: u16) -> HttpSpec {
    let texts = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    HttpSpec {
        address: format!("http://127.0.0.1:{port}"),
        client_address: None,
        ca_file: None,
        auth: HttpAuth::Bearer { token: Zeroizing::new(ROOT_TOKEN.to_owned()) },
        methods: texts(&["POST", "DELETE"]),
        paths: texts(&["/v1/tokens"]),
        reads: texts(&["/id", "/expires_at"]),
        reach: vec![Reach::Loopback],
    }
}

/// `CLAVIGER_PLUGINS`, or where `cargo xtask plugins` leaves them.
fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    std::env::var_os("CLAVIGER_PLUGINS").map_or(target, PathBuf::from)
}

/// What the broker sends to the service, which takes anything.
pub const ROOT_TOKEN: &str = "root-token-0123456789";

/// Some moment in 2026: plugins are told the time, and each call the same.
const NOW_MILLIS: u64 = 1_795_000_000_000;
