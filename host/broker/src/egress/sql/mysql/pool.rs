//! Connections to one MySQL or MariaDB database under one login: opened on demand, kept, bounded.
//!
//! Not the driver's own pool: that one reads unfinished answers to their end, without a bound,
//! before it lends a connection again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};

use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, Opts, OptsBuilder, SslOpts};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::failure;
use super::session::Session;
use crate::egress::redact::SharedSecret;
use crate::egress::sql::address::{Address, Endpoint};
use crate::egress::sql::pool::{CONNECT_TIMEOUT, Login, busy, no_connection_in_time};
use crate::egress::{Failure, FailureKind};

/// A bounded pool of connections.
pub struct Pool {
    opts: Opts,
    /// The same with the password that is taking the place of the other.
    next: Option<Opts>,
    connections_max: usize,
    slots: Arc<Semaphore>,
    idle: Idle,
}

/// Connections that wait for the next call, each with nothing owed by its server.
type Idle = Arc<Mutex<Vec<Link>>>;

/// An open connection.
pub(super) struct Link {
    pub(super) conn: Conn,
    pub(super) server: Server,
    /// Returns to the role that the login began with.
    set_role: Option<String>,
}

/// Which of the two servers answers: they bound the time of a statement differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Mariadb,
    Mysql,
}

/// A link on loan, with its place in the pool.
pub(super) struct Lent {
    link: Option<Link>,
    idle: Idle,
    _slot: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool that has not connected yet. `trusted` are the certificates to trust; without any,
    /// connections are plain.
    pub fn new(
        address: &Address,
        login: &Login,
        trusted: Option<Vec<CertificateDer<'static>>>,
        connections_max: usize,
    ) -> Self {
        let builder = OptsBuilder::default()
            .user(Some(&*login.user))
            .pass(Some(login.password.as_str()))
            .db_name(Some(&*address.database))
            // Otherwise the driver leaves a loopback address for a socket that the server names.
            .prefer_socket(false)
            .max_allowed_packet(Some(PACKET_BYTES_MAX))
            .wait_timeout(Some(WAIT_TIMEOUT_SECS))
            .stmt_cache_size(0)
            .connect_attribute("program_name", "claviger");
        let builder = match &address.endpoint {
            Endpoint::Tcp(host) => builder.ip_or_hostname(host.clone()).tcp_port(address.port),
            Endpoint::Unix(file) => builder.socket(Some(file.display().to_string())),
        };
        let builder = builder.ssl_opts(trusted.map(verified));
        let with =
            |password: &SharedSecret| Opts::from(builder.clone().pass(Some(password.as_str())));
        let next = login.next.as_ref().map(with);
        let slots = Arc::new(Semaphore::new(connections_max));
        Self { opts: builder.into(), next, connections_max, slots, idle: Idle::default() }
    }

    /// Lends a connection that carries nothing over, waiting for a free one until `deadline`.
    pub async fn lend(&self, deadline: Instant) -> Result<Session, Failure> {
        let slot = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else { return Err(busy(self.connections_max)) };
        while let Some(mut link) = self.idle_link() {
            // As if newly connected, in one exchange: `COM_RESET_CONNECTION` would leave the
            // database that an earlier call chose.
            match timeout_at(deadline, reset(&mut link)).await {
                Ok(Ok(())) => return Ok(self.session(link, slot)),
                // The server closed it while nobody looked; perhaps another one is alive.
                Ok(Err(_)) => close(link),
                Err(_) => {
                    close(link);
                    return Err(no_connection_in_time());
                }
            }
        }
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        match timeout_at(until, self.connect()).await {
            Ok(Ok(link)) => Ok(self.session(link, slot)),
            Ok(Err(error)) => Err(failure::of_connect(&error)),
            Err(_) => Err(no_connection_in_time()),
        }
    }

    /// With the configured password, or with the next one if that is refused.
    async fn connect(&self) -> mysql_async::Result<Link> {
        match (connect(self.opts.clone()).await, &self.next) {
            (Err(mysql_async::Error::Server(error)), Some(next)) if error.code == ACCESS_DENIED => {
                connect(next.clone()).await
            }
            (connected, _) => connected,
        }
    }

    fn idle_link(&self) -> Option<Link> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn session(&self, link: Link, slot: OwnedSemaphorePermit) -> Session {
        Session::new(Lent { link: Some(link), idle: Arc::clone(&self.idle), _slot: slot })
    }
}

impl Lent {
    /// Takes the connection for an exchange. Whoever has read every answer puts it back; if
    /// nobody does, it is closed.
    pub(super) fn take(&mut self) -> Result<OnTheWire<'_>, Failure> {
        let closed = || Failure::unsent(FailureKind::Unavailable, "the connection is closed");
        let link = self.link.take().ok_or_else(closed)?;
        Ok(OnTheWire { link: Some(link), home: &mut self.link })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        }
    }
}

/// A link whose server may owe an answer.
pub(super) struct OnTheWire<'a> {
    link: Option<Link>,
    home: &'a mut Option<Link>,
}

impl OnTheWire<'_> {
    pub(super) fn link(&mut self) -> Result<&mut Link, Failure> {
        let closed = || Failure::unsent(FailureKind::Unavailable, "the connection is closed");
        self.link.as_mut().ok_or_else(closed)
    }

    /// The server has answered everything: the connection may be used again.
    pub(super) fn settled(mut self) {
        *self.home = self.link.take();
    }
}

impl Drop for OnTheWire<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            close(link);
        }
    }
}

/// Closes the socket at once. The driver would read the rest of an unfinished answer first, in
/// the background and without a bound; it leaves that out for a connection whose last command
/// was given up, so one is begun and given up.
fn close(mut link: Link) {
    let mut given_up = link.conn.ping();
    let _ = Pin::new(&mut given_up).poll(&mut Context::from_waker(Waker::noop()));
    drop(given_up);
    drop(link);
}

/// MariaDB keeps the role that an earlier call chose even then, so it is set apart.
async fn reset(link: &mut Link) -> mysql_async::Result<()> {
    link.conn.change_user(ChangeUserOpts::default()).await?;
    match &link.set_role {
        Some(set_role) => link.conn.query_drop(set_role).await,
        None => Ok(()),
    }
}

async fn connect(opts: Opts) -> mysql_async::Result<Link> {
    let mut conn = Conn::new(opts).await?;
    let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
    let is_mariadb = version.is_some_and(|version| version.contains("MariaDB"));
    if !is_mariadb {
        return Ok(Link { conn, server: Server::Mysql, set_role: None });
    }
    let role: Option<Option<String>> = conn.query_first("SELECT CURRENT_ROLE()").await?;
    let set_role = match role.flatten() {
        Some(role) => format!("SET ROLE `{}`", role.replace('`', "``")),
        None => "SET ROLE NONE".to_owned(),
    };
    Ok(Link { conn, server: Server::Mariadb, set_role: Some(set_role) })
}

/// TLS with a certificate that these authorities signed and that names the host. Without TLS on
/// the server's side the driver refuses to go on.
fn verified(trusted: Vec<CertificateDer<'static>>) -> SslOpts {
    let roots = trusted.into_iter().map(|certificate| certificate.to_vec().into());
    SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots.collect())
}

/// The most that the broker reads or sends at once: four times the largest answer, and twice the
/// largest statement with every character doubled two times.
const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// `ER_ACCESS_DENIED_ERROR`: the user or the password is wrong.
const ACCESS_DENIED: u16 = 1045;

/// The driver asks the server for it otherwise; only its own pool uses it.
const WAIT_TIMEOUT_SECS: usize = 28_800;
