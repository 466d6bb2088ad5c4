//! Attacks through the HTTP door, past the SDK: forged requests and answers that are weapons. Each
//! names what stops it; the service tells what really arrived.

use claviger_core::ports::PluginErrorKind;

use super::canary::backend_of;
use super::*;
use crate::egress::http::HttpAuth;
use crate::egress::http::tests::server::{Server, json, wait_for_end, write_endlessly};

const ROOT: &str = "root-token-0123456789";

async fn forger(server: &Server) -> Fixture {
    let auth = HttpAuth::Bearer { token: Zeroizing::new(ROOT.to_owned()) };
    // Answers without end are waited for as long as this.
    let limits = Limits { wall: Duration::from_secs(5), ..patient() };
    Fixture::with_limits("hostile/request_forger", backend_of(server, auth), limits).await
}

async fn forge(fixture: &Fixture, parts: &[(&str, &str)]) -> Result<String, PluginError> {
    let parts: BTreeMap<_, _> = parts.iter().copied().collect();
    let parameters = serde_json::json!(parts).to_string();
    let request = |settings: &str| issue_request(intent(), settings, &parameters);
    Ok(fields(fixture.plugins.mint(&"backend".parse().unwrap(), request).await?)["report"].clone())
}

#[tokio::test]
async fn a_forged_request_is_never_sent() {
    let server = Server::json("{}");
    let fixture = forger(&server).await;
    for (part, forgeries, sentence) in FORGERIES {
        for forgery in *forgeries {
            let report = forge(&fixture, &[(part, forgery)]).await.unwrap();
            assert!(report.starts_with(sentence), "{part} {forgery:?}: {report}");
        }
    }
    assert_eq!(server.seen(), [""; 0], "something was sent");
}

/// The part of a request, what is put there, and how the report begins.
const FORGERIES: &[(&str, &[&str], &str)] = &[
    ("connection", &["", "other", "api\0", "API", "http://127.0.0.1"], "ErrorKind::Denied"),
    ("method", &["DELETE", "PUT", "HEAD", "CONNECT", "TRACE", "get"], "ErrorKind::Denied"),
    (
        "method",
        &["", "GET /v2 HTTP/1.1\r\nHost: evil\r\n\r\nGET", "GET\0", "G ET"],
        "ErrorKind::InvalidInput",
    ),
    ("path", &["/", "/v2", "/v1x", "/V1", "/v", "/v1;x"], "ErrorKind::Denied"),
    (
        "path",
        &[
            "",
            "v1",
            "*",
            "http://evil.example/v1",
            "//evil.example/v1",
            "@evil.example/v1",
            "/v1/../admin",
            "/v1/./a",
            "/v1/..;/admin",
            "/v1//a",
            "/v1/%2e%2e/admin",
            "/v1/%2fadmin",
            "/v1\\..\\admin",
            "/v1/a?b=c",
            "/v1/a#b",
            "/v1/a HTTP/1.1",
            "/v1/a\r\nHost: evil",
            "/v1/a\nb",
            "/v1/a\0",
            "/v1/\u{2025}/admin",
        ],
        "ErrorKind::InvalidInput",
    ),
    (
        "segment",
        &[
            "/..",
            "/../../admin",
            "/%2e%2e",
            "/%252e%252e%252f",
            "/..\\x",
            "/..;x",
            "a\r\nb",
            "\0",
            "",
        ],
        "ErrorKind::InvalidInput",
    ),
    (
        "header",
        &[
            "authorization",
            "Authorization",
            "PROXY-AUTHORIZATION",
            "cookie",
            "Host",
            "X-Amz-Date",
            "x-amz-security-token",
            "X-Goog-Api-Key",
            "Content-Length",
            "transfer-encoding",
            "Connection",
            "te",
            "Trailer",
            "upgrade",
            "expect",
            "X-Forwarded-Host",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "",
            "x\r\nhost",
            "x: y",
            " host",
            "host ",
            "host:",
            "h\u{f6}st",
        ],
        "ErrorKind::InvalidInput",
    ),
    (
        "header-value",
        &["a\r\nhost: evil", "a\nb", "a\rb", "a\0b", "\u{fc}", "a\r\n\r\nGET /v2 HTTP/1.1"],
        "ErrorKind::InvalidInput",
    ),
    // The broker's own credential, known or guessed, is not sent on the plugin's behalf.
    ("body", &["token=root-token-0123456789", "cm9vdC10b2tlbi0wMTIzNDU2Nzg5"], "ErrorKind::"),
    ("segment", &["/root-token-0123456789"], "ErrorKind::"),
    ("query-value", &["root-token-0123456789"], "ErrorKind::"),
    ("header-value", &["root-token-0123456789"], "ErrorKind::"),
];

