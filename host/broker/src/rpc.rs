//! The gRPC services. Only this room knows proto types, and only `status` makes a gRPC status.

pub mod admin;
pub mod agent;
mod convert;
pub mod reply;
pub mod secrets;
mod status;
mod watch;
