//! The journal's entries as operators ask for them: which ones, found a page at a time, and
//! followed as they are recorded. Writes nothing.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ids::{DenialId, IntentId, SessionId};
use claviger_core::journal::{EntryHash, Event, JournalSeq, Verdict};
use claviger_core::name::{RoleName, ScopeName};
use claviger_core::policy::SnapshotDigest;
use claviger_core::ports::JournalError;
use claviger_core::prompt::PromptDigest;
use claviger_core::time::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::fault::Fault;
use super::query::{PAGE_ROWS, Streamed};
use super::readers::Readers;
use super::rows::{bytes32, integer};
use super::verify;

/// Which entries are wanted. What is absent does not restrict; the rest restricts together. The
/// first seven are found by an index, the others by looking through what is left.
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
    /// Only those of this workload.
    pub principal: Option<String>,
    /// Only those for this requester.
    pub requester: Option<String>,
    /// Only those about this scope.
    pub scope: Option<ScopeName>,
    /// Only those of this kind.
    pub event: Option<Event>,
    /// Only those that were decided so.
    pub decision: Option<Verdict>,
    /// Only refusals with this code.
    pub code: Option<String>,
    /// Only those decided by this snapshot.
    pub snapshot: Option<SnapshotDigest>,
    /// Only those of sessions that began with this prompt file.
    pub prompt_digest: Option<PromptDigest>,
    /// Only those at the word of this operator.
    pub operator: Option<String>,
    /// Only those of this action of operators.
    pub action: Option<String>,
    /// Only those from this moment on.
    pub since: Option<Timestamp>,
    /// Only those before this moment.
    pub before: Option<Timestamp>,
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

/// Streams what `query` finds, oldest first. The reader's pace sets the pace: at most one page is
/// held in memory.
pub(super) fn entries(readers: Arc<Readers>, query: EntryQuery) -> Streamed<RecordedEntry> {
    stream(Sending { readers, query: Arc::new(query), follow: None })
}

/// The same, and then what is recorded from then on, until `over` turns true.
pub(super) fn follow(
    readers: Arc<Readers>,
    query: EntryQuery,
    over: watch::Receiver<bool>,
) -> Streamed<RecordedEntry> {
    stream(Sending { readers, query: Arc::new(query), follow: Some(over) })
}

fn stream(sending: Sending) -> Streamed<RecordedEntry> {
    let (sender, receiver) = mpsc::channel(PAGE_ROWS);
    tokio::spawn(async move {
        let sent = sending.send(&sender).await;
        if let Err(error) = sent {
            let _gone = sender.send(Err(error)).await;
        }
    });
    ReceiverStream::new(receiver)
}

struct Sending {
    readers: Arc<Readers>,
    query: Arc<EntryQuery>,
    follow: Option<watch::Receiver<bool>>,
}

/// What one read found.
struct Page {
    entries: Vec<RecordedEntry>,
    /// The first entry of it that queries look for in the wrong place.
    misfiled: Option<String>,
    /// Where the next page begins.
    next: u64,
    ended: Ended,
}

/// Whether the journal's end was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Yes,
    No,
}

impl Sending {
    async fn send(
        mut self,
        sender: &mpsc::Sender<Result<RecordedEntry, JournalError>>,
    ) -> Result<(), JournalError> {
        let Some(mut next) = self.first_wanted().await? else { return Ok(()) };
        let mut misfiled = None;
        loop {
            let wanted = Arc::clone(&self.query);
            let page = self.readers.read(move |conn| page(conn, &wanted, next)).await?;
            misfiled = misfiled.or(page.misfiled);
            next = page.next;
            for entry in page.entries {
                if sender.send(Ok(entry)).await.is_err() {
                    return Ok(());
                }
            }
            if page.ended == Ended::Yes && !self.go_on(sender).await {
                break;
            }
        }
        // Last of all, so that an export of a damaged journal still holds every line, as evidence.
        let query = &*self.query;
        let all = EntryQuery { from: query.from, to: query.to, ..EntryQuery::default() };
        match misfiled {
            Some(problem) if *query == all => Err(JournalError::Damaged(problem)),
            _ => Ok(()),
        }
    }

    /// Waits for more, if more is wanted.
    async fn go_on(&mut self, sender: &mpsc::Sender<Result<RecordedEntry, JournalError>>) -> bool {
        let Some(over) = &mut self.follow else { return false };
        tokio::select! {
            () = tokio::time::sleep(FOLLOW_EVERY) => true,
            () = sender.closed() => false,
            _ = over.wait_for(|over| *over) => false,
        }
    }

    /// Where to begin, so that the newest `last` come in order; looks backwards, a window at a time.
    async fn first_wanted(&self) -> Result<Option<u64>, JournalError> {
        let from = self.query.from.map_or(1, JournalSeq::get).max(1);
        let Some(last) = self.query.last else { return Ok(Some(from)) };
        let mut wanted = last;
        let mut first = None;
        let mut to = self.newest().await?.min(self.query.to.map_or(u64::MAX, JournalSeq::get));
        while wanted > 0 && to >= from {
            let begin = self.query.window_back_from(to).max(from);
            let query = Arc::clone(&self.query);
            let found = self.readers.read(move |conn| newest_of(conn, &query, (begin, to, wanted)));
            let (count, oldest) = found.await?;
            first = oldest.or(first);
            wanted = wanted.saturating_sub(count);
            to = begin.saturating_sub(1);
        }
        // Who follows has something to wait for.
        let follows = self.follow.is_some();
        Ok(first.or(follows.then_some(self.newest().await?.saturating_add(1))))
    }

    async fn newest(&self) -> Result<u64, JournalError> {
        self.readers.read(newest).await
    }
}

