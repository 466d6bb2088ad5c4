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
const MIGRATIONS: [&str; 8] = [
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_issuer_keys.sql"),
    include_str!("migrations/0003_secrets.sql"),
    include_str!("migrations/0004_requester_grounds.sql"),
    include_str!("migrations/0005_token_binding.sql"),
    include_str!("migrations/0006_child_sessions.sql"),
    include_str!("migrations/0007_rotation.sql"),
    include_str!("migrations/0008_key_rotation.sql"),
];

/// `clvg`, by which `file` and SQLite tell this database from others.
const APPLICATION_ID: i64 = 0x636c_7667;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use claviger_core::binding::{Binding, Thumbprint};

    use super::*;

    /// A journal from before tokens were bound: its sessions go on, each bound to what proved its
    /// principal.
    #[test]
    fn sessions_from_before_bindings_are_bound_to_their_principal() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("migrations/0001_initial.sql")).unwrap();
        let thumbprint = Thumbprint::of_der(b"a certificate");
        let unix = r#"{"id":"unix:7","claims":{"gid":"8","method":"unix","uid":"7"}}"#.to_owned();
        let certified =
            format!(r#"{{"id":"dns:a","claims":{{"method":"mtls","thumbprint":"{thumbprint}"}}}}"#);
        for (id, principal) in [("1", &unix), ("2", &certified)] {
            conn.execute(
                "INSERT INTO sessions (id, token_hash, role, prompt_digest, authorizations,
                     principal, requester, opened_at, ends_at)
                 VALUES (?1, CAST(?1 AS BLOB), '', '', '', ?2, '', 0, 0)",
                [id, principal],
            )
            .unwrap();
        }
        conn.execute_batch(include_str!("migrations/0005_token_binding.sql")).unwrap();
        let bound = |id: &str| -> Binding {
            let sql = "SELECT binding FROM sessions WHERE id = ?1";
            let text: String = conn.query_row(sql, [id], |row| row.get(0)).unwrap();
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(bound("1"), Binding::Unix { uid: 7 });
        let name = "dns:a".to_owned();
        assert_eq!(bound("2"), Binding::Certificate { name, current: thumbprint, next: None });
    }

    /// A journal from before root credentials were replaced keeps its secrets, and what was sealed
    /// stays byte for byte.
    #[test]
    fn secrets_from_before_rotation_are_kept() {
        let conn = Connection::open_in_memory().unwrap();
        for (number, sql) in (1..).zip(MIGRATIONS).take(6) {
            apply(&conn, number, sql).unwrap();
        }
        conn.execute_batch(
            "INSERT INTO secrets VALUES ('a', 2, 'current', x'0102', 5, 'unix:7');
             INSERT INTO secrets VALUES ('b', 1, 'gone', NULL, 6, 'unix:8');",
        )
        .unwrap();
        migrate(&conn).unwrap();
        let kept: String = conn
            .query_row(
                "SELECT group_concat(name || version || state || hex(ifnull(sealed, ''))
                     || put_at || put_by, ' ')
                 FROM (SELECT * FROM secrets ORDER BY name)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(kept, "a2current01025unix:7 b1gone6unix:8");
        for coming in ["'pending', x'03'", "'making', NULL", "'retiring', x'03'"] {
            let insert = format!("INSERT OR REPLACE INTO secrets VALUES ('a', 3, {coming}, 7, '')");
            assert_eq!(conn.execute(&insert, []).unwrap(), 1);
        }
    }
}
