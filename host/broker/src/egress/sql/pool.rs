//! Connections to one database under one login: opened on demand, kept, bounded in number.

use std::path::PathBuf;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, Timeouts};
use thiserror::Error;
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Endpoint, Transport};
use super::failure;
use super::session::Session;
use crate::egress::redact::SharedSecret;
use crate::egress::tls::{self, TlsError};
use crate::egress::{Failure, FailureKind};

/// What a pool is made from.
pub struct PoolSpec {
    /// Where the database is.
    pub address: Address,
    /// The broker's own login.
    pub login: Login,
    /// A PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How many connections may be open at once.
    pub connections_max: usize,
}

/// The broker's own login.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Its password.
    pub password: SharedSecret,
}

/// A bounded pool of connections.
pub struct Pool {
    pool: deadpool_postgres::Pool,
    database: String,
}

/// Why no pool could be made.
#[derive(Debug, Error)]
pub enum OpenError {
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The pool cannot be built.
    #[error("the connection pool cannot be built: {0}")]
    Pool(String),
}

impl Pool {
    /// A pool that has not connected yet.
    pub fn new(spec: &PoolSpec) -> Result<Self, OpenError> {
        let config = config(spec);
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match spec.address.transport {
            Transport::Plain => Manager::from_config(config, NoTls, manager_config),
            Transport::VerifiedTls => {
                let tls = MakeRustlsConnect::new(tls::client(spec.ca_file.as_deref(), None)?);
                Manager::from_config(config, tls, manager_config)
            }
        };
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(spec.connections_max)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| OpenError::Pool(error.to_string()))?;
        Ok(Self { pool, database: spec.address.database.clone() })
    }

    /// Lends a connection, waiting for a free one until `deadline`.
    pub async fn lend(&self, deadline: Instant) -> Result<Session, Failure> {
        let most = Some(deadline.saturating_duration_since(Instant::now()));
        let timeouts = Timeouts { wait: most, create: most, recycle: most };
        match self.pool.timeout_get(&timeouts).await {
            Ok(object) => Ok(Session::new(object)),
            Err(PoolError::Backend(error)) => Err(failure::of_connect(&error)),
            Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => Err(self.busy()),
            Err(PoolError::Timeout(_)) => {
                Err(Failure::unsent(FailureKind::Timeout, "the database did not answer in time"))
            }
            Err(error) => Err(Failure::unsent(FailureKind::Unavailable, error.to_string())),
        }
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    fn busy(&self) -> Failure {
        let most = self.pool.status().max_size;
        let message = format!("all {most} connections to the database are in use: try again");
        Failure::unsent(FailureKind::RateLimited, message)
    }
}

fn config(spec: &PoolSpec) -> Config {
    let mut config = Config::new();
    match &spec.address.endpoint {
        Endpoint::Tcp(host) => config.host(host),
        Endpoint::Unix(folder) => config.host_path(folder),
    };
    config
        .port(spec.address.port)
        .dbname(&spec.address.database)
        .user(&spec.login.user)
        .password(spec.login.password.as_bytes())
        .application_name("claviger")
        .options(SESSION_OPTIONS)
        .connect_timeout(CONNECT_TIMEOUT)
        .ssl_mode(match spec.address.transport {
            Transport::Plain => SslMode::Disable,
            Transport::VerifiedTls => SslMode::Require,
        });
    config
}

/// What every connection starts with and returns to. The quoting of literals depends on the
/// first; the timeouts are an upper bound, and each statement lowers them (see `session`).
const SESSION_OPTIONS: &str = "-c standard_conforming_strings=on -c statement_timeout=5000 \
     -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000";

/// A server that does not accept within a call's whole time will not help that call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
