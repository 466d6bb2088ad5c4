//! Issues tokens of the practice service `token-api` (`tests/servers`): the same plugin as
//! `plugins/js-token`, request for request, in Rust.

use claviger_plugin_sdk::http::{Request, address};
use claviger_plugin_sdk::{Error, ErrorKind, Issue, Lease, Provider, Revoke, Schema};
use serde_json::json;

struct Token;

claviger_plugin_sdk::export!(Token, manifest = "examples/token.json");

#[derive(serde::Deserialize, Schema)]
struct Settings {}

#[derive(serde::Deserialize, Schema)]
struct Parameters {
    /// What the tokens may do, in the service's own words.
    #[schema(min_items = 1, max_items = 16, min_length = 1, max_length = 64)]
    scopes: Vec<String>,
}

impl Provider for Token {
    type Settings = Settings;
    type Parameters = Parameters;

    fn issue(issue: &Issue<Settings, Parameters>, lease: &Lease) -> Result<(), Error> {
        let name = name_of(&issue.intent);
        // A repeated call must leave one token: what an earlier one made goes first.
        remove(&name)?;
        let answer = Request::post("api")
            .path("/v1/tokens")
            .json(&json!({
                "name": name,
                "scopes": issue.parameters.scopes,
                "ttl_secs": issue.expires_at.saturating_sub(issue.now),
            }))
            .send()?
            .ok()?;
        lease.set_field("url", &address("api")?)?;
        lease.set_secret("token", &answer.take_secret("/secret")?)?;
        lease.set_handle(&answer.require("/id")?)?;
        lease.set_join_key("token_name", &name)?;
        let expires_at = answer.require("/expires_at")?.parse::<u64>().map_err(|_| {
            Error::new(ErrorKind::Other, "`expires_at` is not in Unix seconds").after_sending()
        })?;
        lease.set_expires_at(expires_at.min(issue.expires_at))
    }

    fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
        remove(&name_of(&revoke.intent))
    }
}

/// Deletes a token, or finds that there is none.
fn remove(name: &str) -> Result<(), Error> {
    let answer = Request::delete("api").path("/v1/tokens/by-name/").segment(name).send()?;
    match answer.status() {
        404 => Ok(()),
        _ => answer.ok().map(drop),
    }
}

/// All that `revoke` needs: the intent's own name upstream.
fn name_of(intent: &str) -> String {
    format!("rs-token-{intent}")
}
