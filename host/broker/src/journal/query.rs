//! What operators ask of the journal: entries and leases, streamed a page at a time. Writes nothing.

use std::sync::Arc;

use claviger_core::ids::{DenialId, IntentId, SessionId};
use claviger_core::journal::{ChainHead, EntryHash, JournalSeq};
use claviger_core::lease::LeaseState;
use claviger_core::name::RoleName;
use claviger_core::ports::JournalError;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::fault::Fault;
use super::leases::{COLUMNS, LeaseRow, StoredLease};
use super::readers::Readers;
use super::rows::{bytes32, integer};
use super::verify;

/// Which entries are wanted. What is absent does not restrict; the rest restricts together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryQuery {
    /// The first wanted.
    pub from: Option<JournalSeq>,
    /// The last wanted.
    pub to: Option<JournalSeq>,
    /// Only those of this session.
    pub session: Option<SessionId>,
    /// Only those of this intent and the lease that followed.
    pub lease: Option<IntentId>,
    /// Only the one of this denial.
    pub denial: Option<DenialId>,
    /// Only those of this role.
    pub role: Option<RoleName>,
    /// Only so many of the newest that match.
    pub last: Option<u64>,
}

/// One entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEntry {
    /// Its number.
    pub seq: JournalSeq,
    /// The hash of the entry before.
    pub previous: EntryHash,
    /// Its hash.
    pub hash: EntryHash,
    /// Its JSON form.
    pub json: String,
}

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

