//! A Google service account's key: signs the assertion (RFC 7523) that its token endpoint takes.

use std::sync::Arc;

use claviger_core::time::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::AuthError;
use crate::egress::redact::SharedSecret;

/// A service account with its key.
pub(super) struct ServiceAccount {
    email: String,
    key_id: String,
    token_uri: String,
    scopes: Vec<String>,
    pem: Zeroizing<String>,
    key: EncodingKey,
}

/// The part of the key file that counts.
#[derive(Deserialize)]
struct KeyFile {
    r#type: String,
    client_email: String,
    private_key_id: String,
    private_key: String,
    token_uri: String,
}

impl ServiceAccount {
    /// Reads a key file, and proves that its key signs.
    pub(super) fn parse(json: &str, scopes: Vec<String>) -> Result<Self, AuthError> {
        // The parser's message could repeat a part of the key.
        let file: KeyFile = serde_json::from_str(json)
            .map_err(|_| AuthError::GoogleKey("it is not JSON with all the fields of one"))?;
        let pem = Zeroizing::new(file.private_key);
        if file.r#type != "service_account" {
            return Err(AuthError::GoogleKey("its `type` is not `service_account`"));
        }
        if scopes.is_empty() {
            return Err(AuthError::Empty("scopes"));
        }
        let key = EncodingKey::from_rsa_pem(pem.as_bytes())
            .map_err(|_| AuthError::GoogleKey("its `private_key` is not an RSA key in PEM"))?;
        let account = Self {
            email: file.client_email,
            key_id: file.private_key_id,
            token_uri: file.token_uri,
            scopes,
            pem,
            key,
        };
        let proof = account.assertion(Timestamp::from_unix_millis(0));
        proof.map(|_| account).ok_or(AuthError::GoogleKey("its `private_key` does not sign"))
    }

    /// Where tokens are asked for.
    pub(super) fn token_uri(&self) -> &str {
        &self.token_uri
    }

    /// The key as it is written in the file, as it is meant, and without its line breaks.
    pub(super) fn secrets(&self, file: Zeroizing<String>) -> Vec<SharedSecret> {
        let body: String = self.pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let forms = [file, self.pem.clone(), Zeroizing::new(body)];
        forms.into_iter().map(Arc::new).collect()
    }

    /// An assertion for a token with the configured scopes.
    pub(super) fn assertion(&self, now: Timestamp) -> Option<SharedSecret> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        let claims = json!({
            "iss": self.email,
            "scope": self.scopes.join(" "),
            "aud": self.token_uri,
            "iat": now.unix_secs(),
            "exp": now.unix_secs() + ASSERTION_SECS,
        });
        let token = jsonwebtoken::encode(&header, &claims, &self.key).ok()?;
        Some(Arc::new(Zeroizing::new(token)))
    }
}

/// The longest that Google takes; the token's life follows it.
const ASSERTION_SECS: u64 = 3600;
