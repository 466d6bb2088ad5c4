//! Sessions below sessions: they end together, and no one begins below an end.

use std::sync::Arc;

use claviger_core::flow::issue::IssueError;
use claviger_core::journal::Event;
use claviger_core::lease::RevokeOutcome;
use claviger_core::ports::{BeginError, Clock, Journal, SessionEnded};
use claviger_core::session::{DESCENDANTS_MAX, EndCause, Session};

use super::queries::{find, parse};
use super::world::World;
use crate::journal::{EntryQuery, JournalNews};

/// A session, one below it, one below that, and one beside; each with a lease.
async fn tree(world: &World) -> [Arc<Session>; 4] {
    let top = world.session().await;
    let child = world.child(&top).await.unwrap();
    let grandchild = world.child(&child).await.unwrap();
    let other = world.session().await;
    let all = [top, child, grandchild, other];
    for session in &all {
        world.issue(session).await.unwrap();
    }
    all
}

/// INVARIANT (child-ends-with-parent)
#[tokio::test]
async fn what_is_below_a_session_ends_with_it_and_nothing_beside_it() {
    let world = World::new().await;
    let [top, child, grandchild, other] = tree(&world).await;
    let mut news = world.journal.news();
    let now = world.clock.now();
    let ended = world.journal.end_session(top.id(), EndCause::HeartbeatLost, now).await;
    assert_eq!(ended, Ok(Some(SessionEnded { leases_due: 3, below: 2 })));
    let live = world.journal.live_sessions().await.unwrap();
    let live: Vec<_> = live.iter().map(|(_, session)| session.id()).collect();
    assert_eq!(live, [other.id()]);
    let due: Vec<_> = world.take_due().await.iter().map(|lease| lease.session).collect();
    assert_eq!(due, [top.id(), child.id(), grandchild.id()]);
    let refused = world.issue(&grandchild).await;
    assert!(matches!(refused, Err(IssueError::SessionEnded)));
    let again = world.journal.end_session(child.id(), EndCause::Closed, now).await;
    assert_eq!(again, Ok(None));
    let mut told = Vec::new();
    while let Ok(heard) = news.try_recv() {
        if let JournalNews::SessionEnded { session, cause, .. } = heard {
            told.push((session, cause.as_str()));
        }
    }
    let expect = [
        (top.id(), "heartbeat-lost"),
        (child.id(), "parent-ended"),
        (grandchild.id(), "parent-ended"),
    ];
    assert_eq!(told, expect);
}

#[tokio::test]
async fn every_entry_of_a_child_names_the_sessions_above_it() {
    let world = World::new().await;
    let [top, _, grandchild, _] = tree(&world).await;
    world.journal.end_session(top.id(), EndCause::Closed, world.clock.now()).await.unwrap();
    for lease in world.take_due().await {
        let gone = RevokeOutcome::Gone;
        world.journal.record_revocation(&lease, &gone, world.clock.now()).await.unwrap();
    }
    let query = EntryQuery { session: Some(grandchild.id()), ..EntryQuery::default() };
    let entries: Vec<_> = find(&world, query).await.iter().map(parse).collect();
    let events: Vec<_> = entries.iter().map(|entry| entry.event).collect();
    let expect = [
        Event::SessionBegun,
        Event::IntentOpened,
        Event::LeaseIssued,
        Event::SessionEnded,
        Event::LeaseRevoked,
    ];
    assert_eq!(events, expect);
    for entry in &entries {
        assert_eq!(entry.ancestors, grandchild.ancestors(), "{entry:?}");
    }
}

#[tokio::test]
async fn no_session_begins_below_an_ended_one() {
    let world = World::new().await;
    let [top, child, ..] = tree(&world).await;
    world.journal.end_session(top.id(), EndCause::Closed, world.clock.now()).await.unwrap();
    for parent in [&top, &child] {
        assert_eq!(world.child(parent).await.err(), Some(BeginError::ParentEnded));
    }
    assert_eq!(world.journal.live_sessions().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_sessions_below_a_top_one_are_bounded_together() {
    let world = World::new().await;
    let top = world.session().await;
    let child = world.child(&top).await.unwrap();
    for _ in 1..DESCENDANTS_MAX {
        world.child(&child).await.unwrap();
    }
    for parent in [&top, &child] {
        let refused = world.child(parent).await.err();
        assert_eq!(refused, Some(BeginError::TooManyDescendants { top: top.id() }));
    }
    world.journal.end_session(child.id(), EndCause::Closed, world.clock.now()).await.unwrap();
    world.child(&top).await.unwrap();
}
