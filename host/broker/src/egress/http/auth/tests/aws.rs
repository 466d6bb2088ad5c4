//! Signature Version 4: against AWS's published test suite, and against what a server computes
//! anew from the bytes that it received.

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::*;

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn signer(service: &str, token: Option<&str>) -> Signer {
    let keys = [Some(ID), Some(KEY), token];
    let keys = keys.map(|key| key.map(|key| Arc::new(secret(key))));
    Signer::new(keys, "us-east-1".to_owned(), service.to_owned()).unwrap()
}

fn sigv4(service: &str, token: Option<&str>) -> HttpAuth {
    HttpAuth::Sigv4 {
        access_key_id: secret(ID),
        secret_access_key: secret(KEY),
        session_token: token.map(secret),
        region: "us-east-1".to_owned(),
        service: service.to_owned(),
    }
}

/// The requests of AWS's Signature Version 4 test suite are all of this moment.
fn suite_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160)
}

fn suite_route() -> Route {
    Route { tls: true, host: "example.amazonaws.com".to_owned(), port: 443, reach: Vec::new() }
}

fn signature_of(outgoing: &Outgoing) -> &str {
    let text = outgoing.headers["authorization"].to_str().unwrap();
    text.rsplit_once("Signature=").unwrap().1
}

#[test]
fn signs_as_the_published_test_suite_does() {
    let form = "application/x-www-form-urlencoded";
    let cases = [
        ("GET", "/", None, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "GET",
            "/?Param2=value2&Param1=value1",
            None,
            "",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        ("POST", "/", None, "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "POST",
            "/",
            Some(form),
            "Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ];
    for (method, path, kind, body, expect) in cases {
        let mut outgoing = get(path);
        outgoing.method = method.parse().unwrap();
        outgoing.body = Zeroizing::new(body.as_bytes().to_vec());
        if let Some(kind) = kind {
            outgoing.headers.insert("content-type", kind.parse().unwrap());
        }
        signer("service", None).sign(&suite_route(), &mut outgoing, suite_time()).unwrap();
        assert_eq!(signature_of(&outgoing), expect, "{method} {path}");
    }
}

#[tokio::test]
async fn a_server_computes_the_same_signature_from_what_it_received() {
    let server = Server::start().await;
    for (service, token) in [("sts", None), ("iam", Some("session-token")), ("s3", None)] {
        let authenticator = authenticator(sigv4(service, token));
        let mut outgoing = get("/a%20b/c?x=1&X=%2F&empty=");
        outgoing.method = Method::POST;
        outgoing.headers.insert("content-type", "text/plain".parse().unwrap());
        outgoing.headers.insert("x-amz-security-token", "forged".parse().unwrap());
        outgoing.headers.insert("x-amz-date", "20000101T000000Z".parse().unwrap());
        outgoing.body = Zeroizing::new(b"the final bytes".to_vec());
        assert!(send(&authenticator, &server, outgoing).await.is_empty());
        let seen = server.only();
        assert_eq!(seen.header("x-amz-security-token"), token.unwrap_or_default());
        let named = seen.header("authorization").to_owned();
        let signed = named.split("SignedHeaders=").nth(1).unwrap().split(',').next().unwrap();
        for name in ["host", "content-type", "x-amz-date"] {
            assert!(signed.split(';').any(|s| s == name), "{signed}");
        }
        assert_eq!(token.is_some(), signed.contains("x-amz-security-token"), "{signed}");
        let (_, signature) = named.rsplit_once("Signature=").unwrap();
        assert_eq!(signature, recomputed(&seen, signed, service), "{service}");
        assert_eq!(seen.header("host"), server.route().authority());
    }
}

#[test]
fn the_key_and_its_token_are_root_secrets_and_the_id_is_none() {
    let authenticator = authenticator(sigv4("sts", Some("tok")));
    let roots: Vec<_> = authenticator.root_secrets().iter().map(|s| s.to_string()).collect();
    assert_eq!(roots, [KEY, "tok"]);
}

/// The signature as AWS's reference describes it, from the request alone.
fn recomputed(seen: &server::Seen, signed: &str, service: &str) -> String {
    let (path, query) = seen.uri.split_once('?').unwrap();
    // Every service but S3 encodes the path once more.
    let path = if service == "s3" { path.to_owned() } else { path.replace('%', "%25") };
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    let lines: String =
        signed.split(';').map(|name| format!("{name}:{}\n", seen.header(name))).collect();
    let hash = |bytes: &[u8]| HEXLOWER.encode(&Sha256::digest(bytes));
    let canonical = format!(
        "{}\n{path}\n{}\n{lines}\n{signed}\n{}",
        seen.method,
        pairs.join("&"),
        hash(seen.body.as_bytes())
    );
    let at = seen.header("x-amz-date");
    let day = &at[..8];
    let scope = format!("{day}/us-east-1/{service}/aws4_request");
    let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hash(canonical.as_bytes()));
    let mac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let key = [day, "us-east-1", service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{KEY}").into_bytes(), |key, part| mac(&key, part));
    HEXLOWER.encode(&mac(&key, &to_sign))
}