#[tokio::test]
async fn values_stay_where_they_were_put() {
    let server = Server::json("{}");
    let fixture = forger(&server).await;
    for (part, value, line) in [
        ("segment", "/a/b?c#d e", "GET /v1/honest%2Fa%2Fb%3Fc%23d%20e HTTP/1.1"),
        ("query", "a=b&c", "GET /v1/honest?a%3Db%26c=v HTTP/1.1"),
        ("query-value", "x\r\nhost: evil", "GET /v1/honest?q=x%0D%0Ahost%3A%20evil HTTP/1.1"),
        ("body", "\r\n\r\nGET /v2 HTTP/1.1\r\nhost: evil\r\n\r\n", "GET /v1/honest HTTP/1.1"),
        ("header-value", "a: b; c=\"d\"", "GET /v1/honest HTTP/1.1"),
    ] {
        let report = forge(&fixture, &[(part, value)]).await.unwrap();
        assert!(report.starts_with("200"), "{part} {value:?}: {report}");
        let seen = server.seen().pop().unwrap();
        let (head, _) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(line), "{seen}");
        for name in ["host: ", "authorization: ", "content-length: "] {
            let count = head.to_ascii_lowercase().lines().filter(|l| l.starts_with(name)).count();
            assert!(count <= 1, "{count} times `{name}` in {seen}");
        }
        assert!(head.contains(&format!("authorization: Bearer {ROOT}")), "{seen}");
    }
    assert_eq!(server.seen().len(), 5, "one request each");
}

