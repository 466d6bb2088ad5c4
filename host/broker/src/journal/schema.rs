//! Brings a journal's tables to the newest schema, and says what is no journal. Reads no row.

use rusqlite::Connection;

use super::fault::{Fault, OpenJournalError, Reach};
use super::store::Store;

/// Refuses a file that is no journal, or that a later broker wrote. Changes nothing.
pub(super) fn recognise(conn: &Connection, store: &Store) -> Result<(), OpenJournalError> {
    let path = || store.path().to_owned();
    let refused = |fault: Fault| match fault.reach {
        // SQLite reads the header for the first time here.
        Reach::Content => OpenJournalError::NotAJournal { path: path() },
        Reach::Job | Reach::File => OpenJournalError::Journal { path: path(), error: fault.error },
    };
    let (found, known) = (version(conn).map_err(refused)?, known());
    if !is_journal(conn, found).map_err(refused)? {
        return Err(OpenJournalError::NotAJournal { path: path() });
    }
    if found > known {
        return Err(OpenJournalError::NewerSchema { path: path(), found, known });
    }
    Ok(())
}

/// Applies the migrations that a journal lacks, each in its own transaction.
pub(super) fn migrate(conn: &Connection) -> Result<(), Fault> {
    let found = version(conn)?;
    for (number, sql) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        apply(conn, number, sql)?;
    }
    Ok(())
}

fn version(conn: &Connection) -> Result<i64, Fault> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// A new file is empty; any other bears the mark of the journal.
fn is_journal(conn: &Connection, version: i64) -> Result<bool, Fault> {
    let mark: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if version > 0 {
        return Ok(mark == APPLICATION_ID);
    }
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0 && mark == 0)
}

fn apply(conn: &Connection, number: i64, sql: &str) -> Result<(), Fault> {
    let transaction = conn.unchecked_transaction()?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "user_version", number)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(transaction.commit()?)
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// In order; a released one never changes.
const MIGRATIONS: [&str; 4] = [
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_issuer_keys.sql"),
    include_str!("migrations/0003_secrets.sql"),
    include_str!("migrations/0004_requester_grounds.sql"),
];

/// `clvg`, by which `file` and SQLite tell this database from others.
const APPLICATION_ID: i64 = 0x636c_7667;
