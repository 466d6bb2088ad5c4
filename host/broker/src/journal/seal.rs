//! What the journal keeps under the operator's sealing key: sealed handles, the issuer's keys,
//! secrets, the sealed head, and a probe that tells a wrong key. Knows no table.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use claviger_core::ids::IntentId;
use claviger_core::issued::Handle;
use claviger_core::journal::ChainHead;
use claviger_core::name::SecretName;
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// The operator's 256-bit key. Zeroed on drop; has no `Debug`.
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// The key with these bytes; `bytes` is zeroed.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let key = Self(Zeroizing::new(*bytes));
        bytes.zeroize();
        key
    }

    /// The key that seals compiled components. It is not the journal's own: the cache may be
    /// used before the journal is open, and one that belongs to several journals does no harm.
    pub fn component_key(&self) -> Result<hmac::Key, impl std::fmt::Display + use<>> {
        let secret = Salt::new(HKDF_SHA256, LABEL_COMPONENTS).extract(self.0.as_slice());
        let mut bytes = Zeroizing::new([0; 32]);
        let filled = secret
            .expand(&[LABEL_COMPONENTS], Bytes32)
            .and_then(|derived| derived.fill(bytes.as_mut_slice()));
        filled.map_err(|_| SealError::Derive)?;
        Ok::<_, SealError>(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
    }
}

/// The keys derived from the sealing key for one journal, and what they do.
pub(super) struct Seals {
    handles: RandomizedNonceKey,
    issuer_keys: RandomizedNonceKey,
    secrets: RandomizedNonceKey,
    heads: hmac::Key,
}

impl Seals {
    /// Derives the keys. `journal_id` is random and public: it keeps two journals that share a
    /// sealing key apart, so that neither seals nor nonces carry over from one to the other.
    pub(super) fn derive(key: &SealingKey, journal_id: &[u8]) -> Result<Self, SealError> {
        let secret = Salt::new(HKDF_SHA256, journal_id).extract(key.0.as_slice());
        let derive = |label: &[u8]| -> Result<Zeroizing<[u8; 32]>, Unspecified> {
            let mut bytes = Zeroizing::new([0; 32]);
            secret.expand(&[label], Bytes32)?.fill(bytes.as_mut_slice())?;
            Ok(bytes)
        };
        let sealing = |label: &[u8]| {
            derive(label).and_then(|key| RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()))
        };
        let heads = derive(LABEL_HEADS).map_err(|_| SealError::Derive)?;
        Ok(Self {
            handles: sealing(LABEL_HANDLES).map_err(|_| SealError::Derive)?,
            issuer_keys: sealing(LABEL_ISSUER_KEYS).map_err(|_| SealError::Derive)?,
            secrets: sealing(LABEL_SECRETS).map_err(|_| SealError::Derive)?,
            heads: hmac::Key::new(hmac::HMAC_SHA256, heads.as_slice()),
        })
    }

    /// Seals a handle to its lease: nonce, ciphertext, tag. The lease's id is authenticated with
    /// it, so that a handle copied to another row does not open there.
    pub(super) fn seal_handle(&self, id: IntentId, handle: &Handle) -> Result<Vec<u8>, SealError> {
        seal(&self.handles, id.bytes(), handle.as_str().as_bytes())
    }

    /// Opens what [`Seals::seal_handle`] sealed.
    pub(super) fn open_handle(&self, id: IntentId, sealed: &[u8]) -> Result<Handle, SealError> {
        Ok(Handle::new(text(open(&self.handles, id.bytes(), sealed)?)?))
    }

    /// Seals a key of the issuer to its id, which is authenticated with it.
    pub(super) fn seal_issuer_key(&self, kid: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        seal(&self.issuer_keys, kid.as_bytes(), plain)
    }

    /// Opens what [`Seals::seal_issuer_key`] sealed.
    pub(super) fn open_issuer_key(
        &self,
        kid: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        open(&self.issuer_keys, kid.as_bytes(), sealed)
    }

    /// Seals a secret to its name and version, which are authenticated with it: an earlier version
    /// put back, or the secret of another name, does not open.
    pub(super) fn seal_secret(
        &self,
        (name, version): (&SecretName, u64),
        plain: &str,
    ) -> Result<Vec<u8>, SealError> {
        seal(&self.secrets, &secret_context(name, version), plain.as_bytes())
    }

    /// Opens what [`Seals::seal_secret`] sealed.
    pub(super) fn open_secret(
        &self,
        (name, version): (&SecretName, u64),
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, SealError> {
        text(open(&self.secrets, &secret_context(name, version), sealed)?)
    }

    /// Something that only the same key opens.
    pub(super) fn seal_probe(&self) -> Result<Vec<u8>, SealError> {
        seal(&self.handles, AAD_PROBE, PROBE)
    }

    /// Whether `sealed` was made by [`Seals::seal_probe`] with the same key.
    pub(super) fn opens_probe(&self, sealed: &[u8]) -> bool {
        open(&self.handles, AAD_PROBE, sealed).is_ok_and(|plain| plain.as_slice() == PROBE)
    }

    /// The keyed hash over the head: without the key nobody can name another end of the chain.
    pub(super) fn seal_head(&self, head: &ChainHead) -> [u8; 32] {
        let mut seal = [0; 32];
        let tag = hmac::sign(&self.heads, &head_bytes(head));
        for (to, from) in seal.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        seal
    }

    /// Whether `seal` belongs to `head`; compared in constant time.
    pub(super) fn is_sealed(&self, head: &ChainHead, seal: &[u8]) -> bool {
        hmac::verify(&self.heads, &head_bytes(head), seal).is_ok()
    }
}

