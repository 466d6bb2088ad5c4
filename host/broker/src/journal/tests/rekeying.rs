//! Another sealing key: all that is sealed moves, or nothing does, and the old key opens nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use claviger_core::fixture;
use claviger_core::flow;
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::RevokeOutcome;
use claviger_core::ports::{Journal, JournalError};
use claviger_core::session::EndCause;
use claviger_core::time::Timestamp;
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use super::world::{HANDLE, World, open, options, stranger};
use crate::journal::{
    EntryQuery, IssuerKey, JournalOptions, KeyChange, OpenJournalError, RekeyAct, RekeyError,
    Resealed, SealingKey, SealingKeys, SecretAct, SqliteJournal,
};

fn key(byte: u8) -> SealingKey {
    SealingKey::take(&mut [byte; 32])
}

/// The key of the tests is 7.
fn keys(current: u8, previous: &[u8]) -> SealingKeys {
    SealingKeys {
        current: key(current),
        previous: previous.iter().map(|byte| key(*byte)).collect(),
    }
}

fn act() -> RekeyAct {
    RekeyAct { by: Some("unix:1000".to_owned()), at: fixture::now() }
}

fn open_under(
    path: &Path,
    current: u8,
    previous: &[u8],
) -> Result<SqliteJournal, OpenJournalError> {
    let keys = keys(current, previous);
    let options = JournalOptions { sealing_key: keys.current, ..options(path) };
    let opened = SqliteJournal::open_rekeyed(options, (&keys.previous, fixture::now()));
    opened.map(|opened| opened.journal)
}

async fn put(journal: &SqliteJournal, name: &str) {
    let act = SecretAct { by: "unix:1000".to_owned(), at: fixture::now() };
    let value = Zeroizing::new(format!("value of {name}"));
    journal.put_secret(name.parse().unwrap(), value, act).await.unwrap().unwrap();
}

async fn make_issuer_key(journal: &SqliteJournal) {
    let made = Some(IssuerKey {
        kid: "k".to_owned(),
        jwk: "{}".to_owned(),
        pkcs8: Some(Zeroizing::new(vec![1, 2, 3])),
        made_at: Timestamp::from_unix_millis(1),
        signs_from: Timestamp::from_unix_millis(2),
    });
    let change = KeyChange { made, ..KeyChange::default() };
    journal.change_issuer_keys(change, fixture::now()).await.unwrap();
}

/// Everything that a key seals: the handle of a live lease and of one that ended, a key of the
/// issuer, secrets, one of them deleted.
async fn furnished() -> Arc<World> {
    let world = World::new().await;
    let (live, over) = (world.session().await, world.session().await);
    world.issue(&live).await.unwrap();
    world.issue(&over).await.unwrap();
    flow::session::end(&*world, over.id(), EndCause::Closed).await.unwrap();
    for lease in world.take_due().await {
        let gone = RevokeOutcome::Gone;
        world.journal.record_revocation(&lease, &gone, fixture::now()).await.unwrap();
    }
    make_issuer_key(&world.journal).await;
    for name in ["a", "a", "b/c", "gone"] {
        put(&world.journal, name).await;
    }
    let act = SecretAct { by: "unix:1000".to_owned(), at: fixture::now() };
    world.journal.delete_secret("gone".parse().unwrap(), act).await.unwrap();
    world
}

/// Whether all of [`furnished`] opens.
async fn check_opens(journal: &SqliteJournal) {
    let names = ["a", "b/c", "gone"].map(|name| name.parse().unwrap());
    let values = journal.secrets(BTreeSet::from(names)).await.unwrap();
    let values: Vec<_> = values.values().map(|value| value.current.as_str()).collect();
    assert_eq!(values, ["value of a", "value of b/c"]);
    let issuer_keys = journal.issuer_keys().await.unwrap();
    assert_eq!(issuer_keys[0].pkcs8.as_ref().unwrap().as_slice(), [1, 2, 3]);
    assert!(journal.head().await.unwrap().seal_intact);
    let head = journal.verify().await.unwrap();
    assert_eq!(head, journal.head().await.unwrap().head);
}

const ALL: Resealed = Resealed { handles: 1, issuer_keys: 1, secrets: 2 };

