//! Who asks and for whom, proven by tokens: from a token as somebody sent it to a `Principal` or a
//! `Requester`. Knows no connection and no session; decides nothing.

mod aws;
mod claims;
mod delegation;
mod error;
mod keys;
mod place;
mod preset;
mod published;
mod remote;
mod review;
mod spiffe;
mod strict;
mod token;
mod trusted;
pub mod withdrawal;

use std::sync::Arc;

use claviger_core::principal::{Principal, Requester};
use claviger_core::time::Timestamp;

pub use aws::{AwsError, AwsIdentity, AwsSpec, UnverifiedRequest};
pub use claims::LEEWAY;
pub use error::{IdentityError, TokenError};
pub use place::{Place, PlaceError};
pub use preset::{Preset, SigningAlgorithm, Use};
pub use remote::{KeysSpec, Patience};
pub use review::{ReviewSpec, TokenReview};
pub use spiffe::{Bundle, Spiffe};
pub use token::ASYMMETRIC;
pub use trusted::{IssuerSpec, TrustedIssuer};

use published::Published;
use token::UnverifiedToken;

/// Everybody whose word is taken.
#[derive(Default)]
pub struct Identities {
    issuers: Vec<Arc<TrustedIssuer>>,
    aws: Option<AwsIdentity>,
    spiffe: Option<(Spiffe, Bundle)>,
}

impl Identities {
    /// Takes the word of these issuers. No two of them may be the same issuer for the same use.
    pub const fn new(issuers: Vec<Arc<TrustedIssuer>>) -> Self {
        Self { issuers, aws: None, spiffe: None }
    }

    /// Takes the word of AWS STS too.
    pub fn with_aws(self, aws: Option<AwsIdentity>) -> Self {
        Self { aws, ..self }
    }

    /// Takes the word of a SPIFFE trust domain too, whose bundle is there.
    pub fn with_spiffe(self, spiffe: Option<(Spiffe, Bundle)>) -> Self {
        Self { spiffe, ..self }
    }

    /// The trust domain whose workloads are taken: newer bundles go in here.
    pub fn spiffe(&self) -> Option<&Spiffe> {
        self.spiffe.as_ref().map(|(spiffe, _)| spiffe)
    }

    /// Keeps the bundle of the trust domain as its place has it, until it is dropped.
    pub async fn follow_bundle(&self) {
        if let Some((spiffe, bundle)) = &self.spiffe {
            spiffe.follow(bundle).await;
        }
    }

    /// Everybody whose keys prove somebody, by the name that a signer has, with those keys.
    pub fn signers(&self) -> Vec<(String, Arc<Published>)> {
        let issuers = self.issuers.iter().filter_map(|issuer| {
            Some((issuer.name().to_string(), Arc::clone(issuer.published()?)))
        });
        let spiffe = self.spiffe().map(|spiffe| (spiffe.signer_name(), Arc::clone(spiffe.keys())));
        issuers.chain(spiffe).collect()
    }

    /// The issuers.
    pub fn issuers(&self) -> &[Arc<TrustedIssuer>] {
        &self.issuers
    }

    /// The workload that a token proves.
    pub async fn workload(
        &self,
        unverified_token: &str,
        now: Timestamp,
    ) -> Result<Principal, IdentityError> {
        self.workload_of(unverified_token, now).await.map_err(IdentityError::Workload)
    }

    async fn workload_of(&self, text: &str, now: Timestamp) -> Result<Principal, TokenError> {
        let token = UnverifiedToken::parse(text)?;
        match (self.issuer_of(&token, Use::Workload), self.spiffe()) {
            (Ok(issuer), _) => issuer.workload(&token, now).await,
            (Err(_), Some(spiffe)) if token.claims_spiffe_id() => spiffe.workload(&token, now),
            (Err(unknown), _) => Err(unknown),
        }
    }

    /// The workload whose AWS credentials signed a request.
    pub async fn aws_workload(
        &self,
        request: &UnverifiedRequest<'_>,
        now: Timestamp,
    ) -> Result<Principal, IdentityError> {
        let aws = self.aws.as_ref().ok_or(IdentityError::Aws(AwsError::NotConfigured))?;
        aws.workload(request, now).await.map_err(IdentityError::Aws)
    }

    /// The requester that a token proves, for whom `principal` asks.
    pub async fn requester(
        &self,
        unverified_token: &str,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<Requester, IdentityError> {
        let requester = self.requester_of(unverified_token, principal, now).await;
        requester.map_err(IdentityError::Requester)
    }

    async fn requester_of(
        &self,
        text: &str,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<Requester, TokenError> {
        let token = UnverifiedToken::parse(text)?;
        let verified = self.issuer_of(&token, Use::Requester)?.requester(&token, now).await?;
        let act = delegation::chain(&verified.claims, |unverified_actor| {
            self.is_actor(unverified_actor, principal, &verified.issuer_url)
        })?;
        Ok(verified.into_requester(act))
    }

    /// Whether what a token calls its actor is `principal`: by the principal's own id, or by the
    /// subject that the issuer of its token gives it.
    fn is_actor(
        &self,
        actor: &delegation::UnverifiedActor<'_>,
        principal: &Principal,
        token_issuer: &str,
    ) -> bool {
        if actor.issuer.is_none() && actor.subject == principal.id() {
            return true;
        }
        let actor_issuer = actor.issuer.unwrap_or(token_issuer);
        self.issuers.iter().any(|issuer| {
            issuer.url() == actor_issuer && issuer.id_of(actor.subject) == principal.id()
        })
    }

    /// The issuer that a token claims to be of, if it is trusted for that.
    fn issuer_of(
        &self,
        token: &UnverifiedToken<'_>,
        wanted: Use,
    ) -> Result<&TrustedIssuer, TokenError> {
        let unverified_issuer = token.unverified_text("iss");
        let found = self
            .issuers
            .iter()
            .find(|issuer| Some(issuer.url()) == unverified_issuer && issuer.proves(wanted));
        found.map(Arc::as_ref).ok_or(TokenError::UnknownIssuer)
    }
}

#[cfg(test)]
mod tests;
