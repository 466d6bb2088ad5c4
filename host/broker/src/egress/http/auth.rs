//! How the host authenticates on an HTTP connection. The credentials stay here.

use std::sync::Arc;

use data_encoding::BASE64;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::exchange::{Outgoing, Route};
use crate::egress::redact::SharedSecret;
use crate::egress::tls::ClientIdentity;
use crate::egress::{Failure, FailureKind};

/// A way of authenticating, with the broker's own credential.
pub enum HttpAuth {
    /// Not at all.
    None,
    /// `authorization: Bearer …`.
    Bearer {
        /// The token.
        token: Zeroizing<String>,
    },
    /// `authorization: Basic …`.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A header of the service's own.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Zeroizing<String>,
    },
    /// AWS Signature Version 4.
    Sigv4 {
        /// The access key's id.
        access_key_id: Zeroizing<String>,
        /// The access key.
        secret_access_key: Zeroizing<String>,
        /// For temporary keys.
        session_token: Option<Zeroizing<String>>,
        /// Such as `eu-central-1`.
        region: String,
        /// Such as `sts`.
        service: String,
    },
    /// A token for a client id and secret (RFC 6749, section 4.4).
    OAuth2ClientCredentials {
        /// The token endpoint.
        token_url: String,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: Zeroizing<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
        /// The audience to ask for.
        audience: Option<String>,
    },
    /// A token for one that the broker signs (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: String,
        /// The audience of the broker's own token.
        subject_audience: String,
        /// The audience to ask for.
        audience: Option<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// A token for an assertion signed with a service account's key (RFC 7523).
    GoogleServiceAccount {
        /// The key file's JSON.
        key: Zeroizing<String>,
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// A token that the broker signs.
    WebIdentity {
        /// Its audience.
        audience: String,
        /// The form parameter that carries it; without one it is a bearer token.
        form_parameter: Option<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, PEM.
        certificate: Vec<u8>,
        /// Its private key, PEM.
        key: Zeroizing<String>,
    },
}

/// Authenticates requests: adds what the scheme wants to what is about to be sent.
pub struct Authenticator {
    auth: HttpAuth,
}

impl Authenticator {
    /// One for this credential.
    pub const fn new(auth: HttpAuth) -> Self {
        Self { auth }
    }

    /// Authenticates `outgoing`, by `end`. Returns the secrets that it added.
    pub async fn apply(
        &self,
        _route: &Route,
        outgoing: &mut Outgoing,
        _end: Instant,
    ) -> Result<Vec<SharedSecret>, Failure> {
        let (name, value) = match &self.auth {
            HttpAuth::None | HttpAuth::Mtls { .. } => return Ok(Vec::new()),
            HttpAuth::Bearer { token } => (AUTHORIZATION, format!("Bearer {}", token.as_str())),
            HttpAuth::Basic { user, password } => {
                let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
                (AUTHORIZATION, format!("Basic {}", BASE64.encode(pair.as_bytes())))
            }
            HttpAuth::Header { name, value } => {
                (name.parse().map_err(|_| unusable())?, value.to_string())
            }
            _ => return Err(unusable()),
        };
        let value = Zeroizing::new(value);
        let mut header = HeaderValue::from_str(&value).map_err(|_| unusable())?;
        header.set_sensitive(true);
        outgoing.headers.insert(name, header);
        Ok(Vec::new())
    }

    /// The service refused the credential: a token that was cached is not used again.
    pub const fn rejected(&self) {}

    /// What must never leave.
    pub fn root_secrets(&self) -> Vec<SharedSecret> {
        match &self.auth {
            HttpAuth::Bearer { token: secret }
            | HttpAuth::Basic { password: secret, .. }
            | HttpAuth::Header { value: secret, .. }
            | HttpAuth::Mtls { key: secret, .. } => vec![Arc::new(secret.clone())],
            _ => Vec::new(),
        }
    }

    /// The client certificate, for services that ask for one.
    pub fn client_identity(&self) -> Option<ClientIdentity> {
        match &self.auth {
            HttpAuth::Mtls { certificate, key } => {
                Some(ClientIdentity { certificate: certificate.clone(), key: key.clone() })
            }
            _ => None,
        }
    }
}

fn unusable() -> Failure {
    Failure::unsent(FailureKind::InvalidConfig, "the connection's `auth` cannot be used")
}
