//! What no longer lives after a change of what decides: passes of the core's flow over a real
//! journal, and what the journal refuses to record under a snapshot that has been replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger_core::fixture;
use claviger_core::flow::again::{Again, PassError, Passed};
use claviger_core::flow::issue::IssueError;
use claviger_core::ids::SessionId;
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::{DueCause, LeaseState};
use claviger_core::ports::{BeginError, Clock, Held, Journal, WithdrawError, Withdrawal};
use claviger_core::session::{EndCause, Session};

use tokio_stream::StreamExt;

use super::world::{World, token};
use crate::journal::{EntryQuery, JournalNews, Why};

const NO_ISSUE: &str = r#"@id("closed") @reason("ask next week")
    forbid (principal, action == Action::"issue", resource);"#;
const NO_SESSION: &str =
    r#"@id("nobody") forbid (principal, action == Action::"open_session", resource);"#;

#[tokio::test]
async fn a_forbidden_lease_falls_due_and_its_session_lives_on() {
    let world = World::new().await;
    let session = world.session().await;
    let lease = world.issue(&session).await.unwrap();
    assert_eq!(pass(&world).await, passed(1, 1), "nothing has changed");
    let snapshot = world.put_in_force(NO_ISSUE).await;
    let mut news = world.journal.news();

    let done = pass(&world).await;
    assert_eq!(done, Passed { leases_due: 1, ..passed(1, 1) });
    let why = Why { code: "FORBIDDEN", reason: SENTENCE.to_owned() };
    let changed = JournalNews::LeaseChanged {
        session: session.id(),
        lease: lease.id,
        state: LeaseState::Due,
        cause: Some(DueCause::NoLongerPermitted),
        expires_at: lease.expires_at,
        why: Some(why),
    };
    assert_eq!(news.try_recv(), Ok(changed));
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::NoLongerPermitted));

    let entry = newest(&world).await;
    assert_eq!(entry["event"], "lease-due");
    assert_eq!(entry["cause"], "no-longer-permitted");
    assert_eq!((&entry["decision"], &entry["code"]), (&"deny".into(), &"FORBIDDEN".into()));
    assert_eq!(entry["policies"], serde_json::json!(["closed"]));
    assert_eq!(entry["snapshot"], snapshot.to_string());
    assert_eq!(entry["detail"], SENTENCE);
    assert_eq!(pass(&world).await, passed(1, 0), "a second pass finds nothing to do");
    world.journal.verify().await.unwrap();
}

#[tokio::test]
async fn a_session_that_is_no_longer_permitted_takes_its_leases_along() {
    let world = World::new().await;
    let session = world.session().await;
    for _ in 0..3 {
        world.issue(&session).await.unwrap();
    }
    world.put_in_force(NO_SESSION).await;
    let mut news = world.journal.news();
    let done = pass(&world).await;
    let expect = Passed { leases_due: 3, sessions_ended: vec![session.id()], ..passed(1, 0) };
    assert_eq!(done, expect);
    let mut ended = None;
    while let Ok(told) = news.try_recv() {
        if let JournalNews::SessionEnded { cause, why, .. } = told {
            ended = Some((cause, why.unwrap().code));
        }
    }
    assert_eq!(ended, Some((EndCause::NoLongerPermitted, "FORBIDDEN")));
    let entry = newest(&world).await;
    assert_eq!(entry["policies"], serde_json::json!(["nobody"]));
    let detail = entry["detail"].as_str().unwrap();
    assert!(
        detail.contains("`nobody`") && detail.ends_with("3 active leases fell due"),
        "{detail}"
    );
    assert_eq!(world.take_due().await.len(), 3);
}

#[tokio::test]
async fn a_pass_goes_over_every_page() {
    let world = World::new().await;
    let (few, many) = (world.session().await, world.session().await);
    for _ in 0..3 {
        world.issue(&few).await.unwrap();
    }
    // More than two pages of leases in one session.
    for _ in 0..600 {
        world.issue(&many).await.unwrap();
    }
    // More than a page of sessions.
    for _ in 0..40 {
        world.session().await;
    }
    assert_eq!(pass(&world).await, passed(42, 603));
    world.put_in_force(NO_ISSUE).await;
    assert_eq!(pass(&world).await, Passed { leases_due: 603, ..passed(42, 603) });
    assert_eq!(pass(&world).await, passed(42, 0));
}

