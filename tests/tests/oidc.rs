//! Tokens that the broker signs, checked by PyJWT, which knows nothing of the broker but its
//! issuer URL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use claviger_e2e::aws::{IssuerPage, world_with};
use claviger_e2e::broker::Broker;
use claviger_e2e::client::{Agent, reason};
use claviger_e2e::refusal;
use claviger_e2e::world::{World, plugin_stanza};
use claviger_test_servers::python;
use serde_json::Value;

#[tokio::test]
async fn a_relying_party_verifies_a_token_and_learns_whose_it_is() {
    let (world, page) = world(r#"audiences = ["reports.example"]"#);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "report-builder").await.expect("a session");
    let issued = agent.issue("tokens/reports").await.expect("a token");
    assert_eq!(issued.field("issuer"), page.url);
    assert_eq!(issued.field("audience"), "reports.example");

    let token = issued.field("token");
    let claims = verified(&world, &page, "reports.example", token).expect("valid");
    let lease = issued.lease.lease_id.split_once('_').expect("a prefix").1;
    let session = agent.session.split_once('_').expect("a prefix").1;
    assert_eq!(claims["sub"], "backend:tokens:role:report-builder");
    assert_eq!(claims["jti"], lease);
    assert_eq!(claims["team"], "finance", "the operator's own claim");
    assert_eq!(claims["claviger"]["session"], session);
    assert_eq!(claims["claviger"]["scope"], "tokens/reports");
    let life = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert!((3_590..=3_600).contains(&life), "{claims}");

    let other = verified(&world, &page, "payroll.example", token).expect_err("for somebody else");
    assert!(other.contains("InvalidAudienceError"), "{other}");
    let forged = verified(&world, &page, "reports.example", &forged(token)).expect_err("changed");
    assert!(forged.contains("InvalidSignatureError"), "{forged}");
}

#[tokio::test]
async fn a_token_still_verifies_after_a_restart() {
    let (world, page) = world(r#"audiences = ["reports.example"]"#);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "report-builder").await.expect("a session");
    let issued = agent.issue("tokens/reports").await.expect("a token");
    assert!(broker.stop().await.success());
    let broker = Broker::start(&world).await;
    verified(&world, &page, "reports.example", issued.field("token")).expect("the key was kept");
    let agent = agent.reconnected(&broker.socket()).await;
    let later = agent.issue("tokens/reports").await.expect("a token");
    verified(&world, &page, "reports.example", later.field("token")).expect("valid");
    for entry in std::fs::read_dir(world.path().join("state")).expect("the journal's folder") {
        let path = entry.expect("an entry").path();
        // Compiled plugins, which were there before any token.
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("readable");
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(issued.field("token")), "a token stands in the journal");
        }
    }
}

#[tokio::test]
async fn an_audience_that_the_operator_did_not_grant_is_refused() {
    let (world, _) = world(r#"audiences = ["somebody.else"]"#);
    let broker = Broker::start(&world).await;
    let agent = Agent::open(&broker.socket(), "report-builder").await.expect("a session");
    let refused = agent.issue("tokens/reports").await.expect_err("not granted");
    assert_eq!(reason(&refused), "BACKEND_REFUSED", "{}", refused.message());
    assert!(refused.message().contains("reports.example"), "{}", refused.message());
}

#[tokio::test]
async fn a_claim_that_is_the_brokers_stops_the_start() {
    let (world, _) = world(r#"audiences = ["reports.example"]"#);
    let config = std::fs::read_to_string(world.config()).expect("text");
    world.write("claviger.toml", &config.replace("team = ", "sub = "));
    let said = refusal::of_serve(&world).await;
    assert!(said.contains("/scopes/reports/claims") && said.contains("names `sub`"), "{said}");
}

/// A world whose broker issues tokens, and its issuer.
fn world(grant: &str) -> (World, IssuerPage) {
    let page = IssuerPage::new();
    let (issuer, plugin) = (&page.stanza, plugin_stanza("oidc-token"));
    let world = world_with(format!(
        r#"
{issuer}
{plugin}
[backends.tokens]
plugin = "oidc-token"
[backends.tokens.connections.issuer]
{grant}
[backends.tokens.scopes.reports]
authorization = "tokens.reports"
audience = "reports.example"
claims = {{ team = "finance" }}
"#
    ));
    page.write_into(&world);
    (world, page)
}

/// The claims of a token for `audience`, or what PyJWT has against it.
fn verified(
    world: &World,
    page: &IssuerPage,
    audience: &str,
    token: &str,
) -> Result<Value, String> {
    let mut command = python();
    command.args(["-c", VERIFY, &page.url, audience, token]);
    let output = command.env("SSL_CERT_FILE", world.path().join("issuer-ca.pem")).output();
    let output = output.expect("Python runs");
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The token with another letter in the middle of its claims.
fn forged(token: &str) -> String {
    let (head, rest) = token.split_once('.').expect("three parts");
    let (claims, signature) = rest.split_once('.').expect("three parts");
    let claims = claims.replacen('m', "n", 1);
    assert_ne!(format!("{head}.{claims}.{signature}"), token, "nothing was changed");
    format!("{head}.{claims}.{signature}")
}

/// As a relying party does it: everything it knows is the issuer's URL and its own name.
const VERIFY: &str = r#"
import json, sys, urllib.request, jwt
issuer, audience, token = sys.argv[1:]
page = json.load(urllib.request.urlopen(issuer + "/.well-known/openid-configuration"))
assert page["issuer"] == issuer, page
key = jwt.PyJWKClient(page["jwks_uri"]).get_signing_key_from_jwt(token)
print(json.dumps(jwt.decode(token, key, algorithms=page["id_token_signing_alg_values_supported"],
    issuer=issuer, audience=audience, options={"require": ["exp", "iat", "nbf", "sub", "jti"]})))
"#;
