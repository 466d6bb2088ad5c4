//! A token endpoint (RFC 6749): asks for tokens and reads its answers strictly. Keeps none.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use claviger_core::time::Timestamp;
use data_encoding::BASE64;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::google::ServiceAccount;
use super::tokens::Obtained;
use super::{AuthError, inject, shared};
use crate::egress::http::{Exchange, Incoming, Outgoing, Reach, Route};
use crate::egress::redact::{Redactor, SharedSecret};
use crate::egress::{Failure, FailureKind};
use crate::issuer::{Issuer, Own, is_loopback};

/// Where tokens are asked for, and with what.
pub(super) struct TokenEndpoint {
    connection: String,
    route: Route,
    path_and_query: String,
    grant: Grant,
    secrets: Vec<SharedSecret>,
    exchange: Arc<dyn Exchange>,
}

/// What a token is asked for with.
pub(super) enum Grant {
    /// A client's id and secret (RFC 6749, section 4.4).
    ClientCredentials {
        /// The header `authorization`.
        authorization: SharedSecret,
        /// What is asked for.
        scopes: Vec<String>,
        /// For whom.
        audience: Option<String>,
    },
    /// A token that the broker signs (RFC 8693).
    TokenExchange {
        /// Signs it.
        issuer: Arc<Issuer>,
        /// Its audience.
        subject_audience: String,
        /// For whom.
        audience: Option<String>,
        /// What is asked for.
        scopes: Vec<String>,
    },
    /// An assertion signed with a service account's key (RFC 7523).
    Google(Box<ServiceAccount>),
}

/// The grant of a client, and what must not leave of it.
pub(super) fn client_credentials(
    id: &str,
    secret: Zeroizing<String>,
    (scopes, audience): (Vec<String>, Option<String>),
) -> (Grant, Vec<SharedSecret>) {
    // Both are encoded as in a form first (RFC 6749, section 2.3.1).
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let encoded_secret = shared(encoded(&secret));
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), encoded_secret.as_str()));
    let pair = shared(BASE64.encode(pair.as_bytes()));
    let authorization = shared(format!("Basic {}", pair.as_str()));
    let grant = Grant::ClientCredentials { authorization, scopes, audience };
    (grant, vec![Arc::new(secret), encoded_secret, pair])
}

impl TokenEndpoint {
    /// The endpoint at `url` for the named connection.
    pub(super) fn new(
        url: &str,
        (connection, reach): (String, Vec<Reach>),
        (grant, secrets): (Grant, Vec<SharedSecret>),
        exchange: Arc<dyn Exchange>,
    ) -> Result<Self, AuthError> {
        let (route, path_and_query) = parsed(url, reach)
            .map_err(|reason| AuthError::TokenUrl { url: url.to_owned(), reason })?;
        Ok(Self { connection, route, path_and_query, grant, secrets, exchange })
    }

    /// Whether its tokens name the call that they were asked for in.
    pub(super) const fn names_the_call(&self) -> bool {
        matches!(self.grant, Grant::TokenExchange { .. })
    }

    /// Asks for a token. `own` describes the broker's own token for an audience.
    pub(super) async fn fetch<'a>(
        &'a self,
        own: impl FnOnce(&'a str) -> Own<'a>,
        end: Instant,
    ) -> Result<Obtained, Failure> {
        let (outgoing, proof) = self.request(own)?;
        let asked_at = Instant::now();
        let redactor = Redactor::new(self.secrets.iter().cloned().chain(proof));
        let answer = self.exchange.exchange(&self.route, outgoing, end).await;
        // The service that the request was meant for has seen none of this.
        let answer = answer.map_err(|failure| Failure {
            request_sent: false,
            message: self.said(&redactor.clean(&failure.message, SENTENCE_BYTES_MAX)),
            ..failure
        })?;
        let (token, life) = self.read(&answer, &redactor)?;
        Ok(Obtained { token, life, asked_at })
    }

