//! Connections to one database under one login: opened on demand, kept, bounded in number.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{
    ConfigConnectImpl, Connect, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime,
    Timeouts,
};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Endpoint, Transport};
use super::dialect::Dialect;
use super::postgres::Canceller;
use super::session::Session;
use super::{failure, mysql, postgres};
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
    /// The password that is taking its place: whichever of the two the server accepts is used, so
    /// that no call fails while one is replaced by the other.
    pub next: Option<SharedSecret>,
}

/// A bounded pool of connections.
pub struct Pool {
    connections: Connections,
    database: String,
}

enum Connections {
    Postgres(deadpool_postgres::Pool, Canceller),
    Mysql(mysql::Pool),
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
        let connections = match spec.address.dialect {
            Dialect::Postgres => postgres_pool(spec)?,
            Dialect::Mysql => Connections::Mysql(mysql_pool(spec)?),
        };
        Ok(Self { connections, database: spec.address.database.clone() })
    }

    /// Lends a connection, waiting for a free one until `deadline`.
    pub async fn lend(&self, deadline: Instant) -> Result<Session, Failure> {
        match &self.connections {
            Connections::Postgres(pool, canceller) => {
                let connection = lend_postgres(pool, deadline).await?;
                Ok(Session::Postgres(postgres::Session::new(connection, canceller.clone())))
            }
            Connections::Mysql(pool) => pool.lend(deadline).await.map(Session::Mysql),
        }
    }

    /// Which dialect the sessions speak.
    pub const fn dialect(&self) -> Dialect {
        match self.connections {
            Connections::Postgres(..) => Dialect::Postgres,
            Connections::Mysql(_) => Dialect::Mysql,
        }
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }
}

/// What a caller is told when it has waited for a connection in vain.
pub(super) fn busy(connections_max: usize) -> Failure {
    let message =
        format!("all {connections_max} connections to the database are in use: try again");
    Failure::unsent(FailureKind::RateLimited, message)
}

/// What a caller is told when no connection was there in time.
pub(super) fn no_connection_in_time() -> Failure {
    Failure::unsent(FailureKind::Timeout, "the database did not answer in time")
}

fn postgres_pool(spec: &PoolSpec) -> Result<Connections, OpenError> {
    let config = config(spec);
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let next = spec.login.next.clone();
    let (manager, canceller) = match spec.address.transport {
        Transport::Plain => {
            let connect = Either { connect: ConfigConnectImpl { tls: NoTls }, next };
            (Manager::from_connect(config, connect, manager_config), Canceller::Plain)
        }
        Transport::VerifiedTls => {
            let tls = MakeRustlsConnect::new(tls::client(spec.ca_file.as_deref(), None)?);
            let connect = Either { connect: ConfigConnectImpl { tls: tls.clone() }, next };
            (Manager::from_connect(config, connect, manager_config), Canceller::Tls(tls))
        }
    };
    let pool = deadpool_postgres::Pool::builder(manager)
        .max_size(spec.connections_max)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| OpenError::Pool(error.to_string()))?;
    Ok(Connections::Postgres(pool, canceller))
}

/// Logs in with the configured password, or with the next one if that is refused.
struct Either<C> {
    connect: C,
    next: Option<SharedSecret>,
}

impl<C: Connect> Connect for Either<C> {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            let refused = match (self.connect.connect(&config).await, &self.next) {
                (Err(error), Some(_)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => error,
                (connected, _) => return connected,
            };
            let Some(next) = &self.next else { return Err(refused) };
            let mut config = config;
            config.password(next.as_bytes());
            self.connect.connect(&config).await
        })
    }
}

type Connecting<'a> = Pin<
    Box<
        dyn Future<Output = Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>>
            + Send
            + 'a,
    >,
>;

async fn lend_postgres(
    pool: &deadpool_postgres::Pool,
    deadline: Instant,
) -> Result<deadpool_postgres::Object, Failure> {
    let most = Some(deadline.saturating_duration_since(Instant::now()));
    let timeouts = Timeouts { wait: most, create: most, recycle: most };
    match pool.timeout_get(&timeouts).await {
        Ok(connection) => Ok(connection),
        Err(PoolError::Backend(error)) => Err(failure::of_connect(&error)),
        Err(PoolError::Timeout(deadpool_postgres::TimeoutType::Wait)) => {
            Err(busy(pool.status().max_size))
        }
        Err(PoolError::Timeout(_)) => Err(no_connection_in_time()),
        Err(error) => Err(Failure::unsent(FailureKind::Unavailable, error.to_string())),
    }
}

fn mysql_pool(spec: &PoolSpec) -> Result<mysql::Pool, OpenError> {
    let trusted = match spec.address.transport {
        Transport::Plain => None,
        Transport::VerifiedTls => Some(tls::authorities(spec.ca_file.as_deref())?),
    };
    Ok(mysql::Pool::new(&spec.address, &spec.login, trusted, spec.connections_max))
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

/// What every PostgreSQL connection starts with and returns to. The quoting of literals depends
/// on the first; the timeouts are an upper bound, and each statement lowers them (see `postgres`).
const SESSION_OPTIONS: &str = "-c standard_conforming_strings=on -c statement_timeout=5000 \
     -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000";

/// A server that does not accept within a call's whole time will not help that call.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
