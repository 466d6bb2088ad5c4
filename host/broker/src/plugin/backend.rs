//! A backend made ready: settings and parameters checked, connections bound to pools.

mod http;
mod jwt;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName};
use thiserror::Error;
use tokio::time::Instant;

use super::manifest::{Auth, ConnectionKind, ConnectionRequest, Dialect, Manifest};
use super::spec::{BackendSpec, ClientAddress, ConnectionSpec, SqlSpec};
use crate::egress::http::Door;
use crate::egress::redact::{Redactor, SharedSecret};
use crate::egress::sql::{Address, AddressError, Endpoint, Login, OpenError, Pool, PoolSpec};
use crate::egress::{Failure, FailureKind};
use crate::issuer::Issuer;

pub use self::http::sign_in;
pub use jwt::{ISSUER_WANTED, JwtConnection};

/// A backend as calls use it.
pub struct Backend {
    /// Its name.
    pub(super) name: BackendName,
    /// Its settings as JSON.
    pub(super) settings: String,
    connections: BTreeMap<ConnectionName, Connection>,
}

/// A bound connection.
pub enum Connection {
    /// An SQL database.
    Sql(Arc<SqlConnection>),
    /// An HTTP service.
    Http(Arc<Door>),
    /// The broker as an issuer of tokens.
    Jwt(Arc<JwtConnection>),
}

/// A bound connection to an SQL database.
pub struct SqlConnection {
    /// The host that clients should connect to.
    pub(super) client_host: String,
    /// The port that clients should connect to.
    pub(super) client_port: u16,
    /// The pool.
    pub(super) pool: Pool,
    passwords: Vec<SharedSecret>,
}

impl Connection {
    /// What the broker itself authenticates with.
    fn root_secrets(&self) -> Vec<SharedSecret> {
        match self {
            Self::Sql(sql) => sql.passwords.clone(),
            Self::Http(door) => door.root_secrets(),
            Self::Jwt(_) => Vec::new(),
        }
    }
}

/// What is wrong with a backend.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The plugin asks for a connection that the operator has not granted.
    #[error(
        "the plugin asks for connection `{connection}`, because it {why}; to grant it, write:\n\n{stanza}"
    )]
    NotGranted {
        /// The connection.
        connection: ConnectionName,
        /// What for.
        why: String,
        /// What to write.
        stanza: String,
    },
    /// The operator granted a connection that the plugin does not ask for.
    #[error("connection `{0}` is not one that the plugin asks for: remove it or correct its name")]
    NotRequested(ConnectionName),
    /// The plugin cannot use a connection of this kind.
    #[error("connection `{connection}`: {reason}")]
    Mismatch {
        /// The connection.
        connection: ConnectionName,
        /// What does not fit.
        reason: String,
    },
    /// The address is wrong.
    #[error("connection `{connection}`: {error}")]
    Address {
        /// The connection.
        connection: ConnectionName,
        /// What is wrong.
        error: AddressError,
    },
    /// The pool cannot be made.
    #[error("connection `{connection}`: {error}")]
    Pool {
        /// The connection.
        connection: ConnectionName,
        /// What is wrong.
        error: OpenError,
    },
    /// The plugin's schema is no schema.
    #[error("the plugin's `{which}` is not a JSON schema: {reason}")]
    Schema {
        /// Which of the two.
        which: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Settings or parameters do not match the schema, or the plugin refuses them.
    #[error("`{pointer}`: {message}")]
    Invalid {
        /// A JSON pointer into `{"settings": …, "scopes": {…}}`.
        pointer: String,
        /// What is wrong.
        message: String,
    },
}

