//! Claviger's decisions and state machines. No I/O, no clock, no async runtime.
//!
//! Read [`flow::issue`] first: it walks one request from an [`Ask`](ask::Ask) to a
//! [`Lease`](lease::Lease). The types carry the proofs: a [`Permit`](decide::Permit) is made only
//! by [`decide`](decide::decide), an [`Intent`](intent::Intent) only from a permit and a journal
//! sequence number, and a plugin is called only with an intent.

pub mod admin;
pub mod ask;
pub mod binding;
pub mod budget;
pub mod catalog;
pub mod decide;
pub mod digest;
pub mod flow;
pub mod ids;
pub mod intent;
pub mod issued;
pub mod journal;
pub mod lease;
pub mod name;
pub mod policy;
pub mod ports;
pub mod principal;
pub mod prompt;
pub mod secret;
pub mod session;
pub mod time;

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
