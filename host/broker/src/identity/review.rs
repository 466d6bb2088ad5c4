//! Asks a Kubernetes API server whether it gave a token and whether it still counts (TokenReview of
//! `authentication.k8s.io/v1`). Verifies nothing itself.
//!
//! The API server knows more than the signature: a token whose pod or service account is gone is
//! refused at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::TokenError;
use super::place::Place;
use super::strict;
use crate::config::SecretRef;
use crate::egress::http::{Exchange, Outgoing};

/// What the configuration says of the API server, checked.
#[derive(Clone, Debug)]
pub struct ReviewSpec {
    /// Where it is.
    pub server: Place,
    /// The broker's own token there, which may create token reviews.
    pub token: SecretRef,
    /// Where relative paths start.
    pub base: PathBuf,
}

/// An API server that is asked about tokens.
pub struct TokenReview {
    spec: ReviewSpec,
    exchange: Arc<dyn Exchange>,
    asking: Semaphore,
}

impl TokenReview {
    /// The server of `spec`, over `exchange`.
    pub fn new(spec: ReviewSpec, exchange: Arc<dyn Exchange>) -> Self {
        Self { spec, exchange, asking: Semaphore::new(ASKING_MAX) }
    }

    /// Whom `unverified_token` proves for `audience`, by the name that the server gives it.
    pub async fn user_of(
        &self,
        unverified_token: &str,
        audience: &str,
    ) -> Result<String, TokenError> {
        let unavailable = || TokenError::Unavailable(self.spec.server.route.host.clone());
        // Strangers may send tokens: only so many wait for the server at once.
        let _turn = self.asking.try_acquire().map_err(|_| unavailable())?;
        let outgoing = self.request(unverified_token, audience).map_err(|problem| {
            tracing::error!(problem, "a token cannot be reviewed");
            unavailable()
        })?;
        let end = Instant::now() + ASK_MAX;
        let answer = self.exchange.exchange(&self.spec.server.route, outgoing, end).await;
        let answer = answer.map_err(|failure| {
            tracing::warn!(problem = failure.message, "the Kubernetes API server cannot be asked");
            unavailable()
        })?;
        if !matches!(answer.status, StatusCode::OK | StatusCode::CREATED) {
            let status = answer.status.as_u16();
            tracing::warn!(status, "the Kubernetes API server reviews no token of the broker's");
            return Err(unavailable());
        }
        let review = strict::object(&answer.body).map_err(|_| unavailable())?;
        read(&review, audience).ok_or(TokenError::NotReviewed)
    }

    fn request(&self, unverified_token: &str, audience: &str) -> Result<Outgoing, String> {
        // Read anew each time: a projected token is replaced while the broker runs.
        let own = self.spec.token.read(&self.spec.base).map_err(|error| error.to_string())?;
        let bearer = Zeroizing::new(format!("Bearer {}", own.as_str()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|error| error.to_string())?;
        bearer.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let body = json!({
            "apiVersion": API, "kind": "TokenReview",
            "spec": { "token": unverified_token, "audiences": [audience] },
        });
        Ok(Outgoing {
            method: Method::POST,
            path_and_query: format!("/apis/{API}/tokenreviews"),
            headers: HeaderMap::from_iter([
                (AUTHORIZATION, bearer),
                (CONTENT_TYPE, json.clone()),
                (ACCEPT, json),
            ]),
            body: Zeroizing::new(body.to_string().into_bytes()),
        })
    }
}

/// The user's name, if the review says that the token counts for `audience`. A server that does
/// not know of audiences names none, and then the token counts for any: that is refused.
fn read(review: &Map<String, Value>, audience: &str) -> Option<String> {
    let status = review.get("status")?;
    let is_for = |list: &Value| list.as_array().is_some_and(|l| l.iter().any(|a| a == audience));
    let counts = status.get("authenticated") == Some(&Value::Bool(true))
        && status.get("error").and_then(Value::as_str).is_none_or(str::is_empty)
        && status.get("audiences").is_some_and(is_for);
    let name = status.get("user")?.get("username")?.as_str()?;
    counts.then(|| name.to_owned())
}

const API: &str = "authentication.k8s.io/v1";

/// Far below the thirty seconds of a call.
const ASK_MAX: Duration = Duration::from_secs(5);

/// A server answers within some milliseconds: thousands a second.
const ASKING_MAX: usize = 16;
