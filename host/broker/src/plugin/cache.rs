//! Keeps compiled components in files that only this broker can have written. A file without an
//! intact seal is as good as none: it is removed, and the component is compiled anew.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use wasmtime::Engine;

use super::artifact::Artifact;
use super::engine::MODULE_VERSION;

/// A folder of compiled components, each under a seal.
pub struct ComponentCache {
    folder: PathBuf,
    key: hmac::Key,
    /// The files that this process has read or written: in use, so never evicted.
    used: Mutex<BTreeSet<String>>,
}

/// All that decides which machine code a component becomes.
pub struct Key {
    material: Vec<u8>,
    name: String,
}

impl Key {
    /// The key of the component with this digest on `engine`.
    pub(super) fn of(component_sha256: &[u8; 32], engine: &Engine) -> Self {
        // The compatibility hash covers the compiler's settings and the processor's features.
        // It need not resist anybody: it stands beside the component's digest under the HMAC.
        let mut settings = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut settings);
        let mut material = Vec::new();
        for part in [
            LABEL,
            component_sha256.as_slice(),
            MODULE_VERSION.as_bytes(),
            &settings.finish().to_be_bytes(),
            std::env::consts::ARCH.as_bytes(),
            std::env::consts::OS.as_bytes(),
        ] {
            // With its length in front, no part can pass for the beginning of the next.
            material.extend_from_slice(&(part.len() as u64).to_be_bytes());
            material.extend_from_slice(part);
        }
        let name = digest::digest(&digest::SHA256, &material);
        Self { name: format!("{}.{EXTENSION}", HEXLOWER.encode(name.as_ref())), material }
    }
}

impl ComponentCache {
    /// The cache in `folder`, which is made if it is not there, sealed with `key`.
    pub fn open(folder: PathBuf, key: hmac::Key) -> io::Result<Self> {
        if !folder.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        }
        Ok(Self { folder, key, used: Mutex::default() })
    }

    /// What was kept under `key`, if it is there and ours.
    pub(super) fn get(&self, key: &Key) -> Option<Artifact> {
        let path = self.folder.join(&key.name);
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.discard(key, &error.to_string()),
        };
        let sealed = bytes.len().checked_sub(SEAL_BYTES).map(|length| bytes.split_at(length));
        let Some((artifact, seal)) = sealed else {
            return self.discard(key, "it is too short to be one of ours");
        };
        if verify_slices_are_equal(self.seal(key, artifact).as_ref(), seal).is_err() {
            return self.discard(key, "its seal is not ours");
        }
        self.use_of(key);
        Some(Artifact::unsealed(artifact.to_vec()))
    }

    /// Keeps `artifact` under `key`. A cache that cannot be written costs time, nothing else.
    pub(super) fn put(&self, key: &Key, artifact: &Artifact) {
        match self.write(key, artifact.bytes()) {
            Ok(()) => self.use_of(key),
            Err(error) => {
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "a compiled component cannot be kept");
            }
        }
    }

    /// Removes the file of `key`, which is not what it should be.
    pub(super) fn discard(&self, key: &Key, why: &str) -> Option<Artifact> {
        let file = key.name.as_str();
        tracing::warn!(file, why, "a file of the component cache was removed");
        if let Err(error) = std::fs::remove_file(self.folder.join(file))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file, %error, "it could not be removed and is ignored");
        }
        None
    }

    /// Removes what nothing has used since the start, but for the newest few. Files that do not
    /// bear a name of the cache are somebody else's and are left.
    pub(super) fn evict_unused(&self) {
        if let Err(error) = self.evict() {
            tracing::warn!(folder = %self.folder.display(), %error, "the cache is not tidied");
        }
    }

    fn evict(&self) -> io::Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut unused = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.take(LISTED_MAX) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(DRAFT) {
                unused.push((SystemTime::UNIX_EPOCH, entry.path()));
            } else if is_ours(&name) && !used.contains(&name) {
                unused.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        unused.sort();
        let surplus = unused.len().saturating_sub(UNUSED_MAX);
        let drafts = unused.iter().filter(|(_, path)| path.to_string_lossy().ends_with(DRAFT));
        for (_, path) in unused.iter().take(surplus.max(drafts.count())) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }

    fn write(&self, key: &Key, artifact: &[u8]) -> io::Result<()> {
        let seal = self.seal(key, artifact);
        let draft = self.folder.join(format!("{}.{}{DRAFT}", key.name, std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .and_then(|mut file| {
                file.write_all(artifact)?;
                file.write_all(seal.as_ref())?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&draft, self.folder.join(&key.name)));
        if written.is_err() {
            let _may_not_be_there = std::fs::remove_file(&draft);
        }
        written
    }

    /// Over the material too: machine code of one component is none of another, and none of an
    /// earlier release. The material's parts have their lengths, so it ends where it ends.
    fn seal(&self, key: &Key, artifact: &[u8]) -> hmac::Tag {
        let mut seal = hmac::Context::with_key(&self.key);
        seal.update(&key.material);
        seal.update(artifact);
        seal.sign()
    }

    fn use_of(&self, key: &Key) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(key.name.clone());
    }
}

