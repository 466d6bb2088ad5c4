//! The ID token of this GitHub Actions job, asked of the runner's own endpoint. Keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};

/// The job's token for `audience`.
pub async fn token(audience: &str) -> Result<String, Failure> {
    let (Ok(url), Ok(bearer)) = (std::env::var(REQUEST_URL), std::env::var(REQUEST_TOKEN)) else {
        return Err(Failure::usage(format!(
            "--github-actions needs {REQUEST_URL} and {REQUEST_TOKEN}, which GitHub sets for jobs with `permissions: id-token: write`"
        )));
    };
    let failed = |problem: String| {
        Failure::new(Exit::UNREACHABLE, format!("GitHub gave no token: {problem}"))
            .with_next("check the job's `permissions` and run it again")
    };
    let answer = timeout(ANSWER_WITHIN, ask(&url, &bearer, audience)).await;
    let answer = answer.map_err(|_| failed("no answer in time".to_owned()))?;
    let body = answer.map_err(failed)?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let token = answer.get("value").and_then(Value::as_str).map(str::to_owned);
    token.ok_or_else(|| failed("its answer holds none".to_owned()))
}

async fn ask(url: &str, bearer: &str, audience: &str) -> Result<Bytes, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
    // A runner of one's own may be reached in the clear on its own machine.
    let connector = if url.starts_with("http://127.0.0.1:") {
        connector.https_or_http().enable_http1().build()
    } else {
        connector.https_only().enable_http1().build()
    };
    let audience: String = url::form_urlencoded::byte_serialize(audience.as_bytes()).collect();
    let joint = if url.contains('?') { '&' } else { '?' };
    let request = Request::get(format!("{url}{joint}audience={audience}"))
        .header("authorization", format!("Bearer {bearer}"))
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("it answered {}", response.status().as_u16()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}

/// Where the runner gives out tokens.
const REQUEST_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";

/// What it wants for one.
const REQUEST_TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// It answers within a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Tokens have about two kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
