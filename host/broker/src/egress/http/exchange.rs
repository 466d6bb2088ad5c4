//! One request and its response as the door moves them. Parses no body, decides nothing.

use std::future::Future;
use std::pin::Pin;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::egress::Failure;

/// What moves a request to its origin and the response back: the one door, for requests of the
/// host's own too.
pub trait Exchange: Send + Sync {
    /// Sends `outgoing` to `route` and reads the response to its end, by `end`.
    fn exchange<'a>(&'a self, route: &'a Route, outgoing: Outgoing, end: Instant) -> Exchanged<'a>;
}

/// A response under way.
pub type Exchanged<'a> = Pin<Box<dyn Future<Output = Result<Incoming, Failure>> + Send + 'a>>;

/// Where requests go: one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether TLS protects it. Plain HTTP is for loopback addresses.
    pub tls: bool,
    /// A host name or an IP address, in lower case.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the name may resolve to besides public addresses.
    pub reach: Vec<Reach>,
}

impl Route {
    /// The host as the header `host` and signatures write it: with the port, unless it is the
    /// scheme's own.
    pub fn authority(&self) -> String {
        let host = self.bracketed();
        let own = if self.tls { 443 } else { 80 };
        if self.port == own { host } else { format!("{host}:{}", self.port) }
    }

    /// The scheme, host and port, without a slash at the end.
    pub fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// A range of addresses that must be granted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// This machine.
    Loopback,
    /// Networks of an organisation's own (RFC 1918, RFC 4193, RFC 6598).
    Private,
}

/// A request before it is authenticated: what the signature covers is what is sent.
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// The encoded path and query.
    pub path_and_query: String,
    /// The headers, without `host` and `content-length`, which the door sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// A response, read to its end.
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}
