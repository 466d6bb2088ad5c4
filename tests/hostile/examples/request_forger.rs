//! Attacks the way to a service: sends the one request that its parameters describe, past the SDK,
//! and tells what became of it and what can be got out of the answer. The attacks themselves stand
//! in the host's tests, as tables.

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::bindings::claviger::egress::http::{self, Response};
use claviger_plugin_sdk::{Error, Lease, Secret};

struct RequestForger;

claviger_plugin_sdk::export!(Hostile<RequestForger>, manifest = "service.json");

impl Attack for RequestForger {
    fn run(request: &Request, lease: &Lease) -> Result<String, Error> {
        let of = |name: &str| request.parameters.get(name).map(String::as_str);
        let forged =
            http::Request::new(of("connection").unwrap_or("api"), of("method").unwrap_or("GET"));
        forged.path(of("path").unwrap_or("/v1/honest"));
        if let Some(value) = of("segment") {
            forged.segment(value);
        }
        if of("query").is_some() || of("query-value").is_some() {
            forged.query(of("query").unwrap_or("q"), of("query-value").unwrap_or("v"));
        }
        if of("header").is_some() || of("header-value").is_some() {
            forged.header(of("header").unwrap_or("x-note"), of("header-value").unwrap_or("v"));
        }
        if let Some(body) = of("body") {
            forged.text(body);
        }
        lease.set_secret("token", &Secret::generate(128)?)?;
        let times = of("times").and_then(|times| times.parse().ok()).unwrap_or(1);
        let mut report = String::new();
        for _ in 0..times {
            report = match forged.send() {
                Ok(response) => look(&response),
                Err(error) => format!("{:?} {}", error.kind, error.message),
            };
        }
        Ok(report)
    }
}

fn look(response: &Response) -> String {
    let mut seen = vec![response.status().to_string(), response.body()];
    for location in LOCATIONS {
        match response.read(location) {
            Ok(value) => seen.extend(value),
            Err(error) => seen.push(format!("read: {:?}", error.kind)),
        }
        match response.take_secret(location) {
            Ok(_) => seen.push(format!("taken {location}")),
            Err(error) => seen.push(format!("take: {:?} {}", error.kind, error.message)),
        }
    }
    seen.extend(HEADERS.iter().filter_map(|name| response.header(name)));
    seen.join("\n")
}

/// Granted, not granted, the whole, and what only looks like a place.
const LOCATIONS: [&str; 6] = ["/id", "/token", "", "/list", "/0", "//"];
const HEADERS: [&str; 5] = ["location", "set-cookie", "x-token", "content-type", "authorization"];