#[tokio::test]
async fn everything_moves_under_the_new_key_while_the_journal_serves() {
    let world = furnished().await;
    let kept = world.journal.head().await.unwrap().head;
    assert_eq!(world.journal.rekey(keys(8, &[9, 7]), act()).await, Ok(Ok(ALL)));
    check_opens(&world.journal).await;
    put(&world.journal, "after").await;
    let live = world.session().await;
    world.issue(&live).await.unwrap();

    let entries: Vec<_> = world.journal.entries(EntryQuery::default()).collect().await;
    let entries = entries.into_iter().map(|entry| entry.unwrap());
    let of_key = |json: &str| serde_json::from_str::<Entry>(json).unwrap();
    let rekeyed = entries.clone().map(|entry| of_key(&entry.json));
    let rekeyed: Vec<_> = rekeyed.filter(|entry| entry.event == Event::JournalRekeyed).collect();
    let [entry] = rekeyed.as_slice() else { panic!("{rekeyed:?}") };
    assert_eq!(entry.principal.as_deref(), Some("unix:1000"));
    let continued = entries.clone().any(|entry| (entry.seq, entry.hash) == (kept.seq, kept.hash));
    assert!(continued, "a head that was kept before is still on the chain");

    let (path, _folder) = world.close().await;
    let error = open(&path).err().unwrap();
    assert!(matches!(error, OpenJournalError::WrongKey { .. }), "the old key is useless: {error}");
    let journal = open_under(&path, 8, &[]).unwrap();
    check_opens(&journal).await;
    let later = fixture::now().after(std::time::Duration::from_secs(100_000));
    let due = journal.take_due(&super::world::backend(), later, 10).await.unwrap();
    let handles: Vec<_> = due.iter().map(|lease| lease.handle.as_ref().unwrap().as_str()).collect();
    assert_eq!(handles, [HANDLE, HANDLE]);
}

#[tokio::test]
async fn nothing_sealed_under_the_old_key_is_left_in_any_row() {
    let world = furnished().await;
    let sealed = "SELECT handle FROM leases WHERE handle IS NOT NULL UNION ALL
         SELECT sealed FROM issuer_keys UNION ALL
         SELECT sealed FROM secrets WHERE sealed IS NOT NULL UNION ALL
         SELECT value FROM meta WHERE key = 'key-probe' UNION ALL SELECT seal FROM head";
    let rows = || -> BTreeSet<Vec<u8>> {
        let conn = stranger(world.path());
        let mut statement = conn.prepare(sealed).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let before = rows();
    assert_eq!(before.len(), 7);
    world.journal.rekey(keys(8, &[7]), act()).await.unwrap().unwrap();
    let after = rows();
    assert_eq!(after.len(), 6, "the handle of a lease that ended goes");
    assert!(before.is_disjoint(&after));
}

#[tokio::test]
async fn the_start_finishes_what_was_configured() {
    let (path, _folder) = furnished().await.close().await;
    let journal = open_under(&path, 8, &[9, 7]).unwrap();
    check_opens(&journal).await;
    journal.close().await;
    check_opens(&open_under(&path, 8, &[]).unwrap()).await;
    assert!(open_under(&path, 7, &[]).is_err());
}

#[tokio::test]
async fn keys_that_a_crash_could_lock_out_are_refused() {
    let world = furnished().await;
    for (current, previous, expect) in [
        (7, &[][..], RekeyError::Same),
        (7, &[8], RekeyError::Same),
        (8, &[], RekeyError::PreviousMissing),
        (8, &[8, 9], RekeyError::PreviousMissing),
    ] {
        let refused = world.journal.rekey(keys(current, previous), act()).await;
        assert_eq!(refused, Ok(Err(expect)), "{current} {previous:?}");
        check_opens(&world.journal).await;
    }
    assert_eq!(world.journal.rekey(keys(8, &[7]), act()).await, Ok(Ok(ALL)));
    assert_eq!(world.journal.rekey(keys(8, &[7]), act()).await, Ok(Err(RekeyError::Same)));
}

/// A damaged row stops it, and then nothing has moved: not the rows before, not the key.
#[tokio::test]
async fn what_cannot_be_opened_stops_it_and_leaves_all_as_it_was() {
    let world = furnished().await;
    let damage = "UPDATE secrets SET sealed = zeroblob(40) WHERE name = 'b/c'";
    let conn = stranger(world.path());
    conn.execute_batch("CREATE TABLE kept AS SELECT sealed FROM secrets WHERE name = 'b/c'")
        .unwrap();
    conn.execute_batch(damage).unwrap();
    let refused = world.journal.rekey(keys(8, &[7]), act()).await;
    assert!(matches!(refused, Err(JournalError::Damaged(_))), "{refused:?}");
    conn.execute_batch("UPDATE secrets SET sealed = (SELECT sealed FROM kept) WHERE name = 'b/c'")
        .unwrap();
    check_opens(&world.journal).await;
    let (path, _folder) = world.close().await;
    check_opens(&open(&path).unwrap().journal).await;
}

/// The process ends with the transaction open, or right after its commit: the files as they lie
/// there are opened by the same configuration.
#[tokio::test]
async fn a_crash_before_or_after_the_commit_is_opened_by_the_same_configuration() {
    let copied = |from: &Path, name: &str| {
        let to = from.with_file_name(name);
        std::fs::create_dir(&to).unwrap();
        for suffix in ["", "-wal"] {
            let file = format!("journal.db{suffix}");
            std::fs::copy(from.with_file_name(&file), to.join(&file)).unwrap();
        }
        to.join("journal.db")
    };
    let world = furnished().await;
    let before = copied(world.path(), "before");
    world.journal.rekey(keys(8, &[7]), act()).await.unwrap().unwrap();
    let after = copied(world.path(), "after");
    for path in [before, after] {
        let journal = open_under(&path, 8, &[7]).unwrap();
        check_opens(&journal).await;
    }
}
