//! Durable entries a second: the journal (chained, indexed, sealed) and a bare SQLite table with
//! the same group commit.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};
use claviger_bench::load::{Caller, closed};
use claviger_bench::report::Curve;
use claviger_core::journal::{Entry, Event};
use claviger_core::ports::Journal;
use claviger_core::time::Timestamp;
use clavigerd::journal::{JournalOptions, SealingKey, SqliteJournal};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::Bench;
use crate::mint::point;

/// Measures a curve for both.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let options = JournalOptions {
        path: folder.path().join("journal.db"),
        sealing_key: SealingKey::take(&mut [7; 32]),
        intent_timeout: Duration::from_secs(30),
        queue_max: QUEUE_MAX,
        commit_observer: None,
    };
    let journal = Arc::new(SqliteJournal::open(options)?.journal);
    let bare = Bare::open(&folder.path().join("bare.db"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for callers in [1, 16, 64, 256] {
        bench.say(&format!("journal entries, {callers} callers"));
        let recording = (0..callers).map(|_| Recording(Arc::clone(&journal))).collect();
        ours.push(point(callers, &closed(recording, bench.effort.glance()).await?.1));
        let inserting = (0..callers).map(|_| bare.clone()).collect();
        theirs.push(point(callers, &closed(inserting, bench.effort.glance()).await?.1));
    }
    for (side, points) in [("Claviger", ours), ("bare SQLite", theirs)] {
        bench.curve(Curve { workload: "durable entry".into(), side: side.into(), points });
    }
    Ok(())
}

struct Recording(Arc<SqliteJournal>);

impl Caller for Recording {
    async fn call(&mut self) -> Result<()> {
        let mut entry = Entry::new(Timestamp::from_unix_millis(0), Event::OperatorAct);
        entry.detail = Some(DETAIL.to_owned());
        self.0.record(entry).await.map(drop).context("not recorded")
    }
}

/// Callers of one writing thread, which commits what is queued.
#[derive(Clone)]
struct Bare(SyncSender<oneshot::Sender<()>>);

impl Bare {
    fn open(path: &Path) -> Result<Self> {
        let conn = Connection::open(path)?;
        conn.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "full")?;
        conn.execute_batch("CREATE TABLE entries (seq INTEGER PRIMARY KEY, json TEXT NOT NULL)")?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        std::thread::spawn(move || write(&conn, &receiver));
        Ok(Self(sender))
    }
}

impl Caller for Bare {
    async fn call(&mut self) -> Result<()> {
        let (done, durable) = oneshot::channel();
        self.0.try_send(done).context("the queue is full")?;
        durable.await.context("not written")
    }
}

/// A failure drops the senders, and their callers report it.
fn write(conn: &Connection, jobs: &Receiver<oneshot::Sender<()>>) -> Result<()> {
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(QUEUE_MAX));
        let transaction = conn.unchecked_transaction()?;
        for _ in &batch {
            let mut insert =
                transaction.prepare_cached("INSERT INTO entries (json) VALUES (?1)")?;
            insert.execute([DETAIL])?;
        }
        transaction.commit()?;
        for done in batch {
            let _gone = done.send(());
        }
    }
    Ok(())
}

/// More than there are callers.
const QUEUE_MAX: usize = 1024;

/// About as long as an entry of an issue.
const DETAIL: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123",
);
