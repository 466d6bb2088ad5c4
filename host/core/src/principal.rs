//! Who asks and for whom: both proven before a value of these types exists. Checks no proof itself.

use std::collections::BTreeMap;

use serde::Serialize;

/// An authenticated workload. Made only by the broker's authentication module, from a proof that
/// the transport gave: never from what a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    id: String,
    claims: BTreeMap<String, String>,
}

impl Principal {
    /// The process at the other end of a unix socket, as the kernel names it (`SO_PEERCRED`).
    pub fn from_unix_peer(uid: u32, gid: u32) -> Self {
        let claims = BTreeMap::from([
            ("method".to_owned(), "unix".to_owned()),
            ("uid".to_owned(), uid.to_string()),
            ("gid".to_owned(), gid.to_string()),
        ]);
        Self { id: format!("unix:{uid}"), claims }
    }

    /// The holder of a client certificate that the TLS layer verified. `name` is its SPIFFE id
    /// (`spiffe://…`) or, without one, `dns:` and its first DNS name.
    pub fn from_client_certificate(name: &str, sha256_thumbprint: &str) -> Self {
        let claims = BTreeMap::from([
            ("method".to_owned(), "mtls".to_owned()),
            ("thumbprint".to_owned(), sha256_thumbprint.to_owned()),
        ]);
        Self { id: name.to_owned(), claims }
    }

    /// A principal as the journal recorded it.
    pub const fn from_record(id: String, claims: BTreeMap<String, String>) -> Self {
        Self { id, claims }
    }

    /// A stable id that starts with its kind: `unix:1000`, `spiffe://example.org/agent`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the proof said besides the id; the tags of the Cedar entity `Workload`.
    pub const fn claims(&self) -> &BTreeMap<String, String> {
        &self.claims
    }
}

/// The engineer or system on whose behalf a session runs. Proven, like the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requester {
    id: String,
    name: Option<String>,
}

impl Requester {
    /// The local user that owns the connecting process. `name` is what the user database calls
    /// it: shown to readers of the journal, never compared.
    pub fn from_unix_peer(uid: u32, name: Option<String>) -> Self {
        Self { id: format!("unix:{uid}"), name }
    }

    /// A workload that asks on its own behalf: a system, not an engineer.
    pub fn from_workload(principal: &Principal) -> Self {
        Self { id: principal.id.clone(), name: None }
    }

    /// A requester as the journal recorded it.
    pub const fn from_record(id: String, name: Option<String>) -> Self {
        Self { id, name }
    }

    /// A stable id that starts with its kind.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name for readers.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
