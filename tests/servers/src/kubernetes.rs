//! A double of a Kubernetes API server, since no real one can be had: it gives out projected service
//! account tokens and reviews them (TokenReview of `authentication.k8s.io/v1`).
//!
//! Like a real one it demands the reviewer's own token, checks audiences, and refuses a token whose
//! pod is gone. Unlike a real one it knows its tokens by heart and signs nothing: their signature is
//! made up, so that whoever believed a token without asking would be found out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

/// A running double; it ends with the test's process.
pub struct KubernetesDouble {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The audiences and the claims of each token that still counts.
    tokens: Mutex<BTreeMap<String, (Vec<String>, Value)>>,
    /// How many reviews were asked for, by anybody.
    asked: Mutex<u32>,
}

impl KubernetesDouble {
    /// Starts one.
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
            .with_state(Arc::clone(&shared));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, routes).await.unwrap();
            });
        });
        Self { address, shared }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The claim `iss` of its tokens.
    pub const fn issuer(&self) -> &'static str {
        "https://kubernetes.default.svc.cluster.local"
    }

    /// A projected token of a service account in namespace `shop`.
    pub fn token(&self, service_account: &str, audience: &str) -> String {
        self.token_in("shop", service_account, audience)
    }

    /// A projected token of a service account.
    pub fn token_in(&self, namespace: &str, service_account: &str, audience: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let claims = json!({
            "iss": self.issuer(), "aud": [audience], "iat": now, "nbf": now, "exp": now + 3600,
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": { "name": "agent-1", "uid": "b7c1" },
                "serviceaccount": { "name": service_account, "uid": "a0f3" },
            },
        });
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let header = r#"{"alg":"RS256","kid":"made-up"}"#;
        let text = claims.to_string();
        let token = format!("{}.{}.{}", part(header), part(&text), part("made up"));
        let entry = (vec![audience.to_owned()], claims);
        self.shared.tokens.lock().unwrap().insert(token.clone(), entry);
        token
    }

    /// Deletes the pod of a token, which ends it.
    pub fn delete_pod(&self, token: &str) {
        self.shared.tokens.lock().unwrap().remove(token);
    }

    /// How many reviews were asked for.
    pub fn asked(&self) -> u32 {
        *self.shared.asked.lock().unwrap()
    }

    /// The token that a reviewer must send.
    pub const fn reviewer_token(&self) -> &'static str {
        REVIEWER
    }
}

async fn review(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    *shared.asked.lock().unwrap() += 1;
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {REVIEWER}")) {
        return (StatusCode::UNAUTHORIZED, json!({ "kind": "Status", "code": 401 }).to_string());
    }
    if asked["kind"] != "TokenReview" || asked["apiVersion"] != "authentication.k8s.io/v1" {
        return (StatusCode::BAD_REQUEST, json!({ "kind": "Status", "code": 400 }).to_string());
    }
    let token = asked["spec"]["token"].as_str().unwrap_or_default();
    let tokens = shared.tokens.lock().unwrap();
    let status = match tokens.get(token) {
        Some((audiences, claims)) if asked["spec"]["audiences"] == json!(audiences) => json!({
            "authenticated": true, "audiences": audiences,
            "user": { "username": claims["sub"], "groups": ["system:serviceaccounts"] },
        }),
        _ => json!({ "authenticated": false, "error": "the token does not count" }),
    };
    let version = &asked["apiVersion"];
    let answer = json!({ "kind": "TokenReview", "apiVersion": version, "status": status });
    (StatusCode::CREATED, answer.to_string())
}

const REVIEWER: &str = "canary-reviewer-token-51c2";
