//! Tokens from a token endpoint: what is asked, what is kept, what is said when it is refused.

use data_encoding::BASE64;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use super::*;
use crate::egress::FailureKind;

/// Answers with token `t0`, `t1`, … that live so many seconds.
async fn endpoint(life_secs: u64) -> Server {
    let next = std::sync::atomic::AtomicUsize::new(0);
    Server::answering(move |_| {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let token = format!("t{number}");
        let answer =
            json!({"access_token": token, "token_type": "Bearer", "expires_in": life_secs});
        (200, answer.to_string())
    })
    .await
}

fn client_credentials(url: &str) -> HttpAuth {
    HttpAuth::OAuth2ClientCredentials {
        token_url: url.to_owned(),
        client_id: "the client".to_owned(),
        client_secret: secret("hunter2:&"),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        audience: Some("https://api.example".to_owned()),
    }
}

/// The header `authorization` after one application.
fn route() -> Route {
    Route { tls: true, host: "a".to_owned(), port: 443, reach: Vec::new() }
}

async fn applied(authenticator: &Authenticator) -> Result<String, Failure> {
    let mut outgoing = get("/");
    authenticator.apply(&route(), &mut outgoing, end()).await?;
    assert!(outgoing.headers["authorization"].is_sensitive());
    Ok(outgoing.headers["authorization"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_asks_once_and_its_token_is_kept_until_it_is_refused() {
    let server = endpoint(3600).await;
    let authenticator = authenticator(client_credentials(&server.url()));
    for _ in 0..3 {
        assert_eq!(applied(&authenticator).await.unwrap(), "Bearer t0");
    }
    let seen = server.only();
    assert_eq!((seen.method.as_str(), seen.uri.as_str()), ("POST", "/token?tenant=a"));
    let pair = BASE64.encode(b"the+client:hunter2%3A%26");
    assert_eq!(seen.header("authorization"), format!("Basic {pair}"));
    assert_eq!(seen.form("grant_type").unwrap(), "client_credentials");
    assert_eq!(seen.form("scope").unwrap(), "read write");
    assert_eq!(seen.form("audience").unwrap(), "https://api.example");
    assert!(!seen.body.contains("hunter2"));
    let other = Arc::new(secret("t0"));
    authenticator.rejected(&[other]);
    assert_eq!(applied(&authenticator).await.unwrap(), "Bearer t0", "a token of somebody else");
    let used = authenticator.apply(&route(), &mut get("/"), end()).await.unwrap();
    authenticator.rejected(&used);
    assert_eq!(applied(&authenticator).await.unwrap(), "Bearer t1");
    let roots: Vec<_> = authenticator.root_secrets().iter().map(|s| s.to_string()).collect();
    assert_eq!(roots, ["hunter2:&", "hunter2%3A%26", pair.as_str()]);
}

#[tokio::test]
async fn many_calls_at_once_make_one_request() {
    let server = endpoint(3600).await;
    let authenticator = Arc::new(authenticator(client_credentials(&server.url())));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let authenticator = Arc::clone(&authenticator);
        calls.spawn(async move { applied(&authenticator).await.unwrap() });
    }
    while let Some(header) = calls.join_next().await {
        assert_eq!(header.unwrap(), "Bearer t0");
    }
    server.only();
}

#[tokio::test]
async fn a_token_that_ends_at_once_is_asked_for_anew() {
    let server = endpoint(0).await;
    let authenticator = authenticator(client_credentials(&server.url()));
    for expect in ["Bearer t0", "Bearer t1"] {
        assert_eq!(applied(&authenticator).await.unwrap(), expect);
    }
}

#[tokio::test]
async fn a_refusal_is_told_by_its_code_and_sentence_without_the_secret() {
    let answer = json!({
        "error": "invalid_client",
        "error_description": "no client\nhas hunter2:& here",
        "debug": "internal-detail",
    });
    let cases = [
        (
            401,
            answer.to_string(),
            FailureKind::Denied,
            "answered 401 `invalid_client`: no client has [redacted] here",
        ),
        (503, "<html>internal-detail".to_owned(), FailureKind::Unavailable, "answered 503"),
        (302, String::new(), FailureKind::Other, "answered 302"),
        (429, String::new(), FailureKind::RateLimited, "answered 429"),
    ];
    for (status, body, kind, sentence) in cases {
        let server = Server::answering(move |_| (status, body.clone())).await;
        let failure = applied(&authenticator(client_credentials(&server.url()))).await.unwrap_err();
        let expect = format!("the token endpoint of connection `backend/api`: {sentence}");
        assert_eq!((failure.kind, failure.message), (kind, expect));
        assert!(!failure.request_sent, "the service itself has seen nothing");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_refused() {
    let cases = [
        ("", FailureKind::Other),
        ("{}", FailureKind::Other),
        (r#"{"access_token": "", "token_type": "Bearer"}"#, FailureKind::Other),
        (r#"{"access_token": "a b", "token_type": "Bearer"}"#, FailureKind::Other),
        (r#"{"access_token": "a\r\nx: y", "token_type": "Bearer"}"#, FailureKind::Other),
        (r#"{"access_token": "a", "token_type": "Bearer", "expires_in": -1}"#, FailureKind::Other),
        (r#"{"access_token": "a", "token_type": "mac"}"#, FailureKind::Unsupported),
    ];
    for (body, kind) in cases {
        let server = Server::answering(move |_| (200, body.to_owned())).await;
        let failure = applied(&authenticator(client_credentials(&server.url()))).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{body}");
    }
}

#[test]
fn a_token_endpoint_is_reached_over_tls_or_on_this_machine() {
    for url in ["https://idp.example/token", "http://localhost:1/t", "http://[::1]:1/t"] {
        assert!(Authenticator::new(client_credentials(url), parts()).is_ok(), "{url}");
    }
    for url in ["http://idp.example/t", "ftp://a/t", "https://u:p@a/t", "https://a/t#x", "token"] {
        assert!(matches!(refused(client_credentials(url)), AuthError::TokenUrl { .. }), "{url}");
    }
}

/// A service account's key file with a key of its own, and the public half.
fn service_account(token_uri: &str) -> (String, DecodingKey) {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pem = |label: &str, der: &[u8]| {
        let body = BASE64.encode(der);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let file = json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "key-1",
        "private_key": pem("PRIVATE KEY", private.as_ref()),
        "client_email": "claviger@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    });
    let public = DecodingKey::from_rsa_pem(pem("PUBLIC KEY", public.as_ref()).as_bytes()).unwrap();
    (file.to_string(), public)
}

#[tokio::test]
async fn a_service_account_signs_for_its_token() {
    let server = endpoint(3600).await;
    let (file, public) = service_account(&server.url());
    let scopes = vec!["https://www.googleapis.com/auth/devstorage.read_only".to_owned()];
    let auth = HttpAuth::GoogleServiceAccount { key: secret(&file), scopes: scopes.clone() };
    let authenticator = authenticator(auth);
    assert_eq!(applied(&authenticator).await.unwrap(), "Bearer t0");
    let seen = server.only();
    assert_eq!(seen.form("grant_type").unwrap(), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let assertion = seen.form("assertion").unwrap();
    assert_eq!(decode_header(&assertion).unwrap().kid.as_deref(), Some("key-1"));
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[server.url()]);
    let claims = decode::<Value>(&assertion, &public, &validation).unwrap().claims;
    assert_eq!(claims["iss"], "claviger@p.iam.gserviceaccount.com");
    assert_eq!(claims["scope"], scopes[0]);
    assert_eq!(authenticator.root_secrets().len(), 3);
}

#[test]
fn a_key_file_of_another_sort_is_refused_without_being_quoted() {
    let (good, _) = service_account("https://oauth2.example/token");
    let with = |name: &str, value: &str| {
        let mut file: Value = serde_json::from_str(&good).unwrap();
        file[name] = value.into();
        file.to_string()
    };
    let cases = [
        ("hunter2".to_owned(), "not JSON"),
        (with("type", "authorized_user"), "its `type`"),
        (with("private_key", "hunter2"), "RSA key"),
        (with("token_uri", "http://oauth2.example/token"), "no token endpoint"),
    ];
    for (file, sentence) in cases {
        let scopes = vec!["s".to_owned()];
        let error = refused(HttpAuth::GoogleServiceAccount { key: secret(&file), scopes });
        let error = error.to_string();
        assert!(error.contains(sentence) && !error.contains("hunter2"), "{error}");
    }
}
