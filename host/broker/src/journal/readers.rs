//! A few connections that only read, away from the writer and off the async threads.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};

use claviger_core::ports::JournalError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::fault::Fault;
use super::store::Store;

/// The read connections. Each is opened when first needed.
pub(super) struct Readers {
    store: Arc<Store>,
    turns: Semaphore,
    /// Held shared by whoever reads, alone by whoever closes.
    gate: RwLock<()>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let turns = Semaphore::new(READERS_MAX);
        Self { store, turns, gate: RwLock::new(()), idle: Mutex::new(Vec::new()) }
    }

    /// Has `work` done on a read connection. It must be short: a long read holds the log back
    /// from starting over.
    pub(super) async fn read<T, F>(self: &Arc<Self>, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let Ok(_turn) = self.turns.acquire().await else { return Err(closed()) };
        let readers = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || readers.read_now(work));
        Ok(read.await.map_err(|_| closed())??)
    }

    /// Waits for the reads under way and closes every connection. Until the guard is dropped,
    /// nobody reads.
    pub(super) fn close(&self) -> RwLockWriteGuard<'_, ()> {
        let guard = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        guard
    }

    fn read_now<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let _open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let conn = match self.take_idle() {
            Some(conn) => conn,
            None => self.store.connect_reader()?,
        };
        let result = work(&conn);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
        result
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

fn closed() -> JournalError {
    JournalError::Unwritable("a read was given up because the broker is stopping".to_owned())
}

/// Reads are short and mostly come from the cache: more would only compete for two cores with
/// the writer.
const READERS_MAX: usize = 4;
