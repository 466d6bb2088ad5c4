//! The listeners: agents on a unix socket and over TLS, operators on a socket of their own and
//! over TLS, each with health and reflection, and with bounds on connections, streams, messages
//! and time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use claviger_proto::v1::admin_service_server::AdminServiceServer;
use claviger_proto::v1::agent_service_server::AgentServiceServer;
use claviger_proto::v1::secret_service_server::SecretServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::app::{Mode, drained};
use crate::broker::Broker;
use crate::config::{ClientCertificates, ConfigError, ConfigFile, TlsConfig};
use crate::journal::Health;
use crate::listen::{self, UnixSocket};
use crate::rpc::admin::Admin;
use crate::rpc::agent::Agent;
use crate::rpc::secrets::Secrets;
use crate::tls::{self, Section, Slots};

/// The running listeners.
pub struct Servers(JoinSet<Result<(), tonic::transport::Error>>);

impl Servers {
    /// Returns when every listener has drained.
    pub async fn ended(mut self) {
        while let Some(ended) = self.0.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a listener failed"),
                Err(error) => tracing::error!(%error, "a listener broke"),
            }
        }
    }
}

/// Opens every listener of the configuration and serves until `draining` turns true.
pub async fn start(
    file: &ConfigFile,
    broker: &Arc<Broker>,
    draining: &watch::Receiver<bool>,
) -> anyhow::Result<Servers> {
    let config = file.config();
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(claviger_proto::DESCRIPTORS)
        .build_v1()
        .context("the descriptors are malformed")?;
    let grace = config.sessions.heartbeat_grace.0;
    let agent = AgentServiceServer::new(Agent::new(Arc::clone(broker), grace, draining.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let admin =
        Admin::new(Arc::clone(broker), config.admin.operator_uids.clone(), draining.clone());
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let secrets = Secrets::new(Arc::clone(broker), config.admin.operator_uids.clone());
    let secrets = SecretServiceServer::new(secrets).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let shared = Routes::new(health).add_service(reflection);
    let agents = shared.clone().add_service(agent);
    let operators = shared.add_service(admin).add_service(secrets);

    let listen = &config.listen;
    let mut servers = Listeners { tasks: JoinSet::new(), draining };
    let admin_path = file.base().join(&listen.admin_socket);
    let admin_socket = UnixSocket::bind(&admin_path, ADMIN_SOCKET_MODE)?;
    let of_operators = Slots::new(ADMIN_CONNECTIONS_MAX).each(CONNECTIONS_PER_OPERATOR_MAX);
    for (section, spec, routes, slots) in [
        (Section::Agents, &listen.tls, &agents, slots_of(listen.tls.as_ref())),
        (Section::Operators, &listen.admin_tls, &operators, of_operators),
    ] {
        let (Some(spec), Some(config)) = (spec, broker.certificates.current(section)) else {
            continue;
        };
        let tcp = bind(spec.address).await?;
        servers.serve(tls::incoming(tcp, config, slots), routes.clone());
    }
    if let Some(plain) = &listen.plain {
        let tcp = bind(plain.address).await?;
        servers.serve(listen::incoming(tcp, CONNECTIONS_MAX), agents.clone());
    }
    // The agents' socket last: whoever can connect to it may rely on every other listener.
    let socket = UnixSocket::bind(&file.base().join(&listen.socket), AGENT_SOCKET_MODE)?;
    servers.serve(listen::incoming(socket, CONNECTIONS_MAX), agents);
    servers.serve(listen::incoming(admin_socket, ADMIN_CONNECTIONS_MAX), operators);
    tokio::spawn(report_health(broker.journal.health(), reporter, draining.clone()));
    Ok(Servers(servers.tasks))
}

/// What is being served so far.
struct Listeners<'a> {
    tasks: JoinSet<Result<(), tonic::transport::Error>>,
    draining: &'a watch::Receiver<bool>,
}

impl Listeners<'_> {
    /// Serves `routes` on `connections` until the broker drains.
    fn serve<I, C>(&mut self, connections: I, routes: Routes)
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let router = bounded().add_routes(routes);
        let mut draining = self.draining.clone();
        let drained = async move { drained(&mut draining).await };
        self.tasks.spawn(router.serve_with_incoming_shutdown(connections, drained));
    }
}

/// The agents' places: where some have certificates and some do not, those who do come first.
fn slots_of(listener: Option<&TlsConfig>) -> Slots {
    let slots = Slots::new(CONNECTIONS_MAX);
    match listener.map(|tls| tls.client_certificates) {
        Some(ClientCertificates::None) | None => slots,
        Some(_) => slots.anonymous(CONNECTIONS_MAX / ANONYMOUS_PART),
    }
}

fn bounded() -> Server {
    Server::builder()
        .timeout(CALL_MAX)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_keepalive(Some(KEEPALIVE_EVERY))
}

/// Refuses a listener without TLS where others could be meant to use it.
pub fn plain_is_for_dev(mode: Mode, file: &ConfigFile) -> Result<(), ConfigError> {
    let Some(plain) = &file.config().listen.plain else { return Ok(()) };
    let keys = ["listen", "plain", "address"];
    match mode {
        Mode::Serve => {
            let problem = "a listener without TLS is for `clavigerd dev` only: write `[listen.tls]`, \
                           or use the unix socket";
            Err(file.problem(&keys, problem))
        }
        Mode::Dev if !plain.address.ip().is_loopback() => {
            let problem = "whoever reads along would read secrets: use a loopback address";
            Err(file.problem(&keys, problem))
        }
        Mode::Dev => Ok(()),
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on `{address}`"))
}

/// Not serving while the journal cannot write, since nothing can be issued then; and while
/// draining, so that a balancer sends no more.
async fn report_health(
    mut journal: watch::Receiver<Health>,
    reporter: HealthReporter,
    mut draining: watch::Receiver<bool>,
) {
    loop {
        let serving = journal.borrow_and_update().is_writable() && !*draining.borrow_and_update();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in HEALTH_OF {
            reporter.set_service_status(service, status).await;
        }
        let changed = tokio::select! {
            changed = journal.changed() => changed,
            changed = draining.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The services whose health is told: all of them, and the broker as a whole.
const HEALTH_OF: [&str; 4] =
    ["", "claviger.v1.AgentService", "claviger.v1.AdminService", "claviger.v1.SecretService"];

/// Every local process may connect: the kernel says who it is, and the policies decide.
const AGENT_SOCKET_MODE: u32 = 0o666;

/// The broker's own user and root. Other operators need group access to the folder and an entry
/// in `operator_uids`; their uid is checked again on every call.
const ADMIN_SOCKET_MODE: u32 = 0o660;

/// The largest request is a few kilobytes; more is an attack or a mistake.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Sixteen kilobytes hold a session token and every usual header many times over.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Each agent holds one connection; 4096 agents on one machine are more than its memory.
const CONNECTIONS_MAX: usize = 4096;

/// Operators are few.
const ADMIN_CONNECTIONS_MAX: usize = 64;

/// A name that proves itself on the operators' listener, permitted or not, keeps no others out.
const CONNECTIONS_PER_OPERATOR_MAX: usize = 4;

/// A quarter: a thousand workloads that prove themselves by a token only.
const ANONYMOUS_PART: usize = 4;

/// A call beyond these waits on its own connection, and hurts nobody else.
const CALLS_PER_CONNECTION_MAX: usize = 64;

/// Calls and open `Watch` streams together.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;

/// As documented in `agent.proto`.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Finds a dead peer in half a minute, within the default heartbeat grace.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);

/// See `KEEPALIVE_EVERY`.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
