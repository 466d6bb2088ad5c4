//! Admits a component: digest, size, manifest, imports. Runs no guest code.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use claviger_core::name::PluginName;
use data_encoding::HEXLOWER;
use thiserror::Error;
use wasmtime::component::Component;

use super::bindings::PluginPre;
use super::engine::Sandbox;
use super::link::{self, Grants, LinkError};
use super::manifest::{Manifest, ManifestError};
use super::quarantine::Quarantine;
use super::spec::PluginSpec;

/// A component that may run.
pub struct Loaded {
    pub(super) name: PluginName,
    pub(super) manifest: Arc<Manifest>,
    pub(super) sha256: [u8; 32],
    pub(super) pre: PluginPre<super::call::Call>,
    quarantine: Mutex<Quarantine>,
}

/// Why a component was refused. Each reads after the plugin's path.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// Other bytes than pinned.
    #[error(
        "has the digest {found}, but `sha256` pins {pinned}: if the new version was reviewed, write\n\nsha256 = \"{found}\"\n"
    )]
    Pin {
        /// What it hashes to.
        found: String,
        /// What it should hash to.
        pinned: String,
    },
    /// Too large.
    #[error("has {0} bytes: at most {COMPONENT_BYTES_MAX} are loaded")]
    TooLarge(usize),
    /// No manifest, or a bad one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It does not compile.
    #[error("is not a component that this broker can run: {0}")]
    Compile(String),
    /// It imports what it may not, or does not match the contract.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Loaded {
    /// Admits the component of `spec`, linked to what `grants` allow.
    pub(super) fn admit(
        sandbox: &Sandbox,
        spec: &PluginSpec,
        manifest: Manifest,
        grants: Grants,
    ) -> Result<Self, AdmitError> {
        let component = compile(sandbox, &spec.bytes)?;
        let pre = link::link(&component, grants)?;
        let pre = PluginPre::new(pre).map_err(|error| LinkError::Mismatch(format!("{error:#}")))?;
        Ok(Self {
            name: spec.name.clone(),
            manifest: Arc::new(manifest),
            sha256: sha256(&spec.bytes),
            pre,
            quarantine: Mutex::default(),
        })
    }

    /// How long it is still quarantined, in seconds.
    pub(super) fn quarantined_secs(&self) -> Option<u64> {
        let left = self.with_quarantine(|quarantine| quarantine.remaining(Instant::now()))?;
        Some(left.as_secs() + 1)
    }

    /// Counts a trap; true if it is quarantined from now on.
    pub(super) fn trapped(&self) -> bool {
        self.with_quarantine(|quarantine| quarantine.trapped(Instant::now()))
    }

    /// Counts a call that kept to the rules.
    pub(super) fn ended_well(&self) {
        self.with_quarantine(Quarantine::ended_well);
    }

    fn with_quarantine<T>(&self, use_it: impl FnOnce(&mut Quarantine) -> T) -> T {
        // A count of traps is right whatever a panicking thread left behind.
        use_it(&mut self.quarantine.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Compiles a component. The compiler panics where its own output needs what the engine has turned
/// off, such as a second memory between nested components: that is a refusal like any other.
pub fn compile(sandbox: &Sandbox, bytes: &[u8]) -> Result<Component, AdmitError> {
    let compile = || Component::from_binary(&sandbox.engine, bytes);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile)) {
        Ok(compiled) => compiled.map_err(|error| AdmitError::Compile(format!("{error:#}"))),
        Err(_panic) => Err(AdmitError::Compile(
            "the compiler gave up: nested components need memories that are turned off".to_owned(),
        )),
    }
}

/// Checks what can be known without compiling, cheapest first.
pub fn inspect(spec: &PluginSpec) -> Result<Manifest, AdmitError> {
    if spec.bytes.len() > COMPONENT_BYTES_MAX {
        return Err(AdmitError::TooLarge(spec.bytes.len()));
    }
    let found = sha256(&spec.bytes);
    if let Some(pinned) = spec.sha256_pin.filter(|pinned| *pinned != found) {
        let (found, pinned) = (HEXLOWER.encode(&found), HEXLOWER.encode(&pinned));
        return Err(AdmitError::Pin { found, pinned });
    }
    Ok(Manifest::of_component(&spec.bytes)?)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// A Rust plugin takes 50 to 500 KB; the time to compile grows with the size.
pub const COMPONENT_BYTES_MAX: usize = 4 * 1024 * 1024;