/// A seal that could not be made or opened. Says nothing of the key or the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum SealError {
    /// Key derivation failed.
    #[error("the keys of the journal could not be derived")]
    Derive,
    /// Sealing failed.
    #[error("a value could not be sealed")]
    Closed,
    /// What was read is not what was sealed.
    #[error("a sealed value does not open: it was changed, or moved from another row")]
    Opened,
}

fn seal(key: &RandomizedNonceKey, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    // With room for the tag: a buffer that grows would leave the plain text in freed memory.
    let mut bytes = Vec::with_capacity(plain.len().saturating_add(TAG_LEN));
    bytes.extend_from_slice(plain);
    let sealed = key.seal_in_place_append_tag(Aad::from(context), &mut bytes);
    let Ok(nonce) = sealed else {
        bytes.zeroize();
        return Err(SealError::Closed);
    };
    Ok([nonce.as_ref().as_slice(), &bytes].concat())
}

fn open(
    key: &RandomizedNonceKey,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, bytes) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Opened)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Opened)?;
    let mut plain = Zeroizing::new(bytes.to_vec());
    let opened = key.open_in_place(nonce, Aad::from(context), &mut plain);
    let length = opened.map_err(|_| SealError::Opened)?.len();
    plain.truncate(length);
    Ok(plain)
}

