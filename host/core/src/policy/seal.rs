//! The digest of a snapshot: SHA-256 over everything that decides. Each part is preceded by its
//! length, so that no two different snapshots can be the same sequence of bytes.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{GUARDRAILS, OPERATORS, PolicySources, SCHEMA, SnapshotDigest};
use crate::name::{Authorization, RoleName};
use crate::prompt::{AuthorizationLimits, PromptDigest};

/// The digest of what `sources` and the built-in files decide.
pub(super) fn seal(sources: &PolicySources) -> Result<SnapshotDigest, serde_json::Error> {
    let mut hash = Framed(Sha256::new());
    hash.part(VERSION);
    hash.part(SCHEMA.as_bytes());
    hash.part(GUARDRAILS.as_bytes());
    hash.part(OPERATORS.as_bytes());
    hash.count(sources.policies.len());
    for file in &sources.policies {
        hash.part(file.path.as_bytes());
        hash.part(file.text.as_bytes());
    }
    let roles = sources.roles.iter().map(|(name, role)| SealedRole {
        name,
        digest: role.digest,
        authorizations: &role.authorizations,
    });
    hash.json(&roles.collect::<Vec<_>>())?;
    hash.json(&sources.catalog)?;
    hash.json(&sources.teams)?;
    hash.json(&sources.budgets)?;
    Ok(SnapshotDigest(hash.0.finalize().into()))
}

/// What decides in a role: not its description, nor where its file lies.
#[derive(Serialize)]
struct SealedRole<'a> {
    name: &'a RoleName,
    digest: PromptDigest,
    authorizations: &'a BTreeMap<Authorization, AuthorizationLimits>,
}

struct Framed(Sha256);

impl Framed {
    fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, count: usize) {
        // A usize has at most 64 bits on every platform that Rust supports.
        self.0.update((count as u64).to_be_bytes());
    }

    fn json(&mut self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        self.part(&serde_json::to_vec(value)?);
        Ok(())
    }
}

/// Sets these digests apart from all others, and from those of another framing.
const VERSION: &[u8] = b"claviger policy snapshot 2";
