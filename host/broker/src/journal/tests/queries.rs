//! What operators find.

use std::collections::BTreeSet;

use claviger_core::admin::Selector;
use claviger_core::decide::decide;
use claviger_core::fixture;
use claviger_core::ids::DenialId;
use claviger_core::journal::{Entry, Event, JournalSeq, Verdict};
use claviger_core::lease::LeaseState;
use claviger_core::ports::{Clock, Journal};
use claviger_core::session::EndCause;
use rusqlite::Connection;
use tokio_stream::StreamExt;

use super::world::{World, backend};
use crate::journal::query::PAGE_ROWS;
use crate::journal::{
    EntryQuery, LeaseQuery, LeaseRow, RecordedEntry, holdings, leases as rows, ledger, revocation,
    sessions,
};

/// The events of all entries, in order.
pub(super) async fn events(world: &World) -> Vec<Event> {
    let entries = find(world, EntryQuery::default()).await;
    entries.iter().map(|entry| parse(entry).event).collect()
}

pub(super) async fn find(world: &World, query: EntryQuery) -> Vec<RecordedEntry> {
    world.journal.entries(query).map(Result::unwrap).collect().await
}

pub(super) fn parse(entry: &RecordedEntry) -> Entry {
    serde_json::from_str(&entry.json).unwrap()
}

async fn seqs(world: &World, query: EntryQuery) -> Vec<u64> {
    find(world, query).await.iter().map(|entry| entry.seq.get()).collect()
}

#[tokio::test]
async fn finds_entries_by_what_they_are_about() {
    let world = World::new().await; // entry 1
    let session = world.session().await; // 2
    let lease = world.issue(&session).await.unwrap(); // 3, 4
    world.session().await; // 5
    let now = world.clock.now();
    let denial = decide(&world.policies.0, &session, &fixture::ask_for("orders-db/admin"), now);
    let id = DenialId::mint(now, &[1; 10]);
    world.journal.record_denial(id, &denial.unwrap_err()).await.unwrap(); // 6

    let seq = |seq| Some(JournalSeq::durable(seq));
    let any = EntryQuery::default;
    let role = Some("reader".parse().unwrap());
    let cases: [(EntryQuery, &[u64]); 10] = [
        (any(), &[1, 2, 3, 4, 5, 6]),
        (EntryQuery { from: seq(5), ..any() }, &[5, 6]),
        (EntryQuery { from: seq(0), to: seq(2), ..any() }, &[1, 2]),
        (EntryQuery { session: Some(session.id()), ..any() }, &[2, 3, 4, 6]),
        (EntryQuery { lease: Some(lease.id), ..any() }, &[3, 4]),
        (EntryQuery { denial: Some(id), ..any() }, &[6]),
        (EntryQuery { role: role.clone(), last: Some(2), ..any() }, &[5, 6]),
        (EntryQuery { role, from: seq(3), to: seq(5), ..any() }, &[3, 4, 5]),
        (EntryQuery { last: Some(u64::MAX), session: Some(session.id()), ..any() }, &[2, 3, 4, 6]),
        (EntryQuery { from: seq(7), last: Some(3), ..any() }, &[]),
    ];
    for (query, expect) in cases {
        assert_eq!(seqs(&world, query.clone()).await, expect, "{query:?}");
    }
    // What no index finds.
    let (snapshot, digest) = (world.policies.0.digest(), *session.prompt_digest());
    let (me, nobody) = (Some("unix:1000".to_owned()), Some("unix:1".to_owned()));
    let scope = Some("orders-db/readonly".parse().unwrap());
    let begun = Some(Event::SessionBegun);
    let cases: [(EntryQuery, &[u64]); 12] = [
        (EntryQuery { requester: me.clone(), ..any() }, &[2, 3, 4, 5, 6]),
        (EntryQuery { principal: me.clone(), from: seq(4), ..any() }, &[4, 5, 6]),
        (EntryQuery { principal: me, requester: nobody, ..any() }, &[]),
        (EntryQuery { scope, ..any() }, &[3, 4]),
        (EntryQuery { event: begun, ..any() }, &[2, 5]),
        (EntryQuery { event: begun, last: Some(1), ..any() }, &[5]),
        (EntryQuery { decision: Some(Verdict::Deny), ..any() }, &[6]),
        (EntryQuery { code: Some("SENSITIVE_SCOPE".into()), ..any() }, &[6]),
        (EntryQuery { snapshot: Some(snapshot), to: seq(2), ..any() }, &[1, 2]),
        (EntryQuery { prompt_digest: Some(digest), last: Some(2), ..any() }, &[5, 6]),
        (EntryQuery { since: Some(now), last: Some(1), ..any() }, &[6]),
        (EntryQuery { before: Some(now), ..any() }, &[]),
    ];
    for (query, expect) in cases {
        assert_eq!(seqs(&world, query.clone()).await, expect, "{query:?}");
    }
}

#[tokio::test]
async fn follows_what_is_recorded_from_now_on_until_it_is_over() {
    let world = World::new().await; // entry 1
    let (over, watched) = tokio::sync::watch::channel(false);
    let query = EntryQuery { event: Some(Event::SessionBegun), ..EntryQuery::default() };
    let mut news = world.journal.entries_from_now_on(query, watched);
    for expect in [2, 3] {
        world.session().await;
        assert_eq!(news.next().await.unwrap().unwrap().seq.get(), expect);
    }
    over.send(true).unwrap();
    assert!(news.next().await.is_none());
}

