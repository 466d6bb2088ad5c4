//! Each way of authenticating against a real server on this machine, through the real door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod aws;
mod fixed;
mod identity;
mod oauth;
mod server;

use std::time::Duration;

use http::{HeaderMap, Method};

use super::*;
use crate::egress::http::{Client, SystemResolver};
use crate::egress::tls;
use crate::issuer::Attribution;
use server::Server;

/// What tests give an authenticator besides its credential.
fn parts() -> AuthParts {
    AuthParts {
        connection: "backend/api".to_owned(),
        backend: "backend".to_owned(),
        exchange: Some(Arc::new(client(None))),
        issuer: None,
        reach: Vec::new(),
    }
}

/// The door itself, which trusts the machine's authorities.
fn client(identity: Option<&ClientIdentity>) -> Client {
    let roots = tempfile::NamedTempFile::new().unwrap();
    let authority = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    std::fs::write(roots.path(), authority.cert.pem()).unwrap();
    let tls = tls::client(Some(roots.path()), identity).unwrap();
    Client::new(tls, Arc::new(SystemResolver))
}

fn authenticator(auth: HttpAuth) -> Authenticator {
    Authenticator::new(auth, parts()).unwrap()
}

fn refused(auth: HttpAuth) -> AuthError {
    Authenticator::new(auth, parts()).err().expect("refused")
}

fn get(path_and_query: &str) -> Outgoing {
    Outgoing {
        method: Method::GET,
        path_and_query: path_and_query.to_owned(),
        headers: HeaderMap::new(),
        body: Zeroizing::default(),
    }
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn end() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn subject(session: &str) -> Subject {
    Subject {
        intent: format!("intent-of-{session}"),
        expires_at_secs: now().unix_secs() + 600,
        attribution: Attribution {
            session: session.to_owned(),
            role: "support-triage".to_owned(),
            requester: "unix:1000".to_owned(),
            scope: "backend/readonly".to_owned(),
            prompt_sha256: "ab".repeat(32),
        },
    }
}

/// Authenticates and sends; the secrets that were added.
async fn send(
    authenticator: &Authenticator,
    server: &Server,
    mut outgoing: Outgoing,
) -> Vec<String> {
    let route = server.route();
    let learned = authenticator.apply(&route, &mut outgoing, end()).await.unwrap();
    client(None).exchange(&route, outgoing, end()).await.unwrap();
    learned.iter().map(|secret| secret.to_string()).collect()
}
