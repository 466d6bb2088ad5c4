//! Signs JWT-SVIDs for a trust domain, and writes its bundle as a Workload API does.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// A key that signs JWT-SVIDs.
pub struct JwtAuthority {
    kid: &'static str,
    key: KeyPair,
}

impl JwtAuthority {
    /// A new key of that name.
    pub fn new(kid: &'static str) -> Self {
        Self { kid, key: KeyPair::generate().expect("a key") }
    }

    /// A JWT-SVID of `id` for `audience`, good for five minutes.
    pub fn svid(&self, id: &str, audience: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({ "sub": id, "aud": [audience], "iat": now, "exp": now + 300 });
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.key.serialize_pem().as_bytes()).expect("a key");
        encode(&header, &claims, &key).expect("signed")
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key_raw();
        let part = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        json!({
            "use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": self.kid,
            "x": part(&point[1..33]), "y": part(&point[33..65]),
        })
    }
}

/// The bundle of a trust domain with these keys.
pub fn bundle(keys: &[&JwtAuthority]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}
