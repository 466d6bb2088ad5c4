//! What an operator ends: found on a reader, ended on the writer a batch at a time, and looked at
//! until it is gone. Selects nothing by itself.

use claviger_core::admin::Selector;
use claviger_core::decide::AdminPermit;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::journal::Entry;
use claviger_core::lease::{DueCause, LeaseEvent, LeaseState};
use claviger_core::name::BackendName;
use claviger_core::ports::JournalError;
use claviger_core::session::EndCause;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, Row};

use super::SqliteJournal;
use super::fault::Fault;
use super::leases::unsettled;
use super::ledger::Ledger;
use super::port::{By, Ending, end_session};
use super::rows::{moment, named, parsed};

/// At whose word something ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    operator: String,
    approver: Option<String>,
    reason: Option<String>,
}

impl Word {
    /// The word of the operator to whom this was permitted, and of a second one who agreed.
    pub fn of(permit: &AdminPermit, approver: Option<String>) -> Self {
        let ask = permit.ask();
        Self {
            operator: ask.operator.id().to_owned(),
            approver,
            reason: ask.claimed_reason.clone(),
        }
    }

    /// Stands in the entry of what ends.
    pub fn sign(&self, entry: &mut Entry) {
        entry.operator = Some(self.operator.clone());
        entry.approver.clone_from(&self.approver);
        entry.claimed_reason.clone_from(&self.reason);
    }
}

/// What one batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The sessions that ended, with those that ended with them.
    pub sessions: Vec<SessionId>,
    /// Their leases, and those of backends, that were in no final state.
    pub leases: Vec<LeaseSeen>,
}

/// A lease as a revocation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSeen {
    /// The lease.
    pub id: IntentId,
    /// Where it stands.
    pub state: LeaseState,
    /// How many attempts to revoke it have failed.
    pub attempts: u32,
    /// When the credential stops working by itself.
    pub expires_at: Timestamp,
}

impl SqliteJournal {
    /// The live sessions that `selector` selects. Those below them end with them.
    pub async fn selected_sessions(
        &self,
        selector: Selector,
    ) -> Result<Vec<SessionId>, JournalError> {
        self.readers.read(move |conn| selected(conn, &selector)).await
    }

    /// The leases on `backend` that are still to fall due.
    pub async fn leases_on(&self, backend: BackendName) -> Result<Vec<IntentId>, JournalError> {
        self.readers.read(move |conn| on_backend(conn, &backend)).await
    }

    /// Ends these sessions, unless they have ended, in one transaction: [`ENDED_AT_ONCE`] at most.
    pub async fn end_sessions(
        &self,
        sessions: Vec<SessionId>,
        word: Word,
        now: Timestamp,
    ) -> Result<Ended, JournalError> {
        self.queue.submit(move |ledger| end_batch(ledger, &sessions, (&word, now))).await
    }

    /// Makes these leases due, unless they are, in one transaction: [`ENDED_AT_ONCE`] at most.
    pub async fn end_leases(
        &self,
        leases: Vec<IntentId>,
        word: Word,
        now: Timestamp,
    ) -> Result<Ended, JournalError> {
        self.queue.submit(move |ledger| due_batch(ledger, &leases, (&word, now))).await
    }

    /// Where these leases stand now; [`ENDED_AT_ONCE`] at most, so that the read is short.
    pub async fn leases_seen(&self, leases: Vec<IntentId>) -> Result<Vec<LeaseSeen>, JournalError> {
        self.readers.read(move |conn| seen(conn, &leases)).await
    }

    /// The leases in no final state of what `selector` selects: also of sessions that have ended,
    /// and of those below one that is selected. Whoever ended them, their credentials may work still.
    pub async fn unsettled_of(&self, selector: Selector) -> Result<Vec<LeaseSeen>, JournalError> {
        self.readers.read(move |conn| unsettled_of(conn, &selector)).await
    }
}

fn selected(conn: &Connection, selector: &Selector) -> Result<Vec<SessionId>, Fault> {
    let condition = match selector {
        Selector::Session(_) => "id = ?",
        Selector::Role(_) => "role = ?",
        Selector::Requester(_) => "requester = ?",
        Selector::Workload(_) => "json_extract(principal, '$.id') = ?",
        Selector::Prompt(_) => "prompt_digest = ?",
        Selector::Everything => "? = ''",
        Selector::Backend(_) => return Ok(Vec::new()),
    };
    let sql = format!("SELECT id FROM sessions WHERE ended_at IS NULL AND {condition} ORDER BY id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([value_of(selector)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(parsed(row, "id")?);
    }
    Ok(found)
}

fn unsettled_of(conn: &Connection, selector: &Selector) -> Result<Vec<LeaseSeen>, Fault> {
    let mut statement = conn.prepare_cached(&sql_unsettled_of(selector))?;
    let mut rows = statement.query([value_of(selector)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_seen(row)?);
    }
    Ok(found)
}

/// What the one parameter of a statement about `selector` stands for.
fn value_of(selector: &Selector) -> String {
    match selector {
        Selector::Session(id) => id.to_string(),
        Selector::Role(role) => role.to_string(),
        Selector::Requester(id) | Selector::Workload(id) => id.clone(),
        Selector::Prompt(digest) => digest.to_string(),
        Selector::Backend(backend) => backend.to_string(),
        Selector::Everything => String::new(),
    }
}

fn on_backend(conn: &Connection, backend: &BackendName) -> Result<Vec<IntentId>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT id FROM leases
         WHERE backend = ?1 AND act_at IS NOT NULL AND state IN ('open', 'active')",
    )?;
    let mut rows = statement.query([backend.as_str()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(parsed(row, "id")?);
    }
    Ok(found)
}

