//! Answers as `--output json` shows them. The field names are a promise: add, never rename.

use claviger_proto::v1::{
    Credential, Grant, Lease, LeaseRow, LeaseState, OpenSessionResponse, RevocationClass,
    SessionRow,
};
use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::text::{Table, enum_name, length, moment};

/// A lease.
#[derive(Debug, Serialize)]
pub struct LeaseView {
    /// `int_…`.
    pub lease_id: String,
    /// `backend/scope`.
    pub scope: String,
    /// `active`, `due` …
    pub state: String,
    /// RFC 3339.
    pub expires_at: String,
    /// `revocable`, `deny-by-policy` or `expire-only`.
    pub revocation: String,
    /// How long it may work after its revocation.
    pub residual_exposure_secs: u64,
}

impl From<Lease> for LeaseView {
    fn from(lease: Lease) -> Self {
        Self {
            state: state(lease.state()),
            revocation: revocation(lease.revocation()),
            residual_exposure_secs: length(lease.residual_exposure).unwrap_or_default().as_secs(),
            expires_at: moment(lease.expires_at),
            lease_id: lease.lease_id,
            scope: lease.scope,
        }
    }
}

/// A lease as operators see it.
#[derive(Debug, Serialize)]
pub struct LeaseRowView {
    /// The lease.
    #[serde(flatten)]
    pub lease: LeaseView,
    /// `ses_…`.
    pub session_id: String,
    /// The session's role.
    pub role: String,
    /// How many attempts to revoke it failed.
    pub attempts: u32,
    /// When the worker next acts on it, RFC 3339; empty if never.
    pub next_at: String,
    /// Why it fell due; empty if it did not.
    pub cause: String,
}

impl From<LeaseRow> for LeaseRowView {
    fn from(row: LeaseRow) -> Self {
        Self {
            lease: row.lease.unwrap_or_default().into(),
            session_id: row.session_id,
            role: row.role,
            attempts: row.attempts,
            next_at: moment(row.next_at),
            cause: row.cause,
        }
    }
}

/// A session as operators see it.
#[derive(Debug, Serialize)]
pub struct SessionRowView {
    /// `ses_…`.
    pub session_id: String,
    /// Its role.
    pub role: String,
    /// The workload that runs it.
    pub workload: String,
    /// For whom.
    pub requester: String,
    /// What the user database calls them; may be empty.
    pub requester_name: String,
    /// SHA-256, in hex.
    pub prompt_digest: String,
    /// RFC 3339.
    pub opened_at: String,
    /// When it ends at the latest, RFC 3339.
    pub ends_at: String,
    /// RFC 3339; empty while it lives.
    pub ended_at: String,
    /// Why it ended; empty while it lives.
    pub cause: String,
    /// How many of its leases are in no final state.
    pub leases: u64,
}

impl From<SessionRow> for SessionRowView {
    fn from(row: SessionRow) -> Self {
        Self {
            opened_at: moment(row.opened_at),
            ends_at: moment(row.ends_at),
            ended_at: moment(row.ended_at),
            session_id: row.session_id,
            role: row.role,
            workload: row.workload,
            requester: row.requester,
            requester_name: row.requester_name,
            prompt_digest: row.prompt_digest,
            cause: row.cause,
            leases: row.leases,
        }
    }
}

/// Sessions for people.
pub fn session_table(rows: &[SessionRowView]) -> Table {
    let mut table =
        Table::new(&["SESSION", "ROLE", "REQUESTER", "WORKLOAD", "LEASES", "ENDS AT", "ENDED"]);
    for row in rows {
        let leases = row.leases.to_string();
        let SessionRowView { session_id, role, requester, workload, ends_at, cause, .. } = row;
        table.row([session_id, role, requester, workload, &leases, ends_at, cause]);
    }
    table
}

/// What a session may ask for.
#[derive(Debug, Serialize)]
pub struct GrantView {
    /// `backend/scope`.
    pub scope: String,
    /// What a prompt file must declare for it.
    pub authorization: String,
    /// Whether an issue would be permitted now.
    pub permitted: bool,
    /// The longest life of a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_max_secs: Option<u64>,
    /// `revocable`, `deny-by-policy` or `expire-only`.
    pub revocation: String,
    /// The stable code of the refusal; empty if permitted.
    pub refusal_code: String,
    /// What would have to change; empty if permitted.
    pub refusal: String,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        Self {
            revocation: revocation(grant.revocation()),
            ttl_max_secs: length(grant.ttl_max).map(|ttl| ttl.as_secs()),
            permitted: grant.permitted,
            scope: grant.scope,
            authorization: grant.authorization,
            refusal_code: grant.refusal_code,
            refusal: grant.refusal,
        }
    }
}

