//! The secrets that the broker keeps for `store:` references, as the journal holds them: sealed to
//! name and version, each act an entry. Decides on no use of them.

use std::collections::{BTreeMap, BTreeSet};

use claviger_core::journal::{Entry, Event};
use claviger_core::name::SecretName;
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use thiserror::Error;
use zeroize::Zeroizing;

use super::SqliteJournal;
use super::fault::Fault;
use super::ledger::Ledger;
use super::rows::{integer, millis, moment, parsed};

/// Values by name, zeroed when they are dropped.
pub type SecretValues = BTreeMap<SecretName, SecretValue>;

/// What is kept under a name. Has no `Debug`.
#[derive(Clone)]
pub struct SecretValue {
    /// What references read.
    pub current: Zeroizing<String>,
    /// What is taking its place, not yet proven.
    pub pending: Option<Zeroizing<String>>,
}

/// What may be known of a secret that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// Its name.
    pub name: SecretName,
    /// Counts up with each put.
    pub version: u64,
    /// When this version was put.
    pub put_at: Timestamp,
    /// By whom.
    pub put_by: String,
}

/// Who does something to a secret, and when.
#[derive(Clone, Debug)]
pub struct SecretAct {
    /// A principal's id, such as `unix:1000`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Why a secret was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PutSecretError {
    /// Nothing to keep.
    #[error("the value is empty")]
    Empty,
    /// More than a secret has.
    #[error("the value has more than {SECRET_BYTES_MAX} bytes: that is no secret but a file")]
    TooLong,
    /// No room.
    #[error("{SECRETS_MAX} secrets are kept already: delete one with `claviger secret delete`")]
    TooMany,
}

impl SqliteJournal {
    /// The values of those of `names` that are kept.
    pub async fn secrets(&self, names: BTreeSet<SecretName>) -> Result<SecretValues, JournalError> {
        if names.is_empty() {
            return Ok(SecretValues::new());
        }
        // By the writer, which alone knows for sure which key they are sealed under.
        self.queue
            .submit(move |ledger| {
                let mut values = SecretValues::new();
                for name in names {
                    if let Some(value) = value(ledger, &name)? {
                        values.insert(name, value);
                    }
                }
                Ok(values)
            })
            .await
    }

    /// What is kept, by name; no value.
    pub async fn secret_rows(&self) -> Result<Vec<SecretRow>, JournalError> {
        self.readers.read(rows).await
    }

    /// Keeps `value` under `name`, in the place of what was there. Answers its version.
    pub async fn put_secret(
        &self,
        name: SecretName,
        value: Zeroizing<String>,
        act: SecretAct,
    ) -> Result<Result<u64, PutSecretError>, JournalError> {
        if value.is_empty() {
            return Ok(Err(PutSecretError::Empty));
        }
        if value.len() > SECRET_BYTES_MAX {
            return Ok(Err(PutSecretError::TooLong));
        }
        self.queue.submit(move |ledger| put(ledger, &name, &value, &act)).await
    }

    /// Forgets the secret of this name. Answers the version that it had, if there was one.
    pub async fn delete_secret(
        &self,
        name: SecretName,
        act: SecretAct,
    ) -> Result<Option<u64>, JournalError> {
        self.queue.submit(move |ledger| delete(ledger, &name, &act)).await
    }
}

fn put(
    ledger: &mut Ledger<'_>,
    name: &SecretName,
    value: &str,
    act: &SecretAct,
) -> Result<Result<u64, PutSecretError>, Fault> {
    let conn = ledger.conn();
    if current(conn, name)?.is_none() && count(conn)? >= SECRETS_MAX {
        return Ok(Err(PutSecretError::TooMany));
    }
    let version = newest_version(conn, name)?.unwrap_or(0).saturating_add(1);
    let sealed = ledger.seals().seal_secret((name, version), value)?;
    // What is taking its place stays: the backend may accept that already. And the id of a key that
    // is still to be deleted there.
    conn.prepare_cached("DELETE FROM secrets WHERE name = ?1 AND state IN ('current', 'gone')")?
        .execute([name.as_str()])?;
    conn.prepare_cached(INSERT)?.execute((
        name.as_str(),
        integer(version),
        "current",
        Some(sealed),
        millis(act.at),
        &act.by,
    ))?;
    ledger.append(&entry(Event::SecretPut, (name, version), act))?;
    Ok(Ok(version))
}

