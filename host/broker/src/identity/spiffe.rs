//! Workloads of a SPIFFE trust domain, by JWT-SVIDs: verified against the domain's bundle, which a
//! file holds or whoever hears of newer ones puts in. X.509-SVIDs are the TLS listener's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::principal::{Principal, Signer};
use claviger_core::time::Timestamp;
use jsonwebtoken::Algorithm;
use spiffe::{SpiffeId, TrustDomain};

use super::claims::{self, ClaimError, Expected};
use super::error::TokenError;
use super::keys::{KeySet, KeySetError};
use super::published::Published;
use super::token::{ASYMMETRIC, UnverifiedToken};

/// A trust domain whose workloads are taken.
pub struct Spiffe {
    domain: TrustDomain,
    audience: String,
    keys: Arc<Published>,
}

impl Spiffe {
    /// The workloads of `domain` with tokens for `audience`; none before there is a bundle.
    pub fn new(domain: TrustDomain, audience: String) -> Self {
        Self { domain, audience, keys: Arc::default() }
    }

    /// Takes a newer bundle: a JWK set, as the Workload API streams it and files hold it. One
    /// without a usable key changes nothing.
    pub fn take_bundle(&self, document: &[u8]) -> Result<(), KeySetError> {
        let allowed: Vec<_> =
            ASYMMETRIC.into_iter().filter(|one| *one != Algorithm::EdDSA).collect();
        self.keys.put(KeySet::parse(document, &allowed)?);
        Ok(())
    }

    /// Its keys.
    pub const fn keys(&self) -> &Arc<Published> {
        &self.keys
    }

    /// Its name as a signer, which no issuer of the configuration can have.
    pub fn signer_name(&self) -> String {
        format!("spiffe://{}", self.domain)
    }

    /// The workload that a JWT-SVID proves: its SPIFFE id is the principal's.
    pub fn workload(
        &self,
        token: &UnverifiedToken<'_>,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let keys = self.keys.newest().map(|(keys, _)| keys);
        let keys = keys.ok_or_else(|| TokenError::Unavailable(self.signer_name()))?;
        let key = keys.verify(token)?.to_owned();
        // From here on the claims are verified. A JWT-SVID need not say when it was issued.
        let claims = &token.unverified_claims;
        Expected { issuer: None, audience: &self.audience, max_age: None, now }.check(claims)?;
        let id = claims::subject(claims)?;
        let malformed = || TokenError::Claim(ClaimError::Malformed("sub"));
        let parsed = SpiffeId::new(id).map_err(|_| malformed())?;
        if !parsed.is_member_of(&self.domain) || parsed.path().is_empty() {
            return Err(TokenError::UnknownIssuer);
        }
        let tags = BTreeMap::from([
            ("method".to_owned(), "jwt-svid".to_owned()),
            ("trust_domain".to_owned(), self.domain.to_string()),
        ]);
        let signer = Signer { issuer: self.signer_name(), key };
        Ok(Principal::from_signed_token(parsed.to_string(), tags, signer))
    }

    /// Reads the bundle's file now and then, until it is dropped. A file that cannot be read or
    /// used changes nothing.
    pub async fn follow_file(&self, path: PathBuf) {
        let mut before = Vec::new();
        loop {
            match tokio::fs::read(&path).await {
                Ok(document) if document == before => {}
                Ok(document) => {
                    if let Err(error) = self.take_bundle(&document) {
                        tracing::warn!(path = %path.display(), %error, "the bundle is left as it was");
                    }
                    before = document;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the bundle cannot be read");
                }
            }
            tokio::time::sleep(REREAD_EVERY).await;
        }
    }
}

/// A key that was taken out of the file is refused within this.
const REREAD_EVERY: Duration = Duration::from_secs(5);
