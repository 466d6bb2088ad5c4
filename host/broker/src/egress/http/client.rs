//! Moves requests over connections that it keeps. Every byte of HTTP that leaves the broker leaves
//! through `Client::exchange`, for guests and for token endpoints alike. Follows no redirect,
//! knows no proxy, speaks HTTP/1.1 only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming as Body;
use hyper::client::conn::http1::{self, SendRequest};
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::dial::Dial;
use super::exchange::{Exchange, Exchanged, Incoming, Outgoing, Route};
use super::resolve::Resolve;
use crate::egress::{Failure, FailureKind};

/// Connections to the routes of one bound connection.
///
/// INVARIANT (one-pool-a-credential): a client belongs to exactly one bound connection and is made
/// anew with it at a reload. Its pool is therefore never shared across plugins, backends,
/// connections or versions of a credential, also where the address is the same: a TLS session that
/// was opened with one client certificate never carries another's request.
pub struct Client {
    dial: Dial,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    route: Route,
    wire: Wire,
    since: Instant,
}

/// One connection; it ends when this is dropped.
struct Wire {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

/// An exchange that did not come to an end.
enum Broken {
    /// Nothing of the request was written: it may go over another connection.
    Unsent(Box<Request<Full<Bytes>>>),
    /// It is over.
    Failed(Failure),
}

impl Client {
    /// One without connections.
    pub fn new(tls: ClientConfig, resolver: Arc<dyn Resolve>) -> Self {
        let dial = Dial { tls: Arc::new(tls), resolver };
        Self { dial, idle: Mutex::default() }
    }

    /// Sends `outgoing` and reads the response to its end, by `end`. The failure tells whether the
    /// other side may have acted: what fails before the first byte was written is unsent.
    pub async fn exchange(
        &self,
        route: &Route,
        outgoing: Outgoing,
        end: Instant,
    ) -> Result<Incoming, Failure> {
        let mut request = request(route, outgoing)?;
        while let Some(wire) = self.take_idle(route) {
            match self.over(wire, route, (request, end)).await {
                Ok(incoming) => return Ok(incoming),
                Err(Broken::Failed(failure)) => return Err(failure),
                Err(Broken::Unsent(unsent)) => request = *unsent,
            }
        }
        let wire = self.open(route, end).await?;
        self.over(wire, route, (request, end)).await.map_err(|broken| match broken {
            Broken::Failed(failure) => failure,
            Broken::Unsent(_) => unavailable(route, "it closed the connection"),
        })
    }

    async fn open(&self, route: &Route, end: Instant) -> Result<Wire, Failure> {
        let stream = self.dial.open(route, end).await?;
        let shaken = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .handshake(stream)
            .await;
        let (sender, connection) =
            shaken.map_err(|error| unavailable(route, &error.to_string()))?;
        let task = tokio::spawn(async move {
            // What goes wrong here is told to the exchange that waits for it.
            let _ = connection.await;
        });
        Ok(Wire { sender, task: task.abort_handle() })
    }

    async fn over(
        &self,
        mut wire: Wire,
        route: &Route,
        (request, end): (Request<Full<Bytes>>, Instant),
    ) -> Result<Incoming, Broken> {
        if Instant::now() >= end {
            let message = "the call's time was over before the request was sent";
            return Err(Broken::Failed(Failure::unsent(FailureKind::Timeout, message)));
        }
        let response = match timeout_at(end, wire.sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                let unsent = error.take_message();
                return Err(unsent.map_or_else(
                    || Broken::Failed(broken_off(error.error())),
                    |request| Broken::Unsent(Box::new(request)),
                ));
            }
            Err(_) => return Err(Broken::Failed(too_slow())),
        };
        let reusable = !has_two_lengths(response.headers());
        let incoming = read(response, end).await.map_err(Broken::Failed)?;
        if reusable {
            self.keep(route, wire);
        }
        Ok(incoming)
    }

