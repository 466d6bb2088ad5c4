//! The sessions as the journal keeps them. Keeps no token, only its hash.

use std::collections::BTreeMap;

use claviger_core::ids::SessionId;
use claviger_core::principal::{Grounds, Principal, Requester, Signer};
use claviger_core::session::{EndCause, Session, SessionRecord, TokenHash};
use claviger_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::ledger::Ledger;
use super::rows::{bytes32, json, millis, moment, parsed};

impl Ledger<'_> {
    /// Writes a session that has begun.
    pub(super) fn insert_session(&self, session: &Session, token: &TokenHash) -> Result<(), Fault> {
        let mut statement = self.conn().prepare_cached(
            "INSERT INTO sessions (id, token_hash, role, prompt_digest, authorizations, principal,
                 requester, requester_name, opened_at, ends_at, requester_grounds)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        statement.execute(params![
            session.id().to_string(),
            token.bytes(),
            session.role().as_str(),
            session.prompt_digest().to_string(),
            json_text(session.authorizations())?,
            json_text(session.principal())?,
            session.requester().id(),
            session.requester().name(),
            millis(session.opened_at()),
            millis(session.ends_at()),
            json_text(session.requester().grounds())?,
        ])?;
        Ok(())
    }

    /// The session with this id, unless it has ended.
    pub(super) fn running_session(&self, id: SessionId) -> Result<Option<Session>, Fault> {
        running_session(self.conn(), id)
    }

    /// Whether the session runs and its maximum life has not passed.
    pub(super) fn is_live(&self, id: SessionId, now: Timestamp) -> Result<bool, Fault> {
        let mut statement = self.conn().prepare_cached(
            "SELECT 1 FROM sessions WHERE id = ?1 AND ended_at IS NULL AND ends_at > ?2",
        )?;
        let found = statement.query_row(params![id.to_string(), millis(now)], |_| Ok(()));
        Ok(found.optional()?.is_some())
    }

    /// Marks a session as ended.
    pub(super) fn mark_ended(
        &self,
        id: SessionId,
        cause: EndCause,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let mut statement = self
            .conn()
            .prepare_cached("UPDATE sessions SET ended_at = ?2, cause = ?3 WHERE id = ?1")?;
        statement.execute(params![id.to_string(), millis(now), cause.as_str()])?;
        Ok(())
    }
}

/// The session with this id, unless it has ended.
pub(super) fn running_session(conn: &Connection, id: SessionId) -> Result<Option<Session>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1 AND ended_at IS NULL");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(read).transpose()
}

/// Up to `limit` sessions that have not ended, from the one after `after` on.
pub(super) fn running_after(
    conn: &Connection,
    after: Option<SessionId>,
    limit: usize,
) -> Result<Vec<Session>, Fault> {
    let mut statement = conn.prepare_cached(&sql_running_after())?;
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let mut rows = statement.query(params![after, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        sessions.push(read(row)?);
    }
    Ok(sessions)
}

/// Every session that has not ended, with the hash of its token.
pub(super) fn running(conn: &Connection) -> Result<Vec<(TokenHash, Session)>, Fault> {
    let mut statement = conn.prepare_cached(&sql_running())?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let token = TokenHash::from_record(bytes32(row, "token_hash")?);
        sessions.push((token, read(row)?));
    }
    Ok(sessions)
}

fn read(row: &Row<'_>) -> Result<Session, Fault> {
    let grounds: Grounds = json(row, "requester_grounds")?;
    let requester =
        Requester::from_record(row.get("requester")?, row.get("requester_name")?, grounds);
    Ok(Session::from_record(SessionRecord {
        id: parsed(row, "id")?,
        role: parsed(row, "role")?,
        prompt_digest: parsed(row, "prompt_digest")?,
        authorizations: json(row, "authorizations")?,
        principal: principal(row)?,
        requester,
        opened_at: moment(row, "opened_at")?,
        ends_at: moment(row, "ends_at")?,
    }))
}

fn principal(row: &Row<'_>) -> Result<Principal, Fault> {
    let StoredPrincipal { id, claims, signer } = json(row, "principal")?;
    Ok(Principal::from_record(id, claims, signer))
}

/// What `Principal` serialises to. It cannot be deserialised itself: that would let any module
/// make one without a proof, and here the journal's record is the proof.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPrincipal {
    id: String,
    claims: BTreeMap<String, String>,
    #[serde(default)]
    signer: Option<Signer>,
}

fn json_text<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::damaged(format!("a session has no JSON form: {error}")))
}

/// The sessions that have not ended.
pub(super) fn sql_running() -> String {
    format!("SELECT {COLUMNS} FROM sessions WHERE ended_at IS NULL ORDER BY id")
}

/// The sessions that have not ended, from one on.
pub(super) fn sql_running_after() -> String {
    format!(
        "SELECT {COLUMNS} FROM sessions WHERE ended_at IS NULL AND id > ?1 ORDER BY id LIMIT ?2"
    )
}

const COLUMNS: &str = "id, token_hash, role, prompt_digest, authorizations, principal, \
     requester, requester_name, opened_at, ends_at, requester_grounds";
