//! The sessions as the journal keeps them. Keeps no token, only its hash.

use std::collections::BTreeMap;

use claviger_core::binding::Binding;
use claviger_core::ids::SessionId;
use claviger_core::name::RoleName;
use claviger_core::principal::{Grounds, Principal, Requester, Signer};
use claviger_core::prompt::PromptDigest;
use claviger_core::session::{EndCause, KnownToken, Session, SessionRecord, TokenHash};
use claviger_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::ledger::Ledger;
use super::rows::{bytes32, json, maybe_moment, maybe_named, millis, moment, parsed};

/// Which sessions are wanted. What is absent does not restrict; the rest restricts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only this one.
    pub id: Option<SessionId>,
    /// Only those of this role.
    pub role: Option<RoleName>,
    /// Only those for this requester.
    pub requester: Option<String>,
    /// Only those of this workload.
    pub workload: Option<String>,
    /// Only those that began with this prompt file.
    pub prompt_digest: Option<PromptDigest>,
    /// Whether those that have ended are wanted too.
    pub ended: Ended,
}

/// Whether a query is about sessions that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// They are left out.
    #[default]
    LeftOut,
    /// They are in it.
    Included,
}

/// A session as an operator sees it.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The session.
    pub session: Session,
    /// When it ended and why.
    pub end: Option<(Timestamp, EndCause)>,
    /// How many of its leases are in no final state.
    pub leases: u64,
}

impl Ledger<'_> {
    /// Writes a session that has begun.
    pub(super) fn insert_session(
        &self,
        session: &Session,
        token: &KnownToken,
    ) -> Result<(), Fault> {
        let mut statement = self.conn().prepare_cached(
            "INSERT INTO sessions (id, token_hash, role, prompt_digest, authorizations, principal,
                 requester, requester_name, opened_at, ends_at, requester_grounds, binding,
                 ancestors, parent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        statement.execute(params![
            session.id().to_string(),
            token.hash.bytes(),
            session.role().as_str(),
            session.prompt_digest().to_string(),
            json_text(session.authorizations())?,
            json_text(session.principal())?,
            session.requester().id(),
            session.requester().name(),
            millis(session.opened_at()),
            millis(session.ends_at()),
            json_text(session.requester().grounds())?,
            json_text(&token.binding)?,
            json_text(session.ancestors())?,
            session.parent().map(|parent| parent.session.to_string()),
        ])?;
        Ok(())
    }

    /// Binds the session's token. Whether there was one to bind.
    pub(super) fn bind(&self, id: SessionId, binding: &Binding) -> Result<bool, Fault> {
        let mut statement = self.conn().prepare_cached(
            "UPDATE sessions SET binding = ?2 WHERE id = ?1 AND ended_at IS NULL",
        )?;
        Ok(statement.execute(params![id.to_string(), json_text(binding)?])? == 1)
    }

    /// The session with this id, unless it has ended.
    pub(super) fn running_session(&self, id: SessionId) -> Result<Option<Session>, Fault> {
        running_session(self.conn(), id)
    }

    /// The sessions below this one that have not ended, those nearer to it first.
    pub(super) fn below(&self, id: SessionId) -> Result<Vec<Session>, Fault> {
        let mut statement = self.conn().prepare_cached(&sql_below())?;
        let mut rows = statement.query([id.to_string()])?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next()? {
            sessions.push(read(row)?);
        }
        Ok(sessions)
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

/// Every session that has not ended, with what is known of its token.
pub(super) fn running(conn: &Connection) -> Result<Vec<(KnownToken, Session)>, Fault> {
    let mut statement = conn.prepare_cached(&sql_running())?;
    let mut rows = statement.query([])?;
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let hash = TokenHash::from_record(bytes32(row, "token_hash")?);
        let token = KnownToken { hash, binding: json(row, "binding")? };
        sessions.push((token, read(row)?));
    }
    Ok(sessions)
}

/// One page of what `query` finds, after the session `after`.
pub(super) fn page(
    conn: &Connection,
    query: &SessionQuery,
    (after, rows_max): (&str, usize),
) -> Result<Vec<SessionRow>, Fault> {
    let mut sql = format!(
        "SELECT {COLUMNS}, ended_at, cause,
             (SELECT count(*) FROM leases WHERE session = sessions.id
                  AND state NOT IN ('revoked', 'expired')) AS leases
         FROM sessions WHERE id > ?"
    );
    let mut values = vec![after.to_owned()];
    if query.ended == Ended::LeftOut {
        sql.push_str(" AND ended_at IS NULL");
    }
    let columns = [
        (" AND id = ?", query.id.map(|id| id.to_string())),
        (" AND role = ?", query.role.as_ref().map(ToString::to_string)),
        (" AND requester = ?", query.requester.clone()),
        (" AND json_extract(principal, '$.id') = ?", query.workload.clone()),
        (" AND prompt_digest = ?", query.prompt_digest.map(|digest| digest.to_string())),
    ];
    for (restriction, value) in columns {
        if let Some(value) = value {
            sql.push_str(restriction);
            values.push(value);
        }
    }
    sql.push_str(&format!(" ORDER BY id LIMIT {rows_max}"));
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let end = maybe_moment(row, "ended_at")?.zip(maybe_named(row, "cause")?);
        let leases: i64 = row.get("leases")?;
        let leases = u64::try_from(leases).unwrap_or(0);
        found.push(SessionRow { session: read(row)?, end, leases });
    }
    Ok(found)
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
        ancestors: json(row, "ancestors")?,
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

fn json_text<T: Serialize + ?Sized>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::damaged(format!("a session has no JSON form: {error}")))
}

/// The sessions below one that have not ended. Below an ended one none is left.
pub(super) fn sql_below() -> String {
    format!(
        "WITH RECURSIVE below (id, depth) AS (
             SELECT id, 1 FROM sessions WHERE parent = ?1 AND ended_at IS NULL
             UNION ALL
             SELECT child.id, below.depth + 1 FROM below CROSS JOIN sessions AS child
             WHERE child.parent = below.id AND child.ended_at IS NULL)
         SELECT {COLUMNS} FROM below CROSS JOIN sessions USING (id) ORDER BY depth, id"
    )
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
     requester, requester_name, opened_at, ends_at, requester_grounds, binding, ancestors";
