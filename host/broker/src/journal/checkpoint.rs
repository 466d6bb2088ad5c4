//! Moves the write-ahead log back into the database, away from the commits, and keeps the log
//! bounded. Writes no row.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::fault::Fault;
use super::recovery::Database;
use super::store::{BUSY_TIMEOUT, Store};

/// The connection of the checkpoint thread. The writer closes it when the files are opened again.
#[derive(Clone, Default)]
pub(super) struct CheckpointConnection(Arc<Mutex<Option<Connection>>>);

impl CheckpointConnection {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer's end: sees how long the log is after each commit.
pub(super) struct Checkpoints {
    nudge: SyncSender<()>,
    restart_at_pages: u64,
}

/// The log's length and how much of it is in the database already, in pages.
#[derive(Clone, Copy)]
struct Log {
    pages: u64,
    moved: u64,
}

impl Checkpoints {
    /// Starts the checkpoint thread; it ends when the writer's end is dropped.
    pub(super) fn start(
        store: Arc<Store>,
        connection: CheckpointConnection,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (nudge, nudges) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("journal-checkpoint".to_owned())
            .spawn(move || run(&store, &connection, &nudges))?;
        Ok((Self { nudge, restart_at_pages: LOG_PAGES_MAX }, thread))
    }

    /// Called between commits: asks for a checkpoint where one is due. Answers the log's length.
    ///
    /// A log only starts over once all of it has been moved, which never happens while commits
    /// follow each other faster than a checkpoint takes. When it has reached its bound, the
    /// writer waits for the rest to be moved: a few pages, since the thread has moved the others.
    pub(super) fn after_commit(&mut self, database: &Database) -> Result<u64, Fault> {
        let Some(conn) = database.conn() else { return Ok(0) };
        let log = checkpoint(conn, "noop")?;
        if log.pages < self.restart_at_pages {
            if log.pages < LOG_PAGES_MAX {
                self.restart_at_pages = LOG_PAGES_MAX;
            }
            if log.pages.saturating_sub(log.moved) >= CHECKPOINT_PAGES {
                // Full means that it has been asked already.
                let _asked = self.nudge.try_send(());
            }
            return Ok(log.pages);
        }
        conn.busy_timeout(RESTART_WAIT)?;
        let after = checkpoint(conn, "restart");
        conn.busy_timeout(BUSY_TIMEOUT)?;
        let after = after?;
        // Somebody reads an old state. Trying again at once would stop every commit for as long
        // as SQLite waits for him, so the next try comes when the log has grown by a quarter.
        let stuck = after.moved < after.pages;
        let next = log.pages.saturating_add(LOG_PAGES_MAX / 4);
        self.restart_at_pages = if stuck { next } else { LOG_PAGES_MAX };
        Ok(log.pages)
    }
}

fn run(store: &Store, connection: &CheckpointConnection, nudges: &Receiver<()>) {
    while nudges.recv().is_ok() {
        let mut held = connection.lock();
        if let Err(fault) = move_log(store, &mut held) {
            // The writer will meet the same trouble and tell it as the journal's health.
            tracing::warn!(error = %fault.error, "a checkpoint of the journal failed");
            *held = None;
        }
    }
}

fn move_log(store: &Store, held: &mut Option<Connection>) -> Result<(), Fault> {
    let conn = match held {
        Some(conn) => conn,
        None => held.insert(store.connect_writer()?),
    };
    checkpoint(conn, "passive")?;
    Ok(())
}

fn checkpoint(conn: &Connection, mode: &str) -> Result<Log, Fault> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let mut statement = conn.prepare_cached(&sql)?;
    Ok(statement.query_row([], |row| {
        let pages =
            |column: usize| row.get(column).map(|pages: i64| u64::try_from(pages).unwrap_or(0));
        Ok(Log { pages: pages(1)?, moved: pages(2)? })
    })?)
}

/// 16 MiB: small enough that a restart after a crash reads it in an instant, large enough that a
/// page changed by every commit, or by every issue of a session, is moved once for many of them.
const CHECKPOINT_PAGES: u64 = 4 * 1024;

/// The journal's own reads are over in a few milliseconds; for anybody else's no commit waits.
const RESTART_WAIT: Duration = Duration::from_millis(50);

/// 64 MiB: reached only when commits leave the checkpoint no pause.
pub(super) const LOG_PAGES_MAX: u64 = 16 * 1024;
