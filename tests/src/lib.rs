//! What the black-box tests share: a broker of its own for each test, its clients, and patience
//! that watches instead of sleeping. The tests themselves are in `tests/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot set up its world must fail, and say why"
)]

pub mod attack;
pub mod aws;
pub mod broker;
pub mod client;
pub mod contract;
pub mod guide;
pub mod other_user;
pub mod pki;
pub mod poll;
pub mod port;
pub mod refusal;
pub mod remote;
pub mod rotation;
pub mod rpc;
pub mod runner;
pub mod shop;
pub mod sts_double;
pub mod svid;
pub mod token_api;
pub mod workload_api;
pub mod world;