    fn take_idle(&self, route: &Route) -> Option<Wire> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX && !idle.wire.sender.is_closed());
        let at = idle.iter().rposition(|i| i.route == *route && i.wire.sender.is_ready())?;
        Some(idle.swap_remove(at).wire)
    }

    fn keep(&self, route: &Route, wire: Wire) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX {
            idle.push(Idle { route: route.clone(), wire, since: Instant::now() });
        }
    }
}

impl Exchange for Client {
    fn exchange<'a>(&'a self, route: &'a Route, outgoing: Outgoing, end: Instant) -> Exchanged<'a> {
        Box::pin(Self::exchange(self, route, outgoing, end))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn request(route: &Route, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, Failure> {
    let malformed = |what: &str| {
        Failure::unsent(FailureKind::InvalidInput, format!("the request's {what} is malformed"))
    };
    let empty = outgoing.body.is_empty();
    // The body is zeroed when the last part of hyper lets go of it.
    let mut request = Request::new(Full::new(Bytes::from_owner(outgoing.body)));
    *request.method_mut() = outgoing.method;
    *request.uri_mut() = outgoing.path_and_query.parse().map_err(|_| malformed("path"))?;
    if request.uri().authority().is_some() || !outgoing.path_and_query.starts_with('/') {
        return Err(malformed("path"));
    }
    *request.headers_mut() = outgoing.headers;
    let host = HeaderValue::from_str(&route.authority()).map_err(|_| malformed("host"))?;
    request.headers_mut().insert(HOST, host);
    // Some servers refuse a method that usually has a body when nothing tells its length.
    if empty && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok(request)
}

async fn read(response: Response<Body>, end: Instant) -> Result<Incoming, Failure> {
    let (head, mut incoming) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::sent(FailureKind::Other, "the service wants another protocol"));
    }
    let header_bytes: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if header_bytes > HEADER_BYTES_MAX {
        return Err(Failure::sent(FailureKind::Other, TOO_MANY_HEADERS));
    }
    // All at once: a vector that grows leaves copies of what it held.
    let mut body = Zeroizing::new(Vec::with_capacity(BODY_BYTES_MAX));
    while let Some(frame) = timeout_at(end, incoming.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|error| broken_off(&error))?;
        let data = frame.data_ref().map(|data| &data[..]).unwrap_or_default();
        if body.len() + data.len() > BODY_BYTES_MAX {
            let message = "the answer is larger than 256 KiB";
            return Err(Failure::sent(FailureKind::Other, message));
        }
        body.extend_from_slice(data);
    }
    Ok(Incoming { status: head.status, headers: head.headers, body })
}

/// A sender of both lengths may mean either one: what follows on its connection is not trusted.
fn has_two_lengths(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let coded = headers.contains_key(http::header::TRANSFER_ENCODING);
    lengths + usize::from(coded) > 1
}

fn unavailable(route: &Route, reason: &str) -> Failure {
    let message = format!("no connection to `{}`: {reason}", route.host);
    Failure::unsent(FailureKind::Unavailable, message)
}

fn too_slow() -> Failure {
    Failure::sent(FailureKind::Timeout, "the service did not answer in time")
}

fn broken_off(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        return Failure::sent(FailureKind::Other, TOO_MANY_HEADERS);
    }
    if error.is_parse() {
        return Failure::sent(FailureKind::Other, "the answer is no HTTP/1.1");
    }
    Failure::sent(FailureKind::Unavailable, format!("the service broke off: {error}"))
}

const TOO_MANY_HEADERS: &str = "the answer has more than 64 headers or 16 KiB of them";

/// Documented in the plugin contract: a page of a list fits, a data set does not.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Large services send about 30.
const HEADERS_MAX: usize = 64;

/// What common servers send at the most.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Shorter than common servers keep a silent connection (five seconds): a request that meets a
/// connection that is just closing may or may not have been taken, and cannot be repeated blindly.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// As many as calls of one plugin that usually run at once.
const IDLE_COUNT_MAX: usize = 8;
