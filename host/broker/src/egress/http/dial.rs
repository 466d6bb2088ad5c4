//! Opens one connection to one checked address. INVARIANT (checked-is-used): the address that was
//! checked is the address that is dialled; the name is resolved once, here, and nowhere later.

use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tower::Service;

use super::exchange::Route;
use super::range;
use super::resolve::{self, Resolve};
use crate::egress::{Failure, FailureKind};

/// An open connection.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// How connections are opened.
pub struct Dial {
    /// Whom to trust, and who the broker is.
    pub tls: Arc<ClientConfig>,
    /// Where addresses come from.
    pub resolver: Arc<dyn Resolve>,
}

impl Dial {
    /// Opens a connection. Whatever fails here was not sent.
    pub async fn open(&self, route: &Route, end: Instant) -> Result<Stream, Failure> {
        let opened = timeout_at(end, self.connect(route, end)).await;
        opened.unwrap_or_else(|_| Err(late(route)))
    }

    async fn connect(&self, route: &Route, end: Instant) -> Result<Stream, Failure> {
        let addresses = resolve::addresses(self.resolver.as_ref(), route).await?;
        range::admit(route, &addresses)?;
        let tcp = any(route, &addresses, end).await?;
        let refused = |reason: String| {
            let message = format!("no connection to `{}`: {reason}", route.host);
            Failure::unsent(FailureKind::Unavailable, message)
        };
        let uri: Uri = route.origin().parse().map_err(|_| refused("no such name".to_owned()))?;
        let mut connector = HttpsConnector::from((Opened(Some(tcp)), Arc::clone(&self.tls)));
        connector.call(uri).await.map_err(|error| refused(error.to_string()))
    }
}

/// The first of the checked addresses that accepts.
async fn any(route: &Route, addresses: &[IpAddr], end: Instant) -> Result<TcpStream, Failure> {
    let mut last = String::new();
    let count = addresses.len().min(TRIES_MAX);
    for (tried, address) in addresses.iter().take(count).enumerate() {
        // A dead address leaves its share of the time to the others.
        let shares = u32::try_from(count - tried).unwrap_or(1).max(1);
        let left = end.saturating_duration_since(Instant::now());
        let until = Instant::now() + left / shares;
        let connecting = TcpStream::connect(SocketAddr::new(*address, route.port));
        match timeout_at(until, connecting).await {
            Ok(Ok(stream)) => {
                // A request is one write; waiting to fill a packet only delays it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => "it did not accept in time".clone_into(&mut last),
        }
    }
    let message = format!("no connection to `{}`: {last}", route.host);
    Err(Failure::unsent(FailureKind::Unavailable, message))
}

fn late(route: &Route) -> Failure {
    let message = format!("no connection to `{}` in time", route.host);
    Failure::unsent(FailureKind::Timeout, message)
}

/// Hands the TLS library the connection that is already open, so that it resolves nothing itself.
struct Opened(Option<TcpStream>);

impl Service<Uri> for Opened {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        ready(stream.ok_or_else(|| std::io::ErrorKind::NotConnected.into()))
    }
}

/// A name with more dead addresses than this is as good as dead.
const TRIES_MAX: usize = 4;
