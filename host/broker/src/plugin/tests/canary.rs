//! The canary: a plugin that tells everybody everything it sees, against a service that says every
//! secret back in every encoding. An oracle looks through every byte that came out.

use claviger_core::issued::Issued;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};

use super::hostile::Lines;
use super::oracle::leak;
use super::*;
use crate::egress::http::tests::server::{Server, json};
use crate::egress::http::{HttpAuth, Reach};

const ROOT: &str = "Root/Secret+of the=broker&\"9183746520";
const MINTED: &str = "minted_Token-qzjxkvbwpgyfmlch/8274619350+==";

#[tokio::test]
async fn neither_the_brokers_credential_nor_the_token_is_in_any_byte_that_comes_out() {
    let root = || Zeroizing::new(ROOT.to_owned());
    for (scheme, auth) in [
        ("bearer", HttpAuth::Bearer { token: Zeroizing::new(BEARER.to_owned()) }),
        ("basic", HttpAuth::Basic { user: "broker".to_owned(), password: root() }),
        ("header", HttpAuth::Header { name: "x-api-key".to_owned(), value: root() }),
        ("sigv4", sigv4(root(), None)),
        ("session token", sigv4(Zeroizing::new("another-key-0123456789".to_owned()), Some(root()))),
    ] {
        let root = if scheme == "bearer" { BEARER } else { ROOT };
        let service = talkative(root);
        let told = Told::by(&service, auth).await;
        assert_eq!(told.token, MINTED, "{scheme}: the agent gets what was minted");
        for (where_, bytes) in &told.everything {
            for secret in [root, MINTED] {
                let found = leak(bytes.as_bytes(), secret);
                assert_eq!(found, None, "{scheme}, {where_}: {bytes}");
            }
        }
        let all: String = told.everything.iter().map(|(_, bytes)| bytes.as_str()).collect();
        for proof in ["[redacted]", "[hidden]", "sent, 200", "body: "] {
            assert!(all.contains(proof), "{scheme}: it did not look: no `{proof}`");
        }
    }
}

fn sigv4(
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
) -> HttpAuth {
    HttpAuth::Sigv4 {
        access_key_id: Zeroizing::new("AKIAIOSFODNN7EXAMPLE".to_owned()),
        secret_access_key,
        session_token,
        region: "eu-central-1".to_owned(),
        service: "sts".to_owned(),
    }
}

/// What the plugin told, by where.
struct Told {
    token: String,
    everything: Vec<(&'static str, String)>,
}

impl Told {
    async fn by(service: &Server, auth: HttpAuth) -> Self {
        let lines = Lines::default();
        let guard = tracing::subscriber::set_default(lines.clone());
        let backend = backend_of(service, auth);
        let fixture = Fixture::load("hostile/exfiltrator", backend).await;
        let backend = "backend".parse().unwrap();
        let request = |end: &'static str| {
            move |settings: &str| {
                issue_request(intent(), settings, &format!(r#"{{"end": "{end}"}}"#))
            }
        };
        let issued = fixture.plugins.mint(&backend, request("lease")).await.unwrap();
        let error = fixture.plugins.mint(&backend, request("error")).await.err().unwrap();
        drop(guard);
        let mut everything = vec![
            ("log", lines.text()),
            ("error", format!("{} {:?}", error.message, error.code)),
            ("join keys", format!("{:?}", issued.join_keys)),
            ("handle", handle(&issued)),
        ];
        everything.extend(service.seen().into_iter().map(|seen| ("request", guests_part(&seen))));
        let mut fields = fields(issued);
        let token = fields.remove("token").unwrap();
        everything.push(("report", fields.remove("report").unwrap()));
        Self { token, everything }
    }
}

fn handle(issued: &Issued) -> String {
    issued.handle.as_ref().map(|handle| handle.as_str().to_owned()).unwrap_or_default()
}

/// A request without what the host put there: its credential, and secrets that it was told to send.
fn guests_part(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let injected = |line: &&str| {
        ["authorization: ", "x-api-key: ", "x-amz-"].iter().any(|name| line.starts_with(name))
    };
    let (host, guest): (Vec<_>, Vec<_>) = head.lines().partition(injected);
    let of_signature = host.iter().filter(|line| line.starts_with("x-amz-")).count();
    assert_eq!(host.len() - of_signature, 1, "authenticated once: {head}");
    let body = if head.starts_with("POST /v1/echo ") { "" } else { body };
    format!("{}\n{body}", guest.join("\n"))
}

/// A service that says all it knows in the fields that the plugin may read; but that does not put
/// the token itself there in the answer that mints it, where the host cannot know it yet.
fn talkative(root: &'static str) -> Server {
    Server::answering(move |request, wire| {
        let both = format!("{root} {MINTED}");
        let (said, id) = match request {
            mints if mints.starts_with("POST /v1/tokens ") => (root, root),
            echoes if echoes.starts_with("POST /v1/echo ") => (echoes, MINTED),
            _ => (both.as_str(), MINTED),
        };
        let encoded: Vec<_> = ["", "x", "xy"]
            .iter()
            .flat_map(|before| {
                let text = format!("{before}{said}");
                let bytes = text.as_bytes();
                [BASE64.encode(bytes), BASE64URL_NOPAD.encode(bytes), HEXLOWER.encode(bytes)]
            })
            .collect();
        let percent: String = said.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = serde_json::json!({
            "id": said,
            "note": format!("{} {}", encoded.join(" "), percent),
            "list": [serde_json::json!(said).to_string(), said.replace('&', "&amp;")],
            "token": MINTED,
            "deep": { "token": MINTED },
            said: "a name",
        });
        let headers = format!(
            "\r\nx-request-id: {root}\r\nrequest-id: {id}\r\nx-token: {MINTED}\
             \r\nlocation: /v1/{id}?{MINTED}\r\nset-cookie: s={root}\r\n"
        );
        let answer = json(&body.to_string()).replacen("\r\n", &headers, 1);
        drop(wire.write_all(answer.as_bytes()));
    })
}

pub(super) fn backend_of(server: &Server, auth: HttpAuth) -> BackendSpec {
    let text = |items: &[&str]| items.iter().map(ToString::to_string).collect();
    let connection = ConnectionSpec::Http(HttpSpec {
        address: server.url(),
        client_address: None,
        ca_file: None,
        auth,
        methods: text(&["GET", "POST"]),
        paths: text(&["/v1"]),
        reads: text(&["/id", "/note", "/list/*", "/Answer/Id"]),
        reach: vec![Reach::Loopback],
    });
    BackendSpec {
        connections: BTreeMap::from([("api".parse().unwrap(), connection)]),
        ..bare_backend()
    }
}

/// A token has no spaces or quotation marks.
const BEARER: &str = "root-Bearer_Token.9183746520~qpwoei";
