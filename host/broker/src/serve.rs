//! The listeners: agents on a unix socket and over TLS, operators on a socket of their own, each
//! with health and reflection, and with bounds on connections, streams, messages and time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use claviger_proto::v1::admin_service_server::AdminServiceServer;
use claviger_proto::v1::agent_service_server::AgentServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::broker::Broker;
use crate::config::{ConfigFile, TlsConfig};
use crate::greeting::greeted;
use crate::journal::Health;
use crate::listen::{self, UnixSocket};
use crate::rpc::admin::Admin;
use crate::rpc::agent::Agent;

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
    let admin = Admin::new(Arc::clone(broker), config.admin.operator_uids.clone());
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let shared = Routes::new(health).add_service(reflection);
    let (agents, operators) = (shared.clone().add_service(agent), shared.add_service(admin));

    let mut servers = JoinSet::new();
    let admin_path = file.base().join(&config.listen.admin_socket);
    let admin_socket = UnixSocket::bind(&admin_path, ADMIN_SOCKET_MODE)?;
    if let Some(tls) = &config.listen.tls {
        let tcp = TcpListener::bind(tls.address)
            .await
            .with_context(|| format!("cannot listen on `{}`", tls.address))?;
        let mut server = bounded().tls_config(tls_config(file, tls)?)?;
        let incoming = greeted(listen::incoming(tcp, CONNECTIONS_MAX));
        let router = server.add_routes(agents.clone());
        servers.spawn(router.serve_with_incoming_shutdown(incoming, drained(draining.clone())));
    }
    // The agents' socket last: whoever can connect to it may rely on every other listener.
    let socket = UnixSocket::bind(&file.base().join(&config.listen.socket), AGENT_SOCKET_MODE)?;
    let incoming = greeted(listen::incoming(socket, CONNECTIONS_MAX));
    let router = bounded().add_routes(agents);
    servers.spawn(router.serve_with_incoming_shutdown(incoming, drained(draining.clone())));
    let incoming = greeted(listen::incoming(admin_socket, ADMIN_CONNECTIONS_MAX));
    let router = bounded().add_routes(operators);
    servers.spawn(router.serve_with_incoming_shutdown(incoming, drained(draining.clone())));
    tokio::spawn(report_health(broker.journal.health(), reporter, draining.clone()));
    Ok(Servers(servers))
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

/// The certificate, key and client authority of the TLS listener, read from their files.
pub fn tls_config(file: &ConfigFile, tls: &TlsConfig) -> anyhow::Result<ServerTlsConfig> {
    let keys = ["listen", "tls"];
    let pem = |path: &Path| {
        let path = file.base().join(path);
        std::fs::read(&path)
            .map_err(|error| file.problem(&keys, format!("`{}`: {error}", path.display())))
    };
    let key = tls
        .key
        .read(file.base())
        .map_err(|error| file.problem(&["listen", "tls", "key"], error))?;
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(pem(&tls.certificate)?, key.as_bytes()))
        .client_ca_root(Certificate::from_pem(pem(&tls.client_ca)?))
        .client_auth_optional(false))
}

async fn drained(mut draining: watch::Receiver<bool>) {
    // An error means that the sender is gone, and so the process is about to be.
    let _gone = draining.wait_for(|draining| *draining).await;
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
        for service in ["", "claviger.v1.AgentService", "claviger.v1.AdminService"] {
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
