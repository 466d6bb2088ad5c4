//! The issuer's keys: which one signs, which are published, and what is due. Pure but for the
//! making of a key; keeps nothing durable.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use claviger_core::time::Timestamp;
use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{TOKEN_LIFE_MAX, TendError, page};
use crate::journal::{IssuerKey, KeyChange};

/// The keys in use, in the order in which they sign.
#[derive(Default)]
pub(super) struct KeyRing(Vec<RingKey>);

struct RingKey {
    jwk: Value,
    signs_from: Timestamp,
    private: Option<Signer>,
}

/// A private half, read once: reading it takes as long as signing.
struct Signer {
    pair: EcdsaKeyPair,
    /// The header of its tokens, as it stands in them.
    header: String,
}

impl KeyRing {
    /// The ring of the keys that are kept.
    pub(super) fn of(kept: Vec<IssuerKey>) -> Result<Self, TendError> {
        let key = |key: IssuerKey| {
            let jwk = serde_json::from_str(&key.jwk);
            Ok(RingKey {
                jwk: jwk.map_err(|_| TendError::Key("a public half is no JSON"))?,
                private: key.pkcs8.map(|pkcs8| Signer::of(&pkcs8, &key.kid)).transpose()?,
                signs_from: key.signs_from,
            })
        };
        let mut keys = kept.into_iter().map(key).collect::<Result<Vec<_>, TendError>>()?;
        keys.sort_by_key(|key| key.signs_from);
        Ok(Self(keys))
    }

    /// A ring of one new key, which is kept nowhere else.
    pub(super) fn passing(now: Timestamp) -> Result<Self, TendError> {
        Self::of(vec![make(now, now)?])
    }

    /// A token with `claims`; `None` if there is no key that signs.
    pub(super) fn sign(&self, claims: &Map<String, Value>, now: Timestamp) -> Option<String> {
        self.signer(now)?.private.as_ref()?.sign(claims)
    }

    /// The newest key whose time has come. A clock that was set back finds only later keys, and
    /// then takes the first of those: they are published already.
    fn signer(&self, now: Timestamp) -> Option<&RingKey> {
        let mut able = self.0.iter().filter(|key| key.private.is_some());
        let started = able.clone().rfind(|key| key.signs_from <= now);
        started.or_else(|| able.next())
    }

    /// The published keys, a JWK set.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.0.iter().map(|key| &key.jwk).collect::<Vec<_>>() })
    }
}

impl Signer {
    fn of(pkcs8: &[u8], kid: &str) -> Result<Self, TendError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| TendError::Key("a private half is no key"))?;
        let mut header = Header::new(ALGORITHM);
        header.kid = Some(kid.to_owned());
        let header =
            serde_json::to_vec(&header).map_err(|_| TendError::Key("a header has no JSON form"))?;
        Ok(Self { pair, header: BASE64URL_NOPAD.encode(&header) })
    }

    /// In the compact form (RFC 7515, section 7.1).
    fn sign(&self, claims: &Map<String, Value>) -> Option<String> {
        let claims = serde_json::to_vec(claims).ok()?;
        let mut token = format!("{}.{}", self.header, BASE64URL_NOPAD.encode(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).ok()?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
        Some(token)
    }
}

/// What is due at `now`; `None` if nothing is.
///
/// A key is made `PUBLISH_AHEAD` before it signs. Its predecessor loses its private half once it
/// signs, and is dropped when the last token of the predecessor must have ended.
pub(super) fn due(
    mut kept: Vec<IssuerKey>,
    rotate_every: Duration,
    now: Timestamp,
) -> Result<Option<KeyChange>, TendError> {
    kept.sort_by_key(|key| key.signs_from);
    let mut change = KeyChange::default();
    match kept.last() {
        None => change.made = Some(make(now, now)?),
        Some(newest) if now >= before(newest.signs_from.after(rotate_every)) => {
            change.made = Some(make(now, now.after(PUBLISH_AHEAD))?);
        }
        Some(_) => {}
    }
    let followed: Vec<_> = kept.iter().skip(1).map(|key| key.signs_from).collect();
    for (key, next_signs_from) in kept.into_iter().zip(followed) {
        if next_signs_from.after(TOKEN_LIFE_MAX).after(SKEW) < now {
            change.dropped.push(key.kid);
        } else if next_signs_from.after(SKEW) < now && key.pkcs8.is_some() {
            change.silenced.push(IssuerKey { pkcs8: None, ..key });
        }
    }
    let nothing = change.made.is_none() && change.silenced.is_empty() && change.dropped.is_empty();
    Ok((!nothing).then_some(change))
}

fn before(at: Timestamp) -> Timestamp {
    let ahead = u64::try_from(PUBLISH_AHEAD.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_unix_millis(at.unix_millis().saturating_sub(ahead))
}

/// A new key. Its id is the thumbprint of its public half (RFC 7638).
fn make(now: Timestamp, signs_from: Timestamp) -> Result<IssuerKey, TendError> {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .map_err(|_| TendError::Key("the system made none"))?;
    let pkcs8 = Zeroizing::new(pkcs8.as_ref().to_vec());
    let mut jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(&pkcs8), ALGORITHM)
        .map_err(|_| TendError::Key("its public half cannot be read"))?;
    let kid = jwk
        .thumbprint(ThumbprintHash::SHA256)
        .map_err(|_| TendError::Key("its thumbprint cannot be computed"))?;
    jwk.common.key_id = Some(kid.clone());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    let jwk = serde_json::to_string(&jwk)
        .map_err(|_| TendError::Key("its public half has no JSON form"))?;
    Ok(IssuerKey { kid, jwk, pkcs8: Some(pkcs8), made_at: now, signs_from })
}

/// The one algorithm: small keys, and known to every relying party.
pub(super) const ALGORITHM: Algorithm = Algorithm::ES256;

/// Four times what relying parties may keep the page: the new key is known before it signs.
const PUBLISH_AHEAD: Duration = Duration::from_secs(4 * page::MAX_AGE_SECS);

/// Relying parties forgive a few minutes, and a call that began before the change may end after.
const SKEW: Duration = Duration::from_mins(5);
