//! Real servers for tests: started for one test, gone after it. Nothing here is a mock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot start its server must fail, and say why"
)]

mod machine;
mod mariadb;
mod postgres;

pub use mariadb::{Mariadb, MariadbOptions};
pub use postgres::{ClusterOptions, Postgres};
