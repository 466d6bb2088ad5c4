//! MySQL and MariaDB behind the door: connections, statements, failures.

mod failure;
mod pool;
mod session;

pub(super) use pool::Pool;
pub use session::Session;