#[tokio::test]
async fn what_is_no_longer_permitted_when_it_is_minted_is_not_handed_out() {
    let world = World::new().await;
    let session = world.session().await;
    let meanwhile = Arc::clone(&world);
    world.plugins.meanwhile(|_| async move {
        meanwhile.put_in_force(NO_ISSUE).await;
    });
    let refused = world.issue(&session).await.unwrap_err();
    let IssueError::Denied { denial, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(denial.reason.to_string(), SENTENCE);
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::NoLongerPermitted));
    assert!(due[0].handle.is_some(), "what was minted can be revoked");
    assert_eq!(pass(&world).await, passed(1, 0));
}

#[tokio::test]
async fn what_other_policies_permit_too_is_handed_out_under_their_name() {
    let world = World::new().await;
    let session = world.session().await;
    let meanwhile = Arc::clone(&world);
    world.plugins.meanwhile(|_| async move {
        let other = r#"@id("other") permit (principal, action == Action::"issue", resource);"#;
        meanwhile.put_in_force(other).await;
    });
    world.issue(&session).await.unwrap();
    let entry = newest(&world).await;
    assert_eq!(entry["event"], "lease-issued");
    assert_eq!(entry["policies"], serde_json::json!(["fixture.issue", "other"]));
}

#[tokio::test]
async fn an_intent_that_a_pass_withdraws_waits_for_the_answer_of_its_plugin() {
    let world = World::new().await;
    let session = world.session().await;
    let meanwhile = Arc::clone(&world);
    world.plugins.meanwhile(|_| async move {
        meanwhile.put_in_force(NO_ISSUE).await;
        assert_eq!(pass(&meanwhile).await, Passed { leases_due: 1, ..passed(1, 1) });
        assert!(meanwhile.take_due().await.is_empty(), "the plugin is still minting");
    });
    let refused = world.issue(&session).await.unwrap_err();
    assert!(matches!(refused, IssueError::Denied { .. }), "{refused:?}");
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::NoLongerPermitted));
}

#[tokio::test]
async fn nothing_begins_and_nothing_ends_by_a_snapshot_that_was_replaced() {
    let world = World::new().await;
    let session = world.session().await;
    world.issue(&session).await.unwrap();
    let old = world.begun();
    let denial = {
        let mut sources = fixture::sources();
        sources.catalog.backends.clear();
        let snapshot = claviger_core::policy::PolicySnapshot::load(sources).unwrap();
        let (ask, now) = (fixture::ask(), world.clock.now());
        claviger_core::decide::decide(&snapshot, &session, &ask, now).unwrap_err()
    };
    let (of, unless_within) = (Held::Session(session.id()), Vec::new());
    let withdrawal = Withdrawal { of, denial, unless_within };
    let withdrawn = world.journal.withdraw(vec![withdrawal], world.clock.now()).await;
    assert_eq!(withdrawn, Err(WithdrawError::SnapshotStale));
    assert_eq!(world.journal.leases(session.id()).await.unwrap().len(), 1, "nothing has changed");

    world.put_in_force(NO_SESSION).await;
    let late = fixture::session_in(&world.policies.0, 99);
    let begun = world.journal.begin_session(&late, &token(99), &old).await;
    assert_eq!(begun, Err(BeginError::SnapshotStale));
    assert_eq!(sessions(&world).await, [session.id()]);
}

#[tokio::test]
async fn a_pass_that_another_snapshot_overtakes_stops() {
    let world = World::new().await;
    world.session().await;
    world.put_in_force(NO_SESSION).await;
    // Recorded, as the next one is for a moment before it decides.
    world.load_policies(&world.policies.0).await;
    let stopped = Again::default().pass(&*world).await;
    assert_eq!(stopped, Err(PassError::Overtaken));
}

