//! Whoever changes the journal behind the broker's back is found out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::{Path, PathBuf};

use claviger_e2e::broker::{Broker, claviger};
use claviger_e2e::client::Agent;
use claviger_e2e::world::{World, program};
use claviger_e2e::{poll, refusal};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

/// Where a change must be found.
enum Found {
    /// By `claviger audit verify`, in these words.
    ByVerify(String),
    /// Already by the broker, which does not start on such a journal.
    AtStart(String),
}

#[tokio::test]
async fn every_change_to_a_stopped_journal_is_found() {
    let world = World::new();
    let last = history(&world).await;
    let state = world.path().join("state");
    let kept = world.path().join("state-as-recorded");
    copy_folder(&state, &kept);
    type Attack = fn(&Connection, u64);
    let attacks: [(&str, Attack, Found); 9] = [
        ("nothing changed", |_, _| {}, Found::ByVerify(String::new())),
        ("an entry changed", change, Found::ByVerify("entry 4 was changed".into())),
        (
            "an entry hidden from queries",
            hide,
            Found::ByVerify("entry 4 is filed under another role".into()),
        ),
        ("an entry deleted in the middle", delete_4, Found::ByVerify("entry 4 is missing".into())),
        ("two entries swapped", swap_4_and_5, Found::ByVerify("entry 4 does not continue".into())),
        (
            "the last entry deleted",
            |journal, last| delete(journal, last),
            Found::AtStart(format!(
                "it ends at entry {}, but its sealed head is another entry {last}",
                last - 1
            )),
        ),
        (
            "an entry added at the end",
            |journal, last| insert(journal, last + 1, r#"{"event":"forged"}"#),
            Found::AtStart(format!(
                "it ends at entry {}, but its sealed head is another entry {last}",
                last + 1
            )),
        ),
        (
            "an entry inserted, the rest renumbered and chained anew",
            insert_and_rechain,
            Found::AtStart(format!("the seal of its head (entry {}) is broken", last + 1)),
        ),
        (
            "an entry changed and everything after it chained anew, head row included",
            change_and_rechain,
            Found::AtStart(format!("the seal of its head (entry {last}) is broken")),
        ),
    ];
    for (case, attack, found) in attacks {
        copy_folder(&kept, &state);
        let journal = Connection::open(state.join("journal.db")).expect("opened");
        attack(&journal, last);
        journal.close().expect("closed");
        match found {
            Found::AtStart(hint) => {
                let said = refusal::of_serve(&world).await;
                assert!(said.contains(&hint) && said.contains("journal.db"), "{case}: {said}");
                assert!(said.contains("restore a backup"), "{case}: what to do next? {said}");
            }
            Found::ByVerify(hint) => {
                let broker = Broker::start(&world).await;
                let (code, told) = run(&broker, &["audit", "verify"]);
                let expect = if hint.is_empty() { 0 } else { 1 };
                assert_eq!(code, expect, "{case}: {told}");
                assert!(told.contains(&hint), "{case}: {told}");
                assert!(broker.stop().await.success());
            }
        }
    }
}

#[tokio::test]
async fn a_head_changed_under_a_running_broker_is_found() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    let (code, told) = run(&broker, &["audit", "verify"]);
    assert_eq!(code, 0, "{told}");
    let journal = Connection::open(world.path().join("state/journal.db")).expect("opened");
    journal.execute("UPDATE head SET seal = zeroblob(length(seal))", []).expect("changed");
    let (code, told) = run(&broker, &["audit", "verify"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("the seal of the head (entry 5) is broken"), "{told}");
}

#[tokio::test]
async fn an_export_verifies_without_a_broker_and_against_a_head_kept_earlier() {
    let world = World::new();
    let broker = Broker::start(&world).await;
    work(&broker).await;
    let early = head(&run(&broker, &["audit", "verify"]).1);
    let agent = Agent::open(&broker.socket(), "code-reviewer").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect_err("refused");
    let late = head(&run(&broker, &["audit", "verify"]).1);
    assert_ne!(early, late);
    let (code, told) = run(&broker, &["audit", "verify", "--expect", &early, "--expect", &late]);
    assert_eq!(code, 0, "{told}");
    let export = claviger(&broker, &["audit", "export"]).output().expect("claviger runs");
    assert!(export.status.success());
    assert!(broker.stop().await.success());

    // What came after the later head is what the operator looked at since.
    let number = late.split(':').next().expect("a number").parse().expect("a number");
    let export = String::from_utf8(export.stdout).expect("text");
    let lines: Vec<String> = export.lines().take(number).map(str::to_owned).collect();
    let check = |lines: &[String], expected: &[&str], code: i32, hint: &str| {
        let file = world.path().join("journal.jsonl");
        std::fs::write(&file, lines.join("\n")).expect("written");
        let mut verify = std::process::Command::new(program("claviger"));
        verify.args(["audit", "verify"]).arg(&file);
        for head in expected {
            verify.args(["--expect", head]);
        }
        let output = verify.output().expect("claviger runs");
        let told = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{hint}: {told}");
        assert!(told.contains(hint), "`{hint}` is missing in: {told}");
    };
    check(&lines, &[], 0, &late);
    check(&lines, &[&early, &late], 0, &late);
    let other = format!("{}:{}", late.split(':').next().expect("a number"), "0".repeat(64));
    check(&lines, &[&other], 1, "the chain was rewritten");
    let beyond = format!("{}:{}", lines.len() + 1, "0".repeat(64));
    check(&lines, &[&beyond], 1, "its end was cut off");
    check(&lines[..lines.len() - 1], &[&late], 1, "its end was cut off");
    let mut changed = lines.clone();
    changed[3] = changed[3].replace("support-triage", "support-admins");
    assert_ne!(changed, lines);
    check(&changed, &[], 1, "entry 4 was changed");
    let mut cut = lines.clone();
    cut.remove(4);
    check(&cut, &[], 1, "entry 5 is missing");
    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    check(&swapped, &[], 1, "entry 4 is missing");
    let mut twice = lines.clone();
    twice.insert(4, lines[3].clone());
    check(&twice, &[], 1, "entry 4 stands where entry 5 belongs");
    // Who rewrites everything is caught only by a head that was kept elsewhere; and is caught.
    let rewritten = rechained(&changed);
    check(&rewritten, &[], 0, "intact");
    check(&rewritten, &[&early], 1, "the chain was rewritten");
}

/// Some work, and a stop; answers the number of the last entry.
async fn history(world: &World) -> u64 {
    let broker = Broker::start(world).await;
    work(&broker).await;
    poll::until("the login role is gone", || {
        std::future::ready(world.logins().is_empty().then_some(()))
    })
    .await;
    assert!(broker.stop().await.success());
    let journal = Connection::open(world.path().join("state/journal.db")).expect("opened");
    let last: i64 =
        journal.query_row("SELECT max(seq) FROM entries", [], |row| row.get(0)).expect("entries");
    assert!(last >= 8, "{last} entries are too few for these attacks");
    last.unsigned_abs()
}

async fn work(broker: &Broker) {
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    agent.issue("orders-db/readwrite").await.expect_err("refused");
    agent.close().await.expect("closed");
}

fn run(broker: &Broker, args: &[&str]) -> (i32, String) {
    let output = claviger(broker, args).output().expect("claviger runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().expect("an exit code"), told)
}

fn head(told: &str) -> String {
    let line = told.lines().find_map(|line| line.strip_prefix("head: "));
    line.unwrap_or_else(|| panic!("no head in: {told}")).to_owned()
}

fn change(journal: &Connection, _: u64) {
    let sql =
        "UPDATE entries SET json = replace(json, 'support-triage', 'support-admins') WHERE seq = 4";
    let text = "SELECT json FROM entries WHERE seq = 4";
    let before: String = journal.query_row(text, [], |row| row.get(0)).expect("entry 4");
    journal.execute(sql, []).expect("changed");
    let after: String = journal.query_row(text, [], |row| row.get(0)).expect("entry 4");
    assert_ne!(before, after, "the attack must change something");
}

/// The entry itself is as it was, but `audit query --role` no longer finds it.
fn hide(journal: &Connection, _: u64) {
    let changed = journal.execute("UPDATE entries SET role = 'nobody' WHERE seq = 4", []);
    assert_eq!(changed.expect("changed"), 1);
}

fn delete_4(journal: &Connection, _: u64) {
    delete(journal, 4);
}

fn delete(journal: &Connection, seq: u64) {
    let deleted = journal.execute("DELETE FROM entries WHERE seq = ?1", [seq.cast_signed()]);
    assert_eq!(deleted.expect("deleted"), 1);
}

fn swap_4_and_5(journal: &Connection, _: u64) {
    for (from, to) in [(4, -1), (5, 4), (-1, 5)] {
        let moved = journal.execute("UPDATE entries SET seq = ?2 WHERE seq = ?1", [from, to]);
        assert_eq!(moved.expect("moved"), 1);
    }
}

/// Adds an entry that continues the chain properly: only the seal can tell.
fn insert(journal: &Connection, seq: u64, json: &str) {
    let previous: Vec<u8> = journal
        .query_row("SELECT hash FROM entries WHERE seq = ?1", [seq.cast_signed() - 1], |row| {
            row.get(0)
        })
        .expect("the entry before");
    let hash = chained(&previous, seq, json);
    journal
        .execute(
            "INSERT INTO entries (seq, prev, hash, json) VALUES (?1, ?2, ?3, ?4)",
            params![seq.cast_signed(), previous, hash, json],
        )
        .expect("inserted");
}

fn insert_and_rechain(journal: &Connection, last: u64) {
    for seq in (4..=last).rev() {
        journal
            .execute("UPDATE entries SET seq = seq + 1 WHERE seq = ?1", [seq.cast_signed()])
            .expect("moved");
    }
    insert(journal, 4, r#"{"event":"forged"}"#);
    rechain(journal);
}

fn change_and_rechain(journal: &Connection, last: u64) {
    change(journal, last);
    rechain(journal);
}

/// What somebody who knows the format but not the key can do: every hash is right again, and the
/// head row names the new end.
fn rechain(journal: &Connection) {
    let mut rows = journal.prepare("SELECT seq, json FROM entries ORDER BY seq").expect("read");
    let rows: Vec<(i64, String)> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("read")
        .map(|row| row.expect("a row"))
        .collect();
    let mut previous = vec![0; 32];
    for (seq, json) in &rows {
        let hash = chained(&previous, seq.unsigned_abs(), json);
        let update = "UPDATE entries SET prev = ?2, hash = ?3 WHERE seq = ?1";
        journal.execute(update, params![seq, previous, hash]).expect("chained");
        previous = hash;
    }
    let last = rows.last().expect("entries").0;
    journal.execute("UPDATE head SET seq = ?1, hash = ?2", params![last, previous]).expect("named");
}

fn rechained(lines: &[String]) -> Vec<String> {
    let mut previous = vec![0; 32];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut chain = |line: &String| {
        let mut line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let (seq, json) = (line["seq"].as_u64().expect("a number"), line["json"].as_str());
        let hash = chained(&previous, seq, json.expect("text"));
        line["previous_hash"] = hex(&previous).into();
        line["hash"] = hex(&hash).into();
        previous = hash;
        line.to_string()
    };
    lines.iter().map(&mut chain).collect()
}

/// The chain as `admin.proto` documents it.
fn chained(previous: &[u8], seq: u64, json: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    hasher.update(seq.to_be_bytes());
    hasher.update(json);
    hasher.finalize().to_vec()
}

fn copy_folder(from: &Path, to: &PathBuf) {
    let _absent_at_first = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        // The folder of compiled components is no part of the journal.
        if entry.file_type().expect("a type").is_dir() {
            continue;
        }
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
