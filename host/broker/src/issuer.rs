//! The broker as an issuer of tokens (RFC 7519): signs with ES256 what the host alone names as
//! issuer, subject and lifetime. Keeps no key: the journal does. Serves nothing: `page` does.

mod claims;
pub mod page;
mod ring;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};
use crate::journal::SqliteJournal;

pub use claims::{ClaimsError, guest_claims};
use ring::KeyRing;

/// The issuer. Without keys until [`Issuer::tend`] has run once, or [`Issuer::take_passing_key`].
pub struct Issuer {
    url: String,
    rotate_every: Duration,
    ring: ArcSwap<KeyRing>,
}

/// The call that a token is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The intent's id, without its prefix.
    pub intent: String,
    /// When the credential ends; no token outlives it.
    pub expires_at_secs: u64,
    /// For whom it is.
    pub attribution: Attribution,
}

/// For whom something is done: the claim `claviger`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Attribution {
    /// The session's id, without its prefix.
    pub session: String,
    /// The role.
    pub role: String,
    /// The engineer or system for whom it runs.
    pub requester: String,
    /// The scope.
    pub scope: String,
    /// SHA-256 of the role's prompt file in hex.
    pub prompt_sha256: String,
}

/// A token that a plugin asks for.
pub struct Granted<'a> {
    /// The backend.
    pub backend: &'a str,
    /// The call.
    pub subject: &'a Subject,
    /// An audience that the operator granted.
    pub audience: &'a str,
    /// Further claims, from [`guest_claims`].
    pub claims: Map<String, Value>,
    /// When it ends.
    pub expires_at_secs: u64,
}

/// A token by which the host authenticates itself.
pub struct Own<'a> {
    /// The backend on whose connection it is used.
    pub backend: &'a str,
    /// The call, while issuing.
    pub subject: Option<&'a Subject>,
    /// The audience, from the configuration.
    pub audience: &'a str,
    /// Further claims of the plugin, from [`guest_claims`].
    pub claims: Option<&'a Map<String, Value>>,
}

/// An issuer that cannot be configured so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IssuerError {
    /// Not a URL of an issuer.
    #[error("`{url}` is no issuer URL: {reason}")]
    Url {
        /// What was written.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Keys would be replaced before anybody has fetched them, or never.
    #[error("write a span between `1d` and `366d`")]
    RotateEvery,
}

/// Keys that could not be kept up.
#[derive(Debug, Error)]
pub enum TendError {
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No key could be made, or one that is kept is no key.
    #[error("a key of the issuer could not be made or read: {0}")]
    Key(&'static str),
}

impl Issuer {
    /// The issuer `url`, whose keys sign for `rotate_every` each.
    pub fn new(url: &str, rotate_every: Duration) -> Result<Self, IssuerError> {
        checked_url(url).map_err(|reason| IssuerError::Url { url: url.to_owned(), reason })?;
        if !(ROTATE_MIN..=ROTATE_MAX).contains(&rotate_every) {
            return Err(IssuerError::RotateEvery);
        }
        Ok(Self { url: url.to_owned(), rotate_every, ring: ArcSwap::default() })
    }

    /// The claim `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The path of the URL, without a final slash.
    pub fn path(&self) -> String {
        Url::parse(&self.url)
            .map(|url| url.path().trim_end_matches('/').to_owned())
            .unwrap_or_default()
    }

    /// Makes, silences and drops keys as is due at `now`, and takes what is kept into use. A key
    /// is durable before it is published, and published before it signs.
    pub async fn tend(&self, journal: &SqliteJournal, now: Timestamp) -> Result<(), TendError> {
        let kept = journal.issuer_keys().await?;
        if let Some(change) = ring::due(kept, self.rotate_every, now)? {
            journal.change_issuer_keys(change, now).await?;
        }
        let kept = journal.issuer_keys().await?;
        self.ring.store(Arc::new(KeyRing::of(kept)?));
        Ok(())
    }

    /// Signs with a key of its own, made now, that ends with the process and is in no journal: for
    /// the kit's suite, whose tokens nobody keeps.
    pub fn take_passing_key(&self, now: Timestamp) -> Result<(), TendError> {
        self.ring.store(Arc::new(KeyRing::passing(now)?));
        Ok(())
    }

