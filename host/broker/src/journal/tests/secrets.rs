//! Secrets in the journal's keeping: sealed, counted, bounded, and gone when they are deleted.

use std::collections::BTreeSet;

use claviger_core::fixture;
use claviger_core::journal::{Entry, Event};
use claviger_core::name::SecretName;
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use super::world::{World, open, stranger};
use crate::journal::{
    EntryQuery, PutSecretError, RootSecrets, SecretAct, Settlement, SqliteJournal, Stage, Unsettled,
};

fn name(text: &str) -> SecretName {
    text.parse().unwrap()
}

fn act() -> SecretAct {
    SecretAct { by: "unix:1000".to_owned(), at: fixture::now() }
}

fn shared(text: &str) -> crate::egress::redact::SharedSecret {
    std::sync::Arc::new(Zeroizing::new(text.to_owned()))
}

async fn put(
    journal: &SqliteJournal,
    text: &str,
    value: impl Into<String>,
) -> Result<u64, PutSecretError> {
    journal.put_secret(name(text), Zeroizing::new(value.into()), act()).await.unwrap()
}

async fn value(journal: &SqliteJournal, text: &str) -> Option<String> {
    let mut values = journal.secrets(BTreeSet::from([name(text)])).await.unwrap();
    values.remove(&name(text)).map(|value| value.current.to_string())
}

#[tokio::test]
async fn a_secret_outlives_a_restart_and_no_version_is_given_twice() {
    let world = World::new().await;
    assert_eq!(put(&world.journal, "aws/prod", "one").await, Ok(1));
    assert_eq!(put(&world.journal, "aws/prod", "two").await, Ok(2));
    let (path, _folder) = world.close().await;
    let journal = open(&path).unwrap().journal;
    assert_eq!(value(&journal, "aws/prod").await.as_deref(), Some("two"));
    assert_eq!(value(&journal, "aws/test").await, None);
    assert_eq!(journal.delete_secret(name("aws/prod"), act()).await, Ok(Some(2)));
    assert_eq!(journal.delete_secret(name("aws/prod"), act()).await, Ok(None));
    assert_eq!(value(&journal, "aws/prod").await, None);
    assert_eq!(journal.secret_rows().await.unwrap(), []);
    assert_eq!(put(&journal, "aws/prod", "three").await, Ok(3), "counted over the deletion");
    let rows = journal.secret_rows().await.unwrap();
    assert_eq!((rows.len(), rows[0].version, rows[0].put_by.as_str()), (1, 3, "unix:1000"));
}

#[tokio::test]
async fn each_act_is_an_entry_and_none_holds_the_value() {
    let world = World::new().await;
    put(&world.journal, "a", "canary-value-81c2").await.unwrap();
    world.journal.delete_secret(name("a"), act()).await.unwrap();
    let entries: Vec<_> = world.journal.entries(EntryQuery::default()).collect().await;
    let entries: Vec<String> = entries.into_iter().map(|entry| entry.unwrap().json).collect();
    let acts: Vec<(Event, Option<String>, Option<String>)> = entries
        .iter()
        .map(|json| serde_json::from_str::<Entry>(json).unwrap())
        .filter(|entry| matches!(entry.event, Event::SecretPut | Event::SecretDeleted))
        .map(|entry| (entry.event, entry.principal, entry.detail))
        .collect();
    let of = |event| {
        let detail = "secret `store:a`, version 1".to_owned();
        (event, Some("unix:1000".to_owned()), Some(detail))
    };
    assert_eq!(acts, [of(Event::SecretPut), of(Event::SecretDeleted)]);
    assert!(!entries.concat().contains("canary"), "{entries:?}");
    let (path, _folder) = world.close().await;
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!content.windows(17).any(|window| window == b"canary-value-81c2"));
    }
}

#[tokio::test]
async fn what_is_no_secret_is_refused() {
    let world = World::new().await;
    assert_eq!(put(&world.journal, "a", "").await, Err(PutSecretError::Empty));
    let long = "x".repeat(super::super::SECRET_BYTES_MAX);
    assert_eq!(put(&world.journal, "a", long.as_str()).await, Ok(1));
    assert_eq!(put(&world.journal, "a", format!("{long}x")).await, Err(PutSecretError::TooLong));
    for number in 1..512 {
        assert_eq!(put(&world.journal, &format!("n{number}"), "x").await, Ok(1));
    }
    assert_eq!(put(&world.journal, "one-more", "x").await, Err(PutSecretError::TooMany));
    assert_eq!(put(&world.journal, "n1", "x").await, Ok(2), "one that is there is put anew");
}