#[tokio::test]
async fn streams_more_than_a_page_and_only_as_fast_as_it_is_read() {
    let world = World::new().await;
    let entries = 2 * PAGE_ROWS + 3;
    for _ in 1..entries {
        world.load_policies(&world.policies.0).await;
    }
    let expect: Vec<u64> = (1..=entries as u64).collect();
    assert_eq!(seqs(&world, EntryQuery::default()).await, expect);
    let last = EntryQuery { last: Some(PAGE_ROWS as u64 + 1), ..EntryQuery::default() };
    assert_eq!(seqs(&world, last.clone()).await, expect[PAGE_ROWS + 2..]);
    // The same when nothing but the content tells which they are.
    let loaded = Some(Event::PoliciesLoaded);
    let every = EntryQuery { event: loaded, ..EntryQuery::default() };
    assert_eq!(seqs(&world, every).await, expect);
    let last = EntryQuery { event: loaded, ..last };
    assert_eq!(seqs(&world, last).await, expect[PAGE_ROWS + 2..]);

    // A reader that goes away ends the query; the journal closes without waiting for it.
    let mut abandoned = world.journal.entries(EntryQuery::default());
    abandoned.next().await.unwrap().unwrap();
    drop(abandoned);
    assert_eq!(world.journal.verify().await.unwrap().seq.get(), entries as u64);
}

#[tokio::test]
async fn finds_leases_by_their_states() {
    let world = World::new().await;
    let (session, other) = (world.session().await, world.session().await);
    let mut ids = BTreeSet::new();
    for _ in 0..PAGE_ROWS {
        ids.insert(world.issue(&session).await.unwrap().id);
    }
    ids.insert(world.issue(&other).await.unwrap().id);
    let revoked = world.issue(&other).await.unwrap();
    let now = world.clock.now();
    world.journal.release_lease(other.id(), revoked.id, now).await.unwrap();
    let due = world.take_due().await.remove(0);
    let gone = claviger_core::lease::RevokeOutcome::Gone;
    world.journal.record_revocation(&due, &gone, now).await.unwrap();

    let rows = async |states: &[LeaseState]| -> Vec<LeaseRow> {
        let query = LeaseQuery { states: states.to_vec(), ..LeaseQuery::default() };
        world.journal.lease_rows(query).map(Result::unwrap).collect().await
    };
    let found: BTreeSet<_> = rows(&[]).await.iter().map(|row| row.lease.id).collect();
    assert_eq!(found, ids, "every state that is not final");
    assert_eq!(rows(&[]).await.len(), ids.len());
    assert_eq!(rows(&[LeaseState::Active]).await.len(), ids.len());
    assert!(rows(&[LeaseState::Stuck, LeaseState::Open]).await.is_empty());
    let settled = rows(&[LeaseState::Revoked]).await;
    assert_eq!((settled.len(), settled[0].lease.id), (1, revoked.id));
    assert_eq!(settled[0].join_keys["db_user"], revoked.id.bare());
    let both = rows(&[LeaseState::Revoked, LeaseState::Active]).await;
    assert_eq!(both.len(), ids.len() + 1);
}

/// A million leases or entries must not slow the start, a worker's pass, the end of a session or a
/// revocation.
#[tokio::test]
async fn nothing_that_runs_often_reads_a_whole_table() {
    let world = World::new().await;
    let session = world.session().await;
    world.issue(&session).await.unwrap();
    world.journal.end_session(session.id(), EndCause::Closed, world.clock.now()).await.unwrap();
    let everybody = "unix:1000".to_owned();
    let selectors = [
        Selector::Session(session.id()),
        Selector::Role(session.role().clone()),
        Selector::Requester(everybody.clone()),
        Selector::Workload(everybody),
        Selector::Prompt(*session.prompt_digest()),
        Selector::Backend(backend()),
        Selector::Everything,
    ];
    let statements = [
        rows::sql_of_one(),
        rows::sql_to_act_on(),
        rows::sql_unsettled(),
        rows::NEXT_DUE_AT.to_owned(),
        rows::KEY_USED.to_owned(),
        rows::END_ALL.to_owned(),
        rows::HELD_AFTER.to_owned(),
        sessions::sql_running(),
        sessions::sql_below(),
        sessions::sql_running_after(),
        ledger::NEWEST_ENTRY.to_owned(),
        holdings::HELD.to_owned(),
    ];
    let conn = super::world::stranger(world.path());
    let revocations = selectors.iter().map(revocation::sql_unsettled_of);
    for sql in statements.into_iter().chain(revocations) {
        for step in plan(&conn, &sql) {
            let by_index = step.starts_with("SEARCH") || step.contains("USING INDEX");
            let one_row = step.starts_with("SCAN entries") && sql == ledger::NEWEST_ENTRY;
            // How such a query finds its row is a step of its own.
            let inner = step.starts_with("CORRELATED SCALAR SUBQUERY");
            // The tree that the query builds itself is small, and every step into it is by index.
            let in_the_tree = sql == sessions::sql_below()
                && !step.starts_with("SCAN sessions")
                && !step.starts_with("SCAN child");
            // The sessions above stand in the lease's own row.
            let in_the_row = step.starts_with("SCAN above VIRTUAL TABLE");
            let is_bounded = by_index || one_row || inner || in_the_tree || in_the_row;
            assert!(is_bounded, "{step}: {sql}");
        }
    }
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(Some(world.clock.now())));
}

/// The steps of the plan. Parameters stay unbound: the plan does not depend on them here.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get("detail").unwrap());
    }
    steps
}
