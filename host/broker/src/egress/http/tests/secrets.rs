//! What a guest never sees: the root credential, what it takes, what it may not read.

use data_encoding::{BASE64, HEXLOWER};

use super::*;

const TOKEN: &str = "root/token+1234";

fn bearer() -> HttpAuth {
    HttpAuth::Bearer { token: secret(TOKEN) }
}

fn post() -> GuestRequest {
    let mut request = GuestRequest::new("api".to_owned(), "POST".to_owned());
    request.path("/v1/things");
    request
}

#[tokio::test]
async fn the_host_authenticates_and_frames_the_request() {
    for (auth, line) in [
        (HttpAuth::None, None),
        (bearer(), Some(format!("authorization: Bearer {TOKEN}"))),
        (
            HttpAuth::Basic { user: "me".to_owned(), password: secret("pa:ss wort") },
            Some(format!("authorization: Basic {}", BASE64.encode(b"me:pa:ss wort"))),
        ),
        (
            HttpAuth::Header { name: "X-Api-Key".to_owned(), value: secret(TOKEN) },
            Some(format!("x-api-key: {TOKEN}")),
        ),
    ] {
        let server = Server::json("{}");
        let door = Setup { auth, ..Setup::to(server.url()) }.door();
        let mut request = post();
        request.header("x-api-key", "mine");
        request.text("body");
        send(&door, &request).await.unwrap();
        let seen = server.seen().remove(0);
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        let lines: Vec<_> = head.split("\r\n").collect();
        assert_eq!((lines[0], body), ("POST /v1/things HTTP/1.1", "body"));
        assert!(lines.contains(&"content-length: 4"), "{head}");
        assert!(lines.contains(&format!("host: 127.0.0.1:{}", server.port()).as_str()), "{head}");
        let sent = lines.iter().filter(|line| line.starts_with("authorization")).count();
        match line {
            Some(line) => {
                assert!(lines.contains(&line.as_str()), "{head}");
                assert!(!line.starts_with("x-api-key") || !head.contains("mine"), "{head}");
            }
            None => assert_eq!(sent, 0, "{head}"),
        }
    }
}

