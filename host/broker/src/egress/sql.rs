//! The one door to SQL databases: named connections, pooled, bounded, quoted by the host.

mod address;
mod dialect;
mod failure;
mod mysql;
mod pool;
mod postgres;
mod session;
mod statement;

pub use address::{Address, AddressError, Endpoint, Transport};
pub use dialect::Dialect;
pub use pool::{Login, OpenError, Pool, PoolSpec};
pub use session::{Rows, Session};
pub use statement::{Rendered, Statement};

#[cfg(test)]
mod tests;
