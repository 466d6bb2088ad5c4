//! The one door to HTTP services: named connections, addresses checked and pinned, authenticated by
//! the host, hidden and redacted on the way back.

mod address;
mod auth;
mod client;
mod dial;
mod document;
mod door;
mod encode;
mod exchange;
mod headers;
mod location;
mod path;
mod policy;
mod range;
mod request;
mod resolve;
mod response;

pub use address::OriginError;
pub use auth::{Acting, AuthError, AuthParts, Authenticator, HttpAuth};
pub use client::Client;
pub use door::{Admitted, Door, DoorSpec};
pub use encode::Encoding;
pub use exchange::{Exchange, Exchanged, Incoming, Outgoing, Reach, Route};
pub use policy::{Grants, Policy};
pub use request::GuestRequest;
pub use resolve::{Addresses, Resolve, SystemResolver};
pub use response::GuestResponse;

#[cfg(test)]
pub mod tests;
