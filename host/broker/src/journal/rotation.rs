//! Root credentials that are being replaced, as the journal holds them: the new one beside the one in
//! force, from before a backend knows of it until it is settled which of the two counts. The secrets
//! of one credential begin and settle in one transaction. Asks no backend.

use claviger_core::journal::{Entry, Event};
use claviger_core::name::SecretName;
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use zeroize::Zeroizing;

use super::SqliteJournal;
use super::fault::Fault;
use super::ledger::Ledger;
use super::rows::{integer, millis, moment, parsed};
use super::secrets::{INSERT, SecretAct, current, newest_version, numbered};
use crate::egress::redact::SharedSecret;

/// The secrets that make up one root credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSecrets {
    /// A password, which the host makes. What was replaced is forgotten.
    Password(SecretName),
    /// A key with an id, which the backend makes. What was replaced is deleted there, by its id.
    Key {
        /// Under which name the id is kept.
        id: SecretName,
        /// Under which name the key is kept.
        key: SecretName,
    },
}

impl RootSecrets {
    /// All of them.
    pub fn names(&self) -> Vec<&SecretName> {
        match self {
            Self::Password(name) => vec![name],
            Self::Key { id, key } => vec![id, key],
        }
    }

    /// The one that stands for all.
    pub const fn main(&self) -> &SecretName {
        match self {
            Self::Password(name) | Self::Key { key: name, .. } => name,
        }
    }

    fn is_id(&self, name: &SecretName) -> bool {
        matches!(self, Self::Key { id, .. } if id == name)
    }
}

/// What was found out about a new credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The backend accepts it: it takes the place of the current one.
    Accepted,
    /// The backend accepts the current one: it is dropped.
    Dropped,
}

/// A secret whose place another one is to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Its name.
    pub name: SecretName,
    /// Since when.
    pub since: Timestamp,
    /// How far it has come.
    pub stage: Stage,
}

/// How far a rotation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The backend is to make the new credential, and may have.
    Making,
    /// The new credential is kept.
    Pending,
}

/// A key that is still to be deleted at its backend.
#[derive(Clone)]
pub struct RetiringKey {
    /// Under which name its id is kept.
    pub name: SecretName,
    /// The version of the id.
    pub version: u64,
    /// The id.
    pub id: Zeroizing<String>,
}

impl SqliteJournal {
    /// Keeps `new`, a value for each of the secrets of `root`, as what is taking their places; without
    /// values, that the backend is to make them. Answers the version of the main one; `None` if one
    /// of the secrets is not kept, or another one is taking its place already.
    pub async fn begin_rotation(
        &self,
        root: RootSecrets,
        new: Vec<SharedSecret>,
        act: SecretAct,
    ) -> Result<Option<u64>, JournalError> {
        self.queue.submit(move |ledger| begin(ledger, &root, &new, &act)).await
    }

    /// Keeps what the backend has made, `at` this time, for a rotation that began without values.
    /// False if it has ended meanwhile.
    pub async fn keep_made(
        &self,
        root: RootSecrets,
        made: Vec<SharedSecret>,
        at: Timestamp,
    ) -> Result<bool, JournalError> {
        self.queue.submit(move |ledger| keep_made(ledger, &root, &made, at)).await
    }

    /// Ends what [`SqliteJournal::begin_rotation`] began, and says why. Answers how it ended and the
    /// main version that is current now; `None` if nothing was begun, or what it was begun on is
    /// deleted. A key that an operator put meanwhile stays, whatever the backend accepts.
    pub async fn end_rotation(
        &self,
        root: RootSecrets,
        (settlement, why): (Settlement, String),
        act: SecretAct,
    ) -> Result<Option<(Settlement, u64)>, JournalError> {
        self.queue.submit(move |ledger| settle(ledger, &root, (settlement, &why), &act)).await
    }

    /// The secrets whose places others are to take.
    pub async fn unsettled_secrets(&self) -> Result<Vec<Unsettled>, JournalError> {
        self.readers.read(unsettled_rows).await
    }

    /// The keys that are still to be deleted at their backends.
    pub async fn retiring_keys(&self) -> Result<Vec<RetiringKey>, JournalError> {
        if !self.readers.read(has_retiring).await? {
            return Ok(Vec::new());
        }
        // By the writer, which alone knows for sure which key they are sealed under.
        self.queue.submit(|ledger| retiring(ledger)).await
    }

