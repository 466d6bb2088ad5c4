//! What the door to HTTP services costs: one request straight, by the door, and by a plugin.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clavigerd::egress::http::{
    AuthParts, Authenticator, Door, DoorSpec, Grants, GuestRequest, HttpAuth, Policy, Reach, Route,
    SystemResolver,
};
use clavigerd::egress::redact::Redactor;
use tokio::sync::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::effort::{Effort, Turns};
use crate::interpreter::revoke;
use crate::report::{Group, Unit};
use crate::rounds::{Case, interleaved};
use crate::service::{Straight, TOKEN_PATH};
use crate::specimen::{ROOT_TOKEN, Specimen};

/// Measures one request to the service at `port`; `token` makes it too.
pub async fn measure(token: &Specimen, port: u16, effort: Effort) -> Result<Group> {
    let straight = Mutex::new(Straight::open(port).await?);
    let door = door(port)?;
    let trial = token.trial(Some(port))?;
    let cases = vec![
        Case::later("straight: hyper on an open connection", || {
            Box::pin(async { straight.lock().await.delete().await })
        }),
        Case::later("door: judged, authenticated, bounded, redacted", || Box::pin(through(&door))),
        revoke("plugin: a fresh sandbox that sends it through the door", &trial),
    ];
    let turns = effort.turns(Turns { rounds: 60, samples: 100 });
    Ok(Group {
        name: "http",
        about: "one request to a service on loopback, its own time included",
        unit: Unit::Micros,
        rows: interleaved(cases, turns).await?,
    })
}

async fn through(door: &Door) -> Result<()> {
    let mut request = GuestRequest::new("api".to_owned(), "DELETE".to_owned());
    request.path(TOKEN_PATH);
    let mut redactor = Redactor::new(door.root_secrets());
    let end = Instant::now() + Duration::from_secs(5);
    let admitted = door.admit(&request, &redactor).map_err(|failure| anyhow!(failure.message))?;
    let answer = door.send(admitted, &mut redactor, end).await;
    let answer = answer.map_err(|failure| anyhow!(failure.message))?;
    let status = answer.status();
    ensure!(status == 204, "the service answers {status}");
    Ok(())
}

fn door(port: u16) -> Result<Door> {
    let address = format!("http://127.0.0.1:{port}");
    let texts = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (methods, paths, reads) = (texts(&["DELETE"]), texts(&["/v1/tokens"]), texts(&["/id"]));
    let grants = Grants { methods: &methods, paths: &paths, reads: &reads };
    let auth = HttpAuth::Bearer { token: Zeroizing::new(ROOT_TOKEN.to_owned()) };
    let door = Door::new(DoorSpec {
        route: Route::parse(&address, &[Reach::Loopback])?,
        client_address: address,
        policy: Policy::meet(grants, grants).map_err(|error| anyhow!(error))?,
        authenticator: Authenticator::new(auth, AuthParts::default())?,
        ca_file: None,
        resolver: Arc::new(SystemResolver),
    });
    door.context("no door")
}
