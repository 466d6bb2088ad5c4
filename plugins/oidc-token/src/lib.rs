//! Issues tokens that the broker signs, each for one audience. Chooses audience and further claims;
//! who the token is about, how long it lives and the signature are the host's.

use claviger_plugin_sdk::{
    Config, Error, ErrorKind, Issue, Lease, Problem, Provider, Revoke, jwt, log, rfc3339,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The plugin: one signed token per credential.
#[derive(Debug)]
pub struct OidcToken;

claviger_plugin_sdk::export!(OidcToken, manifest = "manifest.json");

/// No settings.
#[derive(Debug, Deserialize)]
pub struct Settings {}

/// One scope's parameters. Their documentation stands in `manifest.json`.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    /// For whom the token is.
    pub audience: String,
    /// Further claims.
    #[serde(default)]
    pub claims: Map<String, Value>,
}

impl Provider for OidcToken {
    type Settings = Settings;
    type Parameters = Parameters;

    fn validate(config: &Config<Settings, Parameters>) -> Vec<Problem> {
        let of_scope = |(scope, parameters): (&String, &Parameters)| {
            let problem = problem(&parameters.claims)?;
            Some(Problem::in_parameter(scope, "claims", problem))
        };
        config.scopes.iter().filter_map(of_scope).collect()
    }

    fn issue(issue: &Issue<Settings, Parameters>, lease: &Lease) -> Result<(), Error> {
        let Parameters { audience, claims } = &issue.parameters;
        if let Some(problem) = problem(claims) {
            return Err(Error::new(ErrorKind::InvalidConfig, format!("`claims` {problem}")));
        }
        let claims = Value::Object(claims.clone()).to_string();
        let of_audience = |error: Error| error.with_advice(&format!("audience `{audience}`"));
        let token = jwt::sign(ISSUER, audience, &claims, issue.expires_at).map_err(of_audience)?;
        lease.set_secret("token", &token)?;
        lease.set_field("issuer", &jwt::issuer(ISSUER)?)?;
        lease.set_field("audience", audience)?;
        lease.set_field("expires", &rfc3339(issue.expires_at))?;
        lease.set_join_key("jti", &issue.intent)
    }

    /// Nobody asks the broker about a token that they verify: it ends at its `exp`, as the manifest
    /// declares.
    fn revoke(revoke: &Revoke<Settings>) -> Result<(), Error> {
        let fields = [("scope", revoke.scope.as_str()), ("jti", revoke.intent.as_str())];
        log::info("a signed token ends by itself, at its expiry", &fields);
        Ok(())
    }
}

fn problem(claims: &Map<String, Value>) -> Option<String> {
    if let Some(claim) = claims.keys().find(|claim| OF_THE_BROKER.contains(&claim.as_str())) {
        return Some(format!("names `{claim}`, which the broker sets: leave it out"));
    }
    let bytes = Value::Object(claims.clone()).to_string().len();
    (bytes > CLAIMS_BYTES_MAX)
        .then(|| format!("takes {bytes} bytes as JSON, and a token takes {CLAIMS_BYTES_MAX}"))
}

const ISSUER: &str = "issuer";

/// The claims that the contract (`wit/jwt`) reserves; the host refuses them too.
const OF_THE_BROKER: [&str; 9] =
    ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "claviger", "cnf"];

/// Documented in the plugin contract.
const CLAIMS_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn check(claims: &Value, sentence: Option<&str>) {
        let parameters = serde_json::json!({ "audience": "a", "claims": claims });
        let scopes = [("s".to_owned(), serde_json::from_value(parameters).unwrap())];
        let problems =
            OidcToken::validate(&Config { settings: Settings {}, scopes: scopes.into() });
        let found = problems.first().map(|problem| problem.message.as_str());
        match sentence {
            None => assert_eq!(found, None),
            Some(sentence) => assert!(found.unwrap().contains(sentence), "{found:?}"),
        }
    }

    #[test]
    fn refuses_claims_that_are_the_brokers() {
        check(&serde_json::json!({}), None);
        check(&serde_json::json!({ "team": "payments", "groups": ["a"] }), None);
        check(&serde_json::json!({ "sub": "admin" }), Some("names `sub`"));
        check(&serde_json::json!({ "claviger": {} }), Some("names `claviger`"));
        check(&serde_json::json!({ "x": "y".repeat(4_088) }), None);
        check(&serde_json::json!({ "x": "y".repeat(4_089) }), Some("takes 4097 bytes"));
    }
}