#[tokio::test]
async fn claims_are_refused_where_no_token_carries_them_and_hold_no_secret() {
    let server = Server::json("{}");
    let door = Setup { auth: bearer(), ..Setup::to(server.url()) }.door();
    for (claims, kind, sentence) in [
        (r#"{"team": "finance"}"#, FailureKind::Denied, "bind it with `web-identity`"),
        (r#"{"sub": "backend:aws"}"#, FailureKind::InvalidInput, "claim `sub` is set by the host"),
        (r#"{"team": "root\/token+1234"}"#, FailureKind::Denied, "bind it with `web-identity`"),
    ] {
        let mut request = post();
        request.claims(claims.to_owned());
        let refused = send(&door, &request).await.err().unwrap();
        assert_eq!((refused.kind, refused.request_sent), (kind, false), "{claims}");
        assert!(refused.message.contains(sentence), "{claims}: {}", refused.message);
    }
    assert!(server.seen().is_empty(), "nothing is sent");
}

#[tokio::test]
async fn a_root_secret_that_the_service_echoes_is_not_seen() {
    let shown = serde_json::json!({
        "plain": TOKEN,
        "said": format!("bearer {TOKEN} is fine"),
        "base64": BASE64.encode(format!("x:{TOKEN}").as_bytes()),
        "hex": HEXLOWER.encode(TOKEN.as_bytes()),
        "url": "root%2Ftoken%2B1234",
        TOKEN: 1,
    });
    let body = shown.to_string();
    let server = Server::saying(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: {TOKEN}\r\n\
         x-token: {TOKEN}\r\nset-cookie: a={TOKEN}\r\nlocation: /v1/{TOKEN}?x\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let door = Setup { auth: bearer(), reads: &["/*"], ..Setup::to(server.url()) }.door();
    let redactor = Redactor::new(door.root_secrets());
    let response = send(&door, &get()).await.unwrap();
    let mut seen = response.body(&redactor);
    assert!(seen.contains("bearer [redacted] is fine"), "{seen}");
    for name in ["x-request-id", "x-token", "set-cookie", "location", "date", "content-length"] {
        seen.extend(response.header(name, &redactor));
    }
    for key in ["plain", "said", "base64", "hex", "url"] {
        seen.extend(response.read(&format!("/{key}"), &redactor).unwrap());
    }
    for form in [TOKEN, &BASE64.encode(TOKEN.as_bytes())[..12], "726f6f74", "root%2F", "oken"] {
        assert!(!seen.contains(form), "`{form}` in {seen}");
    }
    assert_eq!(response.header("set-cookie", &redactor), None);
    assert_eq!(response.header("content-length", &redactor), None);
}

#[tokio::test]
async fn what_is_taken_is_never_seen_neither_then_nor_later() {
    let minted = "minted-9f8e7d6c5b4a";
    let later = serde_json::json!({
        "note": BASE64.encode(format!("as {minted} was").as_bytes()),
        "again": minted,
    });
    let first = server::json(&format!(r#"{{"id":"7","token":"{minted}","note":"{minted}"}}"#));
    let second = server::json(&later.to_string());
    let server = Server::answering(move |request, wire| {
        let answer = if request.starts_with("POST") { &first } else { &second };
        drop(wire.write_all(answer.as_bytes()));
    });
    let setup = Setup { reads: &["/id", "/note"], ..Setup::to(server.url()) };
    let door = setup.door();
    let mut redactor = Redactor::default();
    let made = send_by(&door, &post(), (&mut redactor, soon())).await.unwrap();
    let body = made.body(&redactor);
    assert!(body.starts_with(r#"{"id":"7","token":"[hidden]""#), "{body}");
    let refused = made.read("/token", &redactor).err().unwrap();
    assert_eq!(refused.kind, FailureKind::Denied);
    let taken = made.take("/token").unwrap();
    assert_eq!(taken.as_str(), minted);
    redactor.learn(taken.clone());
    assert_eq!(made.body(&redactor), r#"{"id":"7","token":"[hidden]","note":"[redacted]"}"#);

    let looked = send_by(&door, &get(), (&mut redactor, soon())).await.unwrap();
    let note = looked.read("/note", &redactor).unwrap().unwrap();
    let (before, after) = note.split_once("[redacted]").unwrap();
    assert!(BASE64.encode(b"as ").starts_with(before), "{note}");
    assert!(BASE64.encode(format!("as {minted} was").as_bytes()).ends_with(after), "{note}");
    assert!(note.len() < 24, "{note}");

    // The guest may put it where it belongs, and nowhere else.
    let mut request = post();
    request.secret(&Arc::new(Encoding::Json.write(&taken)));
    send_by(&door, &request, (&mut redactor, soon())).await.unwrap();
    assert!(server.seen()[2].ends_with(&format!("\r\n\r\n\"{minted}\"")));
}

#[tokio::test]
async fn a_location_that_names_nothing_or_too_much_gives_no_secret() {
    let server = Server::json(r#"{"a":{"b":"x"},"e":"","n":null}"#);
    let response = send(&Setup::to(server.url()).door(), &get()).await.unwrap();
    for (location, kind) in [
        ("/a", FailureKind::InvalidInput),
        ("", FailureKind::InvalidInput),
        ("a", FailureKind::InvalidInput),
        ("/c", FailureKind::NotFound),
        ("/e", FailureKind::NotFound),
        ("/n", FailureKind::NotFound),
        ("/a/b/c", FailureKind::NotFound),
    ] {
        assert_eq!(response.take(location).err().unwrap().kind, kind, "{location}");
    }
    assert!(response.take("/a/b").is_ok());
}

#[tokio::test]
async fn a_secret_in_the_guests_own_words_is_not_sent() {
    let server = Server::json("{}");
    let door = Setup { auth: bearer(), ..Setup::to(server.url()) }.door();
    let redactor = Redactor::new(door.root_secrets());
    let check = |build: &dyn Fn(&mut GuestRequest)| {
        let mut request = post();
        build(&mut request);
        let failure = door.admit(&request, &redactor).err().unwrap();
        assert!(failure.message.contains("in plain sight"), "{}", failure.message);
        assert!(failure.kind == FailureKind::Denied && !failure.request_sent);
    };
    check(&|request| {
        request.path("/");
        request.segment(TOKEN);
    });
    check(&|request| request.query(TOKEN, "x"));
    check(&|request| request.query("x", &format!("a{TOKEN}b")));
    check(&|request| request.query("x", &BASE64.encode(format!("u:{TOKEN}").as_bytes())));
    check(&|request| request.header("x-note", TOKEN));
    check(&|request| request.text(TOKEN));
    check(&|request| {
        request.text("root/tok");
        request.text("en+1234");
    });
    for encoding in [Encoding::Raw, Encoding::Json, Encoding::Form, Encoding::Xml, Encoding::Base64]
    {
        check(&|request| request.value(TOKEN, encoding));
    }
    check(&|request| request.value(&HEXLOWER.encode(TOKEN.as_bytes()), Encoding::Json));
    check(&|request| request.value("root\\/token+1234", Encoding::Raw));
    let mut on_purpose = post();
    on_purpose.text("{\"t\":");
    on_purpose.secret(&Arc::new(Encoding::Json.write(TOKEN)));
    on_purpose.text("}");
    assert!(door.admit(&on_purpose, &redactor).is_ok());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_is_not_granted_is_not_sent() {
    let server = Server::json("{}");
    let door = Setup::to(server.url()).door();
    let check = |method: &str, path: &str| {
        let mut request = GuestRequest::new("api".to_owned(), method.to_owned());
        request.path(path);
        let failure = door.admit(&request, &Redactor::default()).err().unwrap();
        assert!(!failure.request_sent, "{method} {path}");
    };
    check("DELETE", "/v1/things");
    check("get", "/v1/things");
    check("CONNECT", "/v1/things");
    check("GET", "/v2/things");
    check("GET", "/v1admin");
    check("GET", "/v1/../v2");
    check("GET", "http://evil.example/v1");
    check("GET\r\nx: y", "/v1/things");
    assert_eq!(server.accepted(), 0);
}
