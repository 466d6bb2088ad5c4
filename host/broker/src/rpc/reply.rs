//! Builds the reply that hands a secret to the agent: the one place where a secret leaves its
//! type. Nothing here logs.

use claviger_core::flow::session::Opened;
use claviger_core::issued::{Credential, Field, FieldValue};
use claviger_core::secret::Secret;
use claviger_proto::v1;
use zeroize::Zeroizing;

use super::convert;

/// The reply to `OpenSession`, with the session's token.
pub fn session(opened: Opened, heartbeat_grace: std::time::Duration) -> v1::OpenSessionResponse {
    let Opened { session, token, known: _ } = opened;
    v1::OpenSessionResponse {
        session_id: session.id().to_string(),
        session_token: handed_over(token),
        ends_at: Some(convert::timestamp(session.ends_at())),
        prompt_digest: session.prompt_digest().to_string(),
        heartbeat_grace: Some(convert::duration(heartbeat_grace)),
    }
}

/// The credential of an `Issue` reply.
pub fn credential(credential: Credential) -> v1::Credential {
    v1::Credential {
        kind: credential.kind,
        fields: credential.fields.into_iter().map(field).collect(),
        expires_at: Some(convert::timestamp(credential.expires_at)),
    }
}

/// A field in plain text, as the agent gets it.
pub struct OpenField {
    /// Its name.
    pub name: String,
    /// The environment variable under which clients look for it.
    pub env: Option<String>,
    /// Its value.
    pub value: Zeroizing<String>,
    /// Whether only the agent may see it.
    pub secret: bool,
}

/// The fields of a credential that the plugin kit's suite minted: the suite is the agent then.
pub fn open_fields(credential: Credential) -> Vec<OpenField> {
    let open = |field: Field| {
        let (value, secret) = match field.value {
            FieldValue::Plain(value) => (value, false),
            FieldValue::Secret(value) => (handed_over(value), true),
        };
        OpenField { name: field.name, env: field.env, value: Zeroizing::new(value), secret }
    };
    credential.fields.into_iter().map(open).collect()
}

fn field(field: Field) -> v1::Field {
    let (value, secret) = match field.value {
        FieldValue::Plain(value) => (value, false),
        FieldValue::Secret(value) => (handed_over(value), true),
    };
    v1::Field { name: field.name, value, secret, env: field.env.unwrap_or_default() }
}

/// INVARIANT (one-exit): the only caller of `expose_once`. The message's own copy is freed by
/// prost when it is sent, without being zeroed: it goes to the agent in the same moment, and the
/// process is not dumpable.
fn handed_over(secret: Secret) -> String {
    secret.expose_once().as_str().to_owned()
}
