//! The writer's connection and its way back after trouble: the files are checked, opened again
//! if they had gone, and proven to end where they ended before. Repairs nothing.

use std::sync::Arc;

use claviger_core::ports::JournalError;
use rusqlite::Connection;

use super::checkpoint::CheckpointConnection;
use super::fault::{Fault, Reach};
use super::holdings::Holdings;
use super::ledger::{Ledger, Tip, Told, load_head};
use super::readers::Readers;
use super::ring::Ring;
use super::seal::Seals;
use super::store::{Identity, Store};

/// The database as the writer holds it.
pub(super) struct Database {
    store: Arc<Store>,
    /// In force.
    seals: Arc<Seals>,
    ring: Arc<Ring>,
    readers: Arc<Readers>,
    checkpoint: CheckpointConnection,
    /// `None` only when the files could not be opened again.
    conn: Option<Connection>,
    identity: Identity,
    /// What was last answered for.
    tip: Tip,
    /// Who holds how many leases, as the file says.
    holdings: Holdings,
    /// What a commit without an answer would have come to: it may or may not be in the file.
    unanswered: Option<Tip>,
    trouble: Option<Trouble>,
}

struct Trouble {
    error: JournalError,
    way_back: WayBack,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WayBack {
    /// Write something.
    Write,
    /// Open the files again, then write something.
    Reopen,
    /// None: a person must look.
    Closed,
}

/// What a database is made of.
pub(super) struct Parts {
    pub(super) store: Arc<Store>,
    pub(super) seals: Arc<Seals>,
    pub(super) ring: Arc<Ring>,
    pub(super) readers: Arc<Readers>,
    pub(super) checkpoint: CheckpointConnection,
    pub(super) conn: Connection,
    pub(super) tip: Tip,
}

impl Database {
    /// A database that can write. The files exist, since `conn` has written.
    pub(super) fn new(parts: Parts) -> Result<Self, Fault> {
        let Parts { store, seals, ring, readers, checkpoint, conn, tip } = parts;
        let identity = store.identity().map_err(|error| gone(&error))?;
        let (conn, unanswered, trouble) = (Some(conn), None, None);
        Ok(Self {
            store,
            seals,
            ring,
            readers,
            checkpoint,
            conn,
            identity,
            tip,
            holdings: Holdings::default(),
            unanswered,
            trouble,
        })
    }

    pub(super) const fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(super) fn trouble(&self) -> Option<&JournalError> {
        self.trouble.as_ref().map(|trouble| &trouble.error)
    }

    /// From here on nothing is written until [`Database::recover`] succeeds.
    pub(super) fn set_trouble(&mut self, fault: Fault) {
        let way_back = match fault.reach {
            Reach::Content => WayBack::Closed,
            Reach::Job | Reach::File => self.way_back(),
        };
        self.trouble = Some(Trouble { error: fault.error, way_back });
    }

    fn way_back(&self) -> WayBack {
        let in_place = self.store.identity().is_ok_and(|found| found == self.identity);
        if in_place && self.conn.is_some() { WayBack::Write } else { WayBack::Reopen }
    }

    /// The connection, for what is no transaction.
    pub(super) const fn conn(&self) -> Option<&Connection> {
        self.conn.as_ref()
    }

    /// Whether the files that are open are those that bear the journal's names.
    pub(super) fn check_in_place(&self) -> Result<(), Fault> {
        let found = self.store.identity().map_err(|error| gone(&error))?;
        if found == self.identity {
            return Ok(());
        }
        Err(Fault::unwritable("its files were replaced under the running broker"))
    }

    /// Runs `work` as one transaction and commits it with the new head. On an error nothing has
    /// changed, unless the commit itself failed: see `unanswered`.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Ledger<'_>) -> Result<T, Fault>,
    ) -> Result<(T, Told), Fault> {
        let Some(conn) = &self.conn else { return Err(Fault::unwritable("it is not open")) };
        let before = self.tip;
        let mut ledger = Ledger::new(conn, Arc::clone(&self.seals), (before, &mut self.holdings));
        let run = |sql: &str| -> Result<(), Fault> {
            conn.prepare_cached(sql)?.execute([])?;
            Ok(())
        };
        let worked = run("BEGIN IMMEDIATE")
            .and_then(|()| check_alone(conn, &before))
            .and_then(|()| work(&mut ledger))
            .and_then(|done| {
                if *ledger.tip() != before {
                    ledger.tip().save(conn, ledger.seals())?;
                }
                if !Arc::ptr_eq(ledger.seals(), &self.seals) {
                    self.ring.announce(ledger.seals());
                }
                self.unanswered = Some(*ledger.tip());
                run("COMMIT")?;
                Ok(done)
            });
        match worked {
            Ok(done) => {
                self.tip = *ledger.tip();
                self.unanswered = None;
                if !Arc::ptr_eq(ledger.seals(), &self.seals) {
                    self.seals = Arc::clone(ledger.seals());
                    self.ring.settle(&self.seals);
                }
                let told = ledger.into_told();
                self.holdings.settle();
                Ok((done, told))
            }
            Err(fault) => {
                // Fails when SQLite has rolled back already, and then it is not needed.
                let _rolled_back = run("ROLLBACK");
                drop(ledger);
                self.holdings.take_back(0);
                Err(fault)
            }
        }
    }

