//! What somebody with the file, but without the sealing key, can do to it, and how it is found.

use std::time::Duration;

use claviger_core::journal::{ChainBreak, ChainHead, EntryHash, JournalSeq};
use rusqlite::{Connection, params};

use super::world::{World, stranger};
use crate::journal::VerifyError;

const fn seq(seq: u64) -> JournalSeq {
    JournalSeq::durable(seq)
}

/// A journal of ten entries, attacked while it is open.
async fn check(attack: impl FnOnce(&Connection), expect: VerifyError) {
    let world = World::new().await;
    let session = world.session().await;
    for _ in 0..4 {
        world.issue(&session).await.unwrap();
    }
    let head = world.journal.verify().await.unwrap();
    assert_eq!(head.seq, seq(10));
    attack(&stranger(world.path()));
    let found = world.journal.verify().await.unwrap_err();
    assert_eq!(found, expect, "{found}");
    assert!(found.to_string().contains("entry "), "it says where: {found}");
}

fn sql(attack: &str) -> impl FnOnce(&Connection) {
    move |conn| conn.execute_batch(attack).unwrap()
}

#[tokio::test]
async fn changed_content() {
    let altered = ChainBreak::Altered { seq: seq(5) };
    let attack = "UPDATE entries SET json = replace(json, 'reader', 'writer') WHERE seq = 5";
    check(sql(attack), altered.into()).await;
    check(sql("UPDATE entries SET hash = zeroblob(32) WHERE seq = 5"), altered.into()).await;
    let unchained = ChainBreak::Unchained { seq: seq(5) };
    check(sql("UPDATE entries SET prev = zeroblob(32) WHERE seq = 5"), unchained.into()).await;
}

#[tokio::test]
async fn an_entry_hidden_from_queries() {
    for (column, value) in [
        ("session", "NULL"),
        ("intent", "NULL"),
        ("denial", "'den_00000000000000000000000000'"),
        ("role", "'another'"),
    ] {
        let attack = format!("UPDATE entries SET {column} = {value} WHERE seq = 5");
        check(sql(&attack), VerifyError::Column { seq: seq(5), column }).await;
    }
}

#[tokio::test]
async fn removed_entries() {
    let middle = ChainBreak::Missing { first: seq(5), next: seq(6) };
    check(sql("DELETE FROM entries WHERE seq = 5"), middle.into()).await;
    let first = ChainBreak::Missing { first: seq(1), next: seq(2) };
    check(sql("DELETE FROM entries WHERE seq = 1"), first.into()).await;
    let closed_up = "DELETE FROM entries WHERE seq = 5;
        UPDATE entries SET seq = seq - 1 WHERE seq > 5";
    check(sql(closed_up), ChainBreak::Unchained { seq: seq(5) }.into()).await;
    let last = ChainBreak::CutOff { first: seq(10), head: seq(10) };
    check(sql("DELETE FROM entries WHERE seq = 10"), last.into()).await;
    let all = ChainBreak::CutOff { first: seq(1), head: seq(10) };
    check(sql("DELETE FROM entries"), all.into()).await;
}

#[tokio::test]
async fn a_cut_end_with_the_head_rewritten_to_fit() {
    let attack = "DELETE FROM entries WHERE seq = 10;
        UPDATE head SET seq = 9, hash = (SELECT hash FROM entries WHERE seq = 9)";
    check(sql(attack), VerifyError::Seal { seq: seq(9) }).await;
}

#[tokio::test]
async fn inserted_entries() {
    let in_front = "INSERT INTO entries SELECT 0, prev, hash, json, session, intent, denial, role
        FROM entries WHERE seq = 5";
    let misplaced = ChainBreak::Misplaced { seq: seq(0), expected: seq(1) };
    check(sql(in_front), misplaced.into()).await;
    let between = "UPDATE entries SET seq = -seq - 1 WHERE seq >= 5;
        UPDATE entries SET seq = -seq WHERE seq < 0;
        INSERT INTO entries SELECT 5, prev, hash, json, session, intent, denial, role
        FROM entries WHERE seq = 6";
    check(sql(between), ChainBreak::Unchained { seq: seq(6) }.into()).await;
    let forged_end = |conn: &Connection| {
        let hash: [u8; 32] = conn
            .query_row("SELECT hash FROM entries WHERE seq = 10", [], |row| row.get(0))
            .unwrap();
        let json = r#"{"at":"2026-11-23T10:00:00.000Z","event":"broker-stopped"}"#;
        let next = EntryHash::from_bytes(hash).next(seq(11), json.as_bytes());
        conn.execute(
            "INSERT INTO entries (seq, prev, hash, json) VALUES (11, ?1, ?2, ?3)",
            params![hash, next.bytes(), json],
        )
        .unwrap();
    };
    let beyond = ChainBreak::BeyondHead { seq: seq(11), head: seq(10) };
    check(forged_end, beyond.into()).await;
}

#[tokio::test]
async fn two_entries_that_changed_places() {
    let attack = "UPDATE entries SET seq = -5 WHERE seq = 5;
        UPDATE entries SET seq = 5 WHERE seq = 6;
        UPDATE entries SET seq = 6 WHERE seq = -5";
    check(sql(attack), ChainBreak::Unchained { seq: seq(5) }.into()).await;
}

#[tokio::test]
async fn a_chain_recomputed_as_a_whole() {
    let kept_head = |conn: &Connection| {
        recompute(conn);
    };
    check(kept_head, ChainBreak::OtherHead { seq: seq(10) }.into()).await;
    let moved_head = |conn: &Connection| {
        let head = recompute(conn);
        conn.execute("UPDATE head SET hash = ?1", [head.hash.bytes()]).unwrap();
    };
    check(moved_head, VerifyError::Seal { seq: seq(10) }).await;
}

/// Changes entry 5 and makes every later hash fit.
fn recompute(conn: &Connection) -> ChainHead {
    let entries: Vec<(i64, String)> = conn
        .prepare("SELECT seq, json FROM entries ORDER BY seq")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut head = ChainHead::EMPTY;
    for (number, json) in entries {
        let json = if number == 5 { json.replace("fixture.issue", "other.issue") } else { json };
        let next = head.extended(json.as_bytes());
        conn.execute(
            "UPDATE entries SET json = ?2, prev = ?3, hash = ?4 WHERE seq = ?1",
            params![number, json, head.hash.bytes(), next.hash.bytes()],
        )
        .unwrap();
        head = next;
    }
    head
}

#[tokio::test]
async fn a_handle_moved_to_another_lease_does_not_open_there() {
    let world = World::new().await;
    let session = world.session().await;
    let (first, second) =
        (world.issue(&session).await.unwrap().id, world.issue(&session).await.unwrap().id);
    stranger(world.path())
        .execute(
            "UPDATE leases SET handle = (SELECT handle FROM leases WHERE id = ?1) WHERE id = ?2",
            [first.to_string(), second.to_string()],
        )
        .unwrap();
    world.clock.advance(Duration::from_hours(2));
    let due = world.take_due().await;
    assert_eq!(due.iter().map(|lease| lease.id).collect::<Vec<_>>(), [first, second]);
    assert!(due[0].handle.is_some());
    assert!(due[1].handle.is_none(), "it holds up nothing: the id is enough to revoke");
}
