//! The plugin host against real components and a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod abi;
mod admission;
mod again;
mod canary;
mod crafted;
mod floods;
mod hostile;
mod http;
mod isolation;
mod jwt;
mod mysql;
mod oracle;
mod postgres;
mod revocation;
mod served;
mod service;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use claviger_core::ids::{IntentId, SessionId};
use claviger_core::issued::{FieldValue, Issued};
use claviger_core::ports::PluginError;
use claviger_core::time::Timestamp;
use claviger_test_servers::Postgres;
use zeroize::Zeroizing;

use super::engine::Sandbox;
use super::request::{IssueRequest, RevokeRequest};
use super::spec::{Limits, Share, SqlSpec};
use super::*;

/// What the observer saw of each call.
type Seen = Arc<Mutex<Vec<(ObservedCall, Outcome)>>>;

/// Plugins with one backend, `backend`, and what the observer saw.
struct Fixture {
    plugins: Plugins,
    seen: Seen,
}

impl Fixture {
    async fn load(component: &str, backend: BackendSpec) -> Self {
        Self::with_limits(component, backend, patient()).await
    }

    async fn with_limits(component: &str, backend: BackendSpec, limits: Limits) -> Self {
        let sandbox = Sandbox::start(limits).unwrap();
        Self::on(sandbox, component, backend).await
    }

    async fn on(sandbox: Arc<Sandbox>, component: &str, backend: BackendSpec) -> Self {
        let seen = Seen::default();
        let plugins = vec![plugin(component)];
        let loaded = Plugins::load_on(sandbox, plugins, vec![backend], observer(&seen));
        match loaded {
            Ok(plugins) => Self { plugins, seen },
            Err(errors) => panic!("{}", messages(&errors)),
        }
    }

    async fn issue(&self, id: IntentId) -> Result<Issued, PluginError> {
        let request = |settings: &str| issue_request(id, settings, &self.parameters());
        self.plugins.mint(&"backend".parse().unwrap(), request).await
    }

    async fn revoke(&self, id: IntentId) -> Result<(), PluginError> {
        let request = |settings: &str| revoke_request(id, settings);
        self.plugins.end(&"backend".parse().unwrap(), request).await
    }

    /// Of the intents alone, in one call.
    async fn revoke_all(&self, ids: &[IntentId]) -> Result<(), PluginError> {
        let task = |settings: &str| {
            run::Task::RevokeAll(ids.iter().map(|id| revoke_request(*id, settings)).collect())
        };
        self.plugins.end_by(&"backend".parse().unwrap(), task).await
    }

    fn parameters(&self) -> String {
        r#"{"grant_role": "readers"}"#.to_owned()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.seen.lock().unwrap().iter().map(|(_, outcome)| *outcome).collect()
    }
}

/// The default limits, with time enough for any machine: without optimisation, and with page faults
/// that a virtual machine makes dear, filling a call's memory alone can take 100 ms.
fn patient() -> Limits {
    let limits = Limits::default();
    Limits {
        guest_cpu: Duration::from_secs(2),
        wall: Duration::from_secs(60),
        wait_max: Duration::from_secs(60),
        interpreted: Share { guest_cpu: Duration::from_secs(20), ..limits.interpreted },
        ..limits
    }
}

fn observer(seen: &Seen) -> Observe {
    let seen = Arc::clone(seen);
    Arc::new(move |observed| seen.lock().unwrap().push((observed.call, observed.outcome)))
}

fn plugin(component: &str) -> PluginSpec {
    let path = component_path(component);
    let bytes = std::fs::read(&path).unwrap();
    PluginSpec {
        name: "plugin".parse().unwrap(),
        path,
        bytes,
        sha256_pin: None,
        terms: Terms::unchecked(LimitsClass::Standard),
    }
}

/// Where the components are: `CLAVIGER_PLUGINS`, or where `cargo xtask plugins` leaves them.
pub(super) fn component_path(component: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("CLAVIGER_PLUGINS")
        .map_or_else(|| workspace.join("target/plugins"), PathBuf::from);
    let path = folder.join(component).with_extension("wasm");
    assert!(path.exists(), "no component at {}: run `cargo xtask plugins`", path.display());
    path
}

const POSTGRES: &str = "postgres";

/// One PostgreSQL for the tests of this module: starting one takes seconds.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Postgres::start();
        server.psql(
            "CREATE ROLE readers; CREATE TABLE orders (id int); GRANT SELECT ON orders TO readers",
        );
        server
    })
}

/// A backend without connections.
fn bare_backend() -> BackendSpec {
    BackendSpec {
        name: "backend".parse().unwrap(),
        plugin: "plugin".parse().unwrap(),
        settings: serde_json::json!({}),
        connections: BTreeMap::new(),
        scopes: BTreeMap::new(),
    }
}

/// A backend with connection `admin` to `server` and a scope `readonly`.
fn database_backend(server: &Postgres) -> BackendSpec {
    let connection = ConnectionSpec::Sql(SqlSpec {
        address: server.url(),
        user: server.superuser().to_owned(),
        next_password: None,
        password: Zeroizing::new(server.password().to_owned()),
        ca_file: None,
        client: ClientAddress { host: Some("db.example".to_owned()), port: None },
        connections_max: None,
    });
    BackendSpec {
        connections: BTreeMap::from([("admin".parse().unwrap(), connection)]),
        scopes: BTreeMap::from([(
            "readonly".to_owned(),
            serde_json::json!({"grant_role": "readers"}),
        )]),
        ..bare_backend()
    }
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

fn intent() -> IntentId {
    let mut random = [0; 10];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    IntentId::mint(now(), &random)
}

fn issue_request(id: IntentId, settings: &str, parameters: &str) -> IssueRequest {
    IssueRequest {
        intent: id.bare(),
        session: SessionId::mint(Timestamp::from(SystemTime::UNIX_EPOCH), &[7; 10]).bare(),
        role: "support-triage".to_owned(),
        requester: "unix:1000".to_owned(),
        scope: "backend/readonly".to_owned(),
        prompt_sha256: "ab".repeat(32),
        settings: settings.to_owned(),
        parameters: parameters.to_owned(),
        now_secs: now().unix_secs(),
        expires_at_secs: now().unix_secs() + 600,
    }
}

fn revoke_request(id: IntentId, settings: &str) -> RevokeRequest {
    RevokeRequest {
        intent: id.bare(),
        scope: "backend/readonly".to_owned(),
        settings: settings.to_owned(),
        handle: None,
        now_secs: now().unix_secs(),
    }
}

/// The credential's fields as an agent would see them.
fn fields(issued: Issued) -> BTreeMap<String, String> {
    let shown = |value| match value {
        FieldValue::Plain(value) => value,
        FieldValue::Secret(secret) => secret.expose_once().to_string(),
    };
    issued.credential.fields.into_iter().map(|field| (field.name, shown(field.value))).collect()
}

fn messages(errors: &[LoadError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
