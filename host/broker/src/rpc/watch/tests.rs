//! What a stream tells of what it did not hear, against a real journal. The news is the test's own,
//! so that it lags when the test wants it to.

use claviger_core::ports::{Clock, Journal};
use claviger_core::session::{EndCause, Session};

use super::*;
use crate::journal::tests::world::{World, backend, token};
use crate::sessions::Sessions;

#[tokio::test]
async fn an_end_that_came_before_the_stream_listened_is_told() {
    let world = World::new().await;
    let session = world.session().await;
    let now = world.clock.now();
    world.journal.end_session(session.id(), EndCause::Closed, now).await.unwrap();
    let (_news, mut told) = follow(&world, &session);
    assert_eq!(next(&mut told).await, Some(ending("closed", None)));
    assert_eq!(next(&mut told).await, None, "the end is the last event");
}

#[tokio::test]
async fn a_stream_that_lagged_tells_what_it_missed_once() {
    let world = World::new().await;
    let session = world.session().await;
    let kept = world.issue(&session).await.unwrap();
    let lease = world.issue(&session).await.unwrap();
    let (news, mut told) = follow(&world, &session);
    assert!(matches!(next(&mut told).await, Some(Event::Heartbeat(_))));
    let now = world.clock.now();

    world.journal.release_lease(session.id(), lease.id, now).await.unwrap();
    lag(&news);
    assert_eq!(next(&mut told).await, Some(released(lease.id, LeaseState::Due)));
    lag(&news);
    let due = world.take_due().await;
    world.journal.record_gone(&due, now).await.unwrap();
    lag(&news);
    assert_eq!(next(&mut told).await, Some(released(lease.id, LeaseState::Revoked)));

    world.journal.release_lease(session.id(), kept.id, now).await.unwrap();
    lag(&news);
    assert_eq!(next(&mut told).await, Some(released(kept.id, LeaseState::Due)));
    world.journal.end_session(session.id(), EndCause::KeyWithdrawn, now).await.unwrap();
    lag(&news);
    assert_eq!(next(&mut told).await, Some(ending("key-withdrawn", None)));
    assert_eq!(next(&mut told).await, None, "the end is the last event");
}

/// A stream of the world's first session, and what it hears its news from.
fn follow(
    world: &Arc<World>,
    session: &Arc<Session>,
) -> (broadcast::Sender<JournalNews>, mpsc::Receiver<Reply>) {
    let (teller, news) = broadcast::channel(1);
    let (sender, told) = mpsc::channel(EVENTS_QUEUED_MAX);
    let sessions = Sessions::new(8, vec![(token(1), Session::clone(session))]);
    let live = sessions.find(&token(1).hash).unwrap();
    let (drain, draining) = watch::channel(false);
    let beat = Duration::from_hours(1);
    let watched = Watched { watcher: live.watch(), beat, proof_ends: None, draining };
    let (world, id) = (Arc::clone(world), session.id());
    tokio::spawn(async move {
        run(watched, Account::new(&world.journal, id, news), sender).await;
        drop(drain);
    });
    (teller, told)
}

/// More news than the stream can keep, none of it about the session.
fn lag(news: &broadcast::Sender<JournalNews>) {
    for _ in 0..3 {
        news.send(JournalNews::DueChanged { backend: backend() }).unwrap();
    }
}

/// The next event; not the warnings, which depend on how the fixture's time lies to the clock.
async fn next(told: &mut mpsc::Receiver<Reply>) -> Option<Event> {
    loop {
        let reply = tokio::time::timeout(PATIENCE, told.recv()).await.expect("the stream goes on");
        match reply?.unwrap().event.unwrap() {
            Event::LeaseExpiring(_) => {}
            event => return Some(event),
        }
    }
}

fn released(lease: IntentId, state: LeaseState) -> Event {
    Event::LeaseChanged(v1::LeaseChanged {
        lease_id: lease.to_string(),
        state: convert::lease_state(state).into(),
        cause: "released".to_owned(),
        ..Default::default()
    })
}

/// Far more than it takes; only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(20);
