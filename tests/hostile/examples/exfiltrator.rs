//! Attacks every way out at once: mints honestly, gathers all that it can see of answers, errors,
//! getters and its own memory, before and after it takes the token, and tells it to the log, the
//! lease, the join keys, the handle, an error and the service itself. Neither the broker's
//! credential nor the token may be in any of it.
//!
//! With the parameter `end` = `error` the findings go into an error instead of the lease.

use claviger_hostile::{Attack, Findings, Hostile, Request};
use claviger_plugin_sdk::bindings::claviger::egress::http::{self, Encoding, Response};
use claviger_plugin_sdk::{Error, ErrorKind, Lease, Secret};

struct Exfiltrator;

claviger_plugin_sdk::export!(Hostile<Exfiltrator>, manifest = "service.json");

impl Attack for Exfiltrator {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let mut seen = Findings::default();
        seen.add("request", &format!("{request:?}"));
        seen.add("address", &format!("{:?}", http::address("api")));
        let made = post("/v1/tokens", "").send()?;
        look(&made, &mut seen);
        let token = made.take_secret("/token")?;
        look(&made, &mut seen);
        let own = Secret::generate(128)?;
        for secret in [&token, &own] {
            look(&echo(secret)?, &mut seen);
        }
        seen.add("token", &format!("{token:?} {:?}", lease.set_field("token", "mine")));
        seen.add("as a field", &format!("{:?}", lease.set_secret("report", &token)));
        for (name, value) in std::env::vars() {
            seen.add(&name, &value);
        }
        seen.add_memory();
        send_away(&mut seen);
        lease.set_secret("token", &token)?;
        lease.set_join_key("seen", &first(&seen.text(), 8_000))?;
        lease.set_handle(&first(&seen.text(), 4_000))?;
        let rest = seen.tell();
        match request.parameters.get("end").map(String::as_str) {
            Some("error") => Err(Error::new(ErrorKind::Other, rest)),
            _ => Ok(rest),
        }
    }
}

fn post(path: &str, body: &str) -> http::Request {
    let request = http::Request::new("api", "POST");
    request.path(path);
    request.header("content-type", "text/plain");
    request.text(body);
    request
}

/// Has the service say back a secret that it is sent, in every encoding.
fn echo(secret: &Secret) -> Result<Response, Error> {
    let request = post("/v1/echo", "");
    for encoding in [Encoding::Raw, Encoding::Json, Encoding::Form, Encoding::Xml, Encoding::Base64]
    {
        request.secret(secret, encoding);
        request.text(" ");
    }
    request.send()
}

fn look(response: &Response, seen: &mut Findings) {
    seen.add("status", &response.status().to_string());
    seen.add("body", &response.body());
    for location in LOCATIONS {
        seen.add(location, &format!("{:?}", response.read(location)));
    }
    for name in HEADERS {
        seen.add(name, &format!("{:?}", response.header(name)));
    }
}

/// Tells the service, in each part of a request: its answers are noted too.
fn send_away(seen: &mut Findings) {
    let text = seen.text();
    let in_body = post("/v1/collect", &first(&text, 60_000));
    let in_query = post("/v1/collect", "");
    in_query.query("seen", &first(&text, 1_000));
    let in_segment = post("/v1/collect/", "");
    in_segment.segment(&first(&text.replace(['\n', '\\', '%', '.'], " "), 1_000));
    let in_header = post("/v1/collect", "");
    in_header.header("x-seen", &first(&text.replace('\n', " "), 4_000));
    for (part, request) in
        [("body", in_body), ("query", in_query), ("segment", in_segment), ("header", in_header)]
    {
        match request.send() {
            Ok(response) => seen.add(part, &format!("sent, {}", response.status())),
            Err(error) => seen.add(part, &format!("not sent, {:?} {}", error.kind, error.message)),
        }
    }
}

fn first(text: &str, chars: usize) -> String {
    text.chars().filter(|c| c.is_ascii()).take(chars).collect()
}

const LOCATIONS: [&str; 8] =
    ["/id", "/note", "/list/0", "/list/1", "/token", "/deep/token", "", "/*"];
const HEADERS: [&str; 8] = [
    "x-request-id",
    "request-id",
    "location",
    "date",
    "content-type",
    "x-token",
    "set-cookie",
    "www-authenticate",
];
