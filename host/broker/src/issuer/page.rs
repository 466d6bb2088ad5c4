//! Serves the issuer's discovery page and its keys (OpenID Connect Discovery 1.0, RFC 7517): two
//! documents that are the same for everybody. In plain HTTP for a proxy, or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::Issuer;

/// Where the page is served.
pub struct PageSpec {
    /// Address and port.
    pub address: SocketAddr,
    /// With which certificate; none is plain HTTP.
    pub tls: Option<PageIdentity>,
}

/// A certificate chain and its private key, PEM.
pub struct PageIdentity {
    /// The chain.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Zeroizing<String>,
}

impl PageIdentity {
    /// What the listener presents; `Err` says what is wrong with the files.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .context("the certificate is not PEM")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| anyhow::anyhow!("the key is not a private key in PEM"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key do not belong together")?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A listener that serves the page once it is polled.
pub struct Page {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
}

impl Page {
    /// Listens where `spec` says.
    pub async fn bind(spec: &PageSpec, issuer: Arc<Issuer>) -> anyhow::Result<Self> {
        let tls = spec.tls.as_ref().map(PageIdentity::acceptor).transpose()?;
        if tls.is_none() && !spec.address.ip().is_loopback() {
            tracing::warn!(
                address = %spec.address,
                "the issuer's keys are served in the clear beyond this machine: whoever changes \
                 them on the way can forge tokens, so let only the proxy reach this address"
            );
        }
        let listener = TcpListener::bind(spec.address)
            .await
            .with_context(|| format!("cannot listen on `{}` for the issuer", spec.address))?;
        Ok(Self { listener, tls, router: router(issuer) })
    }

    /// In plain HTTP on a listener that is there already and that only this machine reaches.
    pub fn on_loopback(listener: TcpListener, issuer: Arc<Issuer>) -> Self {
        Self { listener, tls: None, router: router(issuer) }
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = tokio::task::JoinSet::new();
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            while connections.try_join_next().is_some() {}
            let Ok((tcp, _)) = self.listener.accept().await else {
                // Out of file descriptors, or a peer that left: the others must not notice.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (tls, router) = (self.tls.clone(), self.router.clone());
            connections.spawn(async move {
                let _slot = slot;
                // Who is slower than this is no relying party.
                let _ended =
                    tokio::time::timeout(CONNECTION_MAX, connection(tcp, tls, router)).await;
            });
        }
    }
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    match tls {
        None => answer(tcp, router).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(tcp).await {
                answer(stream, router).await;
            }
        }
    }
}

async fn answer(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a reader of the issuer's page left");
    }
}

fn router(issuer: Arc<Issuer>) -> Router {
    let path = issuer.path();
    Router::new()
        .route(&format!("{path}/.well-known/openid-configuration"), get(discovery))
        .route(&format!("{path}/jwks"), get(keys))
        .with_state(issuer)
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Response {
    document(&json!({
        "issuer": issuer.url(),
        "jwks_uri": format!("{}/jwks", issuer.url()),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "claviger"],
    }))
}

async fn keys(State(issuer): State<Arc<Issuer>>) -> Response {
    document(&issuer.jwks())
}

fn document(json: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, format!("public, max-age={MAX_AGE_SECS}")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, json.to_string()).into_response()
}

/// How long relying parties may keep the page: a dropped key is forgotten this soon.
pub(super) const MAX_AGE_SECS: u64 = 15 * 60;

/// Relying parties fetch two documents every few minutes.
const CONNECTIONS_MAX: usize = 128;

/// A whole connection, handshake to last answer.
const CONNECTION_MAX: Duration = Duration::from_secs(15);

/// The least that the server library takes; a request for the page is far shorter.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Gives the system a moment to free what was missing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