#[tokio::test]
async fn a_call_sends_eight_requests_and_no_more() {
    let server = Server::json("{}");
    let fixture = forger(&server).await;
    let report = forge(&fixture, &[("times", "50")]).await.unwrap();
    assert!(report.contains("at most 8 requests"), "{report}");
    assert_eq!(server.seen().len(), 8);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_does_not_carry_the_credential() {
    let elsewhere = Server::json("{}");
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let target = format!("{}/v1/x?code=s3cret", elsewhere.url());
        let answer =
            format!("HTTP/1.1 {status}\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
        let server = Server::saying(&answer);
        let report = forge(&forger(&server).await, &[]).await.unwrap();
        assert!(report.starts_with('3') && !report.contains("s3cret"), "{report}");
    }
    assert_eq!(elsewhere.accepted(), 0, "a redirect was followed");
}

#[tokio::test]
async fn answers_that_are_weapons_hurt_nobody() {
    let laughs = LAUGHS.to_owned();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let big = "x".repeat(300 * 1024);
    for (name, answer, sentence) in [
        ("many bytes", json(&big), "ErrorKind::"),
        ("a length that lies", ok("content-length: 99999999999"), "ErrorKind::"),
        ("two lengths", ok("content-length: 1\r\ncontent-length: 2"), "ErrorKind::"),
        ("many headers", ok(&"x: y\r\n".repeat(10_000)), "ErrorKind::"),
        ("a long header", ok(&format!("x: {}", "y".repeat(1 << 20))), "ErrorKind::"),
        ("no HTTP", "SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "ErrorKind::"),
        ("laughs", typed("application/xml", &laughs), "200\n[hidden]"),
        ("deep JSON", json(&deep), "200\n[hidden]"),
        ("half JSON", json("{\"id\": \"1"), "200\n[hidden]"),
        ("a member twice", json("{\"id\": \"1\", \"id\": \"2\"}"), "200\n[hidden]"),
        ("no JSON at all", typed("text/html", "{\"id\": \"1\"}"), "200\n[hidden]"),
    ] {
        let server = Server::saying(&answer);
        let fixture = forger(&server).await;
        let report = forge(&fixture, &[]).await.unwrap();
        assert!(report.starts_with(sentence), "{name}: {}", &report[..report.len().min(300)]);
        assert!(!report.contains("\ntaken"), "{name}: a part of it could be taken");
        fixture.revoke(intent()).await.expect("an honest call of the same plugin is served");
    }
}

#[tokio::test]
async fn answers_without_end_end_with_the_call() {
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (name, server) in [
        ("silence", Server::answering(|_, wire| wait_for_end(wire))),
        ("endless head", Server::answering(|_, wire| write_endlessly(wire, b"HTTP/1.1 200 O"))),
        ("endless headers", after("HTTP/1.1 200 OK\r\n", b"x: y\r\n")),
        ("endless chunks", after(chunks, b"1\r\nx\r\n")),
        ("a chunk without end", after(&format!("{chunks}fffffff\r\n"), b"x")),
        ("interim answers", Server::answering(|_, wire| write_endlessly(wire, INTERIM))),
    ] {
        let fixture = forger(&server).await;
        let outcome = forge(&fixture, &[]).await;
        let told = outcome.unwrap_or_else(|error| {
            assert_eq!(error.kind, PluginErrorKind::Timeout, "{name}: {error}");
            assert!(error.request_sent, "{name}: a request was sent");
            error.message
        });
        assert!(!told.starts_with("200"), "{name}: {told}");
        fixture.revoke(intent()).await.expect("an honest call of the same plugin is served");
    }
}

#[tokio::test]
async fn only_what_was_granted_is_read_and_the_rest_is_taken_unseen() {
    let server = Server::json(r#"{"id": "7", "token": "t0ken-secret-value", "list": ["a", "b"]}"#);
    let report = forge(&forger(&server).await, &[]).await.unwrap();
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines[1], r#"{"id":"7","token":"[hidden]","list":["a","b"]}"#);
    for line in ["taken /token", "read: ErrorKind::Denied"] {
        assert!(lines.contains(&line), "no `{line}` in {report}");
    }
    assert!(!report.contains("t0ken-secret-value"), "{report}");
}

#[tokio::test]
async fn an_address_in_a_private_network_must_be_granted_by_name() {
    for (address, sentence) in [
        ("https://10.0.0.1", "in a private network"),
        ("https://169.254.169.254", "a metadata service"),
        ("https://[fd00:ec2::254]", "a metadata service"),
        ("https://[::ffff:10.0.0.1]", "in a private network"),
        ("https://0.0.0.0", "a reserved address"),
        ("http://10.0.0.1", "not this machine"),
    ] {
        let server = Server::json("{}");
        let mut backend = backend_of(&server, HttpAuth::None);
        for connection in backend.connections.values_mut() {
            if let ConnectionSpec::Http(http) = connection {
                address.clone_into(&mut http.address);
            }
        }
        let sandbox = Sandbox::start(patient()).unwrap();
        let spec = plugin("hostile/request_forger");
        let seen = Seen::default();
        match Plugins::load_on(sandbox, vec![spec], vec![backend], observer(&seen)) {
            Err(errors) => {
                let errors = messages(&errors);
                assert!(errors.contains("http"), "{address}: {errors}");
            }
            Ok(plugins) => {
                let report = forge(&Fixture { plugins, seen }, &[]).await.unwrap();
                assert!(report.contains(sentence), "{address}: {report}");
            }
        }
    }
}

fn ok(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}\r\n\r\n{{}}")
}

fn typed(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A server that says `head`, and then `again` without end.
fn after(head: &str, again: &'static [u8]) -> Server {
    let head = head.to_owned();
    Server::answering(move |_, wire| {
        if wire.write_all(head.as_bytes()).is_ok() {
            write_endlessly(wire, again);
        }
    })
}

const INTERIM: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

const LAUGHS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE lolz [
  <!ENTITY a "lol">
  <!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
  <!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">
  <!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">
  <!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">
  <!ENTITY f "&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;">
]>
<Answer><Id>&f;</Id></Answer>"#;