/// What was opened, as the text that was sealed.
fn text(mut plain: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, SealError> {
    let text = String::from_utf8(std::mem::take(&mut *plain)).map_err(|error| {
        error.into_bytes().zeroize();
        SealError::Opened
    })?;
    Ok(Zeroizing::new(text))
}

/// The version has a fixed length, so that no name and version look like another.
fn secret_context(name: &SecretName, version: u64) -> Vec<u8> {
    [version.to_be_bytes().as_slice(), name.as_str().as_bytes()].concat()
}

struct Bytes32;

impl KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

fn head_bytes(head: &ChainHead) -> [u8; 40] {
    let mut bytes = [0; 40];
    let (seq, hash) = bytes.split_at_mut(8);
    seq.copy_from_slice(&head.seq.get().to_be_bytes());
    hash.copy_from_slice(head.hash.bytes());
    bytes
}

/// One label a purpose: a key never serves two. AES-GCM with random nonces is safe for 2^32
/// seals under one key; at a thousand leases a second that is 49 days of continuous load beyond
/// which the chance of a nonce used twice passes 2^-32, and a journal of its own key starts anew.
const LABEL_HANDLES: &[u8] = b"claviger journal v1: handles";

/// See [`LABEL_HANDLES`].
const LABEL_ISSUER_KEYS: &[u8] = b"claviger journal v1: issuer keys";

/// See [`LABEL_HANDLES`].
const LABEL_SECRETS: &[u8] = b"claviger journal v1: secrets";

/// See [`LABEL_HANDLES`].
const LABEL_HEADS: &[u8] = b"claviger journal v1: head";

/// See [`LABEL_HANDLES`]. Also the salt: no journal has an id of this length.
const LABEL_COMPONENTS: &[u8] = b"claviger components v1: seal";

/// An intent id has 16 bytes and this has another length, so that a probe is never a handle.
const AAD_PROBE: &[u8] = b"probe";

/// Of AES-GCM.
const TAG_LEN: usize = 16;

const PROBE: &[u8] = b"the key of this journal";

#[cfg(test)]
mod tests {
    use claviger_core::journal::{EntryHash, JournalSeq};
    use claviger_core::time::Timestamp;

    use super::*;

    fn seals(key: u8, journal: u8) -> Seals {
        Seals::derive(&SealingKey::take(&mut [key; 32]), &[journal; 16]).unwrap()
    }

    fn id(random: u8) -> IntentId {
        IntentId::mint(Timestamp::from_unix_millis(1), &[random; 10])
    }

    #[test]
    fn takes_the_key_away_from_the_caller() {
        let mut bytes = [7; 32];
        let _key = SealingKey::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
    }

    #[test]
    fn a_handle_opens_only_for_its_lease_its_journal_and_its_key() {
        let handle = Handle::new(Zeroizing::new("role-17".to_owned()));
        let sealed = seals(1, 1).seal_handle(id(1), &handle).unwrap();
        assert_eq!(seals(1, 1).open_handle(id(1), &sealed).unwrap().as_str(), "role-17");
        for (key, journal, lease) in [(2, 1, 1), (1, 2, 1), (1, 1, 2)] {
            let opened = seals(key, journal).open_handle(id(lease), &sealed);
            assert_eq!(opened.err(), Some(SealError::Opened), "{key} {journal} {lease}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(seals(1, 1).open_handle(id(1), &changed).is_err(), "byte {at}");
        }
        assert!(seals(1, 1).open_handle(id(1), &[]).is_err());
    }

    #[test]
    fn an_issuer_key_opens_only_under_its_own_name_and_never_as_a_handle() {
        let sealed = seals(1, 1).seal_issuer_key("a", b"key").unwrap();
        assert_eq!(seals(1, 1).open_issuer_key("a", &sealed).unwrap().as_slice(), b"key");
        assert!(seals(1, 1).open_issuer_key("b", &sealed).is_err());
        assert!(seals(2, 1).open_issuer_key("a", &sealed).is_err());
        let handles = &seals(1, 1).handles;
        assert!(open(handles, b"a", &sealed).is_err(), "another key derived from the same");
    }

    #[test]
    fn a_secret_opens_only_under_its_own_name_and_version() {
        let name = |text: &str| text.parse::<SecretName>().unwrap();
        let sealed = seals(1, 1).seal_secret((&name("aws/prod"), 2), "value").unwrap();
        let opened = |key, text: &str, version| {
            seals(key, 1).open_secret((&name(text), version), &sealed).ok()
        };
        assert_eq!(opened(1, "aws/prod", 2).as_deref().map(String::as_str), Some("value"));
        for (key, text, version) in [(2, "aws/prod", 2), (1, "aws/test", 2), (1, "aws/prod", 1)] {
            assert!(opened(key, text, version).is_none(), "{key} {text} {version}");
        }
        assert!(seals(1, 1).open_issuer_key("aws/prod", &sealed).is_err(), "another purpose");
    }

    #[test]
    fn the_same_handle_never_looks_the_same() {
        let handle = Handle::new(Zeroizing::new("role-17".to_owned()));
        let seal = || seals(1, 1).seal_handle(id(1), &handle).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_head_is_sealed_with_its_number_and_its_hash() {
        let head = |seq, byte| ChainHead {
            seq: JournalSeq::durable(seq),
            hash: EntryHash::from_bytes([byte; 32]),
        };
        let seal = seals(1, 1).seal_head(&head(5, 5));
        assert!(seals(1, 1).is_sealed(&head(5, 5), &seal));
        assert!(!seals(1, 1).is_sealed(&head(4, 5), &seal));
        assert!(!seals(1, 1).is_sealed(&head(5, 4), &seal));
        assert!(!seals(2, 1).is_sealed(&head(5, 5), &seal));
    }

    #[test]
    fn the_probe_tells_a_wrong_key() {
        let sealed = seals(1, 1).seal_probe().unwrap();
        assert!(seals(1, 1).opens_probe(&sealed));
        assert!(!seals(2, 1).opens_probe(&sealed));
    }
}
