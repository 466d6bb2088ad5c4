//! The leases as the journal keeps them. Where a lease goes next is the core's word:
//! `LeaseState::after`; this file writes it down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::catalog::RevocationClass;
use claviger_core::decide::Permit;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::issued::Handle;
use claviger_core::lease::{DueCause, DueLease, HeldLease, Lease, LeaseEvent, LeaseState, Parties};
use claviger_core::name::{BackendName, RoleName, ScopeName};
use claviger_core::principal::Grounds;
use claviger_core::prompt::PromptDigest;
use claviger_core::session::Ancestor;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, Row, params};
use serde::Serialize;

use super::fault::Fault;
use super::holdings::{Holding, counts};
use super::ledger::Ledger;
use super::news::{JournalNews, Why};
use super::rows::{integer, json, maybe_moment, maybe_named, millis, moment, named, parsed};
use super::seal::Seals;
use super::sessions::running_session;

/// A lease as an operator sees it.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    /// The lease.
    pub lease: Lease,
    /// The role of its session.
    pub role: RoleName,
    /// How many attempts to revoke it have failed.
    pub attempts: u32,
    /// When the worker next acts on it.
    pub next_at: Option<Timestamp>,
    /// Why it fell due.
    pub cause: Option<DueCause>,
    /// What the consuming system logs for uses of the credential.
    pub join_keys: BTreeMap<String, String>,
}

/// A lease to be, when its intent is opened.
pub(super) struct NewLease {
    pub(super) id: IntentId,
    pub(super) session: SessionId,
    pub(super) scope: ScopeName,
    pub(super) role: RoleName,
    pub(super) requester: String,
    pub(super) prompt_digest: PromptDigest,
    pub(super) ancestors: Vec<Ancestor>,
    pub(super) opened_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) act_at: Timestamp,
    pub(super) idempotency_key: Option<String>,
    pub(super) revocation: RevocationClass,
    pub(super) residual_exposure: Duration,
}

impl NewLease {
    pub(super) fn of(id: IntentId, permit: &Permit, now: Timestamp, timeout: Duration) -> Self {
        let (session, backend) = (permit.session(), permit.backend());
        Self {
            id,
            session: session.id(),
            scope: permit.scope().name.clone(),
            role: session.role().clone(),
            requester: session.requester().id().to_owned(),
            prompt_digest: *session.prompt_digest(),
            ancestors: session.ancestors().to_vec(),
            opened_at: now,
            expires_at: permit.expires_at(),
            act_at: now.after(timeout),
            idempotency_key: permit.idempotency_key().map(|key| key.as_str().to_owned()),
            revocation: backend.revocation,
            residual_exposure: permit.residual_exposure(),
        }
    }
}

/// A lease as it is stored.
pub(super) struct StoredLease {
    pub(super) id: IntentId,
    pub(super) session: SessionId,
    pub(super) scope: ScopeName,
    pub(super) role: RoleName,
    pub(super) prompt_digest: PromptDigest,
    pub(super) parties: Parties,
    pub(super) ancestors: Vec<Ancestor>,
    pub(super) state: LeaseState,
    pub(super) cause: Option<DueCause>,
    pub(super) attempts: u32,
    pub(super) expires_at: Timestamp,
    pub(super) act_at: Option<Timestamp>,
    due_at: Option<Timestamp>,
    sealed_handle: Option<Vec<u8>>,
    join_keys: BTreeMap<String, String>,
    revocation: RevocationClass,
    residual_exposure: Duration,
}