/// Reads it whole: a mapped file could be changed after it was checked.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than any compiled component"));
    }
    Ok(bytes)
}

fn is_ours(name: &str) -> bool {
    name.strip_suffix(EXTENSION)
        .and_then(|stem| stem.strip_suffix('.'))
        .is_some_and(|stem| stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// What the material of a key begins with.
const LABEL: &[u8] = b"claviger component v1";

const EXTENSION: &str = "component";

/// A file that is being written; one that is left was cut off by a crash.
const DRAFT: &str = ".draft";

/// Of HMAC-SHA256.
const SEAL_BYTES: usize = 32;

/// The largest answer of the compiler and its seal.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024 + SEAL_BYTES as u64;

/// So that going back to an earlier plugin costs no compile, and no more than a few hundred
/// megabytes are kept for it.
const UNUSED_MAX: usize = 16;

/// A folder with more in it is not a cache of ours; a start must not hang on it.
const LISTED_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::plugin::engine;

    const ARTIFACT: &[u8] = b"not machine code, but never loaded either";

    fn cache(folder: &Path, key: u8) -> ComponentCache {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]);
        ComponentCache::open(folder.to_owned(), key).unwrap()
    }

    fn key(component: u8) -> Key {
        Key::of(&[component; 32], &engine::for_compiling().unwrap())
    }

    fn put(folder: &Path) -> PathBuf {
        cache(folder, 1).put(&key(1), &Artifact::compiled(ARTIFACT.to_vec()));
        folder.join(key(1).name)
    }

    #[test]
    fn gives_back_what_it_was_given_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let found = cache(folder.path(), 1).get(&key(1));
        assert_eq!(found.as_ref().map(Artifact::bytes), Some(ARTIFACT));
        assert!(cache(folder.path(), 1).get(&key(2)).is_none());
        assert!(path.exists());
    }

    #[test]
    fn what_was_changed_by_a_byte_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let good = std::fs::read(put(folder.path())).unwrap();
        let changes: Vec<Vec<u8>> = (0..good.len())
            .map(|at| {
                let mut changed = good.clone();
                changed[at] ^= 1;
                changed
            })
            .chain([vec![], good[1..].to_vec(), good[..good.len() - 1].to_vec()])
            .collect();
        for changed in changes {
            let path = folder.path().join(key(1).name);
            std::fs::write(&path, &changed).unwrap();
            assert!(cache(folder.path(), 1).get(&key(1)).is_none(), "{changed:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn another_keys_seal_and_another_components_file_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path());
        assert!(cache(folder.path(), 2).get(&key(1)).is_none());
        assert!(!path.exists());
        std::fs::rename(put(folder.path()), folder.path().join(key(2).name)).unwrap();
        assert!(cache(folder.path(), 1).get(&key(2)).is_none());
    }

    #[test]
    fn keeps_what_is_used_and_a_few_others_and_leaves_what_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path());
        for other in 0..UNUSED_MAX + 4 {
            std::fs::write(folder.path().join(format!("{other:064x}.component")), "old").unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        std::fs::write(folder.path().join("cut-off.component.1.draft"), "half").unwrap();
        let cache = cache(folder.path(), 1);
        assert!(cache.get(&key(1)).is_some());
        cache.evict_unused();
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.retain(|name| name.ends_with(EXTENSION));
        assert_eq!(left.len(), UNUSED_MAX + 1);
        assert!(left.contains(&key(1).name));
        assert!(folder.path().join("notes.txt").exists());
        assert!(!folder.path().join("cut-off.component.1.draft").exists());
    }
}
