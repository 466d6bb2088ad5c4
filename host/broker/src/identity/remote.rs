//! The keys of an issuer as it publishes them: found, fetched, kept through outages, fetched anew
//! when they may have changed. Verifies no token.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jsonwebtoken::Algorithm;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::keys::KeySet;
use super::place::Place;
use super::published::Published;
use super::strict;
use crate::egress::http::{Exchange, Outgoing, Reach};

/// Where an issuer's keys are.
#[derive(Clone, Debug)]
pub struct KeysSpec {
    /// The issuer, as its tokens and its discovery document name it.
    pub issuer: String,
    /// Where its keys are, if not where its discovery document says.
    pub jwks_url: Option<String>,
    /// What its addresses may resolve to besides public addresses.
    pub reach: Vec<Reach>,
    /// The signatures that it may use.
    pub algorithms: Vec<Algorithm>,
    /// How often its keys are fetched anew.
    pub refresh: Duration,
    /// How long to hold back, and to hold on.
    pub patience: Patience,
}

/// How long to hold back from an issuer, and how long to hold on to what it said.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The least time between two fetches for unknown keys.
    pub refetch: Duration,
    /// The longest time for which keys are trusted that could not be fetched anew.
    pub trusted: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { refetch: REFETCH_PAUSE, trusted: TRUSTED_MAX }
    }
}

/// The published keys of one issuer.
pub struct RemoteKeys {
    spec: KeysSpec,
    exchange: Arc<dyn Exchange>,
    published: Arc<Published>,
    /// When it was last tried. One fetch at a time, whoever asks for it.
    tried: Mutex<Option<Instant>>,
}

impl RemoteKeys {
    /// Keys that are still to be fetched, over `exchange`.
    pub fn new(spec: KeysSpec, exchange: Arc<dyn Exchange>) -> Self {
        Self { spec, exchange, published: Arc::default(), tried: Mutex::new(None) }
    }

    /// What was fetched last.
    pub const fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// The keys, fetched anew if they do not name `kid`. `None` if there are none that may still
    /// be trusted.
    ///
    /// A token with an unknown `kid` costs its sender a wait and the issuer at most one fetch in
    /// [`REFETCH_PAUSE`], however many such tokens come.
    pub async fn naming(&self, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let names = |keys: &Arc<KeySet>| keys.names(kid);
        if let Some(keys) = self.trusted().filter(names) {
            return Some(keys);
        }
        let mut tried = self.tried.lock().await;
        // Whoever held the lock may have fetched what is wanted.
        if let Some(keys) = self.trusted().filter(names) {
            return Some(keys);
        }
        if tried.is_none_or(|at| at.elapsed() >= self.spec.patience.refetch) {
            *tried = Some(Instant::now());
            self.fetch().await;
        }
        self.trusted()
    }

    /// Fetches the keys when they are due, until it is dropped.
    pub async fn keep_fresh(&self) {
        loop {
            let mut tried = self.tried.lock().await;
            *tried = Some(Instant::now());
            let is_there = self.fetch().await;
            drop(tried);
            let wait = if is_there { self.spec.refresh } else { RETRY.min(self.spec.refresh) };
            tokio::time::sleep(wait).await;
        }
    }

    /// What was fetched last, unless that is too long ago: during an outage the last good keys
    /// go on for [`TRUSTED_MAX`].
    fn trusted(&self) -> Option<Arc<KeySet>> {
        let (keys, at) = self.published.newest()?;
        (at.elapsed() < self.spec.patience.trusted).then_some(keys)
    }

    /// Whether the keys were fetched. A failure changes nothing: it takes no key away.
    async fn fetch(&self) -> bool {
        let end = Instant::now() + FETCH_MAX;
        let issuer = &self.spec.issuer;
        match self.fetched_by(end).await {
            Ok(keys) => {
                self.published.put(keys);
                true
            }
            Err(problem) => {
                tracing::warn!(issuer, problem, "the keys of an issuer could not be fetched");
                false
            }
        }
    }

    async fn fetched_by(&self, end: Instant) -> Result<KeySet, String> {
        let url = match &self.spec.jwks_url {
            Some(url) => url.clone(),
            None => self.discovered(end).await?,
        };
        let document = self.get(&url, end).await?;
        KeySet::parse(&document, &self.spec.algorithms).map_err(|error| format!("`{url}`: {error}"))
    }

    /// Where the discovery document (OpenID Connect Discovery 1.0) says that the keys are.
    async fn discovered(&self, end: Instant) -> Result<String, String> {
        let issuer = &self.spec.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.get(&url, end).await?;
        let document = strict::object(&document).map_err(|error| format!("`{url}`: {error}"))?;
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("issuer") != Some(issuer) {
            // Whoever answers for another issuer could hand out the keys of that one.
            return Err(format!("`{url}` is the document of another issuer"));
        }
        text("jwks_uri").map(str::to_owned).ok_or_else(|| format!("`{url}` has no `jwks_uri`"))
    }

    async fn get(&self, url: &str, end: Instant) -> Result<Zeroizing<Vec<u8>>, String> {
        let place = Place::parse(url, &self.spec.reach).map_err(|error| error.to_string())?;
        let accept = HeaderValue::from_static("application/json");
        let outgoing = Outgoing {
            method: Method::GET,
            path_and_query: place.path_and_query,
            headers: HeaderMap::from_iter([(ACCEPT, accept)]),
            body: Zeroizing::default(),
        };
        let answer = self.exchange.exchange(&place.route, outgoing, end).await;
        let answer = answer.map_err(|failure| failure.message)?;
        if answer.status != StatusCode::OK {
            return Err(format!("`{url}` answered {}", answer.status.as_u16()));
        }
        Ok(answer.body)
    }
}

/// Far below the thirty seconds of a call, and above what a slow issuer takes for two requests.
const FETCH_MAX: Duration = Duration::from_secs(5);

/// An issuer publishes a new key before it signs with it; whoever sends tokens with made-up keys
/// makes the broker ask no more than six times a minute.
const REFETCH_PAUSE: Duration = Duration::from_secs(10);

/// How soon an issuer that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(30);

/// How long keys are trusted that could not be fetched anew: the longest session. An issuer that
/// is away for longer may have withdrawn any of them unseen.
const TRUSTED_MAX: Duration = Duration::from_hours(12);