fn end_batch(
    ledger: &mut Ledger<'_>,
    sessions: &[SessionId],
    (word, now): (&Word, Timestamp),
) -> Result<Ended, Fault> {
    let before = ledger.mark();
    for id in sessions {
        let ending = Ending { cause: EndCause::Operator, by: By::Word(word), now };
        end_session(ledger, *id, &ending)?;
    }
    let sessions = ledger.sessions_ended_since(before);
    let mut leases = Vec::new();
    for id in &sessions {
        for lease in unsettled(ledger.conn(), *id)? {
            let (id, state, expires_at) = (lease.id, lease.state, lease.expires_at);
            leases.push(LeaseSeen { id, state, attempts: 0, expires_at });
        }
    }
    Ok(Ended { sessions, leases })
}

fn due_batch(
    ledger: &mut Ledger<'_>,
    leases: &[IntentId],
    (word, now): (&Word, Timestamp),
) -> Result<Ended, Fault> {
    let mut ended = Ended::default();
    for id in leases {
        let Some(mut lease) = ledger.lease(*id)? else { continue };
        let before = lease.state;
        let act_at = match before {
            LeaseState::Active => now,
            // The plugin is still minting: see `release_lease`.
            LeaseState::Open => lease.act_at.unwrap_or(now),
            _ => continue,
        };
        lease.fall_due(LeaseEvent::FellDue, DueCause::Operator, act_at)?;
        ledger.update_lease(before, &lease)?;
        let mut entry = Entry::lease_due(&lease.as_due(), DueCause::Operator, now);
        word.sign(&mut entry);
        ledger.append(&entry)?;
        let (id, state) = (lease.id, lease.state);
        ended.leases.push(LeaseSeen { id, state, attempts: 0, expires_at: lease.expires_at });
    }
    Ok(ended)
}

/// Gives a stuck lease another round of attempts; others stay as they are.
pub(super) fn retry_lease(
    ledger: &mut Ledger<'_>,
    id: IntentId,
    now: Timestamp,
) -> Result<Option<LeaseState>, Fault> {
    let Some(mut lease) = ledger.lease(id)? else { return Ok(None) };
    let before = lease.state;
    if before != LeaseState::Stuck {
        return Ok(Some(before));
    }
    lease.fall_due(LeaseEvent::Retried, DueCause::Operator, now)?;
    // Not at zero, which would say that nothing has been tried: until the next attempt fails there
    // would be room for another (see `counts`), and the worker would try it together with others.
    lease.attempts = 1;
    ledger.update_lease(before, &lease)?;
    ledger.append(&Entry::lease_due(&lease.as_due(), DueCause::Operator, now))?;
    Ok(Some(lease.state))
}

fn seen(conn: &Connection, leases: &[IntentId]) -> Result<Vec<LeaseSeen>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT id, state, attempts, expires_at FROM leases WHERE id = ?1")?;
    let mut found = Vec::new();
    for id in leases {
        let mut rows = statement.query([id.to_string()])?;
        if let Some(row) = rows.next()? {
            found.push(read_seen(row)?);
        }
    }
    Ok(found)
}

fn read_seen(row: &Row<'_>) -> Result<LeaseSeen, Fault> {
    Ok(LeaseSeen {
        id: parsed(row, "id")?,
        state: named(row, "state")?,
        attempts: row.get("attempts")?,
        expires_at: moment(row, "expires_at")?,
    })
}

/// The leases in no final state of what `selector` selects. Through the index over these, however
/// many settled ones and ended sessions there are. Requester and workload are the same all the way
/// down; by session, role and prompt file, what is below a selected session ends with it.
pub(super) fn sql_unsettled_of(selector: &Selector) -> String {
    let (sessions, condition) = match selector {
        Selector::Session(_) => (
            "",
            "(leases.session = ?1 OR EXISTS (
                 SELECT 1 FROM json_each(leases.ancestors) AS above
                 WHERE above.value ->> '$.session' = ?1))",
        ),
        Selector::Role(_) => (
            "",
            "(leases.role = ?1 OR EXISTS (
                 SELECT 1 FROM json_each(leases.ancestors) AS above
                 WHERE above.value ->> '$.role' = ?1))",
        ),
        Selector::Prompt(_) => (
            "",
            "(leases.prompt_digest = ?1 OR EXISTS (
                 SELECT 1 FROM json_each(leases.ancestors) AS above
                     CROSS JOIN sessions ON sessions.id = above.value ->> '$.session'
                 WHERE sessions.prompt_digest = ?1))",
        ),
        Selector::Requester(_) => (WITH_SESSIONS, "sessions.requester = ?1"),
        Selector::Workload(_) => (WITH_SESSIONS, "json_extract(sessions.principal, '$.id') = ?1"),
        Selector::Backend(_) => ("", "leases.backend = ?1"),
        Selector::Everything => ("", "?1 = ''"),
    };
    format!(
        "SELECT leases.id, leases.state, leases.attempts, leases.expires_at
         FROM leases INDEXED BY leases_unsettled {sessions}
         WHERE leases.state NOT IN ('revoked', 'expired') AND {condition}"
    )
}

const WITH_SESSIONS: &str = "CROSS JOIN sessions ON sessions.id = leases.session";

/// How many sessions end, or leases fall due, in one job of the writer. Others wait for it: with
/// ten leases in each session that is about 10 ms.
pub const ENDED_AT_ONCE: usize = 64;
