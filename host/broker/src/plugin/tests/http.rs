//! A component against a real HTTP service: the door as a plugin meets it.

use data_encoding::BASE64;

use super::*;
use crate::egress::http::tests::server::{Server, json};
use crate::egress::http::{HttpAuth, Reach};

const ROOT: &str = "root-token-0123456789";
const MINTED: &str = "minted-token-abcdef";

/// A service that mints, and that then says everything it knows in every way.
fn service() -> Server {
    let encoded = BASE64.encode(format!("as {MINTED} and {ROOT}").as_bytes());
    let minted = format!(r#"{{"id":"7","token":"{MINTED}","note":"for {ROOT}"}}"#);
    let talk = format!(r#"{{"id":"8","token":"{MINTED}","note":"{encoded}"}}"#);
    let (minted, talk) = (json(&minted), json(&talk));
    let talk =
        talk.replacen("\r\n", &format!("\r\nx-request-id: {ROOT}\r\nx-token: {MINTED}\r\n"), 1);
    Server::answering(move |request, wire| {
        let answer = if request.starts_with("POST") && request.ends_with("\r\n\r\n") {
            &minted
        } else {
            &talk
        };
        drop(wire.write_all(answer.as_bytes()));
    })
}

fn backend(server: &Server) -> BackendSpec {
    let text = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    let connection = ConnectionSpec::Http(HttpSpec {
        address: server.url(),
        client_address: Some("https://api.example".to_owned()),
        ca_file: None,
        auth: HttpAuth::Bearer { token: Zeroizing::new(ROOT.to_owned()) },
        methods: text(&["GET", "POST"]),
        paths: text(&["/v1"]),
        reads: text(&["/id", "/note"]),
        reach: vec![Reach::Loopback],
    });
    BackendSpec {
        connections: BTreeMap::from([("api".parse().unwrap(), connection)]),
        ..bare_backend()
    }
}

#[tokio::test]
async fn a_plugin_sees_of_answers_what_it_was_granted() {
    let server = service();
    let fixture = Fixture::load("hostile/response_reader", backend(&server)).await;
    let fields = fields(fixture.issue(intent()).await.unwrap());
    assert_eq!(fields["token"], MINTED);
    let report = &fields["report"];
    for form in [ROOT, MINTED, &BASE64.encode(ROOT.as_bytes())[4..20], "bnRlZC10b2tl"] {
        assert!(!report.contains(form), "`{form}` in\n{report}");
    }
    for sentence in [
        "https://api.example\n",
        r#"{"id":"7","token":"[hidden]","note":"for [redacted]"}"#,
        "/id=7",
        "/token: ErrorKind::Denied the connection may not read this location",
        "not requested by the manifest or not granted by the operator",
        "refused: ErrorKind::Denied the connection is not granted this path",
        "refused: ErrorKind::Denied the connection is not granted `DELETE`",
        "refused: ErrorKind::InvalidInput this header is the host's",
        "refused: ErrorKind::InvalidInput a call sends at most 8 requests",
    ] {
        assert!(report.contains(sentence), "no `{sentence}` in\n{report}");
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "of eight requests, five were refused");
    let authorized = format!("\r\nauthorization: Bearer {ROOT}\r\n");
    assert!(seen.iter().all(|request| request.contains(&authorized)));
    assert!(
        seen[1].ends_with(&format!("{{\"name\":\"x\",\"token\":\"{MINTED}\"}}")),
        "{}",
        seen[1]
    );
}
