//! An issuer in memory: it answers what it was told to, counts who asks, and signs anything.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::egress::http::{Exchange, Exchanged, Incoming, Outgoing, Route};
use crate::egress::{Failure, FailureKind};

/// Where the issuer is.
pub const ISSUER: &str = "https://id.corp.example";

/// Answers by URL.
pub struct Double {
    answers: Mutex<HashMap<String, (u16, String)>>,
    asked: AtomicUsize,
}

impl Double {
    /// One with a discovery document and no keys.
    pub fn new() -> Self {
        let double = Self { answers: Mutex::default(), asked: AtomicUsize::new(0) };
        let document = json!({ "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys") });
        double.answer("/.well-known/openid-configuration", 200, &document.to_string());
        double
    }

    /// What it answers from now on at `path`.
    pub fn answer(&self, path: &str, status: u16, body: &str) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(format!("{ISSUER}{path}"), (status, body.to_owned()));
    }

    /// Publishes these keys and no others.
    pub fn publish(&self, keys: &[&Key]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk.clone()).collect();
        self.answer("/keys", 200, &json!({ "keys": keys }).to_string());
    }

    /// How often it was asked for its keys.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Exchange for Double {
    fn exchange<'a>(&'a self, route: &'a Route, outgoing: Outgoing, _: Instant) -> Exchanged<'a> {
        let url = format!("{}{}", route.origin(), outgoing.path_and_query);
        self.asked.fetch_add(usize::from(url.ends_with("/keys")), Ordering::Relaxed);
        let answer = self.answers.lock().unwrap().get(&url).cloned();
        Box::pin(async move {
            // As a network does: whoever waits for the answer lets others go first.
            tokio::task::yield_now().await;
            let absent = || Failure::unsent(FailureKind::Unavailable, "nobody answers");
            let (status, body) = answer.ok_or_else(absent)?;
            Ok(Incoming {
                status: StatusCode::from_u16(status).unwrap(),
                headers: HeaderMap::new(),
                body: Zeroizing::new(body.into_bytes()),
            })
        })
    }
}

/// A key of the issuer.
pub struct Key {
    /// As it is published.
    pub jwk: Value,
    alg: &'static str,
    pair: Pair,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Key {
    /// A key for ES256.
    pub fn es256(kid: &str) -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, pkcs8.as_ref()).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let part = |from: usize| BASE64URL_NOPAD.encode(&point[from..from + 32]);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": part(1), "y": part(33) });
        Self { jwk, alg: "ES256", pair: Pair::Ecdsa(pair) }
    }

    /// A key for EdDSA.
    pub fn edwards(kid: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig" });
        Self { jwk, alg: "EdDSA", pair: Pair::Edwards(pair) }
    }

    /// A token with the usual header.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_under(&self.header(), &claims.to_string())
    }

    /// The usual header.
    pub fn header(&self) -> Value {
        json!({ "alg": self.alg, "typ": "JWT", "kid": self.jwk["kid"] })
    }

    /// Anything under any header.
    pub fn sign_under(&self, header: &Value, claims: &str) -> String {
        self.sign_text(&header.to_string(), claims)
    }

    /// Anything under anything.
    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = match &self.pair {
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                BASE64URL_NOPAD.encode(signature.as_ref())
            }
            Pair::Edwards(pair) => BASE64URL_NOPAD.encode(pair.sign(signed.as_bytes()).as_ref()),
        };
        format!("{signed}.{signature}")
    }
}