impl StoredLease {
    /// Reads a row that has [`COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, Fault> {
        let residual_ms: i64 = row.get("residual_exposure")?;
        Ok(Self {
            id: parsed(row, "id")?,
            session: parsed(row, "session")?,
            scope: parsed(row, "scope")?,
            role: parsed(row, "role")?,
            prompt_digest: parsed(row, "prompt_digest")?,
            parties: parties(row)?,
            ancestors: json(row, "ancestors")?,
            state: named(row, "state")?,
            cause: maybe_named(row, "cause")?,
            attempts: row.get("attempts")?,
            expires_at: moment(row, "expires_at")?,
            act_at: maybe_moment(row, "act_at")?,
            due_at: maybe_moment(row, "due_at")?,
            sealed_handle: row.get("handle")?,
            join_keys: json(row, "join_keys")?,
            revocation: named(row, "revocation")?,
            residual_exposure: Duration::from_millis(u64::try_from(residual_ms).unwrap_or(0)),
        })
    }

    /// Follows the core's state machine.
    pub(super) fn take(&mut self, event: LeaseEvent) -> Result<(), Fault> {
        self.state = self.state.after(event)?;
        Ok(())
    }

    /// It fell due for `cause`; the worker acts at `act_at`.
    pub(super) fn fall_due(
        &mut self,
        event: LeaseEvent,
        cause: DueCause,
        act_at: Timestamp,
    ) -> Result<(), Fault> {
        self.take(event)?;
        self.cause = Some(cause);
        self.act_at = Some(act_at);
        self.due_at = Some(act_at);
        Ok(())
    }

    /// For the worker; unseals the handle. One that does not open must not hold up the others:
    /// the lease goes without it, since its id alone is enough to revoke it.
    pub(super) fn into_due(self, seals: &Seals) -> DueLease {
        let opened = self.sealed_handle.as_ref().map(|sealed| seals.open_handle(self.id, sealed));
        let handle = opened.transpose().unwrap_or_else(|error| {
            tracing::error!(lease.id = %self.id, %error, "revoking without its handle");
            None
        });
        self.due_with(handle)
    }

    /// For an entry, which holds no handle.
    pub(super) fn as_due(&self) -> DueLease {
        Self {
            scope: self.scope.clone(),
            role: self.role.clone(),
            parties: self.parties.clone(),
            ancestors: self.ancestors.clone(),
            join_keys: BTreeMap::new(),
            sealed_handle: None,
            ..*self
        }
        .due_with(None)
    }

    pub(super) fn into_row(self) -> LeaseRow {
        LeaseRow {
            lease: Lease {
                id: self.id,
                session: self.session,
                scope: self.scope,
                state: self.state,
                expires_at: self.expires_at,
                revocation: self.revocation,
                residual_exposure: self.residual_exposure,
            },
            role: self.role,
            attempts: self.attempts,
            next_at: self.act_at,
            cause: self.cause,
            join_keys: self.join_keys,
        }
    }

    fn due_with(self, handle: Option<Handle>) -> DueLease {
        DueLease {
            id: self.id,
            session: self.session,
            role: self.role,
            prompt_digest: self.prompt_digest,
            parties: self.parties,
            ancestors: self.ancestors,
            scope: self.scope,
            state: self.state,
            // Only an intent that was never closed can be due without a recorded cause.
            cause: self.cause.unwrap_or(DueCause::IntentTimeout),
            attempts: self.attempts,
            due_at: self.due_at.unwrap_or(self.expires_at),
            expires_at: self.expires_at,
            handle,
        }
    }
}

fn parties(row: &Row<'_>) -> Result<Parties, Fault> {
    let grounds: Grounds = json(row, "of_grounds")?;
    let (principal, requester) = (row.get("of_principal")?, row.get("of_requester")?);
    Ok(Parties { principal, requester, act: grounds.act })
}

/// What closing an intent adds to its lease.
pub(super) struct Minted {
    pub(super) sealed_handle: Option<Vec<u8>>,
    pub(super) join_keys: BTreeMap<String, String>,
    pub(super) expires_at: Timestamp,
}

