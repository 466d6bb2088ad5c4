//! The plugin host: loads components, checks what they may reach, and runs each call in a fresh
//! sandbox. Only `bindings` knows WIT types; only `egress` reaches the outside.

mod admit;
mod artifact;
mod backend;
mod bindings;
mod cache;
mod call;
mod compile;
mod components;
mod engine;
mod lease;
mod link;
mod manifest;
mod meter;
mod observe;
mod plain;
mod plugins;
mod quarantine;
mod request;
mod run;
mod signature;
mod spec;
mod store;
mod trial;

pub use admit::AdmitError;
pub use backend::{BackendError, ISSUER_WANTED, log_in, sign_in};
pub use cache::ComponentCache;
pub use compile::{CompileError, child as compile_child};
pub use engine::{EngineError, open_pagemap};
pub use link::{Grant, Grants, LinkError, check_import};
pub use manifest::{
    ABI, Auth, ConnectionKind, ConnectionRequest, CredentialSpec, Dialect, Enforcer, FieldSpec,
    LimitsClass, Manifest, ManifestError, Revocation, SECTION, Ttl,
};
pub use observe::{Call as ObservedCall, Observation, Observe, Outcome};
pub use plugins::{LoadError, PluginInfo, Plugins, PluginsOptions};
pub use request::NewKey;
pub use signature::{
    KeyError, Requirement, SignatureError, SignatureState, Signing, TrustedKey, signed_name, verify,
};
pub use spec::{
    BackendSpec, ClientAddress, ConnectionSpec, HttpSpec, JwtSpec, PluginSpec, SqlSpec, Terms,
    component_bytes_max,
};
pub use store::PluginStore;
pub use trial::{Ask, SCOPE as TRIAL_SCOPE, Trial, links};

#[cfg(test)]
mod tests;