impl Backend {
    /// Checks `spec` against the manifest. Every problem is reported, not only the first.
    pub(super) fn ready(
        spec: BackendSpec,
        manifest: &Manifest,
        issuer: Option<&Arc<Issuer>>,
    ) -> Result<Self, Vec<BackendError>> {
        let mut problems = invalid(&spec, manifest);
        for (name, request) in &manifest.connections {
            if !request.optional && !spec.connections.contains_key(name) {
                problems.push(not_granted(&spec.name, name, request));
            }
        }
        let mut connections = BTreeMap::new();
        for (name, connection) in spec.connections {
            match connect((&spec.name, &name), connection, (manifest, issuer)) {
                Ok(connection) => drop(connections.insert(name, connection)),
                Err(error) => problems.push(error),
            }
        }
        if problems.is_empty() {
            Ok(Self { name: spec.name, settings: spec.settings.to_string(), connections })
        } else {
            Err(problems)
        }
    }

    /// The database connection of that name, if the operator granted it.
    pub(super) fn sql(&self, name: &str) -> Option<&Arc<SqlConnection>> {
        match self.connections.get(name)? {
            Connection::Sql(connection) => Some(connection),
            Connection::Http(_) | Connection::Jwt(_) => None,
        }
    }

    /// The door to the HTTP service of that name, if the operator granted it.
    pub(super) fn http(&self, name: &str) -> Option<&Arc<Door>> {
        match self.connections.get(name)? {
            Connection::Http(door) => Some(door),
            Connection::Sql(_) | Connection::Jwt(_) => None,
        }
    }

    /// The connection of that name to the issuer of tokens, if the operator granted it.
    pub(super) fn jwt(&self, name: &str) -> Option<&Arc<JwtConnection>> {
        match self.connections.get(name)? {
            Connection::Jwt(connection) => Some(connection),
            Connection::Sql(_) | Connection::Http(_) => None,
        }
    }

    /// One that knows the backend's own passwords.
    pub(super) fn redactor(&self) -> Redactor {
        Redactor::new(self.connections.values().flat_map(|c| c.root_secrets()))
    }
}

fn connect(
    (backend, name): (&BackendName, &ConnectionName),
    spec: ConnectionSpec,
    (manifest, issuer): (&Manifest, Option<&Arc<Issuer>>),
) -> Result<Connection, BackendError> {
    let request = manifest.connections.get(name);
    let request = request.ok_or_else(|| BackendError::NotRequested(name.clone()))?;
    match (request.kind, spec) {
        (ConnectionKind::Sql, ConnectionSpec::Sql(spec)) => {
            connect_sql(name, spec, request).map(|c| Connection::Sql(Arc::new(c)))
        }
        (ConnectionKind::Http, ConnectionSpec::Http(spec)) => {
            let door = http::connect((backend, name), (spec, issuer), request);
            door.map(|door| Connection::Http(Arc::new(door)))
        }
        (ConnectionKind::Jwt, ConnectionSpec::Jwt(spec)) => {
            jwt::connect((backend, name), spec, issuer).map(|c| Connection::Jwt(Arc::new(c)))
        }
        (kind, _) => Err(mismatch(name, format!("the plugin asks for one of kind {kind:?}"))),
    }
}

fn mismatch(connection: &ConnectionName, reason: impl Into<String>) -> BackendError {
    BackendError::Mismatch { connection: connection.clone(), reason: reason.into() }
}

fn connect_sql(
    name: &ConnectionName,
    spec: SqlSpec,
    request: &ConnectionRequest,
) -> Result<SqlConnection, BackendError> {
    let SqlSpec { address, user, password, next_password, ca_file, client, connections_max } = spec;
    let address = Address::parse(&address)
        .map_err(|error| BackendError::Address { connection: name.clone(), error })?;
    let dialect = address.dialect;
    if !request.dialects.contains(&dialect) || !request.auth.contains(&Auth::Password) {
        let reason =
            format!("the plugin does not speak {dialect} or does not log in with a password");
        return Err(mismatch(name, reason));
    }
    let (client_host, client_port) = client_address(&address, client);
    let (password, next) = (Arc::new(password), next_password.map(Arc::new));
    let passwords = std::iter::once(&password).chain(&next).cloned().collect();
    let pool = Pool::new(&PoolSpec {
        address,
        login: Login { user, password, next },
        ca_file,
        connections_max: connections_max.unwrap_or(CONNECTIONS_DEFAULT).max(1),
    })
    .map_err(|error| BackendError::Pool { connection: name.clone(), error })?;
    Ok(SqlConnection { client_host, client_port, pool, passwords })
}

