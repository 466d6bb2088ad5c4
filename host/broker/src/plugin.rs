//! The plugin host: loads components, checks what they may reach, and runs each call in a fresh
//! sandbox. Only `bindings` knows WIT types; only `egress` reaches the outside.

mod admit;
mod backend;
mod bindings;
mod call;
mod engine;
mod lease;
mod link;
mod manifest;
mod meter;
mod observe;
mod plugins;
mod quarantine;
mod request;
mod run;
mod spec;

pub use admit::AdmitError;
pub use backend::{BackendError, ISSUER_WANTED};
pub use engine::EngineError;
pub use manifest::{
    Auth, ConnectionKind, ConnectionRequest, CredentialSpec, Dialect, FieldSpec, LimitsClass,
    Manifest, ManifestError, Revocation, Ttl,
};
pub use observe::{Call as ObservedCall, Observation, Observe, Outcome};
pub use plugins::{LoadError, Plugins, PluginsOptions};
pub use spec::{
    BackendSpec, ClientAddress, ConnectionSpec, HttpSpec, JwtSpec, PluginSpec, SqlSpec,
};

#[cfg(test)]
mod tests;
