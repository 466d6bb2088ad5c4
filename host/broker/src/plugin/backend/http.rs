//! Binds HTTP connections: what the manifest asks for, met with what the operator granted. Opens
//! nothing, except to try an access key.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{BackendError, mismatch};
use crate::egress::http::{
    AuthParts, Authenticator, Client, Door, DoorSpec, Grants, HttpAuth, Outgoing, Policy, Reach,
    Route, SystemResolver,
};
use crate::egress::tls;
use crate::egress::{Failure, FailureKind};
use crate::issuer::Issuer;
use crate::plugin::manifest::{Auth, ConnectionRequest};
use crate::plugin::spec::HttpSpec;

/// The door for a granted connection, or what is missing and what to write.
pub(super) fn connect(
    (backend, name): (&BackendName, &ConnectionName),
    (spec, issuer): (HttpSpec, Option<&Arc<Issuer>>),
    request: &ConnectionRequest,
) -> Result<Door, BackendError> {
    let advise = |problem: String| {
        let stanza = stanza(backend, name, request);
        mismatch(name, format!("{problem}; the plugin asks for this:\n\n{stanza}"))
    };
    let scheme = scheme(&spec.auth);
    if !request.auth.contains(&scheme) {
        let problem =
            format!("`auth` is `{}`, with which the plugin does not work", placeholder(scheme).0);
        return Err(advise(problem));
    }
    let route = Route::parse(&spec.address, &spec.reach).map_err(|e| advise(e.to_string()))?;
    let client_address = match &spec.client_address {
        None => route.origin(),
        Some(text) => Route::parse(text, &[Reach::Loopback])
            .map_err(|error| advise(format!("`client_address`: {error}")))?
            .origin(),
    };
    let asked = Grants { methods: &request.methods, paths: &request.paths, reads: &request.reads };
    let granted = Grants { methods: &spec.methods, paths: &spec.paths, reads: &spec.reads };
    let policy = Policy::meet(asked, granted).map_err(advise)?;
    // A client of its own: what the connection's identity opens is not for token endpoints.
    let tls = tls::client(spec.ca_file.as_deref(), None);
    let tls = tls.map_err(|error| mismatch(name, error.to_string()))?;
    let parts = AuthParts {
        connection: format!("{backend}/{name}"),
        backend: backend.as_str().to_owned(),
        exchange: Some(Arc::new(Client::new(tls, Arc::new(SystemResolver)))),
        issuer: issuer.cloned(),
        reach: spec.reach,
    };
    let authenticator =
        Authenticator::new(spec.auth, parts).map_err(|error| advise(format!("`auth`: {error}")))?;
    Door::new(DoorSpec {
        route,
        client_address,
        policy,
        authenticator,
        ca_file: spec.ca_file.as_deref(),
        resolver: Arc::new(SystemResolver),
    })
    .map_err(|error| mismatch(name, error.to_string()))
}

/// Asks AWS STS whose access key `spec` signs with, which every key may do: the ARN of its owner;
/// nobody's if STS does not accept the key.
pub async fn sign_in(spec: HttpSpec) -> Result<Option<String>, Failure> {
    let wrong = |reason: String| Failure::unsent(FailureKind::InvalidConfig, reason);
    let route = Route::parse(&spec.address, &spec.reach).map_err(|e| wrong(e.to_string()))?;
    let tls = tls::client(spec.ca_file.as_deref(), None).map_err(|e| wrong(e.to_string()))?;
    let authenticator = Authenticator::new(spec.auth, AuthParts::default());
    let authenticator = authenticator.map_err(|e| wrong(e.to_string()))?;
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let mut outgoing = Outgoing {
        method: Method::POST,
        path_and_query: "/".to_owned(),
        headers: HeaderMap::from_iter([(CONTENT_TYPE, form)]),
        body: Zeroizing::new(WHO_AM_I.as_bytes().to_vec()),
    };
    let end = Instant::now() + SIGN_IN_MAX;
    authenticator.apply(&route, &mut outgoing, end).await?;
    let client = Client::new(tls, Arc::new(SystemResolver));
    let answer = client.exchange(&route, outgoing, end).await?;
    let text = String::from_utf8_lossy(&answer.body);
    let owner = text.split_once("<Arn>").and_then(|(_, rest)| rest.split_once("</Arn>"));
    match (answer.status, owner) {
        (StatusCode::OK, Some((arn, _))) => Ok(Some(arn.to_owned())),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Ok(None),
        (status, _) => {
            let message = format!("STS answered {status} to GetCallerIdentity");
            Err(Failure::sent(FailureKind::Unavailable, message))
        }
    }
}

