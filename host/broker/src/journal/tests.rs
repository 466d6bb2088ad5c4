//! Tests of the journal against real files, through the core's own flows.

mod attacks;
mod leases;
mod opening;
mod outages;
mod queries;
mod rekeying;
mod secrecy;
mod secrets;
mod withdraw;
mod world;
mod writer;
