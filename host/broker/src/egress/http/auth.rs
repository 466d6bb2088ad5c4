//! How the host authenticates on an HTTP connection. The credentials stay here: they enter a
//! request last, over its final bytes, and whoever composed it never sees them.

mod endpoint;
mod google;
mod inject;
mod sigv4;
mod tokens;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::SystemTime;

use claviger_core::time::Timestamp;
use data_encoding::BASE64;
use http::HeaderName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::exchange::{Exchange, Outgoing, Reach, Route};
use crate::egress::redact::SharedSecret;
use crate::egress::tls::ClientIdentity;
use crate::egress::{Failure, FailureKind};
use crate::issuer::{Issuer, Own, Subject};
use endpoint::{Grant, TokenEndpoint};
use google::ServiceAccount;
use sigv4::Signer;
use tokens::Tokens;

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
        /// The further claims that a plugin may add.
        claims: Vec<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, PEM.
        certificate: Vec<u8>,
        /// Its private key, PEM.
        key: Zeroizing<String>,
    },
}

/// What authenticates on one connection.
pub struct Authenticator {
    scheme: Scheme,
    backend: String,
    roots: Vec<SharedSecret>,
}

/// What an authenticator needs besides its credential.
#[derive(Default)]
pub struct AuthParts {
    /// The backend and its connection, such as `github/api`: for messages.
    pub connection: String,
    /// The backend.
    pub backend: String,
    /// How token endpoints are reached.
    pub exchange: Option<Arc<dyn Exchange>>,
    /// Signs the host's own tokens.
    pub issuer: Option<Arc<Issuer>>,
    /// What the address of a token endpoint may resolve to besides public addresses.
    pub reach: Vec<Reach>,
}

