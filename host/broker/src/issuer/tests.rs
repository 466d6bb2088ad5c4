//! The issuer as relying parties see it: tokens verified with the published keys alone, through
//! rotations and restarts, on a clock that is set by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::Path;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};

use super::page::{Page, PageSpec};
use super::*;
use crate::journal::{JournalOptions, SealingKey};

const URL: &str = "https://broker.example.org/claviger";

struct Fixture {
    folder: tempfile::TempDir,
    journal: SqliteJournal,
    issuer: Issuer,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = open(&folder.path().join("journal.db"));
        let fixture = Self { folder, journal, issuer: issuer() };
        fixture.tend(0).await;
        fixture
    }

    /// Keeps the keys up as if it were so many hours after the start.
    async fn tend(&self, hours: u64) {
        self.issuer.tend(&self.journal, at(hours)).await.unwrap();
    }

    fn keys(&self) -> JwkSet {
        serde_json::from_value(self.issuer.jwks()).unwrap()
    }

    fn sign(&self, hours: u64) -> String {
        let token = self.issuer.sign_granted(granted(&subject(hours), "{}"), at(hours));
        token.unwrap().to_string()
    }
}

fn open(path: &Path) -> SqliteJournal {
    let options = JournalOptions {
        path: path.to_owned(),
        sealing_key: SealingKey::take(&mut [7; 32]),
        intent_timeout: Duration::from_secs(30),
        queue_max: 64,
        commit_observer: None,
    };
    SqliteJournal::open(options).unwrap().journal
}

fn issuer() -> Issuer {
    Issuer::new(URL, Duration::from_hours(30 * 24)).unwrap()
}

fn at(hours: u64) -> Timestamp {
    Timestamp::from_unix_millis(1_795_000_000_000).after(Duration::from_hours(hours))
}

fn subject(hours: u64) -> Subject {
    Subject {
        intent: "intent-1".to_owned(),
        expires_at_secs: at(hours + 1).unix_secs(),
        attribution: Attribution {
            session: "session-1".to_owned(),
            role: "Code Reviewer".to_owned(),
            requester: "unix:1000".to_owned(),
            scope: "aws/readonly".to_owned(),
            prompt_sha256: "ab".repeat(32),
        },
    }
}

fn granted<'a>(subject: &'a Subject, claims: &str) -> Granted<'a> {
    Granted {
        backend: "aws",
        subject,
        audience: "sts.amazonaws.com",
        claims: guest_claims(claims).unwrap(),
        expires_at_secs: subject.expires_at_secs,
    }
}

/// What a relying party reads that knows nothing but the page.
fn verified(token: &str, keys: &JwkSet, audience: &str) -> Option<Value> {
    let header = decode_header(token).unwrap();
    assert_eq!(header.alg, Algorithm::ES256, "the one algorithm");
    let key = DecodingKey::from_jwk(keys.find(&header.kid?)?).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[URL]);
    // The clock of the tests is not that of the machine.
    validation.validate_exp = false;
    decode::<Value>(token, &key, &validation).ok().map(|data| data.claims)
}

#[tokio::test]
async fn a_token_says_who_it_is_for_and_verifies_with_the_published_key() {
    let fixture = Fixture::new().await;
    let subject = subject(0);
    let claims = r#"{"https://aws.amazon.com/tags": {"principal_tags": {"team": ["a"]}}}"#;
    let token = fixture.issuer.sign_granted(granted(&subject, claims), at(0)).unwrap();
    let claims = verified(&token, &fixture.keys(), "sts.amazonaws.com").unwrap();
    let expect = json!({
        "iss": URL,
        "sub": "backend:aws:role:Code Reviewer",
        "aud": "sts.amazonaws.com",
        "iat": at(0).unix_secs(),
        "nbf": at(0).unix_secs(),
        "exp": at(1).unix_secs(),
        "jti": "intent-1",
        "claviger": {
            "session": "session-1",
            "role": "Code Reviewer",
            "requester": "unix:1000",
            "scope": "aws/readonly",
            "prompt_sha256": "ab".repeat(32),
        },
        "https://aws.amazon.com/tags": {"principal_tags": {"team": ["a"]}},
    });
    assert_eq!(claims, expect);
    assert!(verified(&token, &fixture.keys(), "someone-else").is_none());
}

#[tokio::test]
async fn the_published_key_is_named_by_its_thumbprint_and_serves_one_algorithm() {
    let fixture = Fixture::new().await;
    let set = fixture.issuer.jwks();
    let key = &set["keys"][0];
    let members: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.len(), 7, "{members:?} hold nothing private");
    for (member, expect) in [("kty", "EC"), ("crv", "P-256"), ("alg", "ES256"), ("use", "sig")] {
        assert_eq!(key[member], expect);
    }
    // RFC 7638, section 3, by hand.
    let required = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, key["x"], key["y"]);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, required.as_bytes());
    assert_eq!(key["kid"], data_encoding::BASE64URL_NOPAD.encode(digest.as_ref()));
}

