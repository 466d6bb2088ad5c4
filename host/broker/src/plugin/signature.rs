//! Checks the signature of a component: minisign's format, Ed25519 keys that the operator trusts.
//! Signs nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use minisign_verify::{Error as MinisignError, PublicKey, Signature};
use serde::Deserialize;
use thiserror::Error;

use super::manifest::Manifest;

/// How a plugin must be signed.
#[derive(Clone, Debug)]
pub struct Signing {
    /// When a signature is demanded.
    pub require: Requirement,
    /// The text of the signature file, if there is one.
    pub signature: Option<String>,
    /// Where it is, or would be, for messages.
    pub path: PathBuf,
    /// Whose signatures count.
    pub trusted: Arc<[TrustedKey]>,
}

impl Signing {
    /// No signature is looked at.
    pub fn unchecked() -> Self {
        Self {
            require: Requirement::NeverAndIAcceptUnsignedPlugins,
            signature: None,
            path: PathBuf::new(),
            trusted: Arc::new([]),
        }
    }
}

/// When a signature is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// From every plugin.
    Always,
    /// From a plugin whose digest is not pinned. One that is there must be good all the same.
    UnlessPinned,
    /// From none; a signature is not looked at.
    NeverAndIAcceptUnsignedPlugins,
}

/// A key whose signatures count.
#[derive(Clone)]
pub struct TrustedKey {
    key: PublicKey,
    text: String,
}

/// What is known of who made a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureState {
    /// Signed with this trusted key.
    Signed(String),
    /// Not signed, or not looked at: the digest is pinned or the operator accepts it.
    Unsigned,
}

/// Why a plugin is refused for its signature. Each reads after the plugin's path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// None is there.
    #[error(
        "is not signed: there is no `{}`; sign it with `clavigerd plugin sign`", .0.display()
    )]
    Missing(PathBuf),
    /// Nobody is trusted.
    #[error(
        "cannot be trusted by its signature, because no key is trusted: write the publisher's under `trusted_keys` of `[signing]`"
    )]
    NoTrustedKey,
    /// Not of the format.
    #[error("has a signature that cannot be read: {0}")]
    Malformed(String),
    /// Signed by somebody else.
    #[error(
        "is signed with a key that is not trusted: if you trust its publisher, write the key under `trusted_keys` of `[signing]`"
    )]
    UnknownKey,
    /// A good key, but other bytes or another comment.
    #[error("is not what was signed: its bytes or the signature were changed")]
    OtherBytes,
    /// A good signature under another name.
    #[error(
        "is `{found}`, but its signature does not say so: the trusted comment is `{signed}`, so it may be an earlier version or another plugin"
    )]
    OtherPlugin {
        /// What the manifest says.
        found: String,
        /// What was signed.
        signed: String,
    },
}

/// A key that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a minisign public key: copy the line that begins with `RW` from the `.pub` file"
)]
pub struct KeyError(String);

impl std::str::FromStr for TrustedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let key = PublicKey::from_base64(text).map_err(|_| KeyError(text.to_owned()))?;
        Ok(Self { key, text: text.to_owned() })
    }
}

impl fmt::Debug for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for SignatureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signed(key) => write!(f, "signed by {key}"),
            Self::Unsigned => f.write_str("unsigned"),
        }
    }
}

impl Signing {
    /// What the signature of `wasm` is worth; `pin` is the digest that the operator wrote down,
    /// which `wasm` is already known to have.
    pub(super) fn check(
        &self,
        wasm: &[u8],
        manifest: &Manifest,
        pin: Option<[u8; 32]>,
    ) -> Result<SignatureState, SignatureError> {
        match (self.require, &self.signature) {
            (Requirement::NeverAndIAcceptUnsignedPlugins, _) => Ok(SignatureState::Unsigned),
            (Requirement::UnlessPinned, None) if pin.is_some() => Ok(SignatureState::Unsigned),
            (Requirement::Always | Requirement::UnlessPinned, signature) => {
                if self.trusted.is_empty() {
                    return Err(SignatureError::NoTrustedKey);
                }
                let Some(signature) = signature else {
                    return Err(SignatureError::Missing(self.path.clone()));
                };
                let key = verify(signature, wasm, &signed_name(manifest), &self.trusted)?;
                Ok(SignatureState::Signed(key))
            }
        }
    }
}

/// What the trusted comment of a plugin's signature says: `claviger.postgres@0.1.0`. Without it,
/// a signed earlier version with a known fault could be passed off as this one.
pub fn signed_name(manifest: &Manifest) -> String {
    format!("{}@{}", manifest.id, manifest.version)
}

