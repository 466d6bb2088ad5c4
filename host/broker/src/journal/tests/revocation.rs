//! What a revocation finds: everything that may still work, whoever ended it and whenever.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::admin::Selector;
use claviger_core::lease::{LeaseState, RevokeOutcome};
use claviger_core::ports::{Clock, Journal};
use claviger_core::session::{EndCause, Session};

use super::world::{World, backend, stranger, token};
use crate::identity::Identities;
use crate::sessions::Sessions;

#[tokio::test]
async fn what_fell_due_before_a_revocation_is_found_until_it_is_gone() {
    let world = World::new().await;
    let (ended, lives) = (world.session().await, world.session().await);
    let child = world.child(&ended).await.unwrap();
    for session in [&ended, &ended, &ended, &ended, &child, &lives] {
        world.issue(session).await.unwrap();
    }
    end(&world, &ended).await;
    let due = world.take_due().await;
    let own = due.iter().filter(|lease| lease.session == ended.id());
    let [stuck, failing] = [failed(&world, None), failed(&world, Some(1))];
    let outcomes = [RevokeOutcome::Gone, RevokeOutcome::CannotRevoke, stuck, failing];
    for (lease, outcome) in own.zip(outcomes) {
        let now = world.clock.now();
        world.journal.record_revocation(lease, &outcome, now).await.unwrap();
    }

    let found = world.journal.unsettled_of(Selector::Session(ended.id())).await.unwrap();
    let count = |state: LeaseState, attempts: u32| {
        found.iter().filter(|lease| (lease.state, lease.attempts) == (state, attempts)).count()
    };
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!((count(LeaseState::Lapsing, 0), count(LeaseState::Stuck, 1)), (1, 1), "{found:?}");
    assert_eq!((count(LeaseState::Due, 1), count(LeaseState::Due, 0)), (1, 1), "{found:?}");
    let left = world.journal.selected_sessions(Selector::Session(ended.id())).await.unwrap();
    assert!(left.is_empty(), "the session itself cannot be ended again");

    let me = "unix:1000".to_owned();
    let (role, digest) = (ended.role().clone(), *ended.prompt_digest());
    for (selector, expect) in [
        (Selector::Session(child.id()), 1),
        (Selector::Session(lives.id()), 1),
        (Selector::Role(role.clone()), 5),
        (Selector::Requester(me.clone()), 5),
        (Selector::Workload(me), 5),
        (Selector::Prompt(digest), 5),
        (Selector::Backend(backend()), 5),
        (Selector::Everything, 5),
        (Selector::Role("writer".parse().unwrap()), 0),
        (Selector::Requester("unix:1".to_owned()), 0),
        (Selector::Workload("unix:1".to_owned()), 0),
        (Selector::Backend("billing-db".parse().unwrap()), 0),
    ] {
        let found = world.journal.unsettled_of(selector.clone()).await.unwrap();
        assert_eq!(found.len(), expect, "{selector}");
    }
    // As if the child were of another role, with another prompt file: it ended with the one above.
    let disguise = "UPDATE leases SET role = 'writer', prompt_digest = '00' WHERE session = ?1";
    stranger(world.path()).execute(disguise, [child.id().to_string()]).unwrap();
    for selector in [Selector::Role(role), Selector::Prompt(digest)] {
        let found = world.journal.unsettled_of(selector.clone()).await.unwrap();
        assert_eq!(found.len(), 5, "{selector}");
    }
}

/// Whoever ended it told those who were remembered then: nobody would ever forget it.
#[tokio::test]
async fn a_session_that_ended_before_it_was_remembered_is_not_remembered() {
    let world = World::new().await;
    let (lives, ended) = (world.session().await, world.session().await);
    let child = world.child(&ended).await.unwrap();
    end(&world, &ended).await;
    let sessions = Sessions::new(8, vec![]);
    for (number, session, expect) in [(1, &lives, true), (2, &ended, false), (3, &child, false)] {
        let begun = (token(number), Arc::clone(session));
        let nobody = Identities::default();
        let remembered = sessions.remember(&world.journal, &nobody, begun).await;
        assert_eq!(remembered, Ok(expect), "session {number}");
    }
    assert_eq!(sessions.len(), 1, "and none takes a place");
}

async fn end(world: &World, session: &Session) {
    let now = world.clock.now();
    world.journal.end_session(session.id(), EndCause::Closed, now).await.unwrap();
}

fn failed(world: &World, again_in_secs: Option<u64>) -> RevokeOutcome {
    let next_attempt_at =
        again_in_secs.map(|secs| world.clock.now().after(Duration::from_secs(secs)));
    RevokeOutcome::Failed { error: "no answer".to_owned(), next_attempt_at }
}