impl EntryQuery {
    /// What no index finds, as paths into the JSON form and what must stand there.
    fn looked_for(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("json_extract(json, '$.principal') = ?", self.principal.clone()),
            ("json_extract(json, '$.requester') = ?", self.requester.clone()),
            ("json_extract(json, '$.scope') = ?", self.scope.as_ref().map(ToString::to_string)),
            ("json_extract(json, '$.event') = ?", self.event.and_then(|event| name_of(&event))),
            ("json_extract(json, '$.decision') = ?", self.decision.and_then(|of| name_of(&of))),
            ("json_extract(json, '$.code') = ?", self.code.clone()),
            ("json_extract(json, '$.snapshot') = ?", self.snapshot.map(|of| of.to_string())),
            (
                "json_extract(json, '$.prompt_digest') = ?",
                self.prompt_digest.map(|of| of.to_string()),
            ),
            ("json_extract(json, '$.operator') = ?", self.operator.clone()),
            ("json_extract(json, '$.action') = ?", self.action.clone()),
            // All moments are written with as many digits, so that they sort as text.
            ("json_extract(json, '$.at') >= ?", self.since.map(|at| at.to_string())),
            ("json_extract(json, '$.at') < ?", self.before.map(|at| at.to_string())),
        ];
        texts.into_iter().filter_map(|(sql, value)| Some((sql, value?))).collect()
    }

    fn indexed(&self) -> Vec<(&'static str, String)> {
        let columns = [
            ("session = ?", self.session.map(|id| id.to_string())),
            ("intent = ?", self.lease.map(|id| id.to_string())),
            ("denial = ?", self.denial.map(|id| id.to_string())),
            ("role = ?", self.role.as_ref().map(|role| role.as_str().to_owned())),
        ];
        columns.into_iter().filter_map(|(sql, value)| Some((sql, value?))).collect()
    }

    /// The last entry that one read may look at: all, if an index or the page bounds the work.
    fn window_from(&self, from: u64) -> u64 {
        let to = self.to.map_or(u64::MAX, JournalSeq::get);
        if self.looked_for().is_empty() { to } else { to.min(from.saturating_add(WINDOW - 1)) }
    }

    fn window_back_from(&self, to: u64) -> u64 {
        if self.looked_for().is_empty() { 1 } else { to.saturating_sub(WINDOW - 1) }
    }
}

/// How the journal spells a variant.
fn name_of(variant: &impl Serialize) -> Option<String> {
    let value = serde_json::to_value(variant).ok()?;
    value.as_str().map(str::to_owned)
}

fn newest(conn: &Connection) -> Result<u64, Fault> {
    let newest: Option<i64> =
        conn.query_row("SELECT max(seq) FROM entries", [], |row| row.get(0))?;
    Ok(newest.and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0))
}

/// One view for both reads: an entry that is recorded between them would be sent twice.
fn page(conn: &Connection, query: &EntryQuery, from: u64) -> Result<Page, Fault> {
    let view = conn.unchecked_transaction()?;
    let end = newest(&view)?;
    let to = query.window_from(from);
    let (condition, values) = condition(query, (from, to));
    let sql = format!(
        "SELECT seq, prev, hash, json, session, intent, denial, role FROM entries
         WHERE {condition} ORDER BY seq LIMIT {PAGE_ROWS}"
    );
    let mut statement = view.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut entries, mut misfiled) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let entry = recorded(row)?;
        if misfiled.is_none() {
            misfiled = verify::misfiled(row, &entry)?.map(|error| error.to_string());
        }
        entries.push(entry);
    }
    if entries.len() == PAGE_ROWS
        && let Some(last) = entries.last()
    {
        let next = last.seq.get().saturating_add(1);
        return Ok(Page { entries, misfiled, next, ended: Ended::No });
    }
    let seen = to.min(end);
    let last_wanted = query.to.map_or(end, |to| to.get().min(end));
    let ended = if seen >= last_wanted { Ended::Yes } else { Ended::No };
    Ok(Page { entries, misfiled, next: seen.saturating_add(1).max(from), ended })
}

/// How many of the newest match between two entries, at most as many as are wanted, and the
/// oldest of them.
fn newest_of(
    conn: &Connection,
    query: &EntryQuery,
    (from, to, most): (u64, u64, u64),
) -> Result<(u64, Option<u64>), Fault> {
    let (condition, mut values) = condition(query, (from, to));
    let sql = format!(
        "SELECT count(*), min(seq) FROM (SELECT seq FROM entries WHERE {condition}
         ORDER BY seq DESC LIMIT ?)"
    );
    values.push(Value::Integer(integer(most)));
    let (count, first): (i64, Option<i64>) =
        conn.query_row(&sql, params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let positive = |number: i64| u64::try_from(number).ok();
    Ok((positive(count).unwrap_or(0), first.and_then(positive)))
}

/// Only what restricts stands in the SQL, so that the index on it is used.
fn condition(query: &EntryQuery, (from, to): (u64, u64)) -> (String, Vec<Value>) {
    let mut sql = String::from("seq >= ?");
    let mut values = vec![Value::Integer(integer(from))];
    if to < u64::MAX {
        sql.push_str(" AND seq <= ?");
        values.push(Value::Integer(integer(to)));
    }
    for (restriction, value) in query.indexed().into_iter().chain(query.looked_for()) {
        sql.push_str(" AND ");
        sql.push_str(restriction);
        values.push(Value::Text(value));
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

/// Soon enough for somebody who looks on, seldom enough to be no load.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// How many entries one read looks through for what no index finds: about 20 ms. Few in tests, so
/// that they look through several.
const WINDOW: u64 = if cfg!(test) { 100 } else { 5_000 };
