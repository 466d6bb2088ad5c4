//! The public keys of an issuer (RFC 7517) and what they verify. Fetches none: `remote` does.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::strict::{self, StrictError};
use super::token::{ASYMMETRIC, UnverifiedToken};

/// The usable keys of one issuer, at one moment.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// One key and the signatures that it verifies.
#[derive(Debug)]
pub struct PublicKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    thumbprint: String,
}

/// A document that is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// It cannot be read.
    #[error("it is no set of keys: {0}")]
    Malformed(#[from] StrictError),
    /// It has no list of keys, or one that is too long.
    #[error("it has no `keys`, or more than {KEYS_MAX}")]
    Keys,
    /// None of its keys can be used.
    #[error("none of its keys is a public key that verifies signatures")]
    NoneUsable,
}

/// Why no key verifies a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The issuer has no such key.
    #[error("its issuer publishes no such key (`kid`)")]
    UnknownKey,
    /// It does not say which of several keys.
    #[error("it does not say which of its issuer's keys signed it (`kid`)")]
    KeyNotNamed,
    /// The key is for other signatures.
    #[error("its issuer's key does not make signatures of its `alg`")]
    OtherAlgorithm,
    /// The signature is not that key's.
    #[error("its signature is wrong")]
    Wrong,
}

impl KeySet {
    /// The keys of a JWK set that verify signatures of one of `allowed`. Keys of other kinds and
    /// uses are left out: an issuer may publish them for others.
    pub fn parse(document: &[u8], allowed: &[Algorithm]) -> Result<Self, KeySetError> {
        let document = strict::object(document)?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::Keys)?;
        if listed.len() > KEYS_MAX {
            return Err(KeySetError::Keys);
        }
        let objects = listed.iter().filter_map(Value::as_object);
        let keys: Vec<_> = objects.filter_map(|key| PublicKey::read(key, allowed)).collect();
        if keys.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self { keys }) }
    }

    /// Whether it can tell which key a token with that `kid` means.
    pub fn names(&self, kid: Option<&str>) -> bool {
        kid.is_none() || self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }

    /// Whether a key with that thumbprint is in it.
    pub fn holds(&self, thumbprint: &str) -> bool {
        self.keys.iter().any(|key| key.thumbprint == thumbprint)
    }

    /// The thumbprint of the key that signed `token`.
    pub fn verify(&self, token: &UnverifiedToken<'_>) -> Result<&str, SignatureError> {
        let key = self.key_of(token)?;
        // What may be verified is the key's word, never the token's: a header that chooses how a
        // key is used turns a public key into a shared secret.
        if !key.algorithms.contains(&token.algorithm) {
            return Err(SignatureError::OtherAlgorithm);
        }
        let signed = token.signed.as_bytes();
        match crypto::verify(token.signature, signed, &key.decoding, token.algorithm) {
            Ok(true) => Ok(&key.thumbprint),
            Ok(false) | Err(_) => Err(SignatureError::Wrong),
        }
    }

    fn key_of(&self, token: &UnverifiedToken<'_>) -> Result<&PublicKey, SignatureError> {
        let Some(kid) = token.kid.as_deref() else {
            return match self.keys.as_slice() {
                [only] => Ok(only),
                _ => Err(SignatureError::KeyNotNamed),
            };
        };
        let mut named = self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
        match (named.next(), named.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(SignatureError::KeyNotNamed),
            (None, _) => Err(SignatureError::UnknownKey),
        }
    }
}

impl PublicKey {
    fn read(key: &Map<String, Value>, allowed: &[Algorithm]) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if !text("use").is_none_or(|used| USES.contains(&used)) || !may_verify(key) {
            return None;
        }
        let (decoding, fits, canonical) = match text("kty")? {
            "RSA" => rsa(text("n")?, text("e")?)?,
            "EC" => elliptic(text("crv")?, text("x")?, text("y")?)?,
            "OKP" => edwards(text("crv")?, text("x")?)?,
            _ => return None,
        };
        let own: Option<Algorithm> = match text("alg") {
            Some(name) => Some(name.parse().ok()?),
            None => None,
        };
        let is_meant = |algorithm: &&Algorithm| {
            fits.contains(*algorithm)
                && allowed.contains(*algorithm)
                && own.is_none_or(|own| own == **algorithm)
        };
        let algorithms: Vec<_> = ASYMMETRIC.iter().filter(is_meant).copied().collect();
        let thumbprint = BASE64URL_NOPAD.encode(&Sha256::digest(canonical.to_string().as_bytes()));
        let kid = text("kid").map(str::to_owned);
        (!algorithms.is_empty()).then_some(Self { kid, algorithms, decoding, thumbprint })
    }
}

fn may_verify(key: &Map<String, Value>) -> bool {
    match key.get("key_ops") {
        None => true,
        Some(Value::Array(operations)) => operations.iter().any(|one| one == "verify"),
        Some(_) => false,
    }
}

/// A key, the signatures that its kind makes, and what its thumbprint covers (RFC 7638).
type Material = (DecodingKey, &'static [Algorithm], Value);

fn rsa(n: &str, e: &str) -> Option<Material> {
    let modulus = BASE64URL_NOPAD.decode(n.as_bytes()).ok()?;
    if !(RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&modulus.len()) {
        return None;
    }
    let key = DecodingKey::from_rsa_components(n, e).ok()?;
    Some((key, &RSA, json!({ "e": e, "kty": "RSA", "n": n })))
}

fn elliptic(curve: &str, x: &str, y: &str) -> Option<Material> {
    let (fits, bytes): (&'static [Algorithm], usize) = match curve {
        "P-256" => (&[Algorithm::ES256], 32),
        "P-384" => (&[Algorithm::ES384], 48),
        _ => return None,
    };
    for coordinate in [x, y] {
        let decoded = BASE64URL_NOPAD.decode(coordinate.as_bytes()).ok()?;
        if decoded.len() != bytes {
            return None;
        }
    }
    let key = DecodingKey::from_ec_components(x, y).ok()?;
    Some((key, fits, json!({ "crv": curve, "kty": "EC", "x": x, "y": y })))
}

fn edwards(curve: &str, x: &str) -> Option<Material> {
    if curve != "Ed25519" || BASE64URL_NOPAD.decode(x.as_bytes()).ok()?.len() != 32 {
        return None;
    }
    let key = DecodingKey::from_ed_components(x).ok()?;
    let is_edwards = key.family() == AlgorithmFamily::Ed;
    is_edwards.then_some((key, &[Algorithm::EdDSA], json!({ "crv": curve, "kty": "OKP", "x": x })))
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// `jwt-svid` is how SPIFFE bundles mark the keys of their tokens.
const USES: [&str; 2] = ["sig", "jwt-svid"];

/// 2048 bits: shorter keys are factored.
const RSA_BYTES_MIN: usize = 256;

/// 8192 bits: more only costs whoever verifies.
const RSA_BYTES_MAX: usize = 1024;

/// Large issuers publish a dozen.
const KEYS_MAX: usize = 64;
