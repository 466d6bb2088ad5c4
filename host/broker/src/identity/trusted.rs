//! One issuer whose tokens are taken: verifies a token against its keys and what it must say, and
//! makes of it whom it proves. Fetches no key itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::IssuerName;
use claviger_core::principal::{Grounds, Principal, Requester, Signer};
use claviger_core::time::Timestamp;
use serde_json::{Map, Value};

use super::claims::{self, Expected};
use super::error::TokenError;
use super::preset::Use;
use super::published::Published;
use super::remote::{KeysSpec, RemoteKeys};
use super::review::TokenReview;
use super::token::UnverifiedToken;
use crate::egress::http::Exchange;

/// What the configuration says of an issuer, checked.
#[derive(Clone, Debug)]
pub struct IssuerSpec {
    /// Its name in the configuration, and in ids.
    pub name: IssuerName,
    /// What its tokens prove.
    pub uses: Vec<Use>,
    /// The audience that they must name.
    pub audience: String,
    /// Each tag, and where its claim stands.
    pub tags: Vec<(String, String)>,
    /// The claim that lists groups.
    pub groups_claim: String,
    /// How old a token may be.
    pub max_age: Duration,
    /// The claim `iss`, and where its keys are.
    pub keys: KeysSpec,
}

/// An issuer whose tokens are taken.
pub struct TrustedIssuer {
    spec: IssuerSpec,
    verifier: Verifier,
}

/// Who tells whether a token is the issuer's.
enum Verifier {
    /// Its published keys.
    Keys(RemoteKeys),
    /// Its API server.
    Review(TokenReview),
}

/// What a requester's token says, verified.
pub struct VerifiedRequester {
    /// Everything that it says.
    pub claims: Map<String, Value>,
    /// The issuer, as the token names it.
    pub issuer_url: String,
    id: String,
    groups: Vec<String>,
    signer: Option<Signer>,
}

impl TrustedIssuer {
    /// The issuer of `spec`, whose keys are fetched over `exchange`.
    pub fn new(spec: IssuerSpec, exchange: Arc<dyn Exchange>) -> Self {
        let verifier = Verifier::Keys(RemoteKeys::new(spec.keys.clone(), exchange));
        Self { spec, verifier }
    }

    /// The issuer of `spec`, whose tokens an API server reviews.
    pub const fn reviewed(spec: IssuerSpec, review: TokenReview) -> Self {
        Self { spec, verifier: Verifier::Review(review) }
    }

    /// Its name in the configuration.
    pub const fn name(&self) -> &IssuerName {
        &self.spec.name
    }

    /// The claim `iss` of its tokens.
    pub fn url(&self) -> &str {
        &self.spec.keys.issuer
    }

    /// Whether its tokens prove that.
    pub fn proves(&self, wanted: Use) -> bool {
        self.spec.uses.contains(&wanted)
    }

    /// The id of whom it calls `subject`.
    pub fn id_of(&self, subject: &str) -> String {
        format!("oidc:{}:{subject}", self.spec.name)
    }

    /// The keys that it published, if they are what its tokens are verified with.
    pub const fn published(&self) -> Option<&Arc<Published>> {
        match &self.verifier {
            Verifier::Keys(keys) => Some(keys.published()),
            Verifier::Review(_) => None,
        }
    }

    /// Keeps its keys fresh, until it is dropped.
    pub async fn keep_fresh(&self) {
        if let Verifier::Keys(keys) = &self.verifier {
            keys.keep_fresh().await;
        }
    }

    /// The workload that `token` proves.
    pub async fn workload(
        &self,
        token: &UnverifiedToken<'_>,
        now: Timestamp,
    ) -> Result<Principal, TokenError> {
        let signer = self.verify(token, now).await?;
        // From here on the claims are verified.
        let claims = &token.unverified_claims;
        let id = self.id_of(claims::subject(claims)?);
        let pointers = self.spec.tags.iter().map(|(tag, at)| (tag.as_str(), at.as_str()));
        let mut tags = BTreeMap::from([
            ("method".to_owned(), "oidc".to_owned()),
            ("issuer".to_owned(), self.spec.name.to_string()),
        ]);
        tags.extend(claims::tags(claims, pointers)?);
        Ok(match signer {
            Some(signer) => Principal::from_signed_token(id, tags, signer),
            None => Principal::from_inquiry(id, tags),
        })
    }

    /// Whom `token` proves as a requester; who acts for it is still to be looked at.
    pub async fn requester(
        &self,
        token: &UnverifiedToken<'_>,
        now: Timestamp,
    ) -> Result<VerifiedRequester, TokenError> {
        let signer = self.verify(token, now).await?;
        // From here on the claims are verified.
        let claims = token.unverified_claims.clone();
        let groups = claims::groups(&claims, &self.spec.groups_claim)?;
        let groups = groups.iter().map(|group| format!("{}:{group}", self.spec.name)).collect();
        let id = self.id_of(claims::subject(&claims)?);
        Ok(VerifiedRequester { claims, issuer_url: self.url().to_owned(), id, groups, signer })
    }

    /// Whose signature the token bears, where that is known: an API server does not tell.
    async fn verify(
        &self,
        token: &UnverifiedToken<'_>,
        now: Timestamp,
    ) -> Result<Option<Signer>, TokenError> {
        let expected = Expected {
            issuer: Some(self.url()),
            audience: &self.spec.audience,
            max_age: Some(self.spec.max_age),
            now,
        };
        match &self.verifier {
            Verifier::Keys(keys) => {
                let keys = keys.naming(token.kid.as_deref()).await;
                let keys =
                    keys.ok_or_else(|| TokenError::Unavailable(self.spec.name.to_string()))?;
                let key = keys.verify(token)?.to_owned();
                expected.check(&token.unverified_claims)?;
                Ok(Some(Signer { issuer: self.spec.name.to_string(), key }))
            }
            Verifier::Review(review) => {
                // Nobody is asked about what counts for nothing here.
                expected.check(&token.unverified_claims)?;
                let unverified_subject = claims::subject(&token.unverified_claims)?;
                let user = review.user_of(token.text, &self.spec.audience).await?;
                let is_same = user == unverified_subject;
                is_same.then_some(None).ok_or(TokenError::NotReviewed)
            }
        }
    }
}

impl VerifiedRequester {
    /// The requester for whom `act` act.
    pub fn into_requester(self, act: Vec<String>) -> Requester {
        let name = claims::display_name(&self.claims);
        let groups = self.groups.into_iter().collect();
        let grounds = Grounds { groups, act, signer: self.signer };
        Requester::from_signed_token(self.id, name, grounds)
    }
}