    /// The key is deleted at its backend, or must not be; `what` says it.
    pub async fn end_retirement(
        &self,
        key: RetiringKey,
        what: String,
        act: SecretAct,
    ) -> Result<(), JournalError> {
        self.queue.submit(move |ledger| retired(ledger, &key, &what, &act)).await
    }
}

fn begin(
    ledger: &mut Ledger<'_>,
    root: &RootSecrets,
    new: &[SharedSecret],
    act: &SecretAct,
) -> Result<Option<u64>, Fault> {
    let conn = ledger.conn();
    for name in root.names() {
        if current(conn, name)?.is_none() || coming(conn, name)?.is_some() {
            return Ok(None);
        }
    }
    let mut begun = Vec::new();
    for (place, name) in root.names().into_iter().enumerate() {
        let version = newest_version(conn, name)?.unwrap_or(0).saturating_add(1);
        let seal = |value: &SharedSecret| ledger.seals().seal_secret((name, version), value);
        let sealed = new.get(place).map(seal).transpose()?;
        let state = if sealed.is_some() { "pending" } else { "making" };
        conn.prepare_cached(INSERT)?.execute((
            name.as_str(),
            integer(version),
            state,
            sealed,
            millis(act.at),
            &act.by,
        ))?;
        begun.push((name, version));
    }
    ledger.append(&entry(Event::RotationStarted, &begun, act))?;
    Ok(begun.last().map(|(_, version)| *version))
}

fn keep_made(
    ledger: &mut Ledger<'_>,
    root: &RootSecrets,
    made: &[SharedSecret],
    at: Timestamp,
) -> Result<bool, Fault> {
    let conn = ledger.conn();
    let mut sealed = Vec::new();
    for (name, value) in root.names().into_iter().zip(made) {
        let Some((version, Stage::Making)) = coming(conn, name)? else { return Ok(false) };
        let bytes = ledger.seals().seal_secret((name, version), value)?;
        sealed.push((name, version, bytes));
    }
    for (name, version, bytes) in sealed {
        conn.prepare_cached(
            "UPDATE secrets SET state = 'pending', sealed = ?3, put_at = ?4
             WHERE name = ?1 AND version = ?2",
        )?
        .execute((name.as_str(), integer(version), bytes, millis(at)))?;
    }
    Ok(true)
}

fn settle(
    ledger: &mut Ledger<'_>,
    root: &RootSecrets,
    (settlement, why): (Settlement, &str),
    act: &SecretAct,
) -> Result<Option<(Settlement, u64)>, Fault> {
    let conn = ledger.conn();
    let (mut after, mut before, mut put_meanwhile) = (Vec::new(), Vec::new(), false);
    for name in root.names() {
        let (new, old) = (coming(conn, name)?, current(conn, name)?);
        if let (Some((new, _)), Some((old, _))) = (&new, &old) {
            put_meanwhile |= old > new;
        }
        after.extend(new.map(|(version, _)| (name, version)));
        before.extend(old.map(|(version, _)| (name, version)));
    }
    if after.is_empty() {
        return Ok(None);
    }
    let is_whole = after.len() == before.len() && after.len() == root.names().len();
    let (settlement, why) = match root {
        _ if !is_whole => (Settlement::Dropped, "a secret of it was deleted meanwhile"),
        RootSecrets::Key { .. } if put_meanwhile => {
            (Settlement::Dropped, "another one was put meanwhile")
        }
        RootSecrets::Key { .. } | RootSecrets::Password(_) => (settlement, why),
    };
    let (event, goes, stays) = match settlement {
        Settlement::Accepted => (Event::RotationDone, &before, &after),
        Settlement::Dropped => (Event::RotationFailed, &after, &before),
    };
    for &(name, version) in goes {
        leave(conn, root, (name, version))?;
    }
    for &(name, version) in stays {
        conn.prepare_cached(
            "UPDATE secrets SET state = 'current' WHERE name = ?1 AND version = ?2",
        )?
        .execute((name.as_str(), integer(version)))?;
        forget_gone(conn, name)?;
    }
    let ended = stays.last().filter(|_| is_whole).map(|(_, version)| (settlement, *version));
    let mut entry = entry(event, &after, act);
    entry.detail = entry.detail.map(|detail| format!("{detail}: {why}"));
    ledger.append(&entry)?;
    Ok(ended)
}

