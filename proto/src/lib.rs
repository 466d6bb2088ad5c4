//! The gRPC contract of Claviger (package `claviger.v1`): messages, clients and servers.
//! Generated from `claviger/v1/*.proto`; the contract is documented there.

/// Package `claviger.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms, reason = "generated")]
pub mod v1 {
    include!("gen/claviger.v1.rs");
}

/// The file descriptor set of the package with its imports, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/claviger.v1.bin");

/// The domain of every `google.rpc.ErrorInfo` that the broker sends.
pub const ERROR_DOMAIN: &str = "claviger";
