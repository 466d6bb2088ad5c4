//! What the broker proves about itself: tokens that it signs, and a client certificate.

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as RcgenKey};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::issuer::page::{Page, PageSpec};
use crate::journal::{JournalOptions, SealingKey, SqliteJournal};

const URL: &str = "https://broker.example.org";

/// An issuer with a key, and its published keys as they are fetched.
struct Signing {
    issuer: Arc<Issuer>,
    keys: JwkSet,
    _folder: tempfile::TempDir,
}

impl Signing {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = JournalOptions {
            path: folder.path().join("journal.db"),
            sealing_key: SealingKey::take(&mut [7; 32]),
            intent_timeout: Duration::from_secs(30),
            queue_max: 64,
            commit_observer: None,
        };
        let journal = SqliteJournal::open(options).unwrap().journal;
        let issuer = Arc::new(Issuer::new(URL, Duration::from_hours(24)).unwrap());
        issuer.tend(&journal, now()).await.unwrap();
        let spec = PageSpec { address: "127.0.0.1:0".parse().unwrap(), tls: None };
        let page = Page::bind(&spec, Arc::clone(&issuer)).await.unwrap();
        let port = page.address().unwrap().port();
        let serving = tokio::spawn(page.serve());
        let reach = vec![Reach::Loopback];
        let route = Route { tls: false, host: "127.0.0.1".to_owned(), port, reach };
        let fetched = client(None).exchange(&route, get("/jwks"), end()).await.unwrap();
        serving.abort();
        let keys = serde_json::from_slice(&fetched.body).unwrap();
        Self { issuer, keys, _folder: folder }
    }

    fn authenticator(&self, auth: HttpAuth) -> Authenticator {
        let parts = AuthParts { issuer: Some(Arc::clone(&self.issuer)), ..parts() };
        Authenticator::new(auth, parts).unwrap()
    }

    /// The claims of a token, verified as a relying party does.
    fn claims(&self, token: &str, audience: &str) -> Value {
        let header = decode_header(token).unwrap();
        let key = self.keys.find(&header.kid.unwrap()).expect("a published key");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[URL]);
        decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
    }
}

fn web_identity(form_parameter: Option<&str>) -> HttpAuth {
    let form_parameter = form_parameter.map(str::to_owned);
    let claims = vec!["team".to_owned()];
    HttpAuth::WebIdentity { audience: "sts.example".to_owned(), form_parameter, claims }
}

#[tokio::test]
async fn a_web_identity_is_a_bearer_token_that_names_the_backend_and_the_call() {
    let (signing, server) = (Signing::start().await, Server::start().await);
    let authenticator = signing.authenticator(web_identity(None));
    let subject = subject("s1");
    for of in [None, Some(&subject)] {
        let (route, mut outgoing) = (server.route(), get("/"));
        let acting = authenticator.within(of);
        let learned = acting.apply(&route, &mut outgoing, end()).await.unwrap();
        client(None).exchange(&route, outgoing, end()).await.unwrap();
        let seen = server.only();
        let token = seen.header("authorization").strip_prefix("Bearer ").unwrap();
        assert_eq!(learned[0].as_str(), token);
        let claims = signing.claims(token, "sts.example");
        assert_eq!(claims["sub"], "backend:backend");
        let session = claims.pointer("/claviger/session").and_then(Value::as_str);
        assert_eq!(session, of.map(|_| "s1"));
    }
}

#[tokio::test]
async fn a_web_identity_says_what_the_plugin_adds_and_stays_the_hosts() {
    let (signing, server) = (Signing::start().await, Server::start().await);
    let authenticator = signing.authenticator(web_identity(None));
    let admitted = |claims: Value| authenticator.admit_claims(claims.as_object()).is_ok();
    assert!(admitted(serde_json::json!({ "team": "finance" })));
    assert!(!admitted(serde_json::json!({ "team": "finance", "groups": ["system:masters"] })));
    let (route, mut outgoing) = (server.route(), get("/"));
    // What the door refuses to let in, to show that it would not count either.
    let added = serde_json::json!({ "team": "finance", "sub": "another", "aud": "another" });
    let acting = authenticator.within(None).saying(added.as_object());
    acting.apply(&route, &mut outgoing, end()).await.unwrap();
    client(None).exchange(&route, outgoing, end()).await.unwrap();
    let seen = server.only();
    let token = seen.header("authorization").strip_prefix("Bearer ").unwrap();
    let claims = signing.claims(token, "sts.example");
    assert_eq!((&claims["team"], &claims["sub"]), (&"finance".into(), &"backend:backend".into()));
}

#[tokio::test]
async fn a_web_identity_joins_the_form_that_the_guest_wrote() {
    let (signing, server) = (Signing::start().await, Server::start().await);
    let authenticator = signing.authenticator(web_identity(Some("WebIdentityToken")));
    for (body, kind) in [
        ("", None),
        ("Action=A&RoleArn=b%2Fc", Some("application/x-www-form-urlencoded; charset=utf-8")),
    ] {
        let mut outgoing = get("/");
        outgoing.method = Method::POST;
        outgoing.body = Zeroizing::new(body.as_bytes().to_vec());
        if let Some(kind) = kind {
            outgoing.headers.insert("content-type", kind.parse().unwrap());
        }
        let learned = send(&authenticator, &server, outgoing).await;
        let seen = server.only();
        assert!(seen.body.starts_with(body));
        assert_eq!(seen.form("WebIdentityToken").as_ref(), learned.first());
        assert!(seen.header("content-type").starts_with("application/x-www-form-urlencoded"));
        signing.claims(&learned[0], "sts.example");
        assert!(seen.headers.get("authorization").is_none());
    }
}