/// What is begun is durable beside the secret in force, and ends in one of two ways; a secret that
/// is put meanwhile does not lose what the backend may accept already.
#[tokio::test]
async fn a_rotation_keeps_both_secrets_until_it_is_settled() {
    let world = World::new().await;
    let journal = &world.journal;
    let root = || RootSecrets::Password(name("a"));
    let begin = |value: &str| journal.begin_rotation(root(), vec![shared(value)], act());
    let end = |settlement| journal.end_rotation(root(), (settlement, "why".to_owned()), act());
    let both = || async {
        let value = journal.secrets(BTreeSet::from([name("a")])).await.unwrap();
        let value = value.into_values().next().unwrap();
        (value.current.to_string(), value.pending.map(|pending| pending.to_string()))
    };
    let pair =
        |current: &str, pending: Option<&str>| (current.to_owned(), pending.map(str::to_owned));
    assert_eq!(begin("x").await, Ok(None), "there is nothing to replace");
    put(journal, "a", "one").await.unwrap();
    assert_eq!(end(Settlement::Accepted).await, Ok(None), "nothing was begun");
    assert_eq!(begin("two").await, Ok(Some(2)));
    assert_eq!(begin("three").await, Ok(None), "one at a time");
    assert_eq!(both().await, pair("one", Some("two")));
    let unsettled = Unsettled { name: name("a"), since: act().at, stage: Stage::Pending };
    assert_eq!(journal.unsettled_secrets().await.unwrap(), [unsettled]);
    assert_eq!(put(journal, "a", "other").await, Ok(3));
    assert_eq!(both().await, pair("other", Some("two")));
    assert_eq!(end(Settlement::Accepted).await, Ok(Some((Settlement::Accepted, 2))));
    assert_eq!(both().await, pair("two", None));
    assert_eq!(begin("four").await, Ok(Some(4)), "no number is given twice");
    assert_eq!(end(Settlement::Dropped).await, Ok(Some((Settlement::Dropped, 2))));
    assert_eq!(both().await, pair("two", None));
    assert_eq!(put(journal, "a", "five").await, Ok(5));
    assert_eq!(begin("six").await, Ok(Some(6)));
    assert_eq!(journal.delete_secret(name("a"), act()).await, Ok(Some(5)));
    let unsettled = journal.unsettled_secrets().await.unwrap();
    assert!(unsettled.is_empty(), "what was begun is forgotten too");
    assert_eq!(put(journal, "a", "seven").await, Ok(7), "and its number is not given again");
}

fn key() -> RootSecrets {
    RootSecrets::Key { id: name("id"), key: name("key") }
}

async fn begin_key(journal: &SqliteJournal) -> Option<u64> {
    journal.begin_rotation(key(), Vec::new(), act()).await.unwrap()
}

async fn end_key(journal: &SqliteJournal, settlement: Settlement) -> Option<(Settlement, u64)> {
    journal.end_rotation(key(), (settlement, "why".to_owned()), act()).await.unwrap()
}

async fn made(journal: &SqliteJournal, id: &str) -> bool {
    journal.keep_made(key(), vec![shared(id), shared("made")], act().at).await.unwrap()
}

async fn retiring(journal: &SqliteJournal) -> Vec<String> {
    let keys = journal.retiring_keys().await.unwrap();
    keys.iter().map(|key| format!("{}@{} {}", key.name, key.version, key.id.as_str())).collect()
}

