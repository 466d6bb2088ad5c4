//! One transaction of the writer: appends entries to the chain and keeps what must be told once
//! it is durable. Commits nothing itself.

use std::sync::Arc;

use claviger_core::ids::SessionId;
use claviger_core::journal::{ChainHead, Entry, EntryHash, Event, JournalSeq};
use claviger_core::name::BackendName;
use claviger_core::policy::SnapshotDigest;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::holdings::Holdings;
use super::news::{JournalNews, LeaseCounts};
use super::rows::{bytes32, integer};
use super::seal::Seals;

/// Where the journal ends and what must be known of it for each write. The writer keeps it in
/// memory; it is what the database would answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) head: ChainHead,
    /// The policies in force, by the last recorded load.
    pub(super) snapshot: Option<SnapshotDigest>,
    pub(super) leases: LeaseCounts,
}

impl Tip {
    /// A journal without entries.
    pub(super) fn empty() -> Self {
        Self { head: ChainHead::EMPTY, snapshot: None, leases: LeaseCounts::default() }
    }

    /// The tip as it is stored; its seal is checked.
    pub(super) fn load(conn: &Connection, seals: &Seals) -> Result<Self, Fault> {
        let head = load_head(conn)?;
        if !seals.is_sealed(&head.head, &head.seal) {
            let seq = head.head.seq;
            return Err(Fault::damaged(format!(
                "the seal of its head (entry {seq}) is broken: it was written by something else \
                 than the broker. Keep the file as evidence and restore a backup"
            )));
        }
        let newest = newest_entry(conn)?;
        if newest != head.head {
            return Err(Fault::damaged(format!(
                "it ends at entry {}, but its sealed head is another entry {}: entries were \
                 removed, added or rewritten. Keep the file as evidence and restore a backup",
                newest.seq, head.head.seq
            )));
        }
        let leases = LeaseCounts::from_json(&head.leases)
            .map_err(|_| Fault::damaged("the lease counts in its head make no sense"))?;
        Ok(Self { head: head.head, snapshot: load_snapshot(conn)?, leases })
    }

    /// Writes head, seal and counts.
    pub(super) fn save(&self, conn: &Connection, seals: &Seals) -> Result<(), Fault> {
        let mut statement = conn.prepare_cached(
            "INSERT INTO head (id, seq, hash, seal, leases) VALUES (1, ?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE
             SET seq = excluded.seq, hash = excluded.hash, seal = excluded.seal,
                 leases = excluded.leases",
        )?;
        statement.execute(params![
            integer(self.head.seq.get()),
            self.head.hash.bytes(),
            seals.seal_head(&self.head),
            self.leases.to_json(),
        ])?;
        Ok(())
    }
}

/// The head row as it is stored, not yet proven.
pub(super) struct StoredHead {
    pub(super) head: ChainHead,
    pub(super) seal: Vec<u8>,
    leases: String,
}

/// Reads the head row.
pub(super) fn load_head(conn: &Connection) -> Result<StoredHead, Fault> {
    let mut statement = conn.prepare_cached("SELECT seq, hash, seal, leases FROM head")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Err(Fault::damaged("it has lost its head row"));
    };
    let head = chain_head(row)?;
    Ok(StoredHead { head, seal: row.get("seal")?, leases: row.get("leases")? })
}

/// The newest entry, whatever the head row says.
pub(super) fn newest_entry(conn: &Connection) -> Result<ChainHead, Fault> {
    let mut statement = conn.prepare_cached(NEWEST_ENTRY)?;
    let mut rows = statement.query([])?;
    rows.next()?.map_or(Ok(ChainHead::EMPTY), chain_head)
}

fn chain_head(row: &rusqlite::Row<'_>) -> Result<ChainHead, Fault> {
    let seq: i64 = row.get("seq")?;
    let seq = u64::try_from(seq).map_err(|_| Fault::damaged("an entry has a negative number"))?;
    let hash = EntryHash::from_bytes(bytes32(row, "hash")?);
    Ok(ChainHead { seq: JournalSeq::durable(seq), hash })
}

fn load_snapshot(conn: &Connection) -> Result<Option<SnapshotDigest>, Fault> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE key = 'snapshot'")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(SnapshotDigest::from_bytes(bytes32(row, "value")?)))
}

/// A transaction under way. What a job does to it is undone when the job fails.
pub(super) struct Ledger<'a> {
    conn: &'a Connection,
    /// The keys in force, and after them those that this transaction puts in force.
    seals: (Arc<Seals>, Option<Arc<Seals>>),
    tip: Tip,
    holdings: &'a mut Holdings,
    news: Vec<JournalNews>,
    alarms: Vec<(BackendName, Timestamp)>,
}

/// What a commit made true, to be told after it.
pub(super) struct Told {
    pub(super) tip: Tip,
    pub(super) news: Vec<JournalNews>,
    pub(super) alarms: Vec<(BackendName, Timestamp)>,
}

/// A point to which a ledger can be taken back.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    tip: Tip,
    holdings: usize,
    news: usize,
    alarms: usize,
    is_rekeyed: bool,
}

