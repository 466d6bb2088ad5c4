//! Reads what operators ask about, and makes the rows of the answers. Asks nothing itself.

use std::time::Duration;

use claviger_core::admin::{AdminResource, Operator};
use claviger_core::ids::ApprovalId;
use claviger_core::journal::JournalSeq;
use claviger_core::policy::PolicyNote;
use claviger_core::prompt::Role;
use claviger_core::time::Timestamp;
use claviger_proto::v1;
use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::approvals::Approval;
use crate::journal::{EndedSessions, EntryQuery, LeaseQuery, LeaseRow, SessionQuery, SessionRow};
use crate::plugin::{PluginInfo, SignatureState};
use crate::rpc::{convert, status};

/// A plugin as it is listed.
pub fn plugin_row(plugin: &PluginInfo, now: Timestamp) -> v1::Plugin {
    let until = |secs| convert::timestamp(now.after(Duration::from_secs(secs)));
    v1::Plugin {
        name: plugin.name.to_string(),
        id: plugin.manifest.id.clone(),
        version: plugin.manifest.version.clone(),
        sha256: HEXLOWER.encode(&plugin.sha256),
        signed_by: match &plugin.signature {
            SignatureState::Signed(key) => key.clone(),
            SignatureState::Unsigned => String::new(),
        },
        limits: plugin.manifest.limits_class.as_str().to_owned(),
        backends: plugin.backends.iter().map(ToString::to_string).collect(),
        quarantined_until: plugin.quarantined_secs.map(until),
        traps: plugin.traps,
    }
}

/// Reads which entries are wanted.
pub fn entry_query(request: &v1::QueryJournalRequest) -> Result<EntryQuery, Status> {
    let seq = |seq: u64| (seq > 0).then(|| JournalSeq::durable(seq));
    let code = &request.code;
    if code.len() > CODE_BYTES_MAX || request.action.len() > CODE_BYTES_MAX {
        return Err(status::invalid("code", "codes and actions are shorter than that"));
    }
    Ok(EntryQuery {
        from: seq(request.from_seq),
        to: seq(request.to_seq),
        session: optional("session_id", &request.session_id)?,
        lease: optional("lease_id", &request.lease_id)?,
        denial: optional("denial_id", &request.denial_id)?,
        role: optional("role", &request.role)?,
        last: (request.last > 0).then_some(request.last),
        principal: optional_person("principal", &request.principal)?,
        requester: optional_person("requester", &request.requester)?,
        scope: optional("scope", &request.scope)?,
        event: variant("event", &request.event)?,
        decision: variant("decision", &request.decision)?,
        code: (!code.is_empty()).then(|| code.clone()),
        snapshot: optional("snapshot", &request.snapshot)?,
        prompt_digest: optional("prompt_digest", &request.prompt_digest)?,
        operator: optional_person("operator", &request.operator)?,
        action: (!request.action.is_empty()).then(|| request.action.clone()),
        since: request.since.map(|at| moment("since", at)).transpose()?,
        before: request.before.map(|at| moment("before", at)).transpose()?,
    })
}

/// What a question about the journal is restricted to, so that a policy can let a team see its own.
pub fn entries_of(query: &EntryQuery) -> AdminResource {
    let requester = || query.requester.clone().map(AdminResource::Requester);
    let workload = || query.principal.clone().map(AdminResource::Workload);
    let role = query.role.clone().map(AdminResource::Role);
    role.or_else(requester).or_else(workload).unwrap_or(AdminResource::Broker)
}

/// Reads which leases are wanted.
pub fn lease_query(request: &v1::QueryLeasesRequest) -> Result<LeaseQuery, Status> {
    Ok(LeaseQuery {
        states: request.states().filter_map(convert::named_state).collect(),
        session: optional("session_id", &request.session_id)?,
        role: optional("role", &request.role)?,
        requester: optional_person("requester", &request.requester)?,
        backend: optional("backend", &request.backend)?,
    })
}

/// What a question about leases is restricted to.
pub fn leases_of(query: &LeaseQuery) -> AdminResource {
    let requester = || query.requester.clone().map(AdminResource::Requester);
    let backend = || query.backend.clone().map(AdminResource::Backend);
    let role = query.role.clone().map(AdminResource::Role);
    role.or_else(requester).or_else(backend).unwrap_or(AdminResource::Broker)
}

/// A policy as it is listed.
pub fn policy(note: &PolicyNote) -> v1::Policy {
    v1::Policy {
        id: note.id.clone(),
        place: note.place.clone(),
        effect: note.effect.to_string(),
        annotations: note.annotations.clone().into_iter().collect(),
    }
}

/// What waits, as it is listed.
pub fn approval(approval: &Approval) -> v1::Approval {
    v1::Approval {
        approval_id: approval.id.to_string(),
        operator: approval.operator.clone(),
        what: approval.what.clone(),
        expires_at: Some(convert::timestamp(approval.expires_at)),
        approver: approval.approver.as_ref().map(Operator::id).unwrap_or_default().to_owned(),
    }
}

