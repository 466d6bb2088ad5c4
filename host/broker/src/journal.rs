//! The embedded journal: SQLite behind the core's port `Journal`. One thread writes, a few
//! connections read; every answer waits for the commit. Decides nothing.

mod checkpoint;
mod entries;
mod fault;
mod holdings;
mod issuer_keys;
mod leases;
mod ledger;
mod news;
mod opening;
mod port;
mod query;
mod readers;
mod recovery;
mod reseal;
mod revocation;
mod ring;
mod rotation;
mod rows;
mod schema;
mod seal;
mod secrets;
mod sessions;
mod store;
mod verify;
mod withdraw;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::journal::ChainHead;
use claviger_core::lease::LeaseState;
use claviger_core::name::{BackendName, ScopeName};
use claviger_core::ports::JournalError;
use claviger_core::session::{KnownToken, Session};
use claviger_core::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::{broadcast, watch};

use checkpoint::{CheckpointConnection, Checkpoints};
use fault::Fault;
use ledger::{Tip, load_head, meta};
use news::Alarms;
use readers::Readers;
use recovery::{Database, Parts};
use ring::Ring;
use seal::Seals;
use store::Store;
use writer::{Outlets, Queue, Writer};

use crate::rates::Rates;

pub use entries::{EntryQuery, RecordedEntry};
pub use fault::OpenJournalError;
pub use issuer_keys::{IssuerKey, KeyChange};
pub use leases::LeaseRow;
pub use news::{Health, JournalNews, LeaseCounts, Stats, Why};
pub use query::{JournalHead, LeaseQuery, Streamed};
pub use reseal::{RekeyAct, RekeyError, Resealed, SealingKeys};
pub use revocation::{ENDED_AT_ONCE, Ended, LeaseSeen, Word};
pub use rotation::{RetiringKey, RootSecrets, Settlement, Stage, Unsettled};
pub use seal::SealingKey;
pub use secrets::{
    PutSecretError, SECRET_BYTES_MAX, SecretAct, SecretRow, SecretValue, SecretValues,
};
pub use sessions::{Ended as EndedSessions, SessionQuery, SessionRow};
pub use verify::VerifyError;
pub use writer::CommitObserver;

/// How a journal is opened.
pub struct JournalOptions {
    /// The database file. Made when absent, with its folder; its log, index and lock lie beside it.
    pub path: PathBuf,
    /// The operator's key, under which handles and the head are sealed.
    pub sealing_key: SealingKey,
    /// How long a plugin may take to mint. An intent not closed by then falls due.
    pub intent_timeout: Duration,
    /// How many writes may wait. What comes beyond is refused at once.
    pub queue_max: usize,
    /// Hears how long each commit took.
    pub commit_observer: Option<CommitObserver>,
}

/// A journal that has been opened.
pub struct Opened {
    /// The journal.
    pub journal: SqliteJournal,
    /// Where it ended, checked against its seal.
    pub head: ChainHead,
}

/// The embedded journal. Everything that it writes goes through one thread.
pub struct SqliteJournal {
    queue: Queue,
    readers: Arc<Readers>,
    ring: Arc<Ring>,
    alarms: Arc<Alarms>,
    stats: Arc<Stats>,
    news: broadcast::Sender<JournalNews>,
    health: watch::Receiver<Health>,
    intent_timeout: Duration,
    /// Taken from in the transaction that opens an intent, once nothing else refuses it.
    rates: Arc<Rates>,
    threads: Vec<JoinHandle<()>>,
}

impl SqliteJournal {
    /// Opens the journal, or makes a new one. Reads neither all entries nor all leases: a
    /// million of them do not slow the start. [`SqliteJournal::verify`] checks everything.
    pub fn open(options: JournalOptions) -> Result<Opened, OpenJournalError> {
        Self::open_rekeyed(options, (&[], Timestamp::from_unix_millis(0)))
    }

    /// The same for a journal that may still be under one of the `previous` keys: then it is put
    /// under the sealing key of `options`, which is recorded as of `now`.
    pub fn open_rekeyed(
        options: JournalOptions,
        (previous, now): (&[SealingKey], Timestamp),
    ) -> Result<Opened, OpenJournalError> {
        let store = Arc::new(Store::claim(&options.path)?);
        let conn = store.connect().map_err(|fault| refused(&store, fault))?;
        schema::recognise(&conn, &store)?;
        drop(conn);
        let conn = connect(&store).map_err(|fault| refused(&store, fault))?;
        let keys = (&options.sealing_key, previous);
        let seals = prove_key(&conn, &store, keys, now)?;
        let path = store.path().to_owned();
        let parts = Parts {
            readers: Arc::new(Readers::new(Arc::clone(&store))),
            checkpoint: CheckpointConnection::default(),
            tip: Tip::load(&conn, &seals).map_err(|fault| refused(&store, fault))?,
            ring: Arc::new(Ring::new(Arc::clone(&seals))),
            seals,
            store,
            conn,
        };
        start(parts, options)
            .map_err(|fault| OpenJournalError::Journal { path, error: fault.error })
    }

