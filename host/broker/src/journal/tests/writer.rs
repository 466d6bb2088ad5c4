//! The writer under load: together, in order, and each for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use claviger_core::fixture;
use claviger_core::ids::{DenialId, IntentId};
use claviger_core::journal::{Entry, Event, JournalSeq};
use claviger_core::lease::{LeaseState, RevokeOutcome};
use claviger_core::ports::{Clock, Journal, JournalError};

use super::world::{World, backend, open, options, stranger};
use crate::journal::checkpoint::LOG_PAGES_MAX;
use crate::journal::fault::Fault;
use crate::journal::{JournalOptions, SqliteJournal};

fn entry(detail: &str) -> Entry {
    let mut entry = Entry::new(fixture::now(), Event::ConfigurationLoaded);
    entry.detail = Some(detail.to_owned());
    entry
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_leave_one_unbroken_chain() {
    let world = World::new().await;
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let world = Arc::clone(&world);
        let session = world.session().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let lease = world.issue(&session).await.unwrap();
                let now = world.clock.now();
                world.journal.release_lease(session.id(), lease.id, now).await.unwrap();
            }
            session.id()
        }));
    }
    let mut sessions = Vec::new();
    for task in tasks {
        sessions.push(task.await.unwrap());
    }
    let stats = world.journal.stats();
    assert!(stats.commits() < stats.entries(), "some were committed together");
    assert_eq!(stats.queued(), 0);
    let leases = (TASKS * ROUNDS) as u64;
    assert_eq!(stats.leases().of(LeaseState::Due), leases);
    let entries = 1 + TASKS as u64 + 3 * leases;
    assert_eq!(world.journal.verify().await.unwrap().seq.get(), entries);

    // All of it is there for the next broker.
    let (path, _folder) = world.close().await;
    let journal = open(&path).unwrap().journal;
    assert_eq!(journal.verify().await.unwrap().seq.get(), entries);
    for session in sessions {
        assert_eq!(journal.leases(session).await.unwrap().len(), ROUNDS);
    }
}

const TASKS: usize = 64;
const ROUNDS: usize = 4;

/// Stops the writer inside a job until the answer is dropped.
async fn hold(journal: &SqliteJournal) -> (SyncSender<()>, tokio::task::JoinHandle<()>) {
    let (release, released) = sync_channel::<()>(0);
    let (entered, is_held) = tokio::sync::oneshot::channel();
    let queue = journal.queue.clone();
    let held = tokio::spawn(async move {
        let wait = move |_: &mut super::super::ledger::Ledger<'_>| {
            let _nobody = entered.send(());
            let _dropped = released.recv();
            Ok(())
        };
        queue.submit(wait).await.unwrap();
    });
    is_held.await.unwrap();
    (release, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_and_a_panicking_job_fail_alone() {
    let world = World::new().await;
    let before = world.journal.verify().await.unwrap().seq.get();
    let (release, held) = hold(&world.journal).await;
    let submit = |number: u32| {
        let queue = world.journal.queue.clone();
        tokio::spawn(async move {
            queue
                .submit(move |ledger| {
                    let seq = ledger.append(&entry(&number.to_string()))?;
                    match number % 3 {
                        1 => Err(Fault::damaged("a row that makes no sense")),
                        2 => panic!("a fault in a job"),
                        _ => Ok(seq),
                    }
                })
                .await
        })
    };
    let tasks: Vec<_> = (0..9).map(submit).collect();
    while world.journal.stats().queued() < 9 {
        tokio::task::yield_now().await;
    }
    let commits = world.journal.stats().commits();
    drop(release);
    held.await.unwrap();
    let mut recorded = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        match (number % 3, task.await.unwrap()) {
            (0, Ok(seq)) => recorded.push(seq.get()),
            (1, Err(JournalError::Damaged(why))) => assert!(why.contains("no sense"), "{why}"),
            (2, Err(JournalError::Damaged(why))) => assert!(why.contains("panicked"), "{why}"),
            (_, answer) => panic!("job {number}: {answer:?}"),
        }
    }
    recorded.sort_unstable();
    assert_eq!(recorded, [before + 1, before + 2, before + 3], "no gaps where others failed");
    assert_eq!(world.journal.stats().commits(), commits + 2, "the held job, and all nine at once");
    assert!(world.journal.health().borrow().is_writable());
    world.journal.verify().await.unwrap();
}

