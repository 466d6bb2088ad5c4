//! From a host's name to its addresses. Judges none of them.

use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::pin::Pin;

use tokio::sync::Semaphore;

use super::exchange::Route;
use crate::egress::{Failure, FailureKind};

/// The addresses of a name, when they are known.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Something that knows the addresses of names.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`.
    fn resolve<'a>(&'a self, host: &'a str) -> Addresses<'a>;
}

/// The machine's own resolver, as `/etc/nsswitch.conf` sets it up.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Addresses<'a> {
        let host = host.to_owned();
        Box::pin(async move {
            // The permit goes with the thread: a lookup cannot be ended, and a name server that
            // does not answer must not take all threads.
            let permit = LOOKUPS.acquire().await.map_err(io::Error::other)?;
            let lookup = move || {
                let _permit = permit;
                let found = (host.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX + 1).collect())
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}

/// The addresses of a route's host: an address stands for itself.
pub async fn addresses(resolver: &dyn Resolve, route: &Route) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(address) = route.host.parse() {
        return Ok(vec![address]);
    }
    let unavailable = |reason: String| {
        let message = format!("`{}` cannot be resolved: {reason}", route.host);
        Failure::unsent(FailureKind::Unavailable, message)
    };
    let found = resolver.resolve(&route.host).await;
    let found = found.map_err(|error| unavailable(error.to_string()))?;
    if found.len() > ADDRESSES_MAX {
        return Err(unavailable("it has too many addresses".to_owned()));
    }
    Ok(found)
}

/// Large services have a dozen; all are checked, and a few are tried.
const ADDRESSES_MAX: usize = 64;

/// A fraction of the threads that may block.
static LOOKUPS: Semaphore = Semaphore::const_new(32);
