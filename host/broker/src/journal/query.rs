//! What operators ask of the journal besides its entries: sessions and leases, streamed a page at a
//! time. Writes nothing.

use std::sync::Arc;

use claviger_core::ids::SessionId;
use claviger_core::journal::ChainHead;
use claviger_core::lease::LeaseState;
use claviger_core::name::{BackendName, RoleName};
use claviger_core::ports::JournalError;
use rusqlite::{Connection, params_from_iter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::fault::Fault;
use super::leases::{COLUMNS, LeaseRow, StoredLease};
use super::readers::Readers;
use super::sessions::{self, SessionQuery, SessionRow};

/// The end of the journal and whether its seal is the broker's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalHead {
    /// The newest entry.
    pub head: ChainHead,
    /// `false` when the recorded head was changed by anything but the broker.
    pub seal_intact: bool,
}

/// What a query streams.
pub type Streamed<T> = ReceiverStream<Result<T, JournalError>>;

/// Which leases are wanted. What is absent does not restrict; the rest restricts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseQuery {
    /// In any of these states; in every one that is not final if there is none.
    pub states: Vec<LeaseState>,
    /// Only those of this session.
    pub session: Option<SessionId>,
    /// Only those of this role.
    pub role: Option<RoleName>,
    /// Only those of sessions for this requester.
    pub requester: Option<String>,
    /// Only those on this backend.
    pub backend: Option<BackendName>,
}

/// Streams the leases that match.
pub(super) fn leases(readers: Arc<Readers>, query: LeaseQuery) -> Streamed<LeaseRow> {
    let (sender, receiver) = mpsc::channel(PAGE_ROWS);
    tokio::spawn(async move {
        let sent = send_leases(&readers, &query, &sender).await;
        if let Err(error) = sent {
            let _gone = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// Streams the sessions that match.
pub(super) fn sessions(readers: Arc<Readers>, query: SessionQuery) -> Streamed<SessionRow> {
    let (sender, receiver) = mpsc::channel(PAGE_ROWS);
    tokio::spawn(async move {
        let sent = send_sessions(&readers, Arc::new(query), &sender).await;
        if let Err(error) = sent {
            let _gone = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn send_sessions(
    readers: &Arc<Readers>,
    query: Arc<SessionQuery>,
    sender: &mpsc::Sender<Result<SessionRow, JournalError>>,
) -> Result<(), JournalError> {
    let mut after = String::new();
    loop {
        let (wanted, from) = (Arc::clone(&query), after);
        let page =
            readers.read(move |conn| sessions::page(conn, &wanted, (&from, PAGE_ROWS))).await?;
        let full = page.len() == PAGE_ROWS;
        after = page.last().map(|row| row.session.id().to_string()).unwrap_or_default();
        for row in page {
            if sender.send(Ok(row)).await.is_err() {
                return Ok(());
            }
        }
        if !full {
            return Ok(());
        }
    }
}

async fn send_leases(
    readers: &Arc<Readers>,
    query: &LeaseQuery,
    sender: &mpsc::Sender<Result<LeaseRow, JournalError>>,
) -> Result<(), JournalError> {
    let (sql, values) = query.sql();
    let mut after = (String::new(), String::new());
    loop {
        let (sql, session, id) = (sql.clone(), after.0, after.1);
        let all: Vec<_> = [session, id].into_iter().chain(values.iter().cloned()).collect();
        let page = readers.read(move |conn| lease_page(conn, &sql, all)).await?;
        let full = page.len() == PAGE_ROWS;
        let last = |row: &LeaseRow| (row.lease.session.to_string(), row.lease.id.to_string());
        after = page.last().map(last).unwrap_or_default();
        for row in page {
            if sender.send(Ok(row)).await.is_err() {
                return Ok(());
            }
        }
        if !full {
            return Ok(());
        }
    }
}

impl LeaseQuery {
    /// One page after (?1, ?2), with what else it takes. Through the index over unsettled leases
    /// where that will do: however many settled ones there are, none is read.
    fn sql(&self) -> (String, Vec<String>) {
        let all = LeaseState::ALL.into_iter();
        let states: Vec<_> = match self.states.is_empty() {
            true => all.filter(|state| !state.is_final()).collect(),
            false => self.states.clone(),
        };
        // States come from an enum, so that their names cannot carry SQL.
        let names: Vec<_> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
        let mut sql = format!("SELECT {COLUMNS} FROM leases WHERE state IN ({})", names.join(", "));
        let mut values = Vec::new();
        let columns = [
            ("session = ", self.session.map(|id| id.to_string())),
            ("role = ", self.role.as_ref().map(ToString::to_string)),
            ("backend = ", self.backend.as_ref().map(ToString::to_string)),
            ("session IN (SELECT id FROM sessions WHERE requester = ", self.requester.clone()),
        ];
        for (restriction, value) in columns {
            if let Some(value) = value {
                values.push(value);
                let close = if restriction.contains('(') { ")" } else { "" };
                sql.push_str(&format!(" AND {restriction}?{}{close}", values.len() + 2));
            }
        }
        if states.iter().any(|state| state.is_final()) {
            sql.push_str(" AND id > ?2 AND ?1 = ?1 ORDER BY id");
        } else {
            sql.push_str(
                " AND state NOT IN ('revoked', 'expired') AND (session, id) > (?1, ?2)
                 ORDER BY session, id",
            );
        }
        sql.push_str(&format!(" LIMIT {PAGE_ROWS}"));
        (sql, values)
    }
}

fn lease_page(conn: &Connection, sql: &str, values: Vec<String>) -> Result<Vec<LeaseRow>, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(StoredLease::read(row)?.into_row());
    }
    Ok(page)
}

/// Large enough that the way to the read thread is shared by many rows, small enough that a page
/// of the longest entries stays under a megabyte and a read under a few milliseconds.
pub(super) const PAGE_ROWS: usize = 256;
