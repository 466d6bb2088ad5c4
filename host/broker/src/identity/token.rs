//! A signed token (RFC 7515, compact form) taken apart. Verifies no signature and believes no
//! claim: what it finds is unverified until `keys` has verified it.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use thiserror::Error;

use super::strict::{self, StrictError};

/// A token whose form is right.
pub struct UnverifiedToken<'a> {
    /// The signature that it claims to have.
    pub algorithm: Algorithm,
    /// The key that it claims to be signed with.
    pub kid: Option<String>,
    /// What it says.
    pub unverified_claims: Map<String, Value>,
    /// All of it, for whoever verifies it elsewhere.
    pub text: &'a str,
    /// What the signature covers.
    pub signed: &'a str,
    /// The signature, encoded.
    pub signature: &'a str,
}

/// Why text is no token that could be verified.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// It is longer than any issuer's tokens.
    #[error("it has more than {TOKEN_BYTES_MAX} bytes")]
    Oversized,
    /// It is not three parts in base64.
    #[error("it is no signed token: three parts in base64url, without padding, between dots")]
    Parts,
    /// The header cannot be read.
    #[error("its header cannot be read: {0}")]
    Header(StrictError),
    /// The claims cannot be read.
    #[error("its claims cannot be read: {0}")]
    Claims(StrictError),
    /// It bears no signature that is taken.
    #[error("its `alg` is no asymmetric signature that this broker takes")]
    Algorithm,
    /// It names its own key.
    #[error("its header names a key or a place for one (`{0}`): keys come from the issuer alone")]
    OwnKey(&'static str),
    /// It demands what is not understood.
    #[error("its header demands an extension (`{0}`) that this broker does not know")]
    Extension(&'static str),
    /// It is of another kind, such as a logout token.
    #[error("it is a token of another kind: an ID token or an access token is wanted")]
    Kind,
}

impl<'a> UnverifiedToken<'a> {
    /// Takes `text` apart. What is too long is refused before anything of it is read.
    pub fn parse(text: &'a str) -> Result<Self, FormError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(FormError::Oversized);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(FormError::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(FormError::Parts)?;
        let decoded =
            |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| FormError::Parts);
        // The header first: what has no signature says so in its `alg`.
        let (algorithm, kid) = read_header(&decoded(header)?)?;
        if decoded(signature)?.is_empty() {
            return Err(FormError::Parts);
        }
        let unverified_claims = strict::object(&decoded(claims)?).map_err(FormError::Claims)?;
        if unverified_claims.contains_key("events") {
            return Err(FormError::Kind);
        }
        Ok(Self { algorithm, kid, unverified_claims, text, signed, signature })
    }

    /// Whether its subject looks like a SPIFFE id.
    pub fn claims_spiffe_id(&self) -> bool {
        self.unverified_text("sub").is_some_and(|subject| subject.starts_with("spiffe://"))
    }

    /// The claim `name`, if it is text.
    pub fn unverified_text(&self, name: &str) -> Option<&str> {
        self.unverified_claims.get(name).and_then(Value::as_str)
    }
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, Option<String>), FormError> {
    let header = strict::object(bytes).map_err(FormError::Header)?;
    if let Some(name) = EXTENSIONS.into_iter().find(|name| header.contains_key(*name)) {
        return Err(FormError::Extension(name));
    }
    if let Some(name) = OWN_KEYS.into_iter().find(|name| header.contains_key(*name)) {
        return Err(FormError::OwnKey(name));
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(FormError::Header(StrictError::Malformed)),
    };
    let kind = text("typ")?.unwrap_or("JWT").to_ascii_lowercase();
    if !KINDS.contains(&kind.trim_start_matches("application/")) {
        return Err(FormError::Kind);
    }
    let algorithm: Algorithm = text("alg")?
        .and_then(|name| name.parse().ok())
        .filter(|algorithm| ASYMMETRIC.contains(algorithm))
        .ok_or(FormError::Algorithm)?;
    let kid = text("kid")?.map(str::to_owned);
    if kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(FormError::Header(StrictError::Malformed));
    }
    Ok((algorithm, kid))
}

/// Every signature that is taken: those whose verifier cannot sign. `none` and those with a shared
/// secret are not among them, so that a public key never becomes a secret.
pub const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Headers by which a token would bring its own key, or have one fetched. Refused and not merely
/// ignored: an honest issuer has no use for them here, and a refusal is seen.
const OWN_KEYS: [&str; 4] = ["jku", "jwk", "x5u", "x5c"];

/// Headers that change how the token is to be read.
const EXTENSIONS: [&str; 3] = ["crit", "b64", "zip"];

/// The kinds of tokens that name somebody (RFC 7519, RFC 9068, JWT-SVID). Others, such as
/// `logout+jwt` and `secevent+jwt`, are signed with the same keys for other ends.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "jose"];

/// Tokens with hundreds of groups have 10 KiB; a larger one also fits in no header on its way.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A hash in hexadecimal digits has 64, and some issuers use URLs.
const KID_BYTES_MAX: usize = 512;
