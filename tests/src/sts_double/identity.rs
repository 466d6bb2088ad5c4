//! What AWS does with a web identity token, and moto does not: fetches the issuer's keys through
//! its discovery page, checks the signature, and asks whether the role trusts issuer, audience and
//! subject. Then signs the request, since moto refuses to serve an unsigned one.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign as sigv4};
use aws_sigv4::sign::v4;
use axum::body::Body;
use axum::http::Request;
use axum::http::request::Parts;
use bytes::Bytes;
use claviger_test_servers::AccessKey;
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::Refusal;

/// A role that trusts an issuer: an IAM identity provider and the role's trust policy in one.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The role.
    pub role_arn: String,
    /// The issuer's URL.
    pub issuer: String,
    /// The client id of the provider, and the condition on `<issuer>:aud`.
    pub audience: String,
    /// The condition on `<issuer>:sub`.
    pub subject: String,
    /// The authority of the issuer's certificate, PEM.
    pub authority: String,
}

/// The claims of a token that one of `trusts` lets assume the role.
pub async fn verify(trusts: &[Trust], role_arn: &str, token: &str) -> Result<Value, Refusal> {
    let invalid = |message: String| Refusal::sender("InvalidIdentityToken", message);
    let trust = trusts.iter().find(|trust| trust.role_arn == role_arn);
    let trust = trust.ok_or_else(denied)?;
    let header = decode_header(token).map_err(|error| invalid(error.to_string()))?;
    let keys = published_keys(trust).await?;
    let key = header.kid.as_deref().and_then(|id| keys.find(id));
    let key = key.ok_or_else(|| invalid("no key of the provider verifies the token".to_owned()))?;
    let key = DecodingKey::from_jwk(key).map_err(|error| invalid(error.to_string()))?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[&trust.issuer]);
    validation.set_audience(&[&trust.audience]);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp", "iat"]);
    let claims: Value =
        decode(token, &key, &validation).map_err(|error| invalid(error.to_string()))?.claims;
    if claims["sub"] != trust.subject.as_str() {
        return Err(denied());
    }
    Ok(claims)
}

/// Signs with the double's own key, of a user who may do nothing else.
pub fn sign(parts: &mut Parts, body: &Bytes, key: &AccessKey, moto: &str) {
    let identity = Credentials::new(&key.id, &key.secret, None, None, "the double").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("sts")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .expect("every part is there");
    let uri = format!("{moto}/");
    let host = moto.trim_start_matches("http://");
    parts.headers.insert("host", host.parse().expect("a host"));
    let headers = [("host", host)].into_iter();
    let signable = SignableRequest::new("POST", &uri, headers, SignableBody::Bytes(body));
    let signed = sigv4(signable.expect("a request"), &params.into()).expect("signed");
    let mut request = Request::from_parts(parts.clone(), Body::empty());
    signed.into_parts().0.apply_to_request_http1x(&mut request);
    *parts = request.into_parts().0;
}

async fn published_keys(trust: &Trust) -> Result<JwkSet, Refusal> {
    let page = format!("{}/.well-known/openid-configuration", trust.issuer);
    let page: Value = serde_json::from_slice(&fetch(&page, &trust.authority).await?)
        .map_err(|_| unreachable_provider())?;
    if page["issuer"] != trust.issuer.as_str() {
        return Err(unreachable_provider());
    }
    let keys = fetch(page["jwks_uri"].as_str().unwrap_or_default(), &trust.authority).await?;
    serde_json::from_slice(&keys).map_err(|_| unreachable_provider())
}

async fn fetch(url: &str, authority: &str) -> Result<Bytes, Refusal> {
    let url = url.parse().map_err(|_| unreachable_provider())?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trusting(authority))
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let answer = client.get(url).await.map_err(|_| unreachable_provider())?;
    let body = answer.into_body().collect().await.map_err(|_| unreachable_provider())?;
    Ok(body.to_bytes())
}

fn trusting(authority: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM");
    roots.add(authority).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn denied() -> Refusal {
    let message = "Not authorized to perform sts:AssumeRoleWithWebIdentity";
    Refusal { status: 403, ..Refusal::sender("AccessDenied", message) }
}

fn unreachable_provider() -> Refusal {
    Refusal::sender("IDPCommunicationError", "The identity provider cannot be reached.")
}
