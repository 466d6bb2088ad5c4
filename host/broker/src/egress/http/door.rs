//! The door of one HTTP connection. A guest's request goes through it in one order, and nothing
//! else sends a guest's bytes:
//!
//! canonical form → policy → headers → leaks (`admit`) → authentication over the final bytes →
//! resolution → address check → pinned connection → bounded answer (`send`) → hidden and redacted
//! view (`GuestResponse`).
//!
//! The credential is added before the name is resolved, but leaves only over the connection whose
//! address was checked.

use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::auth::Authenticator;
use super::client::Client;
use super::exchange::{Outgoing, Route};
use super::policy::Policy;
use super::request::{Canonical, GuestRequest};
use super::resolve::Resolve;
use super::response::GuestResponse;
use crate::egress::redact::{Redactor, SharedSecret};
use crate::egress::tls::{self, TlsError};
use crate::egress::{Failure, FailureKind};
use crate::issuer::Subject;

/// What a door is made from.
pub struct DoorSpec<'a> {
    /// Where requests go.
    pub route: Route,
    /// The address that clients should use.
    pub client_address: String,
    /// What may be sent and read.
    pub policy: Policy,
    /// How the broker authenticates.
    pub authenticator: Authenticator,
    /// A PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<&'a Path>,
    /// Where addresses come from.
    pub resolver: Arc<dyn Resolve>,
}

/// A bound connection to an HTTP service.
pub struct Door {
    /// The address that clients should use.
    pub client_address: String,
    route: Route,
    policy: Arc<Policy>,
    client: Client,
    authenticator: Authenticator,
}

/// A request that may be sent: canonical, granted, and without a secret in the guest's own words.
pub struct Admitted {
    outgoing: Outgoing,
    claims: Option<Map<String, Value>>,
    subject: Option<Arc<Subject>>,
}

impl Admitted {
    /// The request, made in a call that issues for `subject`.
    #[must_use]
    pub fn within(self, subject: Option<Arc<Subject>>) -> Self {
        Self { subject, ..self }
    }
}

impl Door {
    /// A door that has not been used.
    pub fn new(spec: DoorSpec<'_>) -> Result<Self, TlsError> {
        let identity = spec.authenticator.client_identity();
        let tls = tls::client(spec.ca_file, identity.as_ref())?;
        Ok(Self {
            client_address: spec.client_address,
            route: spec.route,
            policy: Arc::new(spec.policy),
            client: Client::new(tls, spec.resolver),
            authenticator: spec.authenticator,
        })
    }

    /// What the broker itself authenticates with.
    pub fn root_secrets(&self) -> Vec<SharedSecret> {
        self.authenticator.root_secrets()
    }

    /// Judges a request. Nothing is sent, so every failure is unsent.
    pub fn admit(&self, request: &GuestRequest, redactor: &Redactor) -> Result<Admitted, Failure> {
        let Canonical { method, path, path_and_query, headers, body, claims, written } =
            request.canonical()?;
        self.policy.admit(&method, &path)?;
        self.authenticator.admit_claims(claims.as_ref())?;
        // Last: all else is decided without looking at a secret, so a refusal tells a guest who
        // guesses nothing but this.
        if redactor.finds_secret(&written) {
            let message = "the request holds a secret in plain sight: put it into the body as a \
                           `secret`";
            return Err(Failure::unsent(FailureKind::Denied, message));
        }
        let outgoing = Outgoing { method, path_and_query, headers, body };
        Ok(Admitted { outgoing, claims, subject: None })
    }

    /// Sends an admitted request and reads the answer, by `end`. What authentication added is known
    /// to `redactor` before the answer is shown.
    pub async fn send(
        &self,
        admitted: Admitted,
        redactor: &mut Redactor,
        end: Instant,
    ) -> Result<GuestResponse, Failure> {
        let Admitted { mut outgoing, claims, subject } = admitted;
        let acting = self.authenticator.within(subject.as_deref()).saying(claims.as_ref());
        let applied = acting.apply(&self.route, &mut outgoing, end).await;
        // A token endpoint may have been asked, but not this service.
        let applied = applied.map_err(|failure| Failure { request_sent: false, ..failure })?;
        applied.iter().for_each(|secret| redactor.learn(Arc::clone(secret)));
        let incoming = self.client.exchange(&self.route, outgoing, end).await?;
        if incoming.status == StatusCode::UNAUTHORIZED {
            self.authenticator.rejected(&applied);
        }
        Ok(GuestResponse::new(&incoming, Arc::clone(&self.policy)))
    }
}
