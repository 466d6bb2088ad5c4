//! A small service with an API for tokens, to practise on: what a plugin author's own backend may
//! look like. Keeps everything in memory, listens on a loopback address, and is no part of the
//! product.
//!
//! `token-api --port 7878 --admin-token-file FILE`

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its log is what it prints")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::{Value, json};

/// A token as the service keeps it.
#[derive(Clone)]
struct Token {
    id: String,
    name: String,
    secret: String,
    scopes: Value,
    expires_at: u64,
}

/// The service.
#[derive(Clone)]
struct Service {
    admin: Arc<String>,
    tokens: Arc<Mutex<BTreeMap<String, Token>>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("token-api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let usage = "usage: token-api --port PORT --admin-token-file FILE";
    let port = value("--port").and_then(|port| port.parse::<u16>().ok()).ok_or(usage)?;
    let file = value("--admin-token-file").ok_or(usage)?;
    let admin = std::fs::read_to_string(&file).map_err(|error| format!("`{file}`: {error}"))?;
    let service = Service { admin: Arc::new(admin.trim().to_owned()), tokens: Arc::default() };
    let router = Router::new()
        .route("/v1/tokens", post(create).get(list))
        .route("/v1/tokens/{id}", delete(delete_by_id))
        .route("/v1/tokens/by-name/{name}", delete(delete_by_name))
        .route("/v1/whoami", get(who_am_i))
        .with_state(service);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener =
        tokio::net::TcpListener::bind(address).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("token-api listens on http://{address}");
    axum::serve(listener, router).await.map_err(|error| error.to_string())
}

/// `POST /v1/tokens` with `{"name", "scopes", "ttl_secs"}`: makes a token, once per name.
async fn create(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    if !service.is_admin(&headers) {
        return refusal(StatusCode::FORBIDDEN, "only the administrator makes tokens");
    }
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (Some(name), Some(ttl)) = (
        request.get("name").and_then(Value::as_str),
        request.get("ttl_secs").and_then(Value::as_u64),
    ) else {
        return refusal(StatusCode::BAD_REQUEST, "`name` and `ttl_secs` are wanted");
    };
    let mut tokens = service.tokens();
    tokens.retain(|_, token| token.expires_at > now());
    if tokens.contains_key(name) {
        return refusal(StatusCode::CONFLICT, "there is a token of that name");
    }
    if tokens.len() >= TOKENS_MAX {
        return refusal(StatusCode::TOO_MANY_REQUESTS, "there are too many tokens");
    }
    let token = Token {
        id: format!("tok-{}", random(8)),
        name: name.to_owned(),
        secret: random(24),
        scopes: request.get("scopes").cloned().unwrap_or_else(|| json!([])),
        expires_at: now().saturating_add(ttl),
    };
    println!("created name={name}");
    let answer = json!({
        "id": token.id, "secret": token.secret, "expires_at": token.expires_at,
    });
    tokens.insert(name.to_owned(), token);
    (StatusCode::CREATED, JSON, answer.to_string()).into_response()
}

/// `GET /v1/tokens?name=…`: one line for each token that lives, of that name if one is given.
async fn list(
    State(service): State<Service>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if !service.is_admin(&headers) {
        return refusal(StatusCode::FORBIDDEN, "only the administrator lists tokens");
    }
    let name = query.as_deref().and_then(|query| query.strip_prefix("name="));
    let tokens = service.tokens();
    let found = tokens
        .values()
        .filter(|token| token.expires_at > now() && name.is_none_or(|name| token.name == name));
    let lines: String = found.map(|token| format!("{} {}\n", token.id, token.name)).collect();
    lines.into_response()
}

/// `GET /v1/whoami` with a token: whose it is.
async fn who_am_i(State(service): State<Service>, headers: HeaderMap) -> Response {
    let tokens = service.tokens();
    let presented = bearer(&headers);
    let found = tokens
        .values()
        .find(|token| token.expires_at > now() && presented == Some(token.secret.as_str()));
    match found {
        Some(token) => {
            println!("used name={}", token.name);
            let answer = json!({"name": token.name, "scopes": token.scopes});
            (JSON, answer.to_string()).into_response()
        }
        None => refusal(StatusCode::UNAUTHORIZED, "this token is unknown, deleted or expired"),
    }
}

async fn delete_by_id(
    State(service): State<Service>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    service.remove(&headers, |token| token.id == id)
}

async fn delete_by_name(
    State(service): State<Service>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    service.remove(&headers, |token| token.name == name)
}

impl Service {
    fn tokens(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_admin(&self, headers: &HeaderMap) -> bool {
        bearer(headers) == Some(self.admin.as_str())
    }

    fn remove(&self, headers: &HeaderMap, which: impl Fn(&Token) -> bool) -> Response {
        if !self.is_admin(headers) {
            return refusal(StatusCode::FORBIDDEN, "only the administrator deletes tokens");
        }
        let mut tokens = self.tokens();
        let name = tokens.values().find(|token| which(token)).map(|token| token.name.clone());
        match name.and_then(|name| tokens.remove(&name)) {
            Some(token) => {
                println!("deleted name={}", token.name);
                StatusCode::NO_CONTENT.into_response()
            }
            None => refusal(StatusCode::NOT_FOUND, "there is no such token"),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, JSON, json!({ "message": message }).to_string()).into_response()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// Random bytes from the system, in hexadecimal digits.
fn random(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    let read =
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut buffer));
    // A service to practise on stops rather than hand out a secret that everybody knows.
    assert!(read.is_ok(), "the system gives no random bytes");
    buffer.iter().fold(String::new(), |mut text, byte| {
        let _always = write!(text, "{byte:02x}");
        text
    })
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Nobody practises with more.
const TOKENS_MAX: usize = 10_000;