/// The two secrets of a key begin before there is a new one, and settle together; what leaves has
/// its id kept until somebody says that it is deleted.
#[tokio::test]
async fn a_key_is_kept_when_it_is_made_and_the_one_before_until_it_is_deleted() {
    let world = World::new().await;
    let journal = &world.journal;
    put(journal, "id", "AKIA1").await.unwrap();
    assert_eq!(begin_key(journal).await, None, "one of the two is not kept");
    put(journal, "key", "one").await.unwrap();
    assert!(!made(journal, "AKIA2").await, "nothing was begun");
    assert_eq!(begin_key(journal).await, Some(2));
    assert_eq!(begin_key(journal).await, None, "one at a time");
    let stages = || async {
        let unsettled = journal.unsettled_secrets().await.unwrap();
        unsettled.into_iter().map(|secret| secret.stage).collect::<Vec<_>>()
    };
    assert_eq!(stages().await, [Stage::Making; 2]);
    assert!(made(journal, "AKIA2").await);
    assert!(!made(journal, "AKIA3").await, "it is made once");
    assert_eq!(stages().await, [Stage::Pending; 2]);
    assert_eq!(value(journal, "id").await.as_deref(), Some("AKIA1"));
    assert_eq!(end_key(journal, Settlement::Accepted).await, Some((Settlement::Accepted, 2)));
    assert_eq!(value(journal, "id").await.as_deref(), Some("AKIA2"));
    assert_eq!(value(journal, "key").await.as_deref(), Some("made"));
    assert_eq!(retiring(journal).await, ["id@1 AKIA1"]);
    assert_eq!(begin_key(journal).await, Some(3));
    assert!(made(journal, "AKIA3").await);
    assert_eq!(end_key(journal, Settlement::Dropped).await, Some((Settlement::Dropped, 2)));
    assert_eq!(retiring(journal).await, ["id@1 AKIA1", "id@3 AKIA3"], "it may exist");
    assert_eq!(begin_key(journal).await, Some(4));
    assert_eq!(end_key(journal, Settlement::Dropped).await, Some((Settlement::Dropped, 2)));
    put(journal, "id", "AKIA5").await.unwrap();
    assert_eq!(retiring(journal).await.len(), 2, "what was never made is not deleted");
    for key in journal.retiring_keys().await.unwrap() {
        for _ in 0..2 {
            let told = "it is deleted".to_owned();
            journal.end_retirement(key.clone(), told, act()).await.unwrap();
        }
    }
    assert!(retiring(journal).await.is_empty());
    let entries: Vec<_> = journal.entries(EntryQuery::default()).collect().await;
    let entries = entries.into_iter().map(|entry| entry.unwrap().json);
    let retired = entries.filter(|json| json.contains("rotation-retired")).count();
    assert_eq!(retired, 2, "each is told once");
}

#[tokio::test]
async fn what_an_operator_does_to_a_key_meanwhile_counts() {
    let world = World::new().await;
    let journal = &world.journal;
    for name in ["id", "key"] {
        put(journal, name, "first").await.unwrap();
    }
    assert_eq!(begin_key(journal).await, Some(2));
    assert!(made(journal, "AKIA2").await);
    put(journal, "id", "AKIA9").await.unwrap();
    let ended = end_key(journal, Settlement::Accepted).await;
    assert_eq!(ended, Some((Settlement::Dropped, 1)), "the operator has the last word");
    assert_eq!(value(journal, "id").await.as_deref(), Some("AKIA9"));
    assert_eq!(retiring(journal).await, ["id@2 AKIA2"]);
    assert_eq!(begin_key(journal).await, Some(3));
    assert!(made(journal, "AKIA3").await);
    journal.delete_secret(name("id"), act()).await.unwrap();
    assert_eq!(end_key(journal, Settlement::Accepted).await, None);
    assert!(journal.unsettled_secrets().await.unwrap().is_empty(), "nothing is left hanging");
    assert_eq!(value(journal, "key").await.as_deref(), Some("first"));
}

/// Somebody with the file, but without the key, puts an earlier version back, or gives one secret
/// the name of another.
#[tokio::test]
async fn a_secret_that_was_moved_or_put_back_does_not_open() {
    for attack in [
        "UPDATE secrets SET sealed = (SELECT sealed FROM kept)",
        "UPDATE secrets SET name = 'b' WHERE name = 'a'",
        "UPDATE secrets SET version = 1",
    ] {
        let world = World::new().await;
        put(&world.journal, "a", "one").await.unwrap();
        let conn = stranger(world.path());
        conn.execute_batch("CREATE TABLE kept AS SELECT sealed FROM secrets").unwrap();
        put(&world.journal, "a", "two").await.unwrap();
        conn.execute_batch(attack).unwrap();
        let asked = BTreeSet::from([name("a"), name("b")]);
        let error = world.journal.secrets(asked).await.err().expect(attack).to_string();
        assert!(error.contains("does not open"), "{attack}: {error}");
    }
}