impl Ledger<'_> {
    /// Writes a lease to be, in state `Open`.
    pub(super) fn insert_lease(&mut self, lease: &NewLease) -> Result<(), Fault> {
        let mut statement = self.conn().prepare_cached(
            "INSERT INTO leases (id, session, backend, scope, role, prompt_digest, state,
                 opened_at, expires_at, act_at, idempotency_key, revocation, residual_exposure,
                 ancestors)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        let residual_ms = u64::try_from(lease.residual_exposure.as_millis()).unwrap_or(u64::MAX);
        statement.execute(params![
            lease.id.to_string(),
            lease.session.to_string(),
            lease.scope.backend().as_str(),
            lease.scope.as_str(),
            lease.role.as_str(),
            lease.prompt_digest.to_string(),
            LeaseState::Open.as_str(),
            millis(lease.opened_at),
            millis(lease.expires_at),
            millis(lease.act_at),
            lease.idempotency_key,
            lease.revocation.as_str(),
            integer(residual_ms),
            json_text(&lease.ancestors)?,
        ])?;
        self.tip_mut().leases.add(LeaseState::Open, 1);
        self.holdings_mut().add(lease.id, || Holding::of(lease));
        self.alarm(lease.scope.backend(), lease.act_at);
        Ok(())
    }

    /// The lease with this id.
    pub(super) fn lease(&self, id: IntentId) -> Result<Option<StoredLease>, Fault> {
        let mut statement = self.conn().prepare_cached(&sql_of_one())?;
        let mut rows = statement.query([id.to_string()])?;
        rows.next()?.map(StoredLease::read).transpose()
    }

    /// Writes a lease back that was in state `before`.
    pub(super) fn update_lease(
        &mut self,
        before: LeaseState,
        lease: &StoredLease,
    ) -> Result<(), Fault> {
        self.update_lease_for(before, lease, None)
    }

    /// The same, with why it is no longer permitted.
    pub(super) fn update_lease_for(
        &mut self,
        before: LeaseState,
        lease: &StoredLease,
        why: Option<Why>,
    ) -> Result<(), Fault> {
        let mut statement = self.conn().prepare_cached(
            "UPDATE leases SET state = ?2, cause = ?3, attempts = ?4, expires_at = ?5,
                 act_at = ?6, handle = ?7, join_keys = ?8, due_at = ?9 WHERE id = ?1",
        )?;
        statement.execute(params![
            lease.id.to_string(),
            lease.state.as_str(),
            lease.cause.map(DueCause::as_str),
            lease.attempts,
            millis(lease.expires_at),
            lease.act_at.map(millis),
            lease.sealed_handle,
            json_text(&lease.join_keys)?,
            lease.due_at.map(millis),
        ])?;
        if let Some(at) = lease.act_at {
            self.alarm(lease.scope.backend(), at);
        }
        let (holdings, at) = (self.holdings_mut(), lease.expires_at);
        match counts(lease.state, lease.revocation, lease.attempts) {
            Some(until) => holdings.keep(lease.id, (until, at), || Holding::again(lease, until)),
            None => holdings.remove(lease.id),
        }
        if before != lease.state {
            self.moved(before, lease, why);
        }
        Ok(())
    }

    fn moved(&mut self, before: LeaseState, lease: &StoredLease, why: Option<Why>) {
        let counts = &mut self.tip_mut().leases;
        counts.remove(before, 1);
        counts.add(lease.state, 1);
        self.tell(JournalNews::LeaseChanged {
            session: lease.session,
            lease: lease.id,
            state: lease.state,
            cause: lease.cause,
            expires_at: lease.expires_at,
            why,
        });
    }

    /// Every active lease of `session` falls due now; says how many did.
    pub(super) fn end_leases(&mut self, session: SessionId, now: Timestamp) -> Result<u64, Fault> {
        // One statement for all, since a session may hold thousands; the state that it writes is
        // still the core's word.
        let due = LeaseState::Active.after(LeaseEvent::FellDue)?;
        let mut statement = self.conn().prepare_cached(END_ALL)?;
        let mut rows = statement.query(params![
            session.to_string(),
            due.as_str(),
            DueCause::SessionEnded.as_str(),
            millis(now),
            LeaseState::Active.as_str(),
        ])?;
        let mut ended = 0;
        let mut backends: Vec<BackendName> = Vec::new();
        while let Some(row) = rows.next()? {
            let scope: ScopeName = parsed(row, "scope")?;
            if !backends.contains(scope.backend()) {
                backends.push(scope.backend().clone());
            }
            ended += 1;
            let (lease, expires_at) = (parsed(row, "id")?, moment(row, "expires_at")?);
            // What was active has not been tried to revoke.
            match counts(due, named(row, "revocation")?, 0) {
                Some(until) => self.holdings_mut().lasts(lease, (until, expires_at)),
                None => self.holdings_mut().remove(lease),
            }
            self.tell(JournalNews::LeaseChanged {
                session,
                lease,
                state: due,
                cause: Some(DueCause::SessionEnded),
                expires_at,
                why: None,
            });
        }
        for backend in &backends {
            self.alarm(backend, now);
        }
        let counts = &mut self.tip_mut().leases;
        counts.remove(LeaseState::Active, ended);
        counts.add(due, ended);
        Ok(ended)
    }

    /// The lease for which `session` used an idempotency key.
    pub(super) fn key_used(
        &self,
        session: SessionId,
        key: &str,
    ) -> Result<Option<(IntentId, LeaseState)>, Fault> {
        let mut statement = self.conn().prepare_cached(KEY_USED)?;
        let mut rows = statement.query(params![session.to_string(), key])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some((parsed(row, "id")?, named(row, "state")?)))
    }

    /// Up to `limit` leases of `backend` on which the worker must act by `now`, oldest first.
    pub(super) fn leases_to_act_on(
        &self,
        backend: &BackendName,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<StoredLease>, Fault> {
        let mut statement = self.conn().prepare_cached(&sql_to_act_on())?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![backend.as_str(), millis(now), limit])?;
        let mut leases = Vec::new();
        while let Some(row) = rows.next()? {
            leases.push(StoredLease::read(row)?);
        }
        Ok(leases)
    }
}