/// Logs in once, with the password of `spec`, and out again.
pub async fn log_in(spec: SqlSpec) -> Result<(), Failure> {
    let wrong = |reason: String| Failure::unsent(FailureKind::InvalidConfig, reason);
    let SqlSpec { address, user, password, ca_file, .. } = spec;
    let address = Address::parse(&address).map_err(|error| wrong(error.to_string()))?;
    let login = Login { user, password: Arc::new(password), next: None };
    let pool = Pool::new(&PoolSpec { address, login, ca_file, connections_max: 1 })
        .map_err(|error| wrong(error.to_string()))?;
    pool.lend(Instant::now() + LOG_IN_MAX).await.map(drop)
}

fn client_address(address: &Address, client: ClientAddress) -> (String, u16) {
    let own = match &address.endpoint {
        Endpoint::Tcp(host) => host.clone(),
        Endpoint::Unix(folder) => folder.display().to_string(),
    };
    (client.host.unwrap_or(own), client.port.unwrap_or(address.port))
}

fn not_granted(
    backend: &BackendName,
    name: &ConnectionName,
    request: &ConnectionRequest,
) -> BackendError {
    let stanza = match request.kind {
        ConnectionKind::Sql => format!(
            "[backends.{backend}.connections.{name}]\n\
             address = \"{}\"\n\
             auth = {{ password = {{ user = \"claviger\", password = \"file:/run/secrets/{backend}\" }} }}\n",
            request.dialects.first().copied().unwrap_or(Dialect::Postgres).example(),
        ),
        ConnectionKind::Http => http::stanza(backend, name, request),
        ConnectionKind::Jwt => jwt::stanza(backend, name),
    };
    BackendError::NotGranted { connection: name.clone(), why: request.why.clone(), stanza }
}

/// What the schemas say of settings and parameters.
fn invalid(spec: &BackendSpec, manifest: &Manifest) -> Vec<BackendError> {
    let scopes = spec.scopes.iter();
    let mut problems = against(
        "settings-schema",
        &manifest.settings_schema,
        std::iter::once(("/settings".to_owned(), &spec.settings)),
    );
    problems.extend(against(
        "parameters-schema",
        &manifest.parameters_schema,
        scopes.map(|(scope, parameters)| (format!("/scopes/{scope}"), parameters)),
    ));
    problems
}

fn against<'a>(
    which: &'static str,
    schema: &serde_json::Value,
    documents: impl Iterator<Item = (String, &'a serde_json::Value)>,
) -> Vec<BackendError> {
    let validator = match jsonschema::draft202012::new(schema) {
        Ok(validator) => validator,
        Err(error) => return vec![BackendError::Schema { which, reason: error.to_string() }],
    };
    let problems = |(at, document): (String, &serde_json::Value)| {
        let errors = validator.iter_errors(document).take(PROBLEMS_MAX);
        let problem = |error: jsonschema::ValidationError<'_>| BackendError::Invalid {
            pointer: format!("{at}{}", error.instance_path()),
            message: error.to_string(),
        };
        errors.map(problem).collect::<Vec<_>>()
    };
    documents.flat_map(problems).collect()
}

/// Four busy calls a core of the database server; PostgreSQL allows 100 clients in all, MariaDB
/// 151.
const CONNECTIONS_DEFAULT: usize = 8;

/// As long as a call may take: a server that takes longer serves no call either.
const LOG_IN_MAX: Duration = Duration::from_secs(5);

/// Nobody reads more at once.
pub(super) const PROBLEMS_MAX: usize = 32;
