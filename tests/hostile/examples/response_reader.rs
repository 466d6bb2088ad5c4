//! Attacks responses: reads what it was not granted before and after it takes a token, looks for
//! the token in later answers, and sends it where it does not belong. Reports all that it saw.

use std::collections::BTreeMap;

use claviger_hostile::{Attack, Hostile, Request};
use claviger_plugin_sdk::http::{self, Response};
use claviger_plugin_sdk::{Error, Lease};

struct ResponseReader;

claviger_plugin_sdk::export!(Hostile<ResponseReader>, manifest = "http.json");

impl Attack for ResponseReader {
    fn run(_: &Request, lease: &Lease) -> Result<String, Error> {
        let mut seen = vec![http::address("api")?];
        let made = http::Request::post("api").path("/v1/tokens").send()?.ok()?;
        look(&made, &mut seen);
        let token = made.take_secret("/token")?;
        look(&made, &mut seen);
        let body = BTreeMap::from([("name", "x"), ("token", "")]);
        let told = http::Request::post("api")
            .path("/v1/tokens")
            .json_with_secrets(&body, &[("/token", &token)])
            .send()?;
        look(&told, &mut seen);
        for name in ["other", "api\0"] {
            tell(http::Request::get(name).path("/v1/tokens").send(), &mut seen);
        }
        tell(http::Request::get("api").path("/v2/tokens").send(), &mut seen);
        tell(http::Request::new("api", "DELETE").path("/v1/tokens").send(), &mut seen);
        tell(http::Request::get("api").path("/v1").header("authorization", "x").send(), &mut seen);
        // The last of the eight, refused ones among them, and one more.
        for _ in 0..2 {
            tell(http::Request::get("api").path("/v1/echo").send(), &mut seen);
        }
        lease.set_secret("token", &token)?;
        Ok(seen.join("\n"))
    }
}

fn look(response: &Response, seen: &mut Vec<String>) {
    seen.push(response.body());
    for location in ["", "/id", "/note", "/token", "/*", "/0"] {
        seen.push(match response.read(location) {
            Ok(value) => format!("{location}={}", value.unwrap_or_default()),
            Err(error) => format!("{location}: {:?} {}", error.kind, error.message),
        });
    }
    for name in ["x-request-id", "x-token", "set-cookie", "authorization"] {
        seen.extend(response.header(name));
    }
}

fn tell(outcome: Result<Response, Error>, seen: &mut Vec<String>) {
    match outcome {
        Ok(response) => look(&response, seen),
        Err(error) => seen.push(format!("refused: {:?} {}", error.kind, error.message)),
    }
}