impl StoredLease {
    /// Keeps what was minted.
    pub(super) fn keep(&mut self, minted: Minted) {
        self.sealed_handle = minted.sealed_handle;
        self.join_keys = minted.join_keys;
        self.expires_at = minted.expires_at;
    }
}

/// The scope of a lease.
pub(super) fn scope_of(conn: &Connection, lease: IntentId) -> Result<Option<ScopeName>, Fault> {
    let mut statement = conn.prepare_cached("SELECT scope FROM leases WHERE id = ?1")?;
    let mut rows = statement.query([lease.to_string()])?;
    rows.next()?.map(|row| parsed(row, "scope")).transpose()
}

/// When the worker must next act on `backend`.
pub(super) fn next_due_at(
    conn: &Connection,
    backend: &BackendName,
) -> Result<Option<Timestamp>, Fault> {
    let mut statement = conn.prepare_cached(NEXT_DUE_AT)?;
    let mut rows = statement.query([backend.as_str()])?;
    rows.next()?.map_or(Ok(None), |row| maybe_moment(row, "act_at"))
}

/// The backends on which the worker has something to do, now or later.
pub(super) fn backends_with_work(conn: &Connection) -> Result<Vec<BackendName>, Fault> {
    // A loose scan of the index: one look-up a backend, however many leases there are.
    let mut statement = conn.prepare_cached(
        "WITH RECURSIVE found (backend) AS (
             SELECT min(backend) FROM leases WHERE act_at IS NOT NULL
             UNION ALL
             SELECT (SELECT min(backend) FROM leases
                     WHERE act_at IS NOT NULL AND backend > found.backend)
             FROM found WHERE found.backend IS NOT NULL)
         SELECT backend FROM found WHERE backend IS NOT NULL",
    )?;
    let mut rows = statement.query([])?;
    let mut backends = Vec::new();
    while let Some(row) = rows.next()? {
        backends.push(parsed(row, "backend")?);
    }
    Ok(backends)
}

/// The leases of `session` that are in no final state.
pub(super) fn unsettled(conn: &Connection, session: SessionId) -> Result<Vec<Lease>, Fault> {
    let mut statement = conn.prepare_cached(&sql_unsettled())?;
    let mut rows = statement.query([session.to_string()])?;
    let mut leases = Vec::new();
    while let Some(row) = rows.next()? {
        leases.push(StoredLease::read(row)?.into_row().lease);
    }
    Ok(leases)
}

/// These leases, whatever their state.
pub(super) fn rows_of(conn: &Connection, ids: &[IntentId]) -> Result<Vec<LeaseRow>, Fault> {
    let mut statement = conn.prepare_cached(&sql_of_one())?;
    let mut found = Vec::new();
    for id in ids {
        let mut rows = statement.query([id.to_string()])?;
        if let Some(row) = rows.next()? {
            found.push(StoredLease::read(row)?.into_row());
        }
    }
    Ok(found)
}