    /// The request, and the signed proof in it if there is one.
    fn request<'a>(
        &'a self,
        own: impl FnOnce(&'a str) -> Own<'a>,
    ) -> Result<(Outgoing, Option<SharedSecret>), Failure> {
        let now = Timestamp::from(SystemTime::now());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(inject::FORM));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut form = Serializer::new(String::with_capacity(FORM_BYTES));
        let mut proof = None;
        match &self.grant {
            Grant::ClientCredentials { authorization, scopes, audience } => {
                let value = inject::sensitive(authorization).map_err(|_| self.unsigned())?;
                headers.insert(AUTHORIZATION, value);
                form.append_pair("grant_type", "client_credentials");
                asked_for(&mut form, scopes, audience.as_deref());
            }
            Grant::TokenExchange { issuer, subject_audience, audience, scopes } => {
                let token = issuer.sign_own(&own(subject_audience), now)?;
                form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
                    .append_pair("subject_token", &token)
                    .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
                    .append_pair("requested_token_type", ACCESS_TOKEN);
                asked_for(&mut form, scopes, audience.as_deref());
                proof = Some(token);
            }
            Grant::Google(account) => {
                let assertion = account.assertion(now).ok_or_else(|| self.unsigned())?;
                form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
                    .append_pair("assertion", &assertion);
                proof = Some(assertion);
            }
        }
        let body = Zeroizing::new(form.finish().into_bytes());
        let path_and_query = self.path_and_query.clone();
        Ok((Outgoing { method: Method::POST, path_and_query, headers, body }, proof))
    }

    fn read(
        &self,
        answer: &Incoming,
        redactor: &Redactor,
    ) -> Result<(SharedSecret, Option<Duration>), Failure> {
        if answer.status != StatusCode::OK || answer.body.len() > ANSWER_BYTES_MAX {
            return Err(self.refused(answer, redactor));
        }
        let unreadable = || self.failure(FailureKind::Other, "gave an answer that is no token");
        let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| unreadable())?;
        let token = Zeroizing::new(answer.access_token);
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(
                self.failure(FailureKind::Unsupported, "gave a token that is no bearer token")
            );
        }
        let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len());
        if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unreadable());
        }
        Ok((Arc::new(token), answer.expires_in.map(Duration::from_secs)))
    }

    /// What the endpoint said in place of a token: its code and its sentence, nothing else.
    fn refused(&self, answer: &Incoming, redactor: &Redactor) -> Failure {
        let status = answer.status;
        let kind = match status.as_u16() {
            429 => FailureKind::RateLimited,
            400..=499 => FailureKind::Denied,
            500..=599 => FailureKind::Unavailable,
            _ => FailureKind::Other,
        };
        let said = (answer.body.len() <= ANSWER_BYTES_MAX)
            .then(|| serde_json::from_slice::<Refusal>(&answer.body).ok())
            .flatten();
        let retry_after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|secs| secs.parse().ok());
        let mut sentence = format!("answered {}", status.as_u16());
        let code = said.as_ref().map(|said| printable(redactor, &said.error));
        if let Some(said) = &said {
            sentence.push_str(&format!(" `{}`", printable(redactor, &said.error)));
            if let Some(description) = &said.error_description {
                sentence.push_str(&format!(": {}", printable(redactor, description)));
            }
        }
        Failure {
            code,
            retry_after: retry_after.map(Duration::from_secs),
            ..self.failure(kind, &sentence)
        }
    }

    fn unsigned(&self) -> Failure {
        self.failure(FailureKind::InvalidConfig, "cannot be asked: its credential does not sign")
    }

    fn failure(&self, kind: FailureKind, what: &str) -> Failure {
        Failure::unsent(kind, self.said(what))
    }

    fn said(&self, what: &str) -> String {
        format!("the token endpoint of connection `{}`: {what}", self.connection)
    }
}

/// A token (RFC 6749, section 5.1). Other members mean nothing here.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

/// A refusal (RFC 6749, section 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

fn asked_for(form: &mut Serializer<'_, String>, scopes: &[String], audience: Option<&str>) {
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    if let Some(audience) = audience {
        form.append_pair("audience", audience);
    }
}

/// What stands in a message must not look like something else.
fn printable(redactor: &Redactor, text: &str) -> String {
    let clean = redactor.clean(text, SENTENCE_BYTES_MAX);
    clean.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn parsed(text: &str, mut reach: Vec<Reach>) -> Result<(Route, String), &'static str> {
    let url = Url::parse(text).map_err(|_| "it does not parse")?;
    let tls = match url.scheme() {
        "https" => true,
        "http" if is_loopback(&url) => false,
        _ => return Err("write `https://…`; plain `http` is for loopback addresses"),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must hold no credentials");
    }
    if url.fragment().is_some() {
        return Err("it must have no fragment");
    }
    let host = match url.host().ok_or("it names no host")? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    // Whoever writes a loopback URL means this machine.
    if is_loopback(&url) && !reach.contains(&Reach::Loopback) {
        reach.push(Reach::Loopback);
    }
    let port = url.port_or_known_default().ok_or("it names no port")?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok((Route { tls, host, port, reach }, format!("{}{query}", url.path())))
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Room for a signed proof, so that the form does not grow and leave a part of it behind.
const FORM_BYTES: usize = 16 * 1024;

/// A token and a few members; tokens with many groups take some KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// More fits in no server's header.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A sentence for people.
const SENTENCE_BYTES_MAX: usize = 256;