    /// Every session that has not ended, with the hash of its token: for the start.
    pub async fn live_sessions(&self) -> Result<Vec<(KnownToken, Session)>, JournalError> {
        self.readers.read(sessions::running).await
    }

    /// Whether the session has begun and has not ended.
    pub async fn is_running(&self, session: SessionId) -> Result<bool, JournalError> {
        self.readers.read(move |conn| Ok(sessions::running_session(conn, session)?.is_some())).await
    }

    /// The session of that id, also if it has ended; if there was one.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRow>, JournalError> {
        let query = SessionQuery {
            id: Some(id),
            ended: EndedSessions::Included,
            ..SessionQuery::default()
        };
        self.readers.read(move |conn| Ok(sessions::page(conn, &query, ("", 1))?.pop())).await
    }

    /// Streams entries, oldest first, holding no more than a page of them.
    pub fn entries(&self, query: EntryQuery) -> Streamed<RecordedEntry> {
        entries::entries(Arc::clone(&self.readers), query)
    }

    /// The same, and then what is recorded from then on, until `over` turns true.
    pub fn entries_from_now_on(
        &self,
        query: EntryQuery,
        over: watch::Receiver<bool>,
    ) -> Streamed<RecordedEntry> {
        entries::follow(Arc::clone(&self.readers), query, over)
    }

    /// Streams the leases that match.
    pub fn lease_rows(&self, query: LeaseQuery) -> Streamed<LeaseRow> {
        query::leases(Arc::clone(&self.readers), query)
    }

    /// These leases, whatever their state; [`ENDED_AT_ONCE`] at most, so that the read is short.
    pub async fn lease_rows_of(&self, ids: Vec<IntentId>) -> Result<Vec<LeaseRow>, JournalError> {
        self.readers.read(move |conn| leases::rows_of(conn, &ids)).await
    }

    /// Streams the sessions that match, oldest first.
    pub fn session_rows(&self, query: SessionQuery) -> Streamed<SessionRow> {
        query::sessions(Arc::clone(&self.readers), query)
    }

    /// The backends on which the worker has something to do, now or later: also those that the
    /// configuration no longer has.
    pub async fn backends_with_work(&self) -> Result<Vec<BackendName>, JournalError> {
        self.readers.read(leases::backends_with_work).await
    }

    /// The scope of a lease, if there is such a lease.
    pub async fn scope_of(&self, lease: IntentId) -> Result<Option<ScopeName>, JournalError> {
        self.readers.read(move |conn| leases::scope_of(conn, lease)).await
    }

    /// Gives a stuck lease another round of attempts and records that an operator asked for it.
    /// `None` if there is no such lease; otherwise the state that it is in now.
    pub async fn retry_lease(
        &self,
        lease: IntentId,
        now: Timestamp,
    ) -> Result<Option<LeaseState>, JournalError> {
        self.queue.submit(move |ledger| revocation::retry_lease(ledger, lease, now)).await
    }

    /// The newest entry, and whether the seal on it is the broker's own.
    pub async fn head(&self) -> Result<JournalHead, JournalError> {
        let look = || async {
            let stored = self.readers.read(load_head).await?;
            let seal_intact = self.ring.is_sealed(&stored.head, &stored.seal);
            Ok(JournalHead { head: stored.head, seal_intact })
        };
        let head: Result<JournalHead, JournalError> = look().await;
        match head {
            // Another key may have come in force between the look and the check: then the next fits.
            Ok(head) if !head.seal_intact => look().await,
            looked => looked,
        }
    }

    /// Checks every entry, the chain through them and the seal on its end. Answers the head up
    /// to which all is as it was recorded.
    pub async fn verify(&self) -> Result<ChainHead, VerifyError> {
        verify::verify(&self.readers, &self.ring).await
    }

    /// Whether the journal can write, now and from now on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether its writer answers at all: an error is an answer, silence is none.
    pub async fn is_answering(&self) -> bool {
        self.queue.is_answering().await
    }

    /// What becomes durable from now on: lease changes, session ends, nudges for the worker.
    pub fn news(&self) -> broadcast::Receiver<JournalNews> {
        self.news.subscribe()
    }

    /// What is issued by the minute; kept here, and not in the file.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// Finishes what is queued, moves the log into the database, and lets go of the files.
    pub async fn close(self) {
        let Self { queue, readers, threads, .. } = self;
        drop(queue);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A thread that panicked has nothing left to finish.
                let _ended = thread.join();
            }
            drop(readers);
        });
        let _ended = joined.await;
    }
}

