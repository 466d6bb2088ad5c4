//! Another sealing key: everything that is sealed is opened under the old key and sealed under the
//! new one, in one transaction, so that a crash leaves a journal under the one or the other. Decides
//! on no key.

use std::sync::Arc;

use claviger_core::ids::IntentId;
use claviger_core::journal::{Entry, Event};
use claviger_core::name::SecretName;
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use rusqlite::{Connection, Row};
use thiserror::Error;

use super::SqliteJournal;
use super::fault::Fault;
use super::holdings::Holdings;
use super::ledger::{Ledger, Tip, meta};
use super::rows::parsed;
use super::seal::{SealError, SealingKey, Seals};

/// The keys that an operator names.
pub struct SealingKeys {
    /// The one that the journal is to be under.
    pub current: SealingKey,
    /// Those that it may still be under.
    pub previous: Vec<SealingKey>,
}

/// Who has the journal put under another key, and when.
pub struct RekeyAct {
    /// A principal's id, such as `unix:1000`; none for the broker's own start.
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What was sealed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Handles of leases that have not ended.
    pub handles: u64,
    /// Keys of the broker as an issuer of tokens.
    pub issuer_keys: u64,
    /// Secrets in the broker's keeping.
    pub secrets: u64,
}

/// Why a journal was not put under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RekeyError {
    /// The key is the one in force.
    #[error("the journal is under this key already")]
    Same,
    /// A crash before the end would leave a broker that cannot open its journal.
    #[error(
        "the key in force is not among `previous_sealing_keys`: a crash in between would leave a \
         journal that this configuration does not open"
    )]
    PreviousMissing,
}

impl SqliteJournal {
    /// Puts the journal under `keys.current`. The key in force must be among `keys.previous`, so
    /// that the same configuration opens the journal whenever the broker crashes.
    pub async fn rekey(
        &self,
        keys: SealingKeys,
        act: RekeyAct,
    ) -> Result<Result<Resealed, RekeyError>, JournalError> {
        self.queue.submit(move |ledger| rekey(ledger, &keys, &act)).await
    }
}

/// The keys under which the journal at `conn` lies, if they come from one of `keys`.
pub(super) fn in_force(conn: &Connection, keys: &[&SealingKey]) -> Result<Option<Seals>, Fault> {
    let (Some(id), Some(probe)) = (meta(conn, "journal-id")?, meta(conn, "key-probe")?) else {
        return Err(Fault::damaged("it has lost its id or the probe of its key"));
    };
    for key in keys {
        let seals = Seals::derive(key, &id)?;
        if seals.opens_probe(&probe) {
            return Ok(Some(seals));
        }
    }
    Ok(None)
}

/// At the start, before anything else writes: from `old`, which is in force, to `key`.
pub(super) fn at_start(
    conn: &Connection,
    old: Seals,
    key: &SealingKey,
    act: &RekeyAct,
) -> Result<Arc<Seals>, Fault> {
    let old = Arc::new(old);
    let tip = Tip::load(conn, &old)?;
    let new = Arc::new(derived(conn, key)?);
    let transaction = conn.unchecked_transaction()?;
    let mut holdings = Holdings::default();
    let mut ledger = Ledger::new(&transaction, old, (tip, &mut holdings));
    reseal(&mut ledger, &new, act)?;
    ledger.tip().save(&transaction, &new)?;
    transaction.commit()?;
    Ok(new)
}

fn rekey(
    ledger: &mut Ledger<'_>,
    keys: &SealingKeys,
    act: &RekeyAct,
) -> Result<Result<Resealed, RekeyError>, Fault> {
    let conn = ledger.conn();
    // Also where two operators ask at the same time, and both land in one transaction.
    if in_force(conn, &[&keys.current])?.is_some() {
        return Ok(Err(RekeyError::Same));
    }
    let previous: Vec<&SealingKey> = keys.previous.iter().collect();
    if in_force(conn, &previous)?.is_none() {
        return Ok(Err(RekeyError::PreviousMissing));
    }
    let new = Arc::new(derived(conn, &keys.current)?);
    reseal(ledger, &new, act).map(Ok)
}

fn derived(conn: &Connection, key: &SealingKey) -> Result<Seals, Fault> {
    let id = meta(conn, "journal-id")?;
    let id = id.ok_or_else(|| Fault::damaged("it has lost its id"))?;
    Ok(Seals::derive(key, &id)?)
}

