//! What a plugin is told about one request, in the host's own types.

use std::time::SystemTime;

use claviger_core::intent::Intent;
use claviger_core::lease::DueLease;
use claviger_core::name::ConnectionName;
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};
use crate::issuer::{Attribution, Subject};

/// One permitted and recorded request to mint a credential.
///
/// INVARIANT (no-plugin-without-intent): it is made only from an `Intent`, except in tests and
/// in `trial`, which no agent reaches.
pub struct IssueRequest {
    pub(super) intent: String,
    pub(super) session: String,
    pub(super) role: String,
    pub(super) requester: String,
    pub(super) scope: String,
    pub(super) prompt_sha256: String,
    pub(super) settings: String,
    pub(super) parameters: String,
    pub(super) now_secs: u64,
    pub(super) expires_at_secs: u64,
}

/// One request to end a credential.
pub struct RevokeRequest {
    pub(super) intent: String,
    pub(super) scope: String,
    pub(super) settings: String,
    pub(super) handle: Option<Zeroizing<String>>,
    pub(super) now_secs: u64,
}

/// One request to replace the credential with which the host logs in on a connection.
pub struct RotateRequest {
    pub(super) connection: String,
    pub(super) settings: String,
    pub(super) secret: SharedSecret,
    pub(super) now_secs: u64,
}

/// One request to have the backend make another key for the account of a connection.
pub struct MakeKeyRequest {
    pub(super) connection: String,
    pub(super) settings: String,
    pub(super) id_in_force: String,
    pub(super) kept: Option<NewKey>,
    pub(super) now_secs: u64,
}

/// A key that a backend has made. Has no `Debug`.
pub struct NewKey {
    /// Its id, which is not a secret.
    pub id: String,
    /// The key itself.
    pub key: SharedSecret,
}

/// One request to delete a key.
pub struct DeleteKeyRequest {
    pub(super) connection: String,
    pub(super) settings: String,
    pub(super) id_in_force: String,
    pub(super) id: String,
    pub(super) now_secs: u64,
}

impl IssueRequest {
    pub(super) fn new(intent: &Intent, settings: &str) -> Self {
        let permit = intent.permit();
        let session = permit.session();
        Self {
            intent: intent.id().bare(),
            session: session.id().bare(),
            role: session.role().as_str().to_owned(),
            requester: session.requester().id().to_owned(),
            scope: permit.scope().name.as_str().to_owned(),
            prompt_sha256: session.prompt_digest().to_string(),
            settings: settings.to_owned(),
            parameters: permit.scope().parameters.to_string(),
            now_secs: now_secs(),
            expires_at_secs: permit.expires_at().unix_secs(),
        }
    }

    /// Whom tokens that are signed meanwhile name.
    pub(super) fn subject(&self) -> Subject {
        Subject {
            intent: self.intent.clone(),
            expires_at_secs: self.expires_at_secs,
            attribution: Attribution {
                session: self.session.clone(),
                role: self.role.clone(),
                requester: self.requester.clone(),
                scope: self.scope.clone(),
                prompt_sha256: self.prompt_sha256.clone(),
            },
        }
    }
}

impl RevokeRequest {
    pub(super) fn new(lease: &DueLease, settings: &str) -> Self {
        let handle = lease.handle.as_ref();
        Self {
            intent: lease.id.bare(),
            scope: lease.scope.as_str().to_owned(),
            settings: settings.to_owned(),
            handle: handle.map(|handle| Zeroizing::new(handle.as_str().to_owned())),
            now_secs: now_secs(),
        }
    }
}

impl RotateRequest {
    pub(super) fn new(connection: &ConnectionName, settings: &str, secret: SharedSecret) -> Self {
        let (connection, settings) = (connection.as_str().to_owned(), settings.to_owned());
        Self { connection, settings, secret, now_secs: now_secs() }
    }
}

impl MakeKeyRequest {
    pub(super) fn new(connection: &ConnectionName, settings: &str, id_in_force: &str) -> Self {
        Self {
            connection: connection.as_str().to_owned(),
            settings: settings.to_owned(),
            id_in_force: id_in_force.to_owned(),
            kept: None,
            now_secs: now_secs(),
        }
    }

    /// Takes what the backend has made, in the place of what was taken before.
    pub(super) fn keep(&mut self, id: String, key: SharedSecret) -> Result<(), Failure> {
        // It is written into the journal and into messages.
        let plain = id.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !(1..=KEY_ID_BYTES_MAX).contains(&id.len()) || id == self.id_in_force {
            let message = "a key's id has 1 to 128 printable ASCII characters, and is a new one";
            return Err(Failure::sent(FailureKind::InvalidInput, message));
        }
        self.kept = Some(NewKey { id, key });
        Ok(())
    }
}

impl DeleteKeyRequest {
    pub(super) fn new(
        connection: &ConnectionName,
        settings: &str,
        (id, id_in_force): (&str, &str),
    ) -> Self {
        Self {
            connection: connection.as_str().to_owned(),
            settings: settings.to_owned(),
            id_in_force: id_in_force.to_owned(),
            id: id.to_owned(),
            now_secs: now_secs(),
        }
    }
}

/// Documented in the plugin contract, and as long as AWS lets its own be.
const KEY_ID_BYTES_MAX: usize = 128;

fn now_secs() -> u64 {
    Timestamp::from(SystemTime::now()).unix_secs()
}