/// What is no longer in force, or never came to be, is forgotten; of a key that may exist at the
/// backend the id stays until it is deleted there.
fn leave(
    conn: &Connection,
    root: &RootSecrets,
    (name, version): (&SecretName, u64),
) -> Result<(), Fault> {
    let statement = if root.is_id(name) {
        "UPDATE secrets SET state = CASE WHEN sealed IS NULL THEN 'gone' ELSE 'retiring' END
         WHERE name = ?1 AND version = ?2"
    } else {
        "UPDATE secrets SET state = 'gone', sealed = NULL WHERE name = ?1 AND version = ?2"
    };
    conn.prepare_cached(statement)?.execute((name.as_str(), integer(version)))?;
    Ok(())
}

fn retired(
    ledger: &mut Ledger<'_>,
    key: &RetiringKey,
    what: &str,
    act: &SecretAct,
) -> Result<(), Fault> {
    let conn = ledger.conn();
    let changed = conn
        .prepare_cached(
            "UPDATE secrets SET state = 'gone', sealed = NULL
             WHERE name = ?1 AND version = ?2 AND state = 'retiring'",
        )?
        .execute((key.name.as_str(), integer(key.version)))?;
    if changed == 0 {
        return Ok(());
    }
    forget_gone(conn, &key.name)?;
    let mut entry = entry(Event::RotationRetired, &[(&key.name, key.version)], act);
    entry.detail = entry.detail.map(|detail| format!("{detail}: {what}"));
    ledger.append(&entry)?;
    Ok(())
}

/// The newest number stays taken.
fn forget_gone(conn: &Connection, name: &SecretName) -> Result<(), Fault> {
    conn.prepare_cached(
        "DELETE FROM secrets WHERE name = ?1 AND state = 'gone'
         AND version < (SELECT max(version) FROM secrets WHERE name = ?1)",
    )?
    .execute([name.as_str()])?;
    Ok(())
}

fn entry(event: Event, secrets: &[(&SecretName, u64)], act: &SecretAct) -> Entry {
    let mut entry = Entry::new(act.at, event);
    entry.principal = Some(act.by.clone());
    let secrets =
        secrets.iter().map(|(name, version)| format!("secret `store:{name}`, version {version}"));
    entry.detail = Some(secrets.collect::<Vec<_>>().join("; "));
    entry
}

/// What is to take the place of the current secret of this name.
fn coming(conn: &Connection, name: &SecretName) -> Result<Option<(u64, Stage)>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT version, state FROM secrets WHERE name = ?1 AND state IN ('making', 'pending')",
    )?;
    let found = statement.query_row([name.as_str()], |row| {
        Ok((row.get::<_, i64>("version")?, row.get::<_, String>("state")?))
    });
    let found = found.optional()?;
    found.map(|(version, state)| Ok((numbered(version)?, stage(&state)))).transpose()
}

fn unsettled_rows(conn: &Connection) -> Result<Vec<Unsettled>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT name, put_at, state FROM secrets WHERE state IN ('making', 'pending')
         ORDER BY name",
    )?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let state: String = row.get("state")?;
        let (name, since) = (parsed(row, "name")?, moment(row, "put_at")?);
        rows.push(Unsettled { name, since, stage: stage(&state) });
    }
    Ok(rows)
}

fn stage(state: &str) -> Stage {
    if state == "making" { Stage::Making } else { Stage::Pending }
}

fn has_retiring(conn: &Connection) -> Result<bool, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM secrets WHERE state = 'retiring')")?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

fn retiring(ledger: &Ledger<'_>) -> Result<Vec<RetiringKey>, Fault> {
    let mut statement = ledger.conn().prepare_cached(
        "SELECT name, version, sealed FROM secrets WHERE state = 'retiring'
         ORDER BY name, version",
    )?;
    let mut found = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = found.next()? {
        let name: SecretName = parsed(row, "name")?;
        let version = numbered(row.get("version")?)?;
        let sealed: Vec<u8> = row.get("sealed")?;
        let id = ledger.seals().open_secret((&name, version), &sealed)?;
        keys.push(RetiringKey { name, version, id });
    }
    Ok(keys)
}
