//! Workloads of a SPIFFE trust domain, by JWT-SVIDs: verified against the domain's bundle, which a
//! file holds or whoever hears of newer ones puts in. X.509-SVIDs are the TLS listener's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use claviger_core::principal::{Principal, Signer};
use claviger_core::time::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::value::RawValue;
use spiffe::bundle::jwt::JwtBundle;
use spiffe::jwt_source::{MetricsErrorKind, MetricsRecorder};
use spiffe::{JwtSource, SpiffeId, TrustDomain};

use super::claims::{self, ClaimError, Expected};
use super::error::TokenError;
use super::keys::{KeySet, KeySetError};
use super::published::Published;
use super::token::{ASYMMETRIC, UnverifiedToken};

/// Where the newest bundle of a trust domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bundle {
    /// In a file.
    File(PathBuf),
    /// In the stream of the Workload API at this place.
    Api(String),
}

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

    /// Keeps the bundle as that place has it, until it is dropped.
    pub async fn follow(&self, bundle: &Bundle) {
        match bundle {
            Bundle::File(path) => self.follow_file(path).await,
            Bundle::Api(uri) => self.follow_api(uri).await,
        }
    }

    /// Takes every bundle of the domain that a Workload API tells. While none tells any, the last
    /// one stays in force.
    async fn follow_api(&self, uri: &str) {
        loop {
            if let Err(problem) = self.listen(uri).await {
                tracing::warn!(
                    workload_api = uri,
                    problem,
                    "no JWT bundle from the Workload API: the last one stays in force"
                );
            }
            tokio::time::sleep(LISTEN_AGAIN_AFTER).await;
        }
    }

    async fn listen(&self, uri: &str) -> Result<(), String> {
        let source = JwtSource::builder()
            .endpoint(uri)
            .initial_sync_timeout(FIRST_ANSWER_MAX)
            .metrics(Arc::new(Outages))
            .build()
            .await;
        let source = source.map_err(|error| error.to_string())?;
        let mut updates = source.updated();
        loop {
            let told = source.bundle_set().map_err(|error| error.to_string())?;
            let bundle = told.get(&self.domain);
            let bundle = bundle.ok_or_else(|| format!("none of `{}`", self.domain))?;
            self.take_bundle(&document(&bundle)?).map_err(|error| error.to_string())?;
            updates.changed().await.map_err(|error| error.to_string())?;
        }
    }

    /// Reads the bundle's file now and then, until it is dropped. A file that cannot be read or
    /// used changes nothing.
    async fn follow_file(&self, path: &Path) {
        let mut before = Vec::new();
        loop {
            match tokio::fs::read(path).await {
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

/// Says what happens on the stream: the source itself says nothing.
struct Outages;

impl MetricsRecorder for Outages {
    fn record_update(&self) {}

    fn record_reconnect(&self) {}

    fn record_error(&self, kind: MetricsErrorKind) {
        tracing::warn!(
            problem = kind.as_str(),
            "the Workload API fails: its last JWT bundle stays in force"
        );
    }
}

/// The bundle as the JWK set that it was.
fn document(bundle: &JwtBundle) -> Result<Vec<u8>, String> {
    let keys = bundle.jwt_authorities().map(|key| serde_json::from_slice(key.jwk_json()));
    let keys: Result<Vec<Box<RawValue>>, _> = keys.collect();
    let keys = keys.map_err(|error| error.to_string())?;
    serde_json::to_vec(&BTreeMap::from([("keys", keys)])).map_err(|error| error.to_string())
}

/// As long as the TLS listeners wait for their first answer.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(15);

/// A Workload API that has no bundle for the broker is asked again after this; one that streams
/// says by itself what is new.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// A key that was taken out of the file is refused within this.
const REREAD_EVERY: Duration = Duration::from_secs(5);