/// INVARIANT (one-key): whatever is sealed lies under the key that the probe tells. All of it moves
/// in the transaction that moves the probe; what is sealed in another place belongs here too.
fn reseal(ledger: &mut Ledger<'_>, new: &Arc<Seals>, act: &RekeyAct) -> Result<Resealed, Fault> {
    let (conn, old) = (ledger.conn(), Arc::clone(ledger.seals()));
    let resealed = Resealed {
        handles: handles(conn, &old, new)?,
        issuer_keys: issuer_keys(conn, &old, new)?,
        secrets: secrets(conn, &old, new)?,
    };
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'key-probe'")?
        .execute([new.seal_probe()?])?;
    let mut entry = Entry::new(act.at, Event::JournalRekeyed);
    entry.principal.clone_from(&act.by);
    let Resealed { handles, issuer_keys, secrets } = resealed;
    entry.detail = Some(format!(
        "another sealing key: {handles} handles, {issuer_keys} keys of the issuer and {secrets} \
         secrets are sealed anew"
    ));
    ledger.append(&entry)?;
    ledger.put_under(Arc::clone(new));
    Ok(resealed)
}

/// Of leases that have ended nobody needs the handle: it goes with the old key.
fn handles(conn: &Connection, old: &Seals, new: &Seals) -> Result<u64, Fault> {
    conn.execute(
        "UPDATE leases SET handle = NULL
         WHERE handle IS NOT NULL AND state IN ('revoked', 'expired')",
        [],
    )?;
    let select = "SELECT id, handle AS sealed FROM leases
         WHERE handle IS NOT NULL AND state NOT IN ('revoked', 'expired')";
    let anew = |row: &Row<'_>, sealed: &[u8]| {
        let id: IntentId = parsed(row, "id")?;
        match old.open_handle(id, sealed) {
            Ok(handle) => Ok(Some((id.to_string(), new.seal_handle(id, &handle)?))),
            Err(SealError::Opened) => {
                // It was damaged before. Its lease is revoked by its id, as it would have been.
                tracing::error!(lease.id = %id, "its handle does not open and stays as it is");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    };
    replace(conn, (select, "UPDATE leases SET handle = ?2 WHERE id = ?1"), anew)
}

fn issuer_keys(conn: &Connection, old: &Seals, new: &Seals) -> Result<u64, Fault> {
    let anew = |row: &Row<'_>, sealed: &[u8]| {
        let kid: String = row.get("kid")?;
        let plain = old.open_issuer_key(&kid, sealed)?;
        let sealed = new.seal_issuer_key(&kid, &plain)?;
        Ok(Some((kid, sealed)))
    };
    let statements = (
        "SELECT kid, sealed FROM issuer_keys",
        "UPDATE issuer_keys SET sealed = ?2 WHERE kid = ?1",
    );
    replace(conn, statements, anew)
}

/// Of one name several versions may have a value: the one in force, the one that is taking its place,
/// and the id of a key that is still to be deleted at its backend.
fn secrets(conn: &Connection, old: &Seals, new: &Seals) -> Result<u64, Fault> {
    let anew = |row: &Row<'_>, sealed: &[u8]| {
        let name: SecretName = parsed(row, "name")?;
        let version: i64 = row.get("version")?;
        let version = u64::try_from(version).unwrap_or(0);
        let plain = old.open_secret((&name, version), sealed)?;
        let sealed = new.seal_secret((&name, version), &plain)?;
        Ok(Some((format!("{name}@{version}"), sealed)))
    };
    let statements = (
        "SELECT name, version, sealed FROM secrets WHERE sealed IS NOT NULL",
        "UPDATE secrets SET sealed = ?2 WHERE name || '@' || version = ?1",
    );
    replace(conn, statements, anew)
}

/// Reads what `select` finds and writes it back as `anew` makes it: a handle takes 100 bytes or so.
/// Rows for which there is nothing new are left.
fn replace(
    conn: &Connection,
    (select, update): (&str, &str),
    anew: impl Fn(&Row<'_>, &[u8]) -> Result<Option<(String, Vec<u8>)>, Fault>,
) -> Result<u64, Fault> {
    let mut found = Vec::new();
    let mut statement = conn.prepare(select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let sealed: Vec<u8> = row.get("sealed")?;
        found.extend(anew(row, &sealed)?);
    }
    drop(rows);
    let mut update = conn.prepare(update)?;
    let mut count: u64 = 0;
    for (key, sealed) in &found {
        update.execute((key, sealed))?;
        count = count.saturating_add(1);
    }
    Ok(count)
}
