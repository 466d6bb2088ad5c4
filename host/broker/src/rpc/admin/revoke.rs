//! From `RevokeRequest` to a revocation, and from its progress to messages.

use std::collections::BTreeSet;
use std::sync::Arc;

use claviger_core::admin::{AdminAction, AdminResource, Selector};
use claviger_core::ids::SessionId;
use claviger_core::ports::{JournalError, Policies, Ports};
use claviger_core::prompt::PromptDigest;
use claviger_core::session::Session;
use claviger_proto::v1;
use claviger_proto::v1::revoke_request::Selector as Message;
use prost::Message as _;
use tokio_stream::StreamExt;
use tonic::Status;

use super::gate::Act;
use super::read::{parsed, person, session_row};
use crate::approvals::RequestDigest;
use crate::broker::Broker;
use crate::journal::SessionQuery;
use crate::revocation::{self, Progress, Stage, Until};
use crate::rpc::{convert, status};

/// A request that has been read.
pub struct Parsed {
    /// What is to end.
    pub selector: Selector,
    /// Why.
    pub reason: Option<String>,
    /// Until when it is told.
    pub until: Until,
}

/// Reads a request.
pub fn parse(request: &v1::RevokeRequest) -> Result<Parsed, Status> {
    let selector = match &request.selector {
        Some(Message::SessionId(id)) => Selector::Session(parsed("session_id", id)?),
        Some(Message::Role(role)) => Selector::Role(parsed("role", role)?),
        Some(Message::Requester(id)) => Selector::Requester(person("requester", id)?),
        Some(Message::Workload(id)) => Selector::Workload(person("workload", id)?),
        Some(Message::Backend(name)) => Selector::Backend(parsed("backend", name)?),
        Some(Message::PromptDigest(digest)) => Selector::Prompt(parsed("prompt_digest", digest)?),
        Some(Message::Everything(v1::Everything {})) => Selector::Everything,
        None => return Err(status::invalid("selector", "say what is to end")),
    };
    if request.reason.len() > claviger_core::ask::REASON_BYTES_MAX {
        return Err(status::invalid("reason", "at most 512 bytes are recorded"));
    }
    let reason = (!request.reason.is_empty()).then(|| request.reason.clone());
    let until = if request.no_wait { Until::Due } else { Until::Gone };
    Ok(Parsed { selector, reason, until })
}

/// What the policies are asked about.
pub async fn act(broker: &Broker, parsed: &Parsed, dry_run: DryRun) -> Result<Act, Status> {
    let (action, what) = match dry_run {
        DryRun::Yes => {
            (AdminAction::Read, format!("what a revocation would end: {}", parsed.selector))
        }
        DryRun::No => (AdminAction::Revoke, format!("revocation: {}", parsed.selector)),
    };
    let resource = resource(broker, &parsed.selector).await;
    let resource = resource.map_err(|error| status::of_journal(&error))?;
    Ok(Act { action, resource, what, claimed_reason: parsed.reason.clone() })
}

/// Exactly what is asked for, whatever approval comes with it; and that approval.
pub fn digest(request: &v1::RevokeRequest) -> (RequestDigest, String) {
    let mut bare = request.clone();
    let approval = std::mem::take(&mut bare.approval_id);
    (RequestDigest::of("revoke", &bare.encode_to_vec()), approval)
}

/// Whether a revocation is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// Nothing ends.
    Yes,
    /// It does.
    No,
}

async fn resource(broker: &Broker, selector: &Selector) -> Result<AdminResource, JournalError> {
    Ok(match selector {
        Selector::Session(id) => {
            AdminResource::Session { id: *id, known: known(broker, *id).await? }
        }
        Selector::Role(name) => AdminResource::Role(name.clone()),
        Selector::Requester(id) => AdminResource::Requester(id.clone()),
        Selector::Workload(id) => AdminResource::Workload(id.clone()),
        Selector::Backend(name) => AdminResource::Backend(name.clone()),
        Selector::Prompt(digest) => of_prompt(broker, digest),
        Selector::Everything => AdminResource::Broker,
    })
}

/// A session that has ended is still its role's: what it held may work still, and whoever may end
/// the role's sessions may see to that.
async fn known(broker: &Broker, id: SessionId) -> Result<Option<Arc<Session>>, JournalError> {
    if let Some(live) = broker.sessions.by_id(id) {
        return Ok(Some(live));
    }
    let recorded = broker.journal.session(id).await?;
    Ok(recorded.map(|row| Arc::new(row.session)))
}

/// A prompt file belongs to its role. Where two roles share its bytes, who may end only one of
/// them must not end both.
fn of_prompt(broker: &Broker, digest: &PromptDigest) -> AdminResource {
    let snapshot = broker.policies().current();
    let loaded = snapshot.roles().values().filter(|role| role.digest == *digest);
    let mut roles: BTreeSet<_> = loaded.map(|role| role.name.clone()).collect();
    roles.extend(broker.sessions.roles_of(digest));
    match (roles.pop_first(), roles.is_empty()) {
        (Some(only), true) => AdminResource::Role(only),
        _ => AdminResource::Broker,
    }
}

/// What would end or is about to, from the journal. The sessions are live ones, and the first few
/// are named.
pub async fn preview(
    broker: &Arc<Broker>,
    selector: Selector,
) -> Result<v1::RevokeResponse, Status> {
    let of_journal = |error| status::of_journal(&error);
    let found = revocation::outlook(&broker.journal, selector.clone()).await.map_err(of_journal)?;
    let mut told = progress(&found);
    if matches!(selector, Selector::Backend(_)) {
        return Ok(told);
    }
    let rows = broker.journal.session_rows(query(&selector)).filter(|row| match row {
        Ok(row) => selector.selects(&row.session),
        Err(_) => true,
    });
    let rows: Result<Vec<_>, _> = rows.take(SESSIONS_NAMED_MAX).collect().await;
    told.sessions = rows.map_err(of_journal)?.iter().map(session_row).collect();
    Ok(told)
}

fn query(selector: &Selector) -> SessionQuery {
    let all = SessionQuery::default();
    match selector {
        Selector::Role(role) => SessionQuery { role: Some(role.clone()), ..all },
        Selector::Requester(id) => SessionQuery { requester: Some(id.clone()), ..all },
        Selector::Workload(id) => SessionQuery { workload: Some(id.clone()), ..all },
        Selector::Prompt(digest) => SessionQuery { prompt_digest: Some(*digest), ..all },
        Selector::Session(id) => SessionQuery { id: Some(*id), ..all },
        Selector::Backend(_) | Selector::Everything => all,
    }
}

/// Progress as a message.
pub fn progress(progress: &Progress) -> v1::RevokeResponse {
    let stage = match progress.stage {
        Stage::WouldEnd => v1::RevokeStage::WouldEnd,
        Stage::Ending => v1::RevokeStage::Ending,
        Stage::Following => v1::RevokeStage::Following,
        Stage::Done => v1::RevokeStage::Done,
    };
    v1::RevokeResponse {
        stage: stage.into(),
        sessions_matched: progress.sessions_matched,
        sessions_ended: progress.sessions_ended,
        leases_matched: progress.leases,
        leases_gone: progress.gone,
        leases_lapsing: progress.lapsing,
        leases_stuck: progress.stuck,
        leases_failing: progress.failing,
        lapsed_at: progress.lapsed_at.map(convert::timestamp),
        sessions: Vec::new(),
        still_beginning: progress.still_beginning,
    }
}

/// More than a person reads before saying yes.
const SESSIONS_NAMED_MAX: usize = 100;