/// What grants all that the manifest asks for.
pub(super) fn stanza(
    backend: &BackendName,
    name: &ConnectionName,
    request: &ConnectionRequest,
) -> String {
    let list = |items: &[String]| toml::Value::from(items.to_vec()).to_string();
    let auth = request.auth.first().copied().unwrap_or(Auth::None);
    let (key, fields) = placeholder(auth);
    let fields = fields.replace("BACKEND", backend.as_str());
    format!(
        "[backends.{backend}.connections.{name}]\n\
         address = \"https://api.internal\"\n\
         auth = {{ {key} = {{{fields}}} }}\n\
         methods = {}\n\
         paths = {}\n\
         reads = {}\n",
        list(&request.methods),
        list(&request.paths),
        list(&request.reads),
    )
}

const fn scheme(auth: &HttpAuth) -> Auth {
    match auth {
        HttpAuth::None => Auth::None,
        HttpAuth::Bearer { .. } => Auth::Bearer,
        HttpAuth::Basic { .. } => Auth::Basic,
        HttpAuth::Header { .. } => Auth::Header,
        HttpAuth::Sigv4 { .. } => Auth::Sigv4,
        HttpAuth::OAuth2ClientCredentials { .. } => Auth::OAuth2ClientCredentials,
        HttpAuth::TokenExchange { .. } => Auth::TokenExchange,
        HttpAuth::GoogleServiceAccount { .. } => Auth::GoogleServiceAccount,
        HttpAuth::WebIdentity { .. } => Auth::WebIdentity,
        HttpAuth::Mtls { .. } => Auth::Mtls,
    }
}

/// The configuration's key for a scheme, and its fields with something to replace in each.
const fn placeholder(auth: Auth) -> (&'static str, &'static str) {
    match auth {
        Auth::None => ("none", ""),
        Auth::Password => {
            ("password", " user = \"claviger\", password = \"file:/run/secrets/BACKEND\" ")
        }
        Auth::Bearer => ("bearer", " token = \"file:/run/secrets/BACKEND\" "),
        Auth::Basic => ("basic", " user = \"claviger\", password = \"file:/run/secrets/BACKEND\" "),
        Auth::Header => ("header", " name = \"x-api-key\", value = \"file:/run/secrets/BACKEND\" "),
        Auth::Sigv4 => (
            "sigv4",
            " access_key_id = \"file:/run/secrets/BACKEND-id\", \
             secret_access_key = \"file:/run/secrets/BACKEND\", \
             region = \"eu-central-1\", service = \"sts\" ",
        ),
        Auth::OAuth2ClientCredentials => (
            "oauth2-client-credentials",
            " token_url = \"https://login.internal/token\", client_id = \"claviger\", \
             client_secret = \"file:/run/secrets/BACKEND\" ",
        ),
        Auth::TokenExchange => (
            "token-exchange",
            " token_url = \"https://login.internal/token\", \
             subject_audience = \"https://login.internal\" ",
        ),
        Auth::GoogleServiceAccount => (
            "google-service-account",
            " key = \"file:/run/secrets/BACKEND.json\", \
             scopes = [\"https://www.googleapis.com/auth/cloud-platform\"] ",
        ),
        Auth::WebIdentity => ("web-identity", " audience = \"https://api.internal\" "),
        Auth::Mtls => (
            "mtls",
            " certificate = \"/etc/claviger/BACKEND.pem\", \
             key = \"file:/run/secrets/BACKEND-key\" ",
        ),
    }
}