    /// Tries to write again; `Err` says why it still cannot.
    pub(super) fn recover(&mut self) -> Result<(), JournalError> {
        let Some(trouble) = &self.trouble else { return Ok(()) };
        let error = trouble.error.clone();
        let way_back = match trouble.way_back {
            WayBack::Closed => return Err(error),
            WayBack::Reopen => WayBack::Reopen,
            // It may have been moved away while it could not write.
            WayBack::Write => self.way_back(),
        };
        let recovered = match way_back {
            WayBack::Reopen => self.reopen(),
            WayBack::Write => self.check_tip().and_then(|()| self.write_ballast()),
            WayBack::Closed => return Err(error),
        };
        match recovered {
            Ok(()) => {
                self.trouble = None;
                Ok(())
            }
            Err(fault) => {
                let error = fault.error.clone();
                self.trouble = Some(Trouble { error: fault.error, way_back });
                Err(error)
            }
        }
    }

    /// Closes every connection of the process before it opens a new one. While one is left,
    /// SQLite would pair the old file's index with the new file's log.
    fn reopen(&mut self) -> Result<(), Fault> {
        let found = self.store.database().map_err(|error| gone(&error))?;
        if !self.identity.same_database(found) {
            self.check_stranger()?;
        }
        let readers = Arc::clone(&self.readers);
        let _nobody_reads = readers.close();
        let held = self.checkpoint.clone();
        let mut checkpoint = held.lock();
        *checkpoint = None;
        drop(self.conn.take());
        let conn = self.store.connect_writer()?;
        self.tip = self.proven_tip(&conn)?;
        self.holdings = Holdings::default();
        self.conn = Some(conn);
        self.unanswered = None;
        self.write_ballast()?;
        self.identity = self.store.identity().map_err(|error| gone(&error))?;
        Ok(())
    }

    /// A file that is not the one that was open may be a copy put back in its place, or anything.
    /// It is looked at without its log and without a write: SQLite would otherwise play the old
    /// log, which still lies there, into the new file.
    fn check_stranger(&self) -> Result<(), Fault> {
        let seen = self.store.peek().and_then(|conn| load_head(&conn));
        match seen {
            Ok(stored)
                if stored.head == self.tip.head
                    && self.ring.is_sealed(&stored.head, &stored.seal) =>
            {
                Ok(())
            }
            Ok(_) | Err(_) => Err(self.other_journal()),
        }
    }

    fn check_tip(&mut self) -> Result<(), Fault> {
        let Some(conn) = self.conn.take() else {
            return Err(Fault::unwritable("it is not open"));
        };
        let found = self.proven_tip(&conn);
        self.conn = Some(conn);
        self.tip = found?;
        // A commit without an answer may be in the file after all.
        self.holdings = Holdings::default();
        self.unanswered = None;
        Ok(())
    }

    /// The file must end where it was last known to, or where a commit without an answer ended.
    /// If that commit was to put another key in force, the file tells whether it did.
    fn proven_tip(&mut self, conn: &Connection) -> Result<Tip, Fault> {
        let stored = load_head(conn)?;
        let all = self.ring.all();
        let sealed_by = all.iter().find(|seals| seals.is_sealed(&stored.head, &stored.seal));
        let seals = Arc::clone(sealed_by.unwrap_or(&self.seals));
        let found = Tip::load(conn, &seals)?;
        if found == self.tip || Some(found) == self.unanswered {
            self.ring.settle(&seals);
            self.seals = seals;
            return Ok(found);
        }
        Err(self.other_journal())
    }

    fn other_journal(&self) -> Fault {
        Fault::damaged(format!(
            "the file under its name does not end at entry {}, as this broker's journal does: \
             put the right file back, or restart the broker to work with this one",
            self.tip.head.seq
        ))
    }

    /// Proves that there is room to write: more than one write needs, durable, then given back.
    fn write_ballast(&self) -> Result<(), Fault> {
        let Some(conn) = &self.conn else { return Err(Fault::unwritable("it is not open")) };
        conn.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('ballast', randomblob(?1))",
            [BALLAST_BYTES],
        )?;
        conn.execute("DELETE FROM meta WHERE key = 'ballast'", [])?;
        Ok(())
    }
}

/// The lock keeps other brokers away; whoever else writes breaks the chain, and is found here
/// before anything is added to what he wrote.
fn check_alone(conn: &Connection, tip: &Tip) -> Result<(), Fault> {
    let stored = load_head(conn)?.head;
    if stored == tip.head {
        return Ok(());
    }
    let (found, known) = (stored.seq, tip.head.seq);
    let sentence = format!(
        "its head is entry {found} where this broker recorded entry {known}: something else \
         writes to it. Find out what, keep the file as evidence, and restore a backup"
    );
    Err(Fault { error: JournalError::Damaged(sentence), reach: Reach::File })
}

fn gone(error: &std::io::Error) -> Fault {
    Fault::unwritable(format!("its files are gone: {error}"))
}

/// The pages that a batch or two need. Less, and a full disk would make health flap with every
/// freed page; more, and a nearly full disk would count as full.
const BALLAST_BYTES: i64 = 256 << 10;