    /// Signs what a plugin asks for, inside the limits of its call.
    pub fn sign_granted(
        &self,
        granted: Granted<'_>,
        now: Timestamp,
    ) -> Result<SharedSecret, Failure> {
        let Granted { backend, subject, audience, claims, expires_at_secs } = granted;
        let most = subject.expires_at_secs.min(now.after(TOKEN_LIFE_MAX).unix_secs());
        if expires_at_secs <= now.unix_secs() || expires_at_secs > most {
            let message = format!(
                "a token must end after now and not after its request: between {} and {most}",
                now.unix_secs()
            );
            return Err(Failure::unsent(FailureKind::InvalidInput, message));
        }
        let mut all = claims;
        let role = &subject.attribution.role;
        all.insert("sub".to_owned(), format!("backend:{backend}:role:{role}").into());
        all.insert("jti".to_owned(), subject.intent.clone().into());
        all.insert("claviger".to_owned(), json!(subject.attribution));
        self.signed(all, audience, (now, expires_at_secs))
    }

    /// Signs a token by which the host authenticates itself. It lives for minutes.
    pub fn sign_own(&self, own: &Own<'_>, now: Timestamp) -> Result<SharedSecret, Failure> {
        let mut random = [0; 16];
        rand::fill(&mut random)
            .map_err(|_| Failure::unsent(FailureKind::Other, "the system gives no random bytes"))?;
        let mut all = own.claims.cloned().unwrap_or_default();
        all.insert("sub".to_owned(), format!("backend:{}", own.backend).into());
        all.insert("jti".to_owned(), HEXLOWER.encode(&random).into());
        if let Some(subject) = own.subject {
            all.insert("claviger".to_owned(), json!(subject.attribution));
        }
        self.signed(all, own.audience, (now, now.after(OWN_TOKEN_LIFE).unix_secs()))
    }

    fn signed(
        &self,
        mut claims: Map<String, Value>,
        audience: &str,
        (now, expires_at_secs): (Timestamp, u64),
    ) -> Result<SharedSecret, Failure> {
        claims.insert("iss".to_owned(), self.url.clone().into());
        claims.insert("aud".to_owned(), audience.into());
        claims.insert("iat".to_owned(), now.unix_secs().into());
        claims.insert("nbf".to_owned(), now.unix_secs().into());
        claims.insert("exp".to_owned(), expires_at_secs.into());
        let token = self.ring.load().sign(&claims, now);
        token.map(|token| Arc::new(Zeroizing::new(token))).ok_or_else(|| {
            let message = "the broker has no key to sign tokens with: see its log";
            Failure::unsent(FailureKind::Unavailable, message)
        })
    }

    /// The published keys, a JWK set.
    fn jwks(&self) -> Value {
        self.ring.load().jwks()
    }
}

/// Keeps the keys up until it is dropped.
pub async fn tend_always(issuer: Arc<Issuer>, journal: Arc<SqliteJournal>) {
    let mut every = tokio::time::interval(TEND_EVERY);
    loop {
        every.tick().await;
        let now = Timestamp::from(std::time::SystemTime::now());
        if let Err(error) = issuer.tend(&journal, now).await {
            tracing::error!(%error, "the keys of the issuer could not be kept up");
        }
    }
}

/// Whether plain HTTP to the host of `url` stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

/// What relying parties compare letter by letter must have one form only.
fn checked_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "it does not parse")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Err("write `https://…`; plain `http` is for a loopback address in `clavigerd dev`");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must hold no credentials");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must have no query and no fragment");
    }
    if text.ends_with('/') || !url.path().chars().all(plain) || url.path().contains("//") {
        return Err(
            "its path may hold letters, digits, `-._~` and single slashes, none at its end",
        );
    }
    // The parser writes a bare origin with a slash.
    if url.as_str().trim_end_matches('/') != text {
        return Err("write it in lower case, without a default port and without `.` segments");
    }
    Ok(())
}

/// The cap on every credential's life: nothing that the broker signs outlives it.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_hours(12);

/// The host's own tokens are used at once; five minutes forgive clocks that differ.
const OWN_TOKEN_LIFE: Duration = Duration::from_mins(5);

/// A key must be published an hour before it signs and twelve hours after: less than a day would
/// make the overlaps run into each other.
const ROTATE_MIN: Duration = Duration::from_hours(24);

/// A key that is never replaced is one that nobody knows how to replace.
const ROTATE_MAX: Duration = Duration::from_hours(366 * 24);

/// Rotation is in hours; a minute late does not matter.
const TEND_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests;