/// A connection to a journal with the newest schema.
fn connect(store: &Store) -> Result<Connection, Fault> {
    let conn = store.connect_writer()?;
    schema::migrate(&conn)?;
    Ok(conn)
}

/// Derives the keys and proves that the journal was sealed with them; a new journal is sealed.
fn prove_key(
    conn: &Connection,
    store: &Store,
    (key, previous): (&SealingKey, &[SealingKey]),
    now: Timestamp,
) -> Result<Arc<Seals>, OpenJournalError> {
    let refused = |fault| refused(store, fault);
    if is_new(conn).map_err(refused)? {
        return seal_new(conn, key).map(Arc::new).map_err(refused);
    }
    if let Some(seals) = reseal::in_force(conn, &[key]).map_err(refused)? {
        return Ok(Arc::new(seals));
    }
    let previous: Vec<&SealingKey> = previous.iter().collect();
    match reseal::in_force(conn, &previous).map_err(refused)? {
        Some(old) => {
            let act = RekeyAct { by: None, at: now };
            reseal::at_start(conn, old, key, &act).map_err(refused)
        }
        None => Err(OpenJournalError::WrongKey { path: store.path().to_owned() }),
    }
}

/// Whether nothing was ever sealed in it.
fn is_new(conn: &Connection) -> Result<bool, Fault> {
    let unsealed = meta(conn, "journal-id")?.is_none() && meta(conn, "key-probe")?.is_none();
    Ok(unsealed && ledger::newest_entry(conn)? == ChainHead::EMPTY)
}

fn seal_new(conn: &Connection, key: &SealingKey) -> Result<Seals, Fault> {
    let mut id = [0; 16];
    rand::fill(&mut id).map_err(|_| Fault::unwritable("the system gives no random bytes"))?;
    let seals = Seals::derive(key, &id)?;
    let transaction = conn.unchecked_transaction()?;
    let insert = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
    transaction.execute(insert, ("journal-id", id.as_slice()))?;
    transaction.execute(insert, ("key-probe", seals.seal_probe()?))?;
    Tip::empty().save(&transaction, &seals)?;
    transaction.commit()?;
    Ok(seals)
}

/// The threads begin once everything that can fail has succeeded.
fn start(parts: Parts, options: JournalOptions) -> Result<Opened, Fault> {
    let thread = |error: std::io::Error| Fault::unwritable(format!("no thread for it: {error}"));
    let (readers, ring) = (Arc::clone(&parts.readers), Arc::clone(&parts.ring));
    let (tip, stats, alarms) = (parts.tip, Arc::new(Stats::default()), Arc::new(Alarms::default()));
    stats.set_leases(&tip.leases);
    let (news, _) = broadcast::channel(NEWS_MAX);
    let (health_sender, health) = watch::channel(Health::Writable);
    let (jobs, waiting) = sync_channel(options.queue_max.max(1));
    let (checkpoints, checkpointer) =
        Checkpoints::start(Arc::clone(&parts.store), parts.checkpoint.clone()).map_err(thread)?;
    let writer = Writer {
        jobs: waiting,
        database: Database::new(parts)?,
        checkpoints,
        outlets: Outlets {
            news: news.clone(),
            alarms: Arc::clone(&alarms),
            health: health_sender,
            observer: options.commit_observer,
        },
        stats: Arc::clone(&stats),
        looked_at: Instant::now(),
    };
    let spawned = std::thread::Builder::new().name("journal-writer".to_owned());
    let threads = vec![spawned.spawn(move || writer.run()).map_err(thread)?, checkpointer];
    let queue = Queue::new(jobs, Arc::clone(&stats));
    let intent_timeout = options.intent_timeout;
    let journal = SqliteJournal {
        queue,
        readers,
        ring,
        alarms,
        stats,
        news,
        health,
        intent_timeout,
        rates: Arc::default(),
        threads,
    };
    Ok(Opened { journal, head: tip.head })
}

fn refused(store: &Store, fault: Fault) -> OpenJournalError {
    OpenJournalError::Journal { path: store.path().to_owned(), error: fault.error }
}

/// A watcher that is further behind than this reads the state again instead of the news; at full
/// load that is about a tenth of a second.
const NEWS_MAX: usize = 4096;