/// Streams what a query finds, oldest first. The reader's pace sets the pace: at most one page is
/// held in memory.
pub(super) fn entries(readers: Arc<Readers>, query: EntryQuery) -> Streamed<RecordedEntry> {
    let (sender, receiver) = mpsc::channel(PAGE_ROWS);
    tokio::spawn(async move {
        let sent = send_entries(&readers, query, &sender).await;
        if let Err(error) = sent {
            let _gone = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// Streams the leases in any of `states`.
pub(super) fn leases(readers: Arc<Readers>, states: Vec<LeaseState>) -> Streamed<LeaseRow> {
    let (sender, receiver) = mpsc::channel(PAGE_ROWS);
    tokio::spawn(async move {
        let sent = send_leases(&readers, &states, &sender).await;
        if let Err(error) = sent {
            let _gone = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn send_entries(
    readers: &Arc<Readers>,
    query: EntryQuery,
    sender: &mpsc::Sender<Result<RecordedEntry, JournalError>>,
) -> Result<(), JournalError> {
    let query = Arc::new(query);
    let mut from = first_wanted(readers, &query).await?;
    let mut misfiled = None;
    while let Some(first) = from {
        let wanted = Arc::clone(&query);
        let (page, found) = readers.read(move |conn| entry_page(conn, &wanted, first)).await?;
        misfiled = misfiled.or(found);
        let full = page.len() == PAGE_ROWS;
        from = page.last().filter(|_| full).map(|entry| entry.seq.get().saturating_add(1));
        for entry in page {
            if sender.send(Ok(entry)).await.is_err() {
                return Ok(());
            }
        }
    }
    // Last of all, so that an export of a damaged journal still holds every line, as evidence.
    let unrestricted = EntryQuery { from: query.from, to: query.to, ..EntryQuery::default() };
    match misfiled {
        Some(problem) if *query == unrestricted => Err(JournalError::Damaged(problem)),
        _ => Ok(()),
    }
}

/// Where to begin, so that the newest `last` come in order.
async fn first_wanted(
    readers: &Arc<Readers>,
    query: &Arc<EntryQuery>,
) -> Result<Option<u64>, JournalError> {
    let from = query.from.map_or(1, JournalSeq::get).max(1);
    let Some(last) = query.last else { return Ok(Some(from)) };
    let query = Arc::clone(query);
    readers
        .read(move |conn| {
            let (condition, mut values) = condition(&query, from);
            let sql = format!(
                "SELECT min(seq) FROM (SELECT seq FROM entries WHERE {condition}
                 ORDER BY seq DESC LIMIT ?)"
            );
            values.push(Value::Integer(integer(last)));
            let first: Option<i64> =
                conn.query_row(&sql, params_from_iter(values), |row| row.get(0))?;
            Ok(first.and_then(|first| u64::try_from(first).ok()))
        })
        .await
}

/// One page, and the first entry of it that queries look for in the wrong place.
fn entry_page(
    conn: &Connection,
    query: &EntryQuery,
    from: u64,
) -> Result<(Vec<RecordedEntry>, Option<String>), Fault> {
    let (condition, values) = condition(query, from);
    let sql = format!(
        "SELECT seq, prev, hash, json, session, intent, denial, role FROM entries
         WHERE {condition} ORDER BY seq LIMIT {PAGE_ROWS}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut page, mut misfiled) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let entry = recorded(row)?;
        if misfiled.is_none() {
            misfiled = verify::misfiled(row, &entry)?.map(|error| error.to_string());
        }
        page.push(entry);
    }
    Ok((page, misfiled))
}

/// Only what restricts stands in the SQL, so that the index on it is used.
fn condition(query: &EntryQuery, from: u64) -> (String, Vec<Value>) {
    let mut sql = String::from("seq >= ?");
    let mut values = vec![Value::Integer(integer(from))];
    if let Some(to) = query.to {
        sql.push_str(" AND seq <= ?");
        values.push(Value::Integer(integer(to.get())));
    }
    let columns = [
        (" AND session = ?", query.session.map(|id| id.to_string())),
        (" AND intent = ?", query.lease.map(|id| id.to_string())),
        (" AND denial = ?", query.denial.map(|id| id.to_string())),
        (" AND role = ?", query.role.as_ref().map(|role| role.as_str().to_owned())),
    ];
    for (restriction, value) in columns {
        if let Some(value) = value {
            sql.push_str(restriction);
            values.push(Value::Text(value));
        }
    }
    (sql, values)
}

/// Reads one entry.
pub(super) fn recorded(row: &Row<'_>) -> Result<RecordedEntry, Fault> {
    let seq: i64 = row.get("seq")?;
    let seq = u64::try_from(seq).map_err(|_| Fault::damaged("an entry has a negative number"))?;
    Ok(RecordedEntry {
        seq: JournalSeq::durable(seq),
        previous: EntryHash::from_bytes(bytes32(row, "prev")?),
        hash: EntryHash::from_bytes(bytes32(row, "hash")?),
        json: row.get("json")?,
    })
}

async fn send_leases(
    readers: &Arc<Readers>,
    states: &[LeaseState],
    sender: &mpsc::Sender<Result<LeaseRow, JournalError>>,
) -> Result<(), JournalError> {
    // States come from an enum, so that their names cannot carry SQL.
    let names: Vec<String> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    let names = names.join(", ");
    let settled = states.iter().any(|state| state.is_final());
    let mut after = (String::new(), String::new());
    loop {
        let sql = if settled { by_id(&names) } else { by_session(&names) };
        let (session, id) = after.clone();
        let page = readers.read(move |conn| lease_page(conn, &sql, [session, id])).await?;
        let full = page.len() == PAGE_ROWS;
        let Some(last) = page.last().filter(|_| full) else {
            return send_all(sender, page).await;
        };
        after = (last.lease.session.to_string(), last.lease.id.to_string());
        send_all(sender, page).await?;
        if sender.is_closed() {
            return Ok(());
        }
    }
}

async fn send_all(
    sender: &mpsc::Sender<Result<LeaseRow, JournalError>>,
    page: Vec<LeaseRow>,
) -> Result<(), JournalError> {
    for row in page {
        // A reader that has gone needs no more.
        let _gone = sender.send(Ok(row)).await;
    }
    Ok(())
}

/// Through the index over unsettled leases: however many settled ones there are, none is read.
fn by_session(names: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM leases
         WHERE state NOT IN ('revoked', 'expired') AND state IN ({names})
             AND (session, id) > (?1, ?2)
         ORDER BY session, id LIMIT {PAGE_ROWS}"
    )
}

fn by_id(names: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM leases WHERE state IN ({names}) AND id > ?2
         ORDER BY id LIMIT {PAGE_ROWS} -- ?1 only for pages by session"
    )
}

fn lease_page(conn: &Connection, sql: &str, after: [String; 2]) -> Result<Vec<LeaseRow>, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params_from_iter(after))?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        page.push(StoredLease::read(row)?.into_row());
    }
    Ok(page)
}

/// Large enough that the way to the read thread is shared by many rows, small enough that a page
/// of the longest entries stays under a megabyte and a read under a few milliseconds.
pub(super) const PAGE_ROWS: usize = 256;
