//! Real servers for tests: started for one test, gone after it. What is no original says in
//! which ways it is like one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot start its server must fail, and say why"
)]

mod kubernetes;
mod machine;
mod mariadb;
mod moto;
mod oidc;
mod postgres;
mod python;

pub use kubernetes::KubernetesDouble;
pub use mariadb::{Mariadb, MariadbOptions};
pub use moto::{AccessKey, Moto};
pub use oidc::OidcProvider;
pub use postgres::{ClusterOptions, Postgres};
pub use python::{program, python};
