//! How a journal is made, found again, and refused.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use claviger_core::binding::Binding;
use claviger_core::journal::ChainHead;
use claviger_core::ports::Journal;
use claviger_core::session::{EndCause, TokenHash};

use super::world::{World, open, options, stranger, token_text};
use crate::journal::{OpenJournalError, SealingKey, SqliteJournal};

#[tokio::test]
async fn makes_folder_and_files_for_the_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("journal.db");
    let opened = open(&path).unwrap();
    assert_eq!(opened.head, ChainHead::EMPTY);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let mut files = 0;
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        files += 1;
    }
    assert_eq!(files, 4, "database, log, index, lock");
}

#[tokio::test]
async fn two_brokers_never_share_a_journal() {
    let world = World::new().await;
    let link = tempfile::tempdir().unwrap();
    let linked = link.path().join("linked");
    std::os::unix::fs::symlink(world.path().parent().unwrap(), &linked).unwrap();
    for path in [world.path().to_owned(), linked.join("journal.db")] {
        let error = open(&path).err().unwrap();
        assert!(matches!(error, OpenJournalError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("in use by another broker"), "{error}");
    }
    let (path, _folder) = world.close().await;
    assert!(open(&path).is_ok());
}

#[tokio::test]
async fn finds_everything_again() {
    let world = World::new().await;
    let (kept, ended) = (world.session().await, world.session().await);
    world.issue(&kept).await.unwrap();
    let now = claviger_core::fixture::now();
    let next = Binding::Unix { uid: 77 };
    assert!(world.journal.bind_session(&kept, &next, now).await.unwrap().is_some());
    world.journal.end_session(ended.id(), EndCause::Closed, now).await.unwrap();
    assert_eq!(world.journal.bind_session(&ended, &next, now).await, Ok(None));
    let head = world.journal.head().await.unwrap();
    assert!(head.seal_intact);
    let counts = world.journal.stats().leases();

    let (path, _folder) = world.close().await;
    let opened = open(&path).unwrap();
    assert_eq!(opened.head, head.head);
    assert_eq!(opened.journal.stats().leases(), counts);
    let live = opened.journal.live_sessions().await.unwrap();
    let [(token, session)] = live.as_slice() else { panic!("{live:?}") };
    assert_eq!(token.hash, TokenHash::of(&token_text(1)));
    assert_eq!(token.binding, next);
    assert_eq!(format!("{session:?}"), format!("{kept:?}"));
    assert_eq!(opened.journal.verify().await, Ok(head.head));
}

#[tokio::test]
async fn refuses_another_key() {
    let (path, _folder) = World::new().await.close().await;
    let sealing_key = SealingKey::take(&mut [8; 32]);
    let error =
        SqliteJournal::open(crate::journal::JournalOptions { sealing_key, ..options(&path) });
    let error = error.err().unwrap();
    assert!(matches!(error, OpenJournalError::WrongKey { .. }), "{error}");
    assert!(open(&path).is_ok(), "the right key still opens it");
}

#[tokio::test]
async fn refuses_a_newer_schema() {
    let (path, _folder) = World::new().await.close().await;
    stranger(&path).pragma_update(None, "user_version", 99).unwrap();
    let error = open(&path).err().unwrap();
    assert!(matches!(error, OpenJournalError::NewerSchema { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("start the broker version that wrote it"), "{error}");
}

#[test]
fn refuses_what_is_no_journal_and_leaves_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (text, database) = (folder.path().join("text"), folder.path().join("database"));
    std::fs::write(
        &text,
        "a note, longer than the header of a database file has to be; ".repeat(9),
    )
    .unwrap();
    stranger(&database).execute_batch("CREATE TABLE notes (text)").unwrap();
    for path in [text, database] {
        let before = std::fs::read(&path).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, OpenJournalError::NotAJournal { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{}", path.display());
    }
}

#[test]
fn says_what_the_system_said_when_there_is_no_way_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = open(&file.join("journal.db")).err().unwrap();
    assert!(matches!(error, OpenJournalError::Path { .. }), "{error}");
}

/// The cheap check at the start; the others are for `verify`.
#[tokio::test]
async fn refuses_a_journal_that_does_not_end_at_its_head() {
    let attacks = [
        ("DELETE FROM entries WHERE seq = (SELECT max(seq) FROM entries)", "another entry"),
        ("DELETE FROM entries", "another entry"),
        ("UPDATE head SET seq = seq - 1", "seal"),
        ("UPDATE head SET seal = zeroblob(32)", "seal"),
        ("DELETE FROM head", "head row"),
        ("DELETE FROM meta WHERE key = 'journal-id'", "has lost its id"),
    ];
    for (attack, named) in attacks {
        let (path, _folder) = World::new().await.close().await;
        stranger(&path).execute_batch(attack).unwrap();
        let error = open(&path).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(named), "{attack}: {error}");
    }
}