/// A credential that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// Not the name of a header, or one that is not a credential's.
    #[error("`{0}` is not a header that can carry a credential: write one such as `x-api-key`")]
    HeaderName(String),
    /// A credential that fits in no header.
    #[error("the {0} holds a character that no header can carry: check for line breaks")]
    HeaderValue(&'static str),
    /// A user name that a basic credential cannot hold.
    #[error("a user name with a colon cannot be sent: choose another user")]
    User,
    /// Not a token endpoint.
    #[error("`{url}` is no token endpoint: {reason}")]
    TokenUrl {
        /// What was written.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Not a service account's key.
    #[error("the key is no service account key: {0}; take the JSON file as Google made it")]
    GoogleKey(&'static str),
    /// Not a certificate with its key.
    #[error("{0}: give a PEM chain and the private key of its first certificate")]
    Certificate(&'static str),
    /// The scheme asks a token endpoint.
    #[error("its token endpoint cannot be reached: no way there was given")]
    NoExchange,
    /// The scheme needs a signer.
    #[error("it needs tokens that the broker signs: add a section `[issuer]`")]
    NoIssuer,
    /// A value that must not be empty.
    #[error("`{0}` is empty")]
    Empty(&'static str),
}

enum Scheme {
    None,
    Mtls {
        certificate: Vec<u8>,
        key: SharedSecret,
    },
    Fixed {
        name: HeaderName,
        value: SharedSecret,
    },
    Sigv4(Signer),
    Token {
        endpoint: Box<TokenEndpoint>,
        tokens: Tokens,
    },
    WebIdentity {
        issuer: Arc<Issuer>,
        audience: String,
        form_parameter: Option<String>,
        claims: Vec<String>,
    },
}

/// An authenticator in one call.
#[derive(Clone, Copy)]
pub struct Acting<'a> {
    authenticator: &'a Authenticator,
    subject: Option<&'a Subject>,
    claims: Option<&'a Map<String, Value>>,
}

impl Authenticator {
    /// Takes the credential over, checked as far as it can be without the service.
    pub fn new(auth: HttpAuth, parts: AuthParts) -> Result<Self, AuthError> {
        let backend = parts.backend.clone();
        let (scheme, roots) = scheme(auth, parts)?;
        Ok(Self { scheme, backend, roots })
    }

    /// Authenticates `outgoing`, which goes to `route` as it then is: nothing may be changed
    /// after. Returns what must not leave besides the [`Authenticator::root_secrets`].
    pub async fn apply(
        &self,
        route: &Route,
        outgoing: &mut Outgoing,
        end: Instant,
    ) -> Result<Vec<SharedSecret>, Failure> {
        self.within(None).apply(route, outgoing, end).await
    }

    /// The authenticator in a call that issues for `subject`: tokens that the broker signs name
    /// it.
    pub const fn within<'a>(&'a self, subject: Option<&'a Subject>) -> Acting<'a> {
        Acting { authenticator: self, subject, claims: None }
    }

    /// Whether a request may add these claims to the token that is signed for it alone.
    pub fn admit_claims(&self, claims: Option<&Map<String, Value>>) -> Result<(), Failure> {
        let Some(claims) = claims else { return Ok(()) };
        let refused = |message| Err(Failure::unsent(FailureKind::Denied, message));
        match &self.scheme {
            Scheme::WebIdentity { claims: granted, .. } => {
                if claims.keys().all(|name| granted.contains(name)) {
                    return Ok(());
                }
                refused(
                    "the operator has not granted these claims: they stand under `claims` of \
                         `web-identity`",
                )
            }
            _ => refused(
                "the connection authenticates without a token that could carry claims: \
                          bind it with `web-identity`",
            ),
        }
    }

    /// The configured secrets, as written and as they travel.
    pub fn root_secrets(&self) -> Vec<SharedSecret> {
        self.roots.clone()
    }

    /// The client certificate to present.
    pub fn client_identity(&self) -> Option<ClientIdentity> {
        match &self.scheme {
            Scheme::Mtls { certificate, key } => {
                let key = Zeroizing::clone(key);
                Some(ClientIdentity { certificate: certificate.clone(), key })
            }
            _ => None,
        }
    }

    /// The service answered 401 to a request with these tokens: they are worth nothing.
    pub fn rejected(&self, used: &[SharedSecret]) {
        if let Scheme::Token { tokens, .. } = &self.scheme {
            used.iter().for_each(|token| tokens.reject(token));
        }
    }
}

impl<'a> Acting<'a> {
    /// With these claims, which were [admitted](Authenticator::admit_claims).
    #[must_use]
    pub const fn saying(self, claims: Option<&'a Map<String, Value>>) -> Self {
        Self { claims, ..self }
    }

    /// As [`Authenticator::apply`].
    pub async fn apply(
        &self,
        route: &Route,
        outgoing: &mut Outgoing,
        end: Instant,
    ) -> Result<Vec<SharedSecret>, Failure> {
        match &self.authenticator.scheme {
            Scheme::None | Scheme::Mtls { .. } => Ok(Vec::new()),
            Scheme::Fixed { name, value } => {
                inject::header(outgoing, name, value)?;
                Ok(Vec::new())
            }
            Scheme::Sigv4(signer) => {
                signer.sign(route, outgoing, SystemTime::now())?;
                Ok(Vec::new())
            }
            Scheme::Token { endpoint, tokens } => {
                let token = self.token(endpoint, tokens, end).await?;
                inject::bearer(outgoing, &token)?;
                Ok(vec![token])
            }
            Scheme::WebIdentity { issuer, audience, form_parameter, .. } => {
                let own = Own { claims: self.claims, ..self.own(audience) };
                let token = issuer.sign_own(&own, now())?;
                match form_parameter {
                    Some(name) => inject::form_parameter(outgoing, name, &token)?,
                    None => inject::bearer(outgoing, &token)?,
                }
                Ok(vec![token])
            }
        }
    }

    /// A token names the call that it was fetched in only where the broker signed for it; it then
    /// serves calls of the same attribution alone.
    async fn token(
        &self,
        endpoint: &TokenEndpoint,
        tokens: &Tokens,
        end: Instant,
    ) -> Result<SharedSecret, Failure> {
        let named = self.subject.filter(|_| endpoint.names_the_call());
        let key = named.map(|subject| subject.attribution.clone());
        let fetch = || async {
            let own = |audience| self.own(audience);
            endpoint.fetch(own, end).await
        };
        tokens.get(key, end, fetch).await
    }

    fn own<'b>(&'b self, audience: &'b str) -> Own<'b> {
        let backend = &self.authenticator.backend;
        Own { backend, subject: self.subject, audience, claims: None }
    }
}

fn scheme(auth: HttpAuth, parts: AuthParts) -> Result<(Scheme, Vec<SharedSecret>), AuthError> {
    Ok(match auth {
        HttpAuth::None => (Scheme::None, Vec::new()),
        HttpAuth::Bearer { token } => {
            let value = shared(format!("Bearer {}", token.as_str()));
            let name = http::header::AUTHORIZATION;
            (fixed(name, value, "token")?, vec![Arc::new(token)])
        }
        HttpAuth::Basic { user, password } => basic(&user, password)?,
        HttpAuth::Header { name, value } => {
            let value = Arc::new(value);
            let name = inject::credential_header(&name)?;
            let roots = parts_of(&value);
            (fixed(name, value, "value")?, roots)
        }
        HttpAuth::Sigv4 { access_key_id, secret_access_key, session_token, region, service } => {
            let keys = [Some(access_key_id), Some(secret_access_key), session_token];
            let [id, key, token] = keys.map(|key| key.map(Arc::new));
            // Not the id: it stands in every request and in AWS's log, and is no secret.
            let roots = [&key, &token].into_iter().flatten().cloned().collect();
            (Scheme::Sigv4(Signer::new([id, key, token], region, service)?), roots)
        }
        HttpAuth::WebIdentity { audience, form_parameter, claims } => {
            let issuer = parts.issuer.ok_or(AuthError::NoIssuer)?;
            filled(&[("audience", &audience)])?;
            if let Some(name) = &form_parameter {
                filled(&[("form_parameter", name)])?;
            }
            (Scheme::WebIdentity { issuer, audience, form_parameter, claims }, Vec::new())
        }
        HttpAuth::Mtls { certificate, key } => {
            check_identity(&certificate, &key)?;
            let key = Arc::new(key);
            (Scheme::Mtls { certificate, key: Arc::clone(&key) }, vec![key])
        }
        token @ (HttpAuth::OAuth2ClientCredentials { .. }
        | HttpAuth::TokenExchange { .. }
        | HttpAuth::GoogleServiceAccount { .. }) => token_scheme(token, parts)?,
    })
}

/// The schemes that ask a token endpoint.
fn token_scheme(
    auth: HttpAuth,
    parts: AuthParts,
) -> Result<(Scheme, Vec<SharedSecret>), AuthError> {
    let (url, grant, roots) = match auth {
        HttpAuth::OAuth2ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scopes,
            audience,
        } => {
            filled(&[("client_id", &client_id), ("client_secret", &client_secret)])?;
            let (grant, roots) =
                endpoint::client_credentials(&client_id, client_secret, (scopes, audience));
            (token_url, grant, roots)
        }
        HttpAuth::TokenExchange { token_url, subject_audience, audience, scopes } => {
            let issuer = parts.issuer.ok_or(AuthError::NoIssuer)?;
            filled(&[("subject_audience", &subject_audience)])?;
            (
                token_url,
                Grant::TokenExchange { issuer, subject_audience, audience, scopes },
                Vec::new(),
            )
        }
        HttpAuth::GoogleServiceAccount { key, scopes } => {
            let account = ServiceAccount::parse(&key, scopes)?;
            let roots = account.secrets(key);
            (account.token_uri().to_owned(), Grant::Google(Box::new(account)), roots)
        }
        _ => return Err(AuthError::NoExchange),
    };
    let exchange = parts.exchange.ok_or(AuthError::NoExchange)?;
    let at = (parts.connection, parts.reach);
    let endpoint = TokenEndpoint::new(&url, at, (grant, roots.clone()), exchange)?;
    Ok((Scheme::Token { endpoint: Box::new(endpoint), tokens: Tokens::default() }, roots))
}

/// A header's value and its words, such as `abc` of `Token abc`: a service may say one of them back.
fn parts_of(value: &SharedSecret) -> Vec<SharedSecret> {
    let words = value.split(|c: char| c.is_whitespace() || "=:;,\"'".contains(c));
    let long = words.filter(|word| word.len() >= WORD_BYTES_MIN && *word != value.as_str());
    let words = long.map(|word| shared(word.to_owned()));
    std::iter::once(Arc::clone(value)).chain(words).collect()
}

fn basic(
    user: &str,
    password: Zeroizing<String>,
) -> Result<(Scheme, Vec<SharedSecret>), AuthError> {
    if user.contains(':') {
        return Err(AuthError::User);
    }
    let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
    let encoded = shared(BASE64.encode(pair.as_bytes()));
    let value = shared(format!("Basic {}", encoded.as_str()));
    let scheme = fixed(http::header::AUTHORIZATION, value, "password")?;
    Ok((scheme, vec![Arc::new(password), encoded]))
}

fn fixed(name: HeaderName, value: SharedSecret, what: &'static str) -> Result<Scheme, AuthError> {
    if value.is_empty() {
        return Err(AuthError::Empty(what));
    }
    inject::sensitive(&value).map_err(|_| AuthError::HeaderValue(what))?;
    Ok(Scheme::Fixed { name, value })
}

fn check_identity(certificate: &[u8], key: &str) -> Result<(), AuthError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(AuthError::Certificate("the certificate is not PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| AuthError::Certificate("the key is not PEM"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider)
        .map(drop)
        .map_err(|_| AuthError::Certificate("certificate and key do not belong together"))
}

fn filled(values: &[(&'static str, &str)]) -> Result<(), AuthError> {
    match values.iter().find(|(_, value)| value.is_empty()) {
        Some((name, _)) => Err(AuthError::Empty(name)),
        None => Ok(()),
    }
}

fn shared(text: String) -> SharedSecret {
    Arc::new(Zeroizing::new(text))
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// What is shorter is a word such as `Bearer`, or no secret.
const WORD_BYTES_MIN: usize = 8;
