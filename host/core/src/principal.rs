//! Who asks and for whom: both proven before a value of these types exists. Checks no proof itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// An authenticated workload. Made only by the broker's authentication and identity modules, from
/// a proof that they checked: never from what a message merely says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Principal {
    id: String,
    claims: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<Signer>,
}

/// Whose signature proved somebody. While it is trusted, so is what it signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// The issuer, by its name in the configuration.
    pub issuer: String,
    /// The thumbprint of its key (RFC 7638).
    pub key: String,
}

impl Principal {
    /// The process at the other end of a unix socket, as the kernel names it (`SO_PEERCRED`).
    pub fn from_unix_peer(uid: u32, gid: u32) -> Self {
        let claims = BTreeMap::from([
            ("method".to_owned(), "unix".to_owned()),
            ("uid".to_owned(), uid.to_string()),
            ("gid".to_owned(), gid.to_string()),
        ]);
        Self { id: format!("unix:{uid}"), claims, signer: None }
    }

    /// The holder of a client certificate that the TLS layer verified. `name` is its SPIFFE id
    /// (`spiffe://…`) or, without one, `dns:` and its first DNS name.
    pub fn from_client_certificate(name: &str, sha256_thumbprint: &str) -> Self {
        let claims = BTreeMap::from([
            ("method".to_owned(), "mtls".to_owned()),
            ("thumbprint".to_owned(), sha256_thumbprint.to_owned()),
        ]);
        Self { id: name.to_owned(), claims, signer: None }
    }

    /// The bearer of a token that the broker's identity module verified against a key of `signer`.
    pub const fn from_signed_token(
        id: String,
        claims: BTreeMap<String, String>,
        signer: Signer,
    ) -> Self {
        Self { id, claims, signer: Some(signer) }
    }

    /// Whoever a service that the operator trusts vouched for when it was asked: a Kubernetes API
    /// server for a token, AWS STS for a signed request.
    pub const fn from_inquiry(id: String, claims: BTreeMap<String, String>) -> Self {
        Self { id, claims, signer: None }
    }

    /// A principal as the journal recorded it.
    pub const fn from_record(
        id: String,
        claims: BTreeMap<String, String>,
        signer: Option<Signer>,
    ) -> Self {
        Self { id, claims, signer }
    }

    /// A stable id that starts with its kind: `unix:1000`, `spiffe://example.org/agent`,
    /// `oidc:github:repo:acme/shop:ref:refs/heads/main`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the proof said besides the id; the tags of the Cedar entity `Workload`.
    pub const fn claims(&self) -> &BTreeMap<String, String> {
        &self.claims
    }

    /// Whose signature proved it, where one did.
    pub const fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }
}

/// The engineer or system on whose behalf a session runs. Proven, like the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requester {
    id: String,
    name: Option<String>,
    grounds: Grounds,
}

/// What a requester's token said besides who it is. Empty for whoever needed none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grounds {
    /// The groups, each with its issuer's name before it: `corp:payments`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Who acts for the requester (RFC 8693, `act`): the current actor first, then those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub act: Vec<String>,
    /// Whose signature proved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Signer>,
}

impl Requester {
    /// The local user that owns the connecting process. `name` is what the user database calls
    /// it: shown to readers of the journal, never compared.
    pub fn from_unix_peer(uid: u32, name: Option<String>) -> Self {
        Self { id: format!("unix:{uid}"), name, grounds: Grounds::default() }
    }

    /// A workload that asks on its own behalf: a system, not an engineer. While its key is
    /// trusted, so is this.
    pub fn from_workload(principal: &Principal) -> Self {
        let grounds = Grounds { signer: principal.signer.clone(), ..Grounds::default() };
        Self { id: principal.id.clone(), name: None, grounds }
    }

    /// Whoever a token names that the broker's identity module verified. `name` is for readers.
    pub const fn from_signed_token(id: String, name: Option<String>, grounds: Grounds) -> Self {
        Self { id, name, grounds }
    }

    /// A requester as the journal recorded it.
    pub const fn from_record(id: String, name: Option<String>, grounds: Grounds) -> Self {
        Self { id, name, grounds }
    }

    /// A stable id that starts with its kind.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name for readers.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What its token said besides.
    pub const fn grounds(&self) -> &Grounds {
        &self.grounds
    }
}
