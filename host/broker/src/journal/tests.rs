//! Tests of the journal against real files, through the core's own flows.

mod attacks;
mod leases;
mod opening;
mod outages;
mod queries;
mod rekeying;
mod revocation;
mod secrecy;
mod secrets;
mod trees;
mod withdraw;
pub(crate) mod world;
mod writer;