/// Up to `limit` leases that are open or active in a session that has not ended, from the one
/// after `after` on.
pub(super) fn held_after(
    conn: &Connection,
    after: Option<(SessionId, IntentId)>,
    limit: usize,
) -> Result<Vec<HeldLease>, Fault> {
    let after = after.map(|(session, lease)| (session.to_string(), lease.to_string()));
    let (session, lease) = after.unwrap_or_default();
    let mut statement = conn.prepare_cached(HELD_AFTER)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![session, lease, limit])?;
    let mut held: Vec<HeldLease> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: SessionId = parsed(row, "session")?;
        let known = held.last().map(|last| &last.session).filter(|known| known.id() == id);
        let session = match known {
            Some(session) => Arc::clone(session),
            // It ended between the two looks: what it held falls due with it.
            None => match running_session(conn, id)? {
                Some(session) => Arc::new(session),
                None => continue,
            },
        };
        held.push(HeldLease {
            id: parsed(row, "id")?,
            session,
            scope: parsed(row, "scope")?,
            granted_at: moment(row, "opened_at")?,
            expires_at: moment(row, "expires_at")?,
        });
    }
    Ok(held)
}

fn json_text<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value)
        .map_err(|error| Fault::damaged(format!("a lease has no JSON form: {error}")))
}

/// One lease.
pub(super) fn sql_of_one() -> String {
    format!("SELECT {COLUMNS} FROM leases WHERE id = ?1")
}

/// The leases of a backend to act on.
pub(super) fn sql_to_act_on() -> String {
    format!(
        "SELECT {COLUMNS} FROM leases
         WHERE backend = ?1 AND act_at IS NOT NULL AND act_at <= ?2 ORDER BY act_at LIMIT ?3"
    )
}

/// The leases of a session that are in no final state.
pub(super) fn sql_unsettled() -> String {
    format!(
        "SELECT {COLUMNS} FROM leases
         WHERE session = ?1 AND state NOT IN ('revoked', 'expired') ORDER BY id"
    )
}

/// When to act next on a backend.
pub(super) const NEXT_DUE_AT: &str =
    "SELECT min(act_at) AS act_at FROM leases WHERE backend = ?1 AND act_at IS NOT NULL";

/// The lease of an idempotency key. The unique index is partial, and found only if named so.
pub(super) const KEY_USED: &str = "SELECT id, state FROM leases
     WHERE session = ?1 AND idempotency_key = ?2 AND idempotency_key IS NOT NULL";

/// Every active lease of a session falls due. The index is partial: the last condition, which
/// the one before implies, is what finds it.
pub(super) const END_ALL: &str =
    "UPDATE leases SET state = ?2, cause = ?3, act_at = ?4, due_at = ?4
     WHERE session = ?1 AND state = ?5 AND state NOT IN ('revoked', 'expired')
     RETURNING id, scope, expires_at, revocation";

/// The leases that somebody holds, from one on. The index is partial, as above.
pub(super) const HELD_AFTER: &str =
    "SELECT leases.session, leases.id, leases.scope, leases.opened_at, leases.expires_at
     FROM leases JOIN sessions ON sessions.id = leases.session
     WHERE (leases.session, leases.id) > (?1, ?2)
       AND leases.state NOT IN ('revoked', 'expired') AND leases.state IN ('open', 'active')
       AND sessions.ended_at IS NULL
     ORDER BY leases.session, leases.id LIMIT ?3";

/// What [`StoredLease::read`] reads.
pub(super) const COLUMNS: &str = "id, session, scope, role, prompt_digest, state, cause, \
     attempts, expires_at, act_at, due_at, handle, join_keys, revocation, residual_exposure, \
     (SELECT s.principal ->> 'id' FROM sessions s WHERE s.id = leases.session) AS of_principal, \
     (SELECT s.requester FROM sessions s WHERE s.id = leases.session) AS of_requester, \
     (SELECT s.requester_grounds FROM sessions s WHERE s.id = leases.session) AS of_grounds, ancestors";