fn delete(
    ledger: &mut Ledger<'_>,
    name: &SecretName,
    act: &SecretAct,
) -> Result<Option<u64>, Fault> {
    let conn = ledger.conn();
    let Some((version, _)) = current(conn, name)? else { return Ok(None) };
    // What is taking its place goes too, and its number stays taken. So does the id of a key that
    // is to be deleted at its backend: with the secret goes what could do it.
    let newest = newest_version(conn, name)?.unwrap_or(version);
    forget(conn, name)?;
    conn.prepare_cached(INSERT)?.execute((
        name.as_str(),
        integer(newest),
        "gone",
        None::<Vec<u8>>,
        millis(act.at),
        &act.by,
    ))?;
    ledger.append(&entry(Event::SecretDeleted, (name, version), act))?;
    Ok(Some(version))
}

fn entry(event: Event, (name, version): (&SecretName, u64), act: &SecretAct) -> Entry {
    let mut entry = Entry::new(act.at, event);
    entry.principal = Some(act.by.clone());
    entry.detail = Some(format!("secret `store:{name}`, version {version}"));
    entry
}

fn value(ledger: &Ledger<'_>, name: &SecretName) -> Result<Option<SecretValue>, Fault> {
    let open =
        |(version, sealed): (u64, Vec<u8>)| ledger.seals().open_secret((name, version), &sealed);
    let Some(found) = current(ledger.conn(), name)? else { return Ok(None) };
    let pending = sealed(ledger.conn(), name, "pending")?;
    Ok(Some(SecretValue { current: open(found)?, pending: pending.map(open).transpose()? }))
}

pub(super) fn current(
    conn: &Connection,
    name: &SecretName,
) -> Result<Option<(u64, Vec<u8>)>, Fault> {
    sealed(conn, name, "current")
}

fn sealed(
    conn: &Connection,
    name: &SecretName,
    state: &str,
) -> Result<Option<(u64, Vec<u8>)>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT version, sealed FROM secrets WHERE name = ?1 AND state = ?2")?;
    let found = statement.query_row([name.as_str(), state], |row| {
        Ok((row.get::<_, i64>("version")?, row.get::<_, Vec<u8>>("sealed")?))
    });
    let found = found.optional()?;
    found.map(|(version, sealed)| Ok((numbered(version)?, sealed))).transpose()
}

fn rows(conn: &Connection) -> Result<Vec<SecretRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT name, version, put_at, put_by FROM secrets WHERE state = 'current' ORDER BY name",
    )?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(SecretRow {
            name: parsed(row, "name")?,
            version: numbered(row.get("version")?)?,
            put_at: moment(row, "put_at")?,
            put_by: row.get("put_by")?,
        });
    }
    Ok(rows)
}

fn count(conn: &Connection) -> Result<i64, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT count(*) FROM secrets WHERE state = 'current'")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

pub(super) fn newest_version(conn: &Connection, name: &SecretName) -> Result<Option<u64>, Fault> {
    let mut statement = conn.prepare_cached("SELECT max(version) FROM secrets WHERE name = ?1")?;
    let newest: Option<i64> = statement.query_row([name.as_str()], |row| row.get(0))?;
    newest.map(numbered).transpose()
}

fn forget(conn: &Connection, name: &SecretName) -> Result<(), Fault> {
    conn.prepare_cached("DELETE FROM secrets WHERE name = ?1")?.execute([name.as_str()])?;
    Ok(())
}

pub(super) fn numbered(version: i64) -> Result<u64, Fault> {
    u64::try_from(version).map_err(|_| Fault::damaged("a secret has a negative version"))
}

pub(super) const INSERT: &str = "INSERT INTO secrets (name, version, state, sealed, put_at, put_by)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// A certificate's key or a service account's file fits, and so does a request on the admin
/// listener, which takes 64 KiB; the longest secrets in use have a quarter of it.
pub const SECRET_BYTES_MAX: usize = 16 * 1024;

/// A few for each of a hundred backends. All of them together are 8 MiB, which a reload may hold
/// in memory.
const SECRETS_MAX: i64 = 512;