/// A session that was just opened, with its token.
#[derive(Serialize)]
pub struct SessionView {
    /// `ses_…`.
    pub session_id: String,
    /// The bearer token. Secret.
    #[serde(serialize_with = "exposed")]
    pub session_token: Zeroizing<String>,
    /// RFC 3339.
    pub ends_at: String,
    /// SHA-256, in hex.
    pub prompt_digest: String,
    /// The session ends when nothing is heard of it for this long.
    pub heartbeat_grace_secs: u64,
}

impl From<OpenSessionResponse> for SessionView {
    fn from(response: OpenSessionResponse) -> Self {
        Self {
            session_id: response.session_id,
            session_token: Zeroizing::new(response.session_token),
            ends_at: moment(response.ends_at),
            prompt_digest: response.prompt_digest,
            heartbeat_grace_secs: length(response.heartbeat_grace).unwrap_or_default().as_secs(),
        }
    }
}

/// A minted credential, with its secrets.
#[derive(Serialize)]
pub struct CredentialView {
    /// What it is, such as `postgres-login`.
    pub kind: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Its parts.
    pub fields: Vec<FieldView>,
}

/// One part of a credential.
#[derive(Serialize)]
pub struct FieldView {
    /// Such as `password`.
    pub name: String,
    /// Its value; secret if `secret` says so.
    #[serde(serialize_with = "exposed")]
    pub value: Zeroizing<String>,
    /// Whether it must stay in memory.
    pub secret: bool,
    /// The variable under which clients look for it; may be empty.
    pub env: String,
}

impl From<Credential> for CredentialView {
    fn from(credential: Credential) -> Self {
        let fields = credential.fields.into_iter().map(|field| FieldView {
            name: field.name,
            value: Zeroizing::new(field.value),
            secret: field.secret,
            env: field.env,
        });
        Self {
            kind: credential.kind,
            expires_at: moment(credential.expires_at),
            fields: fields.collect(),
        }
    }
}

/// A lease and its credential.
#[derive(Serialize)]
pub struct IssuedView {
    /// The lease.
    pub lease: LeaseView,
    /// What was minted.
    pub credential: CredentialView,
    /// What the agent should know of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notice: String,
}

/// `active`, `due` …
pub fn state(state: LeaseState) -> String {
    enum_name(state.as_str_name(), "LEASE_STATE_")
}

fn revocation(class: RevocationClass) -> String {
    enum_name(class.as_str_name(), "REVOCATION_CLASS_")
}

fn exposed<S: Serializer>(secret: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use claviger_proto::v1::Field;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_field_names_are_those_promised() {
        let lease = Lease {
            lease_id: "int_1".to_owned(),
            scope: "orders-db/readonly".to_owned(),
            state: LeaseState::Active.into(),
            expires_at: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
            revocation: RevocationClass::Revocable.into(),
            residual_exposure: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        };
        let field = Field {
            name: "password".to_owned(),
            value: "s3cret".to_owned(),
            secret: true,
            env: "PGPASSWORD".to_owned(),
        };
        let credential =
            Credential { kind: "postgres-login".to_owned(), fields: vec![field], expires_at: None };
        let notice = String::new();
        let view = IssuedView { lease: lease.into(), credential: credential.into(), notice };
        let expect = json!({
            "lease": {
                "lease_id": "int_1", "scope": "orders-db/readonly", "state": "active",
                "expires_at": "1970-01-01T00:01:00.000Z", "revocation": "revocable",
                "residual_exposure_secs": 5,
            },
            "credential": {
                "kind": "postgres-login", "expires_at": "",
                "fields": [{
                    "name": "password", "value": "s3cret", "secret": true, "env": "PGPASSWORD",
                }],
            },
        });
        assert_eq!(serde_json::to_value(view).unwrap(), expect);
    }

    #[test]
    fn a_refused_grant_keeps_its_reason() {
        let grant = Grant {
            scope: "a/b".to_owned(),
            refusal: "no policy".to_owned(),
            refusal_code: "NO_PERMIT".to_owned(),
            ..Grant::default()
        };
        let view = serde_json::to_value(GrantView::from(grant)).unwrap();
        assert_eq!(view.get("ttl_max_secs"), None);
        assert_eq!(view.get("refusal_code"), Some(&json!("NO_PERMIT")));
    }
}