#[tokio::test]
async fn no_token_outlives_its_request_or_the_cap() {
    let fixture = Fixture::new().await;
    let mut subject = subject(0);
    let sign = |subject: &Subject, expires_at_secs| {
        let granted = Granted { expires_at_secs, ..granted(subject, "{}") };
        fixture.issuer.sign_granted(granted, at(0)).map(drop)
    };
    let end = subject.expires_at_secs;
    for (expires_at, fits) in
        [(end, true), (end + 1, false), (at(0).unix_secs(), false), (0, false)]
    {
        assert_eq!(sign(&subject, expires_at).is_ok(), fits, "{expires_at}");
    }
    subject.expires_at_secs = u64::MAX;
    assert!(sign(&subject, at(12).unix_secs()).is_ok());
    assert!(sign(&subject, at(12).unix_secs() + 1).is_err());
}

#[tokio::test]
async fn the_hosts_own_tokens_name_the_backend_and_the_call_if_there_is_one() {
    let fixture = Fixture::new().await;
    let (subject, mut seen) = (subject(0), Vec::new());
    for of in [None, Some(&subject)] {
        let own = Own { backend: "aws", subject: of, audience: "a", claims: None };
        let token = fixture.issuer.sign_own(&own, at(0)).unwrap();
        let claims = verified(&token, &fixture.keys(), "a").unwrap();
        assert_eq!(claims["sub"], "backend:aws");
        assert_eq!(claims["exp"], at(0).unix_secs() + 300);
        assert_eq!(claims.get("claviger").is_some(), of.is_some());
        seen.push(claims["jti"].clone());
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_have_ended() {
    let fixture = Fixture::new().await;
    let rotation = 30 * 24;
    let first = fixture.keys();
    // An hour ahead the next key appears, and does not sign yet.
    fixture.tend(rotation - 2).await;
    assert_eq!(fixture.keys().keys.len(), 1);
    fixture.tend(rotation - 1).await;
    let both = fixture.keys();
    assert_eq!(both.keys.len(), 2);
    let last_of_old = fixture.sign(rotation - 1);
    assert!(verified(&last_of_old, &first, "sts.amazonaws.com").is_some(), "the old key signs");
    // Then it signs: who fetched the page an hour ago knows it already.
    fixture.tend(rotation).await;
    let first_of_new = fixture.sign(rotation);
    assert!(verified(&first_of_new, &first, "sts.amazonaws.com").is_none(), "another key signs");
    assert!(verified(&first_of_new, &both, "sts.amazonaws.com").is_some());
    // The old one stays for its tokens, without its private half, and then goes.
    fixture.tend(rotation + 11).await;
    assert!(verified(&last_of_old, &fixture.keys(), "sts.amazonaws.com").is_some());
    let private = fixture.journal.issuer_keys().await.unwrap();
    assert_eq!(private.iter().filter(|key| key.pkcs8.is_some()).count(), 1);
    fixture.tend(rotation + 13).await;
    assert_eq!(fixture.keys().keys.len(), 1);
    assert!(verified(&fixture.sign(rotation + 13), &both, "sts.amazonaws.com").is_some());
}

#[tokio::test]
async fn a_broker_that_was_away_for_long_still_publishes_before_it_signs() {
    let fixture = Fixture::new().await;
    let before = fixture.keys();
    let away = 365 * 24;
    fixture.tend(away).await;
    assert_eq!(fixture.keys().keys.len(), 2);
    assert!(verified(&fixture.sign(away), &before, "sts.amazonaws.com").is_some());
    fixture.tend(away).await;
    assert_eq!(fixture.keys().keys.len(), 2, "one successor is enough");
}

#[tokio::test]
async fn a_clock_that_is_set_back_finds_a_key_that_signs() {
    let fixture = Fixture::new().await;
    fixture.tend(30 * 24).await;
    fixture.tend(30 * 24 + 2).await;
    let own = Own { backend: "b", subject: None, audience: "a", claims: None };
    let token = fixture.issuer.sign_own(&own, at(0));
    assert!(verified(&token.unwrap(), &fixture.keys(), "a").is_some());
}

#[tokio::test]
async fn a_restart_keeps_the_keys_and_the_journal_names_the_new_one() {
    let fixture = Fixture::new().await;
    let (before, token) = (fixture.keys(), fixture.sign(0));
    fixture.journal.close().await;
    let journal = open(&fixture.folder.path().join("journal.db"));
    let issuer = issuer();
    assert!(issuer.sign_granted(granted(&subject(0), "{}"), at(0)).is_err(), "no key yet");
    issuer.tend(&journal, at(0)).await.unwrap();
    let after: JwkSet = serde_json::from_value(issuer.jwks()).unwrap();
    assert_eq!(before, after);
    assert!(verified(&token, &after, "sts.amazonaws.com").is_some());
    journal.verify().await.unwrap();
    let json = std::fs::read(fixture.folder.path().join("journal.db")).unwrap();
    let log = std::fs::read(fixture.folder.path().join("journal.db-wal")).unwrap_or_default();
    let kid = before.keys[0].common.key_id.clone().unwrap();
    let entry = format!("\"issuer-key-made\",\"detail\":\"key {kid} signs from");
    assert!(holds(&json, entry.as_bytes()) || holds(&log, entry.as_bytes()));
}

#[tokio::test]
async fn the_private_key_is_in_no_byte_of_the_files() {
    let fixture = Fixture::new().await;
    let keys = fixture.journal.issuer_keys().await.unwrap();
    let pkcs8 = keys[0].pkcs8.as_ref().unwrap();
    // The scalar stands behind the header of an EC key in PKCS #8 (RFC 5915).
    let at = pkcs8.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
    let scalar = &pkcs8[at..at + 32];
    let kid = keys[0].kid.as_bytes();
    let folder = fixture.folder.path().to_owned();
    assert!(in_files(&folder, kid), "the search itself must find");
    for secret in [scalar, pkcs8.as_slice()] {
        assert!(!in_files(&folder, secret));
    }
    fixture.journal.close().await;
    assert!(!in_files(&folder, scalar));
}

#[tokio::test]
async fn a_key_that_somebody_puts_into_the_file_is_never_published() {
    let fixture = Fixture::new().await;
    let path = fixture.folder.path().join("journal.db");
    fixture.journal.close().await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    let copied = "INSERT INTO issuer_keys SELECT 'mine', sealed FROM issuer_keys LIMIT 1";
    conn.execute(copied, []).unwrap();
    drop(conn);
    let (journal, issuer) = (open(&path), issuer());
    assert!(matches!(issuer.tend(&journal, at(0)).await, Err(TendError::Journal(_))));
    assert_eq!(issuer.jwks(), json!({"keys": []}));
}

#[tokio::test]
async fn the_page_is_found_below_the_issuers_url() {
    let fixture = Fixture::new().await;
    let spec = PageSpec { address: "127.0.0.1:0".parse().unwrap(), tls: None };
    let issuer = Arc::new(fixture.issuer);
    let page = Page::bind(&spec, Arc::clone(&issuer)).await.unwrap();
    let address = page.address().unwrap();
    let serving = tokio::spawn(page.serve());
    let found = get(address, "/claviger/.well-known/openid-configuration").await;
    assert!(found.starts_with("HTTP/1.1 200"), "{found}");
    assert!(found.contains("cache-control: public, max-age=900\r\n"), "{found}");
    let body: Value = serde_json::from_str(found.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["issuer"], &body["jwks_uri"]), (&json!(URL), &json!(format!("{URL}/jwks"))));
    let keys = get(address, "/claviger/jwks").await;
    assert!(keys.ends_with(&issuer.jwks().to_string()), "{keys}");
    for path in ["/", "/jwks", "/.well-known/openid-configuration"] {
        assert!(get(address, path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    serving.abort();
}

#[test]
fn an_issuer_url_has_one_form() {
    let day = Duration::from_hours(24);
    for url in ["https://a.example", "https://a.example:8443/x/y", "http://127.0.0.1:8480"] {
        assert!(Issuer::new(url, day).is_ok(), "{url}");
    }
    for url in [
        "a.example",
        "http://a.example",
        "https://a.example/",
        "https://a.example/x/",
        "https://a.example//x",
        "https://A.example",
        "https://a.example:443",
        "https://a.example/x/../y",
        "https://u:p@a.example",
        "https://a.example?x",
        "https://a.example#x",
        "https://a.example/{x}",
    ] {
        assert!(matches!(Issuer::new(url, day), Err(IssuerError::Url { .. })), "{url}");
    }
    let short = Issuer::new("https://a.example", Duration::from_hours(23));
    assert_eq!(short.err(), Some(IssuerError::RotateEvery));
}

/// One request on a connection of its own.
async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn in_files(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder)
        .unwrap()
        .any(|file| holds(&std::fs::read(file.unwrap().path()).unwrap(), bytes))
}

fn holds(content: &[u8], bytes: &[u8]) -> bool {
    content.windows(bytes.len()).any(|window| window == bytes)
}
