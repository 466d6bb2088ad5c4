//! The one door to SQL databases: named connections, pooled, bounded, quoted by the host.

mod address;
mod failure;
mod pool;
mod session;
mod statement;

pub use address::{Address, AddressError, Endpoint, Transport};
pub use pool::{Login, OpenError, Pool, PoolSpec};
pub use session::{Rows, Session};
pub use statement::{Rendered, Statement};

#[cfg(test)]
mod tests;
