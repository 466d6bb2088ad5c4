//! The journal's files: made, claimed, connected to, and looked after. Knows no table.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::fault::{Fault, OpenJournalError};

/// The files of one journal, claimed for this process until it is dropped.
pub(super) struct Store {
    path: PathBuf,
    /// Holds the lock.
    _claim: File,
}

/// Which files they are, whatever their names: device and inode of database, log and index.
/// SQLite would go on writing into files that were deleted or replaced under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity([(u64, u64); 3]);

impl Identity {
    /// Whether both name the same database file.
    pub(super) fn same_database(&self, other: (u64, u64)) -> bool {
        let [database, _, _] = self.0;
        database == other
    }
}

impl Store {
    /// Makes folder and file where absent, readable by the owner alone, and claims them.
    pub(super) fn claim(path: &Path) -> Result<Self, OpenJournalError> {
        let error = |reason| OpenJournalError::Path { path: path.to_owned(), reason };
        let path = make_folder(path).map_err(error)?;
        let claim = match lock(&path) {
            Ok(claim) => claim,
            Err(TryLockError::WouldBlock) => return Err(OpenJournalError::InUse { path }),
            Err(TryLockError::Error(reason)) => return Err(error(reason)),
        };
        make_file(&path).map_err(error)?;
        Ok(Self { path, _claim: claim })
    }

    /// Where the journal is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection that may write, but has not written yet: the file may be anything. Makes no
    /// file: one that has gone stays gone.
    pub(super) fn connect(&self) -> Result<Connection, Fault> {
        self.connect_as(OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// A connection that may write to a journal.
    pub(super) fn connect_writer(&self) -> Result<Connection, Fault> {
        let conn = self.connect()?;
        let mode: String =
            conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(Fault::unwritable(format!("write-ahead logging is refused: `{mode}`")));
        }
        conn.pragma_update(None, "synchronous", "full")?;
        conn.pragma_update(None, "foreign_keys", true)?;
        // A row's neighbours in the indexes lie anywhere: with SQLite's 2 MiB a busy journal read
        // five pages back for each issue.
        conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        // Checkpoints run on a thread of their own: inside a commit they cost 15 to 40 ms.
        conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        conn.pragma_update_and_check(None, "journal_size_limit", WAL_BYTES_KEPT, |_| Ok(()))?;
        Ok(conn)
    }

    /// A connection that only reads.
    pub(super) fn connect_reader(&self) -> Result<Connection, Fault> {
        let conn = self.connect_as(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(conn)
    }

    /// A view of the database file alone, without its log: for a file that is not known to be
    /// ours. SQLite writes nothing to it and takes no lock on it.
    pub(super) fn peek(&self) -> Result<Connection, Fault> {
        let mut uri = String::from("file:");
        for byte in self.path.as_os_str().as_encoded_bytes() {
            uri.push_str(&format!("%{byte:02x}"));
        }
        uri.push_str("?immutable=1");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Ok(Connection::open_with_flags(uri, flags)?)
    }

    /// Which files bear the journal's names now.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        let of = |suffix| -> io::Result<(u64, u64)> {
            let found = std::fs::metadata(self.sibling(suffix))?;
            Ok::<_, io::Error>((found.dev(), found.ino()))
        };
        Ok(Identity([of("")?, of("-wal")?, of("-shm")?]))
    }

    /// Which database file bears the journal's name now.
    pub(super) fn database(&self) -> io::Result<(u64, u64)> {
        let found = std::fs::metadata(&self.path)?;
        Ok((found.dev(), found.ino()))
    }

    fn connect_as(&self, mode: OpenFlags) -> Result<Connection, Fault> {
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        conn.pragma_update(None, "trusted_schema", false)?;
        // No temporary file ever holds a piece of the journal.
        conn.pragma_update(None, "temp_store", "memory")?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        Ok(conn)
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        sibling(&self.path, suffix)
    }
}

/// The folder's own path without links, so that two names of one journal claim the same lock.
fn make_folder(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(folder.canonicalize()?.join(name))
}

fn lock(path: &Path) -> Result<File, TryLockError> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(sibling(path, ".lock"))
        .map_err(TryLockError::Error)?;
    lock.try_lock()?;
    Ok(lock)
}

/// Made before SQLite opens it, for SQLite gives its log and index the mode of the file. Never
/// opened here when it exists: closing it would drop the locks that SQLite holds on it.
fn make_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A backup tool may hold the file for a moment; longer than this counts as unwritable, because
/// agents give up waiting at about the same time.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the log shrinks to when it starts over: all that it may have (`checkpoint::LOG_PAGES_MAX`).
/// Room that is given back must be found again, and not only on a full disk: a log that grows takes
/// longer to sync.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// 16 MiB, taken as far as they are needed: the places in the indexes of some thousand live sessions.
const WRITER_CACHE_KIB: i64 = 16 * 1024;

/// More than the journal has, so that none is parsed twice.
const STATEMENTS_CACHED: usize = 64;
