//! JWT-SVIDs: what counts in a trust domain, and what does not.

use ::spiffe::TrustDomain;

use super::*;
use crate::identity::keys::KeySetError;

struct Domain {
    key: Key,
    identities: Identities,
}

impl Domain {
    fn new() -> Self {
        let key = Key::es256("svid-1");
        let spiffe = Spiffe::new(TrustDomain::new("example.org").unwrap(), "claviger".to_owned());
        spiffe.take_bundle(bundle(&[&key]).as_bytes()).unwrap();
        let nowhere = Bundle::Api(String::new());
        let identities = Identities::default().with_spiffe(Some((spiffe, nowhere)));
        Self { key, identities }
    }

    async fn workload(&self, token: &str) -> Result<Principal, TokenError> {
        self.identities.workload_of(token, fixture::now()).await
    }
}

/// As the Workload API and bundle files write keys of JWT-SVIDs.
fn bundle(keys: &[&Key]) -> String {
    let jwt_svid = |key: &&Key| {
        let mut jwk = key.jwk.clone();
        jwk["use"] = json!("jwt-svid");
        jwk
    };
    json!({ "keys": keys.iter().map(jwt_svid).collect::<Vec<_>>() }).to_string()
}

fn svid(changes: Value) -> Value {
    let own = json!({
        "iss": null, "iat": null, "nbf": null, "jti": null,
        "sub": "spiffe://example.org/ns/shop/sa/agent", "aud": ["claviger"],
    });
    let mut claims = claims_but(own);
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    for (name, value) in changes {
        claims[name] = value;
    }
    claims
}

#[tokio::test]
async fn an_svid_proves_its_spiffe_id_and_nothing_else_does() {
    let domain = Domain::new();
    let principal = domain.workload(&domain.key.sign(&svid(json!({})))).await.unwrap();
    assert_eq!(principal.id(), "spiffe://example.org/ns/shop/sa/agent");
    assert_eq!(principal.claims().get("method").map(String::as_str), Some("jwt-svid"));
    assert_eq!(principal.signer().unwrap().issuer, "spiffe://example.org");
    let malformed = |name| TokenError::Claim(ClaimError::Malformed(name));
    let expired = now_secs() - 60;
    for (case, changes, expect) in [
        (
            "of another domain",
            json!({ "sub": "spiffe://evil.org/agent" }),
            TokenError::UnknownIssuer,
        ),
        (
            "of a domain below",
            json!({ "sub": "spiffe://a.example.org/x" }),
            TokenError::UnknownIssuer,
        ),
        ("the domain itself", json!({ "sub": "spiffe://example.org" }), TokenError::UnknownIssuer),
        ("no SPIFFE id", json!({ "sub": "agent" }), TokenError::UnknownIssuer),
        ("a query", json!({ "sub": "spiffe://example.org/a?b=c" }), malformed("sub")),
        ("dots", json!({ "sub": "spiffe://example.org/a/../b" }), malformed("sub")),
        ("a port", json!({ "sub": "spiffe://example.org:1/a" }), malformed("sub")),
        (
            "another audience",
            json!({ "aud": ["vault"] }),
            TokenError::Claim(ClaimError::Audience("claviger".to_owned())),
        ),
        ("no audience", json!({ "aud": null }), malformed("aud")),
        ("no expiry", json!({ "exp": null }), malformed("exp")),
        ("expired", json!({ "exp": expired }), TokenError::Claim(ClaimError::Expired)),
    ] {
        let token = domain.key.sign(&svid(changes));
        assert_eq!(domain.workload(&token).await.err(), Some(expect), "{case}");
    }
    let stranger = Key::es256("svid-1").sign(&svid(json!({})));
    let expect = Some(TokenError::Signature(SignatureError::Wrong));
    assert_eq!(domain.workload(&stranger).await.err(), expect, "a stranger's key");
    let refused = domain.identities.requester_of(&stranger, &principal, fixture::now()).await;
    assert_eq!(refused.err(), Some(TokenError::UnknownIssuer), "no requester is one");
}

#[tokio::test]
async fn a_newer_bundle_counts_at_once_and_one_without_keys_changes_nothing() {
    let domain = Domain::new();
    let spiffe = domain.identities.spiffe().unwrap();
    let old = domain.key.sign(&svid(json!({})));
    let (edwards, second) = (Key::edwards("svid-2"), Key::es256("svid-2"));
    // EdDSA is no signature of JWT-SVIDs.
    for useless in ["{}", r#"{"keys":[]}"#, &bundle(&[&edwards])] {
        let error = spiffe.take_bundle(useless.as_bytes()).unwrap_err();
        assert!(matches!(error, KeySetError::Keys | KeySetError::NoneUsable), "{useless}: {error}");
        domain.workload(&old).await.expect("the earlier bundle goes on");
    }
    spiffe.take_bundle(bundle(&[&second]).as_bytes()).unwrap();
    domain.workload(&second.sign(&svid(json!({})))).await.unwrap();
    let expect = Some(TokenError::Signature(SignatureError::UnknownKey));
    assert_eq!(domain.workload(&old).await.err(), expect);
}