/// The operation of STS that no policy can deny.
const WHO_AM_I: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// As long as a call may take: an STS that takes longer serves no call either.
const SIGN_IN_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::config::ConnectionConfig;

    fn request() -> ConnectionRequest {
        serde_json::from_value(serde_json::json!({
            "kind": "http", "auth": ["bearer", "basic"], "methods": ["GET", "POST"],
            "paths": ["/v1/users"], "reads": ["/items/*/id"], "why": "it manages users",
        }))
        .unwrap()
    }

    fn granted() -> HttpSpec {
        let text = |items: &[&str]| items.iter().map(ToString::to_string).collect();
        HttpSpec {
            address: "https://api.internal:8443".to_owned(),
            client_address: None,
            ca_file: None,
            auth: HttpAuth::Bearer { token: Zeroizing::new("root-token".to_owned()) },
            methods: text(&["GET", "POST"]),
            paths: text(&["/v1/users"]),
            reads: text(&["/items/*/id"]),
            reach: Vec::new(),
        }
    }

    fn check(change: impl Fn(&mut HttpSpec), sentence: &str) {
        let mut spec = granted();
        change(&mut spec);
        let (backend, name) = ("shop".parse().unwrap(), "api".parse().unwrap());
        match connect((&backend, &name), (spec, None), &request()) {
            Ok(_) => assert!(sentence.is_empty(), "passed instead of `{sentence}`"),
            Err(error) => {
                let error = error.to_string();
                assert!(!sentence.is_empty() && error.contains(sentence), "{error}");
                assert!(error.contains("[backends.shop.connections.api]"), "{error}");
                assert!(!error.contains("root-token"), "{error}");
            }
        }
    }

    #[test]
    fn a_grant_must_meet_the_manifest() {
        check(|_| (), "");
        check(|spec| spec.reads.clear(), "");
        check(|spec| spec.client_address = Some("https://api.example".to_owned()), "");
        check(|spec| spec.auth = HttpAuth::None, "`auth` is `none`");
        check(|spec| spec.address = "http://api.internal".to_owned(), "plain HTTP");
        check(|spec| spec.address = "https://u:root-token@api".to_owned(), "without a path");
        check(|spec| spec.address = "https://127.0.0.1".to_owned(), "reach = [\"loopback\"]");
        check(|spec| spec.client_address = Some("api.example:443".to_owned()), "`client_address`");
        check(|spec| drop(spec.methods.pop()), "`POST` in `methods`, which is not granted");
        check(|spec| spec.methods.push("DELETE".to_owned()), "`DELETE` in `methods` is nothing");
        check(|spec| spec.paths.clear(), "`/v1/users` in `paths`, which is not granted");
        check(|spec| spec.paths.push("/v1".to_owned()), "`/v1` in `paths` is nothing");
        check(|spec| spec.reads.push("/token".to_owned()), "`/token` in `reads` is nothing");
    }

    #[test]
    fn every_stanza_is_a_connection_that_the_configuration_takes() {
        let (backend, name) = ("shop".parse().unwrap(), "api".parse().unwrap());
        for auth in [
            "none",
            "bearer",
            "basic",
            "header",
            "sigv4",
            "oauth2-client-credentials",
            "token-exchange",
            "google-service-account",
            "web-identity",
            "mtls",
        ] {
            let auth: Auth = serde_json::from_value(auth.into()).unwrap();
            let request = ConnectionRequest { auth: vec![auth], ..request() };
            let stanza = stanza(&backend, &name, &request);
            let table: toml::Table = stanza.parse().unwrap();
            let connection = table["backends"]["shop"]["connections"]["api"].clone();
            let config: ConnectionConfig = connection.try_into().unwrap();
            assert_eq!((config.methods, config.paths), (request.methods, request.paths));
            assert_eq!(config.reads, request.reads);
            assert!(config.auth.is_some());
        }
    }
}