/// What the second operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To agree.
    Grant,
    /// Not to.
    Refuse,
}

/// Reads which approval is decided, and how.
pub fn answer(request: &v1::DecideApprovalRequest) -> Result<(ApprovalId, Answer), Status> {
    let id = parsed("approval_id", &request.approval_id)?;
    match request.decision() {
        v1::ApprovalDecision::Grant => Ok((id, Answer::Grant)),
        v1::ApprovalDecision::Refuse => Ok((id, Answer::Refuse)),
        v1::ApprovalDecision::Unspecified => Err(status::invalid("decision", "grant or refuse it")),
    }
}

/// A role as it is listed.
pub fn role(role: &Role) -> v1::Role {
    let authorizations = role.authorizations.iter().map(|(name, limits)| v1::RoleAuthorization {
        name: name.to_string(),
        max_ttl: limits.ttl_max.map(convert::duration),
    });
    v1::Role {
        name: role.name.to_string(),
        prompt_digest: role.digest.to_string(),
        path: role.path.clone(),
        description: role.description.clone().unwrap_or_default(),
        authorizations: authorizations.collect(),
    }
}

fn optional_person(field: &str, id: &str) -> Result<Option<String>, Status> {
    if id.is_empty() { Ok(None) } else { person(field, id).map(Some) }
}

/// A variant as the journal spells it.
fn variant<T: DeserializeOwned>(field: &str, name: &str) -> Result<Option<T>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let parsed = serde_json::from_value(serde_json::Value::String(name.to_owned()));
    parsed.map(Some).map_err(|_| status::invalid(field, "the journal has no such word"))
}

fn moment(field: &str, at: prost_types::Timestamp) -> Result<Timestamp, Status> {
    let millis = || {
        let nanos = u64::try_from(at.nanos).ok()?;
        u64::try_from(at.seconds).ok()?.checked_mul(1000)?.checked_add(nanos / 1_000_000)
    };
    let wrong = || status::invalid(field, "a moment after 1970 is wanted");
    millis().map(Timestamp::from_unix_millis).ok_or_else(wrong)
}

/// A field that may be left out.
pub fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| status::invalid(field, error))
}

/// A field that must be there.
pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, Status> {
    text.parse().map_err(|error| status::invalid(field, error))
}

/// The id of a requester or workload, as the journal has it.
pub fn person(field: &str, id: &str) -> Result<String, Status> {
    if id.is_empty() || id.len() > PERSON_BYTES_MAX || id.chars().any(char::is_control) {
        let problem =
            "an id starts with its kind, as in `unix:1000` or `spiffe://example.org/agent`";
        return Err(status::invalid(field, problem));
    }
    Ok(id.to_owned())
}

/// Reads which sessions are wanted.
pub fn session_query(request: &v1::ListSessionsRequest) -> Result<SessionQuery, Status> {
    Ok(SessionQuery {
        id: None,
        role: optional("role", &request.role)?,
        requester: optional_person("requester", &request.requester)?,
        workload: optional_person("workload", &request.workload)?,
        prompt_digest: optional("prompt_digest", &request.prompt_digest)?,
        ended: if request.include_ended { EndedSessions::Included } else { EndedSessions::LeftOut },
    })
}

/// What a question about sessions is restricted to.
pub fn sessions_of(query: &SessionQuery) -> AdminResource {
    if let Some(role) = &query.role {
        return AdminResource::Role(role.clone());
    }
    if let Some(requester) = &query.requester {
        return AdminResource::Requester(requester.clone());
    }
    query.workload.clone().map_or(AdminResource::Broker, AdminResource::Workload)
}

/// A session as it is listed.
pub fn session_row(row: &SessionRow) -> v1::SessionRow {
    let session = &row.session;
    v1::SessionRow {
        session_id: session.id().to_string(),
        role: session.role().to_string(),
        workload: session.principal().id().to_owned(),
        requester: session.requester().id().to_owned(),
        requester_name: session.requester().name().unwrap_or_default().to_owned(),
        prompt_digest: session.prompt_digest().to_string(),
        opened_at: Some(convert::timestamp(session.opened_at())),
        ends_at: Some(convert::timestamp(session.ends_at())),
        ended_at: row.end.map(|(at, _)| convert::timestamp(at)),
        cause: row.end.map(|(_, cause)| cause.as_str().to_owned()).unwrap_or_default(),
        leases: row.leases,
    }
}

/// A lease as it is listed.
pub fn lease_row(row: &LeaseRow) -> v1::LeaseRow {
    v1::LeaseRow {
        session_id: row.lease.session.to_string(),
        role: row.role.to_string(),
        attempts: row.attempts,
        next_at: row.next_at.map(convert::timestamp),
        cause: row.cause.map(|cause| cause.as_str().to_owned()).unwrap_or_default(),
        lease: Some(convert::lease(&row.lease)),
    }
}

/// As long as a SPIFFE id may be, with its kind.
const PERSON_BYTES_MAX: usize = 2100;

/// Longer than any code or action.
const CODE_BYTES_MAX: usize = 64;
