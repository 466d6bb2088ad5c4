//! Prompt files: what a role is and what it may ask for. Reads bytes, never files.

mod authorizations;
mod error;
mod front_matter;
mod parse;
mod roles;
mod yaml;

pub use authorizations::AUTHORIZATIONS_MAX;
pub use error::{Position, PromptError, PromptFault};
pub use parse::{PROMPT_BYTES_MAX, PromptFile, SIDECAR_BYTES_MAX, Sidecar, parse};
pub use roles::{Roles, collect};

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::digest;
use crate::name::{Authorization, RoleName};

/// A named agent role, defined by exactly one prompt file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Role {
    /// Its name.
    pub name: RoleName,
    /// What the prompt file says of itself.
    pub description: Option<String>,
    /// SHA-256 over the exact bytes of prompt file and sidecar.
    pub digest: PromptDigest,
    /// What the prompt file asks for: a request, never a grant.
    pub authorizations: BTreeMap<Authorization, AuthorizationLimits>,
    /// The path of the prompt file, for people.
    pub path: String,
}

/// What a prompt file says beside an authorization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationLimits {
    /// `max_ttl`: no credential for this authorization lives longer.
    pub ttl_max: Option<Duration>,
}

impl AuthorizationLimits {
    /// Both limits together: the smaller counts.
    #[must_use]
    pub fn narrowed_by(&self, other: &Self) -> Self {
        let ttl_max = match (self.ttl_max, other.ttl_max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { ttl_max }
    }
}

digest!(
    PromptDigest,
    "SHA-256 over the exact bytes of a prompt file and its sidecar. Without a sidecar it is the \
     digest that `sha256sum` prints for the file; with one it is SHA-256 over the 32 bytes of \
     the prompt's digest followed by the 32 bytes of the sidecar's."
);
