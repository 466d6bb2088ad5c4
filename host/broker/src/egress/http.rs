//! The one door to HTTP services: named connections, addresses checked and pinned, authenticated by
//! the host, redacted on the way back.

mod auth;
mod client;
mod dial;
mod exchange;
mod range;
mod resolve;

pub use auth::{Authenticator, HttpAuth};
pub use client::Client;
pub use resolve::{Addresses, Resolve, SystemResolver};
pub use exchange::{Incoming, Outgoing, Reach, Route};

/// A request as the guest composes it.
pub struct GuestRequest;

/// A response as the guest sees it.
pub struct GuestResponse;