#[tokio::test]
async fn a_lowered_limit_on_leases_ends_what_is_too_much_and_no_more() {
    let world = World::new().await;
    let top = world.session().await;
    let child = world.child(&top).await.unwrap();
    for session in [&top, &child, &top] {
        world.issue(session).await.unwrap();
    }
    let mut sources = fixture::sources();
    sources.budgets.session.live_leases = std::num::NonZeroU32::new(2);
    world.put_sources_in_force(sources).await;
    assert_eq!(pass(&world).await, Passed { leases_due: 1, ..passed(2, 3) });
    assert_eq!(newest(&world).await["code"], "BUDGET_LEASES");
    assert_eq!(pass(&world).await, passed(2, 2), "a second pass finds nothing to do");
    world.journal.verify().await.unwrap();
}

#[tokio::test]
async fn a_session_at_its_end_is_left_to_the_reaper() {
    let world = World::new().await;
    let session: Arc<Session> = world.session().await;
    world.issue(&session).await.unwrap();
    world.put_in_force(NO_SESSION).await;
    world.clock.advance(session.ends_at().since(world.clock.now()) + Duration::from_secs(1));
    assert_eq!(pass(&world).await, passed(1, 1));
}

/// Prints what a pass costs, and how long other writes waited meanwhile. `AGAIN_LEASES=10000` gives
/// the figures in `docs/performance.md`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_over_many_leases_tells_its_time() {
    let wanted = std::env::var("AGAIN_LEASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500);
    let world = World::new().await;
    let mut issuing = tokio::task::JoinSet::new();
    for _ in 0..SESSIONS {
        let (world, session) = (Arc::clone(&world), world.session().await);
        issuing.spawn(async move {
            for _ in 0..wanted / SESSIONS {
                world.issue(&session).await.unwrap();
            }
        });
    }
    issuing.join_all().await;
    let leases = wanted / SESSIONS * SESSIONS;
    let (done, kept) = timed(&world).await;
    assert_eq!(done, passed(SESSIONS, leases));
    world.put_in_force(NO_ISSUE).await;
    let (done, ended) = timed(&world).await;
    assert_eq!(done, Passed { leases_due: leases, ..passed(SESSIONS, leases) });
    eprintln!("{leases} leases in {SESSIONS} sessions: kept in {kept}; ended in {ended}");
}

/// A pass, and how long it took; beside it a stranger writes all the time.
async fn timed(world: &Arc<World>) -> (Passed, String) {
    let done = Arc::new(AtomicBool::new(false));
    let (other, stop) = (Arc::clone(world), Arc::clone(&done));
    let writing = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let entry = Entry::new(other.clock.now(), Event::OperatorAct);
            other.journal.record(entry).await.unwrap();
            slowest = slowest.max(began.elapsed());
        }
        slowest
    });
    let began = Instant::now();
    let passed = pass(world).await;
    let took = began.elapsed();
    done.store(true, Ordering::Relaxed);
    let slowest = writing.await.unwrap();
    (passed, format!("{} ms, slowest other write {} ms", took.as_millis(), slowest.as_millis()))
}

/// Few enough for the world's counter, many enough for several pages.
const SESSIONS: u64 = 100;

async fn pass(world: &World) -> Passed {
    let mut again = Again::default();
    again.pass(world).await.unwrap();
    again.take_passed()
}

fn passed(sessions: u64, leases: u64) -> Passed {
    Passed { sessions, leases, ..Passed::default() }
}

async fn sessions(world: &World) -> Vec<SessionId> {
    let page = world.journal.live_sessions_after(None, 10).await.unwrap();
    page.iter().map(Session::id).collect()
}

async fn newest(world: &World) -> serde_json::Value {
    let query = EntryQuery { last: Some(1), ..EntryQuery::default() };
    let entry = world.journal.entries(query).next().await.unwrap().unwrap();
    serde_json::from_str(&entry.json).unwrap()
}

const SENTENCE: &str = "forbidden by policy `closed`: ask next week";