/// Verifies that one of `trusted` signed `wasm` as `name`, and tells which.
pub fn verify(
    signature: &str,
    wasm: &[u8],
    name: &str,
    trusted: &[TrustedKey],
) -> Result<String, SignatureError> {
    let malformed = |error: MinisignError| SignatureError::Malformed(error.to_string());
    let signature = Signature::decode(signature).map_err(malformed)?;
    for trusted in trusted {
        // The legacy form signs the whole file at once and is not made any more.
        match trusted.key.verify(wasm, &signature, false) {
            Ok(()) => return named(&signature, name).map(|()| trusted.text.clone()),
            Err(MinisignError::UnexpectedKeyId) => {}
            Err(MinisignError::InvalidSignature) => return Err(SignatureError::OtherBytes),
            Err(error) => return Err(malformed(error)),
        }
    }
    Err(SignatureError::UnknownKey)
}

/// The comment may say more, such as the time, after a space or a tab.
fn named(signature: &Signature, name: &str) -> Result<(), SignatureError> {
    let signed = signature.trusted_comment();
    if signed.split_whitespace().any(|word| word == name) {
        return Ok(());
    }
    let signed = signed.chars().take(COMMENT_CHARS_MAX).collect();
    Err(SignatureError::OtherPlugin { found: name.to_owned(), signed })
}

/// Enough of a wrong comment to recognise it.
const COMMENT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use minisign::KeyPair;

    use super::*;

    fn manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "id": "x.y", "version": "1.2.0", "abi": super::super::manifest::ABI, "title": "t",
            "settings-schema": {}, "parameters-schema": {},
            "credential": {"kind": "k", "fields": {}},
            "revocation": {"class": "revocable", "residual-exposure-secs": 0},
            "ttl": {"min-secs": 1},
        }))
        .unwrap()
    }

    fn sign(pair: &KeyPair, bytes: &[u8], comment: &str) -> String {
        minisign::sign(None, &pair.sk, bytes, Some(comment), None).unwrap().to_string()
    }

    fn signing(require: Requirement, signature: Option<String>, keys: &[&KeyPair]) -> Signing {
        let trusted = keys.iter().map(|pair| pair.pk.to_base64().parse().unwrap()).collect();
        Signing { require, signature, path: "p.wasm.minisig".into(), trusted }
    }

    fn pair() -> KeyPair {
        KeyPair::generate_unencrypted_keypair().unwrap()
    }

    #[test]
    fn what_a_trusted_key_signed_is_accepted_with_any_of_the_keys() {
        let (one, two) = (pair(), pair());
        for comment in ["x.y@1.2.0", "x.y@1.2.0 timestamp:5", "timestamp:5\tx.y@1.2.0"] {
            let signing =
                signing(Requirement::Always, Some(sign(&two, b"wasm", comment)), &[&one, &two]);
            let found = signing.check(b"wasm", &manifest(), None);
            assert_eq!(found, Ok(SignatureState::Signed(two.pk.to_base64())), "{comment}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        use Requirement::{Always, UnlessPinned};
        let (mine, other) = (pair(), pair());
        let good = sign(&mine, b"wasm", "x.y@1.2.0");
        let changed_comment = good.replace("x.y@1.2.0", "x.y@1.2.1");
        let one: &[&KeyPair] = &[&mine];
        let cases = [
            ("missing", Always, None, one, "there is no `p.wasm.minisig`"),
            ("missing and unpinned", UnlessPinned, None, one, "there is no"),
            ("no key", Always, Some(good.clone()), &[], "no key is trusted"),
            ("no key, unpinned", UnlessPinned, Some(good.clone()), &[], "no key is trusted"),
            ("unknown key", Always, Some(good), &[&other], "not trusted"),
            ("garbage", Always, Some("hello".into()), one, "cannot be read"),
            ("empty", Always, Some(String::new()), one, "cannot be read"),
            (
                "other bytes",
                Always,
                Some(sign(&mine, b"wasn", "x.y@1.2.0")),
                one,
                "not what was signed",
            ),
            ("changed comment", Always, Some(changed_comment), one, "not what was signed"),
            (
                "another version",
                Always,
                Some(sign(&mine, b"wasm", "x.y@1.1.0")),
                one,
                "trusted comment is `x.y@1.1.0`",
            ),
        ];
        for (case, require, signature, keys, expect) in cases {
            let refused = signing(require, signature, keys).check(b"wasm", &manifest(), None);
            let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.contains(expect), "{case}: {told}");
        }
    }

    #[test]
    fn a_pin_stands_in_for_a_missing_signature_but_not_for_a_bad_one() {
        let mine = pair();
        let bad = Some(sign(&mine, b"wasn", "x.y@1.2.0"));
        let pin = Some([7; 32]);
        for (require, signature, expect) in [
            (Requirement::UnlessPinned, None, Ok(SignatureState::Unsigned)),
            (Requirement::UnlessPinned, bad.clone(), Err(SignatureError::OtherBytes)),
            (Requirement::Always, None, Err(SignatureError::Missing("p.wasm.minisig".into()))),
            (Requirement::NeverAndIAcceptUnsignedPlugins, bad, Ok(SignatureState::Unsigned)),
        ] {
            let found = signing(require, signature, &[&mine]).check(b"wasm", &manifest(), pin);
            assert_eq!(found, expect, "{require:?}");
        }
    }
}