#[tokio::test]
async fn an_id_used_twice_fails_the_second_alone() {
    let world = World::new().await;
    let session = world.session().await;
    let permit = || fixture::permit_in(&world.policies.0, &session);
    let (now, id) = (world.clock.now(), IntentId::mint(world.clock.now(), &[1; 10]));
    world.journal.open_intent(id, &permit(), now).await.unwrap();
    let head = world.journal.head().await.unwrap();
    assert!(world.journal.open_intent(id, &permit(), now).await.is_err());
    assert_eq!(world.journal.head().await.unwrap(), head);
    assert!(world.issue(&session).await.is_ok());
    assert_eq!(world.journal.stats().leases().of(LeaseState::Open), 1);
    world.journal.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions { queue_max: 2, ..options(&folder.path().join("journal.db")) };
    let journal = Arc::new(SqliteJournal::open(options).unwrap().journal);
    let (release, held) = hold(&journal).await;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let journal = Arc::clone(&journal);
            tokio::spawn(async move { journal.record(entry("waits")).await })
        })
        .collect();
    while journal.stats().queued() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(journal.record(entry("refused")).await, Err(JournalError::Overloaded));
    drop(release);
    held.await.unwrap();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    assert!(journal.record(entry("taken")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_changes_nothing_for_the_others() {
    let world = World::new().await;
    let (release, held) = hold(&world.journal).await;
    let queue = world.journal.queue.clone();
    let gone = tokio::spawn(async move { queue.submit(|ledger| ledger.append(&entry("a"))).await });
    while world.journal.stats().queued() < 1 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    drop(release);
    held.await.unwrap();
    assert_eq!(world.journal.record(entry("b")).await, Ok(JournalSeq::durable(3)));
}

/// The flags stand in `.cargo/config.toml`, and one that shows stands for all.
#[tokio::test]
async fn sqlite_is_built_with_the_flags_of_the_workspace() {
    let world = World::new().await;
    let sql = "SELECT sqlite_compileoption_used('DEFAULT_MEMSTATUS=0')";
    let used: bool = stranger(world.path()).query_row(sql, [], |row| row.get(0)).unwrap();
    assert!(used);
}

/// Commits 256 pages at once and answers how long the log is.
async fn write_a_mebibyte(world: &World) -> u64 {
    let write = |ledger: &mut super::super::ledger::Ledger<'_>| {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('filler', randomblob(1 << 20))";
        Ok(ledger.conn().execute(sql, [])?)
    };
    world.journal.queue.submit(write).await.unwrap();
    // The log is looked at after the answer; the next answer comes after that.
    world.journal.queue.submit(|_| Ok(())).await.unwrap();
    world.journal.stats().wal_pages()
}

#[tokio::test]
async fn the_log_stays_bounded_while_commits_never_pause() {
    let world = World::new().await;
    let mut longest = 0;
    // Twice as many pages as the log may have.
    for _ in 0..2 * LOG_PAGES_MAX / 256 {
        longest = longest.max(write_a_mebibyte(&world).await);
    }
    assert!(longest > 256, "the log was seen");
    assert!(longest <= LOG_PAGES_MAX + 512, "{longest} pages");
}

/// A backup, or an operator at a prompt, reads an old state for as long as he likes.
#[tokio::test]
async fn a_foreign_reader_holds_the_log_back_but_not_the_commits() {
    let world = World::new().await;
    let reader = stranger(world.path());
    reader.execute_batch("BEGIN; SELECT count(*) FROM entries").unwrap();
    let mut log = 0;
    for _ in 0..LOG_PAGES_MAX / 256 + 4 {
        log = write_a_mebibyte(&world).await;
    }
    assert!(log > LOG_PAGES_MAX + 512, "{log} pages, though somebody reads an old state");
    reader.execute_batch("COMMIT").unwrap();
    let mut commits = 0;
    while write_a_mebibyte(&world).await > 512 {
        commits += 1;
        assert!(commits < 256, "the log never starts over");
    }
}

#[tokio::test]
async fn each_commit_is_told_to_the_observer() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let observed = Arc::clone(&seen);
    let options = JournalOptions {
        commit_observer: Some(Arc::new(move |_took: Duration| {
            observed.fetch_add(1, Ordering::Relaxed);
        })),
        ..options(&folder.path().join("journal.db"))
    };
    let journal = SqliteJournal::open(options).unwrap().journal;
    for _ in 0..3 {
        journal.record(entry("a")).await.unwrap();
    }
    journal.close().await;
    assert_eq!(seen.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn counts_leases_as_they_are() {
    let world = World::new().await;
    let session = world.session().await;
    for _ in 0..3 {
        world.issue(&session).await.unwrap();
    }
    world.clock.advance(Duration::from_hours(2));
    let due = world.take_due().await;
    let now = world.clock.now();
    let stuck = RevokeOutcome::Failed { error: "no".to_owned(), next_attempt_at: None };
    world.journal.record_revocation(&due[0], &stuck, now).await.unwrap();
    world.journal.record_revocation(&due[1], &RevokeOutcome::Gone, now).await.unwrap();
    let counted: Vec<_> =
        world.journal.stats().leases().iter().filter(|(_, count)| *count > 0).collect();
    let expect = [(LeaseState::Due, 1), (LeaseState::Revoked, 1), (LeaseState::Stuck, 1)];
    assert_eq!(counted, expect);
    assert_eq!(world.journal.take_due(&backend(), now, 0).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_denial_is_an_entry() {
    let world = World::new().await;
    let session = world.session().await;
    let ask = fixture::ask_for("orders-db/admin");
    let denial = claviger_core::decide::decide(&world.policies.0, &session, &ask, fixture::now());
    let id = DenialId::mint(fixture::now(), &[1; 10]);
    let recorded = world.journal.record_denial(id, &denial.unwrap_err()).await;
    assert_eq!(recorded, Ok(JournalSeq::durable(3)));
}