#[tokio::test]
async fn a_form_that_brings_its_own_identity_is_refused() {
    let signing = Signing::start().await;
    let authenticator = signing.authenticator(web_identity(Some("WebIdentityToken")));
    let form = Some("application/x-www-form-urlencoded");
    let cases = [
        ("/", form, "WebIdentityToken=mine"),
        ("/", form, "a=b&WebIdentity%54oken=mine"),
        ("/?WebIdentityToken=mine", form, ""),
        ("/", Some("application/json"), "{}"),
        ("/", None, "a=b"),
    ];
    for (path, kind, body) in cases {
        let mut outgoing = get(path);
        outgoing.body = Zeroizing::new(body.as_bytes().to_vec());
        if let Some(kind) = kind {
            outgoing.headers.insert("content-type", kind.parse().unwrap());
        }
        let route = Route { tls: true, host: "a".to_owned(), port: 443, reach: Vec::new() };
        let failure = authenticator.apply(&route, &mut outgoing, end()).await.unwrap_err();
        assert!(failure.message.contains("WebIdentityToken"), "{path} {body}: {failure:?}");
    }
}

#[tokio::test]
async fn an_exchanged_token_serves_the_session_that_its_subject_named() {
    let signing = Signing::start().await;
    let server = Server::answering(|number| {
        let token = json!({"access_token": format!("t{number}"), "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "expires_in": 600});
        (200, token.to_string())
    })
    .await;
    let authenticator = signing.authenticator(HttpAuth::TokenExchange {
        token_url: server.url(),
        subject_audience: "//iam.example/pool".to_owned(),
        audience: Some("//iam.example/provider".to_owned()),
        scopes: vec!["s".to_owned()],
    });
    let (first, second) = (subject("s1"), subject("s2"));
    let route = Route { tls: true, host: "a".to_owned(), port: 443, reach: Vec::new() };
    let cases = [(Some(&first), "t0"), (Some(&first), "t0"), (Some(&second), "t1"), (None, "t2")];
    for (subject, expect) in cases {
        let mut outgoing = get("/");
        let acting = authenticator.within(subject);
        let learned = acting.apply(&route, &mut outgoing, end()).await.unwrap();
        assert_eq!(learned[0].as_str(), expect);
        assert_eq!(outgoing.headers["authorization"], format!("Bearer {expect}"));
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for (request, session) in seen.iter().zip([Some("s1"), Some("s2"), None]) {
        let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
        assert_eq!(request.form("grant_type").unwrap(), grant);
        let kind = "urn:ietf:params:oauth:token-type:jwt";
        assert_eq!(request.form("subject_token_type").unwrap(), kind);
        assert_eq!(request.form("audience").unwrap(), "//iam.example/provider");
        let token = request.form("subject_token").unwrap();
        let claims = signing.claims(&token, "//iam.example/pool");
        assert_eq!(claims.pointer("/claviger/session").and_then(Value::as_str), session);
    }
}

#[test]
fn what_the_broker_must_sign_needs_an_issuer() {
    let exchange = HttpAuth::TokenExchange {
        token_url: "https://a.example/t".to_owned(),
        subject_audience: "a".to_owned(),
        audience: None,
        scopes: Vec::new(),
    };
    for auth in [web_identity(None), exchange] {
        assert_eq!(refused(auth), AuthError::NoIssuer);
    }
}

/// An authority, and a certificate of it with its key, PEM.
struct Pki(CertifiedIssuer<'static, RcgenKey>);

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, RcgenKey::generate().unwrap()).unwrap())
    }

    fn certified(&self) -> (String, String) {
        let key = RcgenKey::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn a_client_certificate_is_what_the_server_sees() {
    let pki = Pki::new();
    let (certificate, key) = pki.certified();
    let auth = HttpAuth::Mtls { certificate: certificate.clone().into_bytes(), key: secret(&key) };
    let authenticator = authenticator(auth);
    assert_eq!(authenticator.root_secrets()[0].as_str(), key);
    let (port, served) = demand_certificate(&pki).await;

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, pki.0.pem()).unwrap();
    let identity = authenticator.client_identity();
    let tls = tls::client(Some(&ca), identity.as_ref()).unwrap();
    let door = Client::new(tls, Arc::new(SystemResolver));
    let reach = vec![Reach::Loopback];
    let route = Route { tls: true, host: "127.0.0.1".to_owned(), port, reach };
    let mut outgoing = get("/");
    assert!(authenticator.apply(&route, &mut outgoing, end()).await.unwrap().is_empty());
    assert_eq!(door.exchange(&route, outgoing, end()).await.unwrap().status, 204);
    let expect = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    assert_eq!(served.await.unwrap(), expect.as_ref());
}

/// A server that takes one connection and tells its client's certificate.
async fn demand_certificate(pki: &Pki) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let (certificate, key) = pki.certified();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.0.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    });
    (port, served)
}

#[test]
fn a_certificate_comes_with_its_own_key() {
    let pki = Pki::new();
    let ((certificate, key), (_, other)) = (pki.certified(), pki.certified());
    let cases = [
        (certificate.as_str(), other.as_str(), "do not belong together"),
        ("", key.as_str(), "the certificate is not PEM"),
        (certificate.as_str(), "hunter2", "the key is not PEM"),
    ];
    for (certificate, key, sentence) in cases {
        let certificate = certificate.as_bytes().to_vec();
        let error = refused(HttpAuth::Mtls { certificate, key: secret(key) }).to_string();
        assert!(error.contains(sentence) && !error.contains("hunter2"), "{error}");
    }
}
