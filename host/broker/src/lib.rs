//! The Claviger broker: all the I/O around `claviger-core`. `app` wires the parts together.

pub mod app;
pub mod authenticate;
pub mod broker;
pub mod check;
pub mod config;
pub mod configuration;
pub mod dev;
pub mod egress;
pub mod harden;
pub mod issuer;
pub mod journal;
pub mod kit;
pub mod listen;
pub mod load;
pub mod metrics;
pub mod metrics_page;
pub mod plugin;
pub mod policies;
pub mod prompts;
pub mod reload;
pub mod rpc;
pub mod serve;
pub mod sessions;
pub mod telemetry;
pub mod watching;
pub mod worker;
