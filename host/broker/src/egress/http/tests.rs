//! The door against real servers on this machine, well-behaved and not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

mod addresses;
mod answers;
mod secrets;
pub mod server;
mod tls;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use self::server::Server;
use super::*;
use crate::egress::redact::Redactor;
use crate::egress::{Failure, FailureKind};

/// Gives out one list of addresses after the other, and the last one again and again.
#[derive(Default)]
struct Scripted {
    lists: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Scripted {
    fn new(lists: &[&str]) -> Arc<Self> {
        let list = |text: &&str| text.split_whitespace().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self { lists: Mutex::new(lists.iter().map(list).collect()), ..Self::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, host: &'a str) -> Addresses<'a> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut lists = self.lists.lock().unwrap();
        let list = if lists.len() > 1 { lists.pop_front() } else { lists.front().cloned() };
        Box::pin(async move { list.ok_or_else(|| std::io::ErrorKind::NotFound.into()) })
    }
}

/// What a test varies of a door.
struct Setup {
    address: String,
    auth: HttpAuth,
    reads: &'static [&'static str],
    reach: Vec<Reach>,
    ca_file: Option<PathBuf>,
    resolver: Arc<dyn Resolve>,
}

impl Setup {
    fn to(address: String) -> Self {
        Self {
            address,
            auth: HttpAuth::None,
            reads: &[],
            reach: vec![Reach::Loopback],
            ca_file: None,
            resolver: Arc::new(SystemResolver),
        }
    }

    fn door(self) -> Door {
        let texts = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (methods, paths, reads) = (texts(&["GET", "POST"]), texts(&["/v1"]), texts(self.reads));
        let grants = Grants { methods: &methods, paths: &paths, reads: &reads };
        Door::new(DoorSpec {
            route: Route::parse(&self.address, &self.reach).unwrap(),
            client_address: self.address,
            policy: Policy::meet(grants, grants).unwrap(),
            authenticator: Authenticator::new(self.auth, AuthParts::default()).unwrap(),
            ca_file: self.ca_file.as_deref(),
            resolver: self.resolver,
        })
        .unwrap()
    }
}

fn get() -> GuestRequest {
    let mut request = GuestRequest::new("api".to_owned(), "GET".to_owned());
    request.path("/v1/things");
    request
}

/// Long enough for every exchange that is meant to succeed.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// The deadline of an exchange that is meant to meet it.
fn at_once() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

async fn send_by(
    door: &Door,
    request: &GuestRequest,
    (redactor, end): (&mut Redactor, Instant),
) -> Result<GuestResponse, Failure> {
    let admitted = door.admit(request, redactor)?;
    door.send(admitted, redactor, end).await
}

async fn send(door: &Door, request: &GuestRequest) -> Result<GuestResponse, Failure> {
    send_by(door, request, (&mut Redactor::new(door.root_secrets()), soon())).await
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}