impl<'a> Ledger<'a> {
    pub(super) const fn new(
        conn: &'a Connection,
        seals: Arc<Seals>,
        (tip, holdings): (Tip, &'a mut Holdings),
    ) -> Self {
        Self { conn, seals: (seals, None), tip, holdings, news: Vec::new(), alarms: Vec::new() }
    }

    /// The keys in force at this point of the transaction.
    pub(super) fn seals(&self) -> &Arc<Seals> {
        let (before, after) = &self.seals;
        after.as_ref().unwrap_or(before)
    }

    /// From here on `seals` is in force. Once in a transaction: what is taken back goes back to the
    /// keys with which it began.
    pub(super) fn put_under(&mut self, seals: Arc<Seals>) {
        self.seals.1 = Some(seals);
    }

    pub(super) const fn conn(&self) -> &'a Connection {
        self.conn
    }

    pub(super) const fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(super) const fn tip_mut(&mut self) -> &mut Tip {
        &mut self.tip
    }

    /// Who holds how many leases `now`, for who asks.
    pub(super) fn holdings(&mut self, now: Timestamp) -> Result<&Holdings, Fault> {
        self.holdings.ready(self.conn)?;
        self.holdings.forget_expired(now);
        Ok(self.holdings)
    }

    /// The same, for who changes it.
    pub(super) const fn holdings_mut(&mut self) -> &mut Holdings {
        self.holdings
    }

    /// Adds an entry to the chain. A load of policies makes its snapshot the current one.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<JournalSeq, Fault> {
        let json = serde_json::to_string(entry)
            .map_err(|error| Fault::damaged(format!("an entry has no JSON form: {error}")))?;
        let head = self.tip.head.extended(json.as_bytes());
        let mut statement = self.conn.prepare_cached(
            "INSERT INTO entries (seq, prev, hash, json, session, intent, denial, role)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let columns = QueryColumns::of(entry);
        statement.execute(params![
            integer(head.seq.get()),
            self.tip.head.hash.bytes(),
            head.hash.bytes(),
            json,
            columns.session,
            columns.intent,
            columns.denial,
            columns.role,
        ])?;
        self.tip.head = head;
        if entry.event == Event::PoliciesLoaded
            && let Some(snapshot) = entry.snapshot
        {
            self.set_snapshot(snapshot)?;
        }
        Ok(head.seq)
    }

    /// To be told after the commit.
    pub(super) fn tell(&mut self, news: JournalNews) {
        self.news.push(news);
    }

    /// The worker must act on `backend` at `at`.
    pub(super) fn alarm(&mut self, backend: &BackendName, at: Timestamp) {
        self.alarms.push((backend.clone(), at));
    }

    pub(super) const fn mark(&self) -> Mark {
        let (news, alarms) = (self.news.len(), self.alarms.len());
        let (holdings, is_rekeyed) = (self.holdings.mark(), self.seals.1.is_some());
        Mark { tip: self.tip, holdings, news, alarms, is_rekeyed }
    }

    /// The sessions whose end was told since `mark`.
    pub(super) fn sessions_ended_since(&self, mark: Mark) -> Vec<SessionId> {
        let since = self.news.get(mark.news..).unwrap_or_default();
        let ended = |news: &JournalNews| match news {
            JournalNews::SessionEnded { session, .. } => Some(*session),
            JournalNews::LeaseChanged { .. } | JournalNews::DueChanged { .. } => None,
        };
        since.iter().filter_map(ended).collect()
    }

    pub(super) fn take_back(&mut self, mark: Mark) {
        self.tip = mark.tip;
        self.holdings.take_back(mark.holdings);
        self.news.truncate(mark.news);
        self.alarms.truncate(mark.alarms);
        if !mark.is_rekeyed {
            self.seals.1 = None;
        }
    }

    pub(super) fn into_told(self) -> Told {
        Told { tip: self.tip, news: self.news, alarms: self.alarms }
    }

    fn set_snapshot(&mut self, snapshot: SnapshotDigest) -> Result<(), Fault> {
        let mut statement = self
            .conn
            .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('snapshot', ?1)")?;
        statement.execute([snapshot.bytes().as_slice()])?;
        self.tip.snapshot = Some(snapshot);
        Ok(())
    }
}

/// The columns by which entries are found. They repeat what the JSON form says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueryColumns {
    pub(super) session: Option<String>,
    pub(super) intent: Option<String>,
    pub(super) denial: Option<String>,
    pub(super) role: Option<String>,
}

impl QueryColumns {
    /// What they must be for `entry`.
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            session: entry.session.map(|id| id.to_string()),
            // A lease keeps the id of its intent: one column finds the entries of both.
            intent: entry.intent.or(entry.lease).map(|id| id.to_string()),
            denial: entry.denial.map(|id| id.to_string()),
            role: entry.role.as_ref().map(|role| role.as_str().to_owned()),
        }
    }
}

/// A value of the table `meta`.
pub(super) fn meta(conn: &Connection, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

/// The end of the table, by its key.
pub(super) const NEWEST_ENTRY: &str = "SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1";
