//! Checks the whole journal: every entry, the chain through them, and the seal on its end.

use std::sync::Arc;

use claviger_core::journal::{
    ChainBreak, ChainHead, ChainVerifier, Entry, JournalSeq, RecordedLine,
};
use claviger_core::ports::JournalError;
use rusqlite::{Connection, Row};
use thiserror::Error;

use super::entries::{RecordedEntry, recorded};
use super::fault::Fault;
use super::ledger::{QueryColumns, load_head, newest_entry};
use super::query::PAGE_ROWS;
use super::readers::Readers;
use super::ring::Ring;
use super::rows::integer;

/// What is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The chain is broken.
    #[error(transparent)]
    Chain(#[from] ChainBreak),
    /// The end of the chain was not written by a broker with the sealing key.
    #[error(
        "the seal of the head (entry {seq}) is broken: it was written by something else than the \
         broker, so the end of the journal proves nothing"
    )]
    Seal {
        /// The entry that the head names.
        seq: JournalSeq,
    },
    /// An entry is found under what it does not say of itself.
    #[error("entry {seq} is filed under another {column} than its content names")]
    Column {
        /// The entry.
        seq: JournalSeq,
        /// The column that was changed.
        column: &'static str,
    },
    /// It cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Checks everything up to the head as it was when the check began; answers that head. Reads a
/// page at a time, so that the log can start over in between.
pub(super) async fn verify(
    readers: &Arc<Readers>,
    ring: &Arc<Ring>,
) -> Result<ChainHead, VerifyError> {
    let mut verifier = ChainVerifier::new();
    let look = || {
        let ring = Arc::clone(ring);
        readers.read(move |conn| sealed_head(conn, &ring))
    };
    // Another key may have come in force between the look and the check: then the next one fits.
    let (head, newest) = match look().await? {
        Ok(heads) => heads,
        Err(_) => look().await??,
    };
    let mut from = i64::MIN;
    loop {
        let to = head.seq;
        let page = move |conn: &Connection| {
            let checked = check_page(conn, &mut verifier, from, to)?;
            Ok((verifier, checked))
        };
        let (after, checked) = readers.read(page).await?;
        verifier = after;
        match checked? {
            Some(next) => from = next,
            None => break,
        }
    }
    verifier.finish(&head)?;
    if newest.seq > head.seq {
        let seq = JournalSeq::durable(head.seq.get().saturating_add(1));
        return Err(ChainBreak::BeyondHead { seq, head: head.seq }.into());
    }
    Ok(head)
}

/// The head row and the newest entry, in one view, for the broker goes on recording.
fn sealed_head(
    conn: &Connection,
    ring: &Ring,
) -> Result<Result<(ChainHead, ChainHead), VerifyError>, Fault> {
    let view = conn.unchecked_transaction()?;
    let stored = load_head(&view)?;
    if !ring.is_sealed(&stored.head, &stored.seal) {
        return Ok(Err(VerifyError::Seal { seq: stored.head.seq }));
    }
    Ok(Ok((stored.head, newest_entry(&view)?)))
}

/// Checks one page; answers where the next begins.
fn check_page(
    conn: &Connection,
    verifier: &mut ChainVerifier,
    from: i64,
    to: JournalSeq,
) -> Result<Result<Option<i64>, VerifyError>, Fault> {
    let sql = format!(
        "SELECT seq, prev, hash, json, session, intent, denial, role FROM entries
         WHERE seq >= ?1 AND seq <= ?2 ORDER BY seq LIMIT {PAGE_ROWS}"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([from, integer(to.get())])?;
    let (mut read, mut next) = (0, from);
    while let Some(row) = rows.next()? {
        if let Err(broken) = check_row(row, verifier)? {
            return Ok(Err(broken));
        }
        read += 1;
        let seq: i64 = row.get("seq")?;
        next = seq.saturating_add(1);
    }
    Ok(Ok((read == PAGE_ROWS).then_some(next)))
}

fn check_row(
    row: &Row<'_>,
    verifier: &mut ChainVerifier,
) -> Result<Result<(), VerifyError>, Fault> {
    let entry = recorded(row)?;
    let line = RecordedLine {
        seq: entry.seq,
        previous: entry.previous,
        hash: entry.hash,
        json: entry.json.as_bytes(),
    };
    if let Err(broken) = verifier.check(&line) {
        return Ok(Err(broken.into()));
    }
    Ok(misfiled(row, &entry)?.map_or(Ok(()), Err))
}

/// Whether the columns by which queries find the entry say what its content says. What cannot be
/// read is not misfiled: the chain tells whether it is what was recorded.
pub(super) fn misfiled(row: &Row<'_>, entry: &RecordedEntry) -> Result<Option<VerifyError>, Fault> {
    let Ok(said) = serde_json::from_str::<Entry>(&entry.json) else { return Ok(None) };
    let (said, filed) = (QueryColumns::of(&said), filed_under(row)?);
    let columns = [
        ("session", said.session == filed.session),
        ("intent", said.intent == filed.intent),
        ("denial", said.denial == filed.denial),
        ("role", said.role == filed.role),
    ];
    let wrong = columns.into_iter().find(|(_, same)| !same);
    Ok(wrong.map(|(column, _)| VerifyError::Column { seq: entry.seq, column }))
}

fn filed_under(row: &Row<'_>) -> Result<QueryColumns, Fault> {
    Ok(QueryColumns {
        session: row.get("session")?,
        intent: row.get("intent")?,
        denial: row.get("denial")?,
        role: row.get("role")?,
    })
}
