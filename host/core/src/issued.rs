//! What a plugin minted: the credential for the agent, the handle for revocation, the join keys
//! for the auditor.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::time::Timestamp;

/// A freshly minted credential and what is needed to end it.
pub struct Issued {
    /// What the agent gets.
    pub credential: Credential,
    /// What `revoke` needs, if more than the intent id.
    pub handle: Option<Handle>,
    /// What the consuming system will log: `db_user`, `aws_session_name`. Never a secret.
    pub join_keys: BTreeMap<String, String>,
}

/// A credential: named fields, each secret or not.
pub struct Credential {
    /// What it is, such as `postgres-login`.
    pub kind: String,
    /// Its fields, in the plugin's order.
    pub fields: Vec<Field>,
    /// When it stops working by itself.
    pub expires_at: Timestamp,
}

/// One field of a credential.
pub struct Field {
    /// Its name, such as `password`.
    pub name: String,
    /// The environment variable under which clients look for it, such as `PGPASSWORD`.
    pub env: Option<String>,
    /// Its value.
    pub value: FieldValue,
}

/// The value of a field.
pub enum FieldValue {
    /// May be shown and logged.
    Plain(String),
    /// May only be handed to the agent.
    Secret(Secret),
}

/// What a plugin needs to revoke. Sealed in the journal, since it may name upstream objects that
/// a reader of a stolen disk should not learn. Zeroed on drop.
pub struct Handle(Zeroizing<String>);

impl Handle {
    /// A handle as the plugin returned it or the journal unsealed it.
    pub const fn new(value: Zeroizing<String>) -> Self {
        Self(value)
    }

    /// For the sealing of the journal and for the plugin that made it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
