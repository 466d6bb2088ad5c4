//! Tokens, honest and not, against an issuer that answers from memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod attacks;
mod double;
mod issuers;
mod requesters;
mod svids;
mod withdrawals;

use std::sync::Arc;
use std::time::Duration;

use claviger_core::fixture;
use claviger_core::principal::Principal;
use serde_json::{Value, json};

use super::claims::ClaimError;
use super::keys::SignatureError;
use super::token::FormError;
use super::*;
use crate::egress::http::Reach;
use double::{Double, Key};

/// An issuer and whoever trusts it.
struct World {
    double: Arc<Double>,
    key: Key,
    identities: Identities,
}

impl World {
    /// One key, published, of an issuer that is trusted for workloads and requesters.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adapt: impl FnOnce(&mut IssuerSpec)) -> Self {
        let (double, key) = (Arc::new(Double::new()), Key::es256("one"));
        double.publish(&[&key]);
        let mut spec = spec();
        adapt(&mut spec);
        let issuer = TrustedIssuer::new(spec, Arc::clone(&double) as Arc<_>);
        Self { double, key, identities: Identities::new(vec![Arc::new(issuer)]) }
    }

    async fn workload(&self, token: &str) -> Result<Principal, TokenError> {
        self.identities.workload_of(token, fixture::now()).await
    }

    async fn requester(&self, token: &str, principal: &Principal) -> Result<Requester, TokenError> {
        self.identities.requester_of(token, principal, fixture::now()).await
    }

    /// A token as the issuer gives them.
    fn token(&self) -> String {
        self.key.sign(&claims())
    }
}

fn spec() -> IssuerSpec {
    let tags = [("repository_id", "repository_id"), ("namespace", "kubernetes.io namespace")];
    IssuerSpec {
        name: "corp".parse().unwrap(),
        uses: vec![Use::Workload, Use::Requester],
        audience: "claviger".to_owned(),
        tags: tags.map(|(tag, at)| (tag.to_owned(), at.to_owned())).to_vec(),
        groups_claim: "groups".to_owned(),
        max_age: Duration::from_hours(1),
        keys: KeysSpec {
            issuer: double::ISSUER.to_owned(),
            jwks_url: None,
            reach: vec![Reach::Loopback],
            algorithms: ASYMMETRIC.to_vec(),
            refresh: Duration::from_mins(5),
            patience: Patience::default(),
        },
    }
}

fn now_secs() -> u64 {
    fixture::now().unix_secs()
}

/// What an honest token says.
fn claims() -> Value {
    json!({
        "iss": double::ISSUER, "sub": "agent", "aud": "claviger", "jti": "1",
        "iat": now_secs() - 5, "nbf": now_secs() - 5, "exp": now_secs() + 300,
        "repository_id": 4711, "kubernetes.io": { "namespace": "shop" },
    })
}

/// Honest but for these claims; null leaves one out.
fn claims_but(changes: Value) -> Value {
    let mut claims = claims();
    let object = claims.as_object_mut().unwrap();
    let Value::Object(changes) = changes else { panic!("{changes} is no object") };
    for (name, value) in changes {
        if value.is_null() {
            object.remove(&name);
        } else {
            object.insert(name, value);
        }
    }
    claims
}
