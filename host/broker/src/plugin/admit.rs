//! Admits a component: digest, size, manifest, imports. Runs no guest code.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use claviger_core::name::PluginName;
use data_encoding::HEXLOWER;
use thiserror::Error;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre};

use super::bindings::{BatchPre, KeyRotatingPre, PluginPre, RotatingPre};
use super::call::Call;
use super::compile::CompileError;
use super::components::Source;
use super::engine::Sandbox;
use super::link::{self, Grants, LinkError};
use super::manifest::{LimitsClass, Manifest, ManifestError};
use super::quarantine::Quarantine;
use super::signature::{SignatureError, SignatureState};
use super::spec::{PluginSpec, component_bytes_max};

/// A component that may run.
pub struct Loaded {
    pub(super) name: PluginName,
    pub(super) manifest: Arc<Manifest>,
    pub(super) sha256: [u8; 32],
    pub(super) signature: SignatureState,
    pub(super) pre: PluginPre<Call>,
    /// The ability to end several credentials at once, if it has it.
    pub(super) batch: Option<BatchPre<Call>>,
    /// The ability to replace root credentials, if it has it.
    pub(super) rotating: Option<RotatingPre<Call>>,
    /// The ability to have its backend make and delete root credentials, if it has it.
    pub(super) key_rotating: Option<KeyRotatingPre<Call>>,
    component: Component,
    grants: Grants,
    /// Shared with what the same bytes become at the next reload: a reload forgives no trap.
    quarantine: Arc<Mutex<Quarantine>>,
    /// Its share of the sandbox's turns, which a reload does not double.
    pub(super) turns: Arc<Semaphore>,
}

/// What was found out about a component without compiling it.
pub struct Inspected {
    /// What it says of itself.
    pub manifest: Manifest,
    sha256: [u8; 32],
    signature: SignatureState,
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
    #[error("has {found} bytes: at most {most} are loaded")]
    TooLarge {
        /// How many it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
    /// It needs more of the machine than was granted.
    #[error(
        "needs the limits of an interpreter (256 MiB of memory and 2 s of processor time for each call): to grant them, write\n\n[plugins.{0}]\nlimits = \"interpreted\"\n"
    )]
    Limits(PluginName),
    /// Not signed as it must be.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// No manifest, or a bad one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It imports what it may not, or does not match the contract.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Loaded {
    /// Admits the component of `spec`, linked to what `grants` allow. `earlier` is what the
    /// plugin of that name was before: what it shares with the new one is not made again.
    pub(super) fn admit(
        sandbox: &Sandbox,
        (spec, inspected): (&PluginSpec, Inspected),
        grants: Grants,
        earlier: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, AdmitError> {
        let Inspected { manifest, sha256, signature } = inspected;
        let earlier = earlier.filter(|earlier| earlier.sha256 == sha256);
        if let Some(same) = earlier.filter(|e| e.grants == grants && e.signature == signature) {
            return Ok(Arc::clone(same));
        }
        let component = match earlier {
            Some(earlier) => earlier.component.clone(),
            None => {
                let class = manifest.limits_class;
                let source = Source { wasm: &spec.bytes, sha256: &sha256, class };
                sandbox.components.get(&sandbox.engine, &source)?
            }
        };
        let linked = link::link(&component, grants)?;
        let batch = batch(&component, &linked)?;
        let rotating = rotating(&component, &linked)?;
        let key_rotating = key_rotating(&component, &linked)?;
        let pre = PluginPre::new(linked).map_err(mismatch)?;
        let quarantine = earlier.map(|earlier| Arc::clone(&earlier.quarantine)).unwrap_or_default();
        let turns = earlier.map_or_else(|| sandbox.share(), |earlier| Arc::clone(&earlier.turns));
        Ok(Arc::new(Self {
            name: spec.name.clone(),
            manifest: Arc::new(manifest),
            sha256,
            signature,
            pre,
            batch,
            rotating,
            key_rotating,
            component,
            grants,
            quarantine,
            turns,
        }))
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

    /// How often it trapped since the broker started.
    pub(super) fn traps(&self) -> u64 {
        self.with_quarantine(|quarantine| quarantine.traps())
    }

    /// Lets it work again at once; false if it could.
    pub(super) fn lift_quarantine(&self) -> bool {
        self.with_quarantine(|quarantine| quarantine.lift(Instant::now()))
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

/// Checks what can be known without compiling, cheapest first.
pub fn inspect(spec: &PluginSpec) -> Result<Inspected, AdmitError> {
    small_enough(spec, LimitsClass::Interpreted)?;
    let sha256 = sha256(&spec.bytes);
    if let Some(pinned) = spec.sha256_pin.filter(|pinned| *pinned != sha256) {
        let (found, pinned) = (HEXLOWER.encode(&sha256), HEXLOWER.encode(&pinned));
        return Err(AdmitError::Pin { found, pinned });
    }
    let manifest = Manifest::of_component(&spec.bytes)?;
    let signature = spec.terms.signing.check(&spec.bytes, &manifest, spec.sha256_pin)?;
    if manifest.limits_class > spec.terms.limits {
        return Err(AdmitError::Limits(spec.name.clone()));
    }
    small_enough(spec, manifest.limits_class)?;
    Ok(Inspected { manifest, sha256, signature })
}

/// The ability to end several credentials at once, if the component has it.
pub(super) fn batch(
    component: &Component,
    linked: &InstancePre<Call>,
) -> Result<Option<BatchPre<Call>>, LinkError> {
    let has_it = component.get_export_index(None, BATCH).is_some();
    has_it.then(|| BatchPre::new(linked.clone())).transpose().map_err(mismatch)
}

/// The ability to replace root credentials, if the component has it.
pub(super) fn rotating(
    component: &Component,
    linked: &InstancePre<Call>,
) -> Result<Option<RotatingPre<Call>>, LinkError> {
    let has_it = component.get_export_index(None, ROTATION).is_some();
    has_it.then(|| RotatingPre::new(linked.clone())).transpose().map_err(mismatch)
}

/// The ability to have its backend make and delete root credentials, if the component has it.
pub(super) fn key_rotating(
    component: &Component,
    linked: &InstancePre<Call>,
) -> Result<Option<KeyRotatingPre<Call>>, LinkError> {
    let has_it = component.get_export_index(None, KEY_ROTATION).is_some();
    has_it.then(|| KeyRotatingPre::new(linked.clone())).transpose().map_err(mismatch)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
pub(super) fn mismatch(error: wasmtime::Error) -> LinkError {
    LinkError::Mismatch(format!("{error:#}"))
}

fn small_enough(spec: &PluginSpec, class: LimitsClass) -> Result<(), AdmitError> {
    let (found, most) = (spec.bytes.len(), component_bytes_max(class));
    if found > most { Err(AdmitError::TooLarge { found, most }) } else { Ok(()) }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The export that an able component has: see `wit/batch`.
const BATCH: &str = "claviger:batch/revocation@0.1.0";

/// The same: see `wit/provider`.
const ROTATION: &str = "claviger:provider/rotation@0.1.0";

/// The same.
const KEY_ROTATION: &str = "claviger:provider/key-rotation@0.1.0";
