//! What the port promises of sessions, intents and leases.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::ask::Ask;
use claviger_core::budget::Budgets;
use claviger_core::fixture;
use claviger_core::flow::issue::IssueError;
use claviger_core::ids::IntentId;
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::{DueCause, DueLease, Lease, LeaseState, RevokeOutcome};
use claviger_core::policy::{PolicyFile, PolicySnapshot, PolicySources};
use claviger_core::ports::{BeginError, Clock, Journal, OpenError, SessionEnded};
use claviger_core::session::{EndCause, Session};

use super::queries::events;
use super::world::{INTENT_TIMEOUT, World, backend};
use crate::journal::JournalNews;

#[tokio::test]
async fn a_lease_goes_from_intent_to_revoked_with_an_entry_for_each_step() {
    let world = World::new().await;
    let session = world.session().await;
    let lease = world.issue(&session).await.unwrap();
    assert_eq!(states(&world, &session).await, [LeaseState::Active]);
    assert!(world.take_due().await.is_empty());

    let now = world.clock.now();
    let released = world.journal.release_lease(session.id(), lease.id, now).await;
    assert_eq!(released, Ok(Some(LeaseState::Due)));
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].id, due[0].cause), (1, lease.id, DueCause::Released));
    assert_eq!(record(&world, &due[0], RevokeOutcome::Gone).await, LeaseState::Revoked);
    assert!(states(&world, &session).await.is_empty());
    assert!(world.take_due().await.is_empty());

    use Event::{IntentOpened, LeaseDue, LeaseIssued, LeaseRevoked, PoliciesLoaded, SessionBegun};
    let expect = [PoliciesLoaded, SessionBegun, IntentOpened, LeaseIssued, LeaseDue, LeaseRevoked];
    assert_eq!(events(&world).await, expect);
    world.journal.verify().await.unwrap();
}

#[tokio::test]
async fn no_intent_without_a_live_session() {
    let world = World::new().await;
    let (ended, expired) = (world.session().await, world.session().await);
    end(&world, &ended).await;
    assert_eq!(open(&world, &ended).await, Err(OpenError::SessionEnded));
    let unknown = fixture::session_in(&world.policies.0, 200);
    assert_eq!(open(&world, &unknown).await, Err(OpenError::SessionEnded));
    let permit = fixture::permit_in(&world.policies.0, &expired);
    let after = expired.ends_at();
    let opened = world.journal.open_intent(intent(9), &permit, after).await;
    assert_eq!(opened, Err(OpenError::SessionEnded));
    assert!(open(&world, &expired).await.is_ok(), "while it lives");
}

#[tokio::test]
async fn no_intent_under_policies_that_are_no_longer_in_force() {
    let world = World::new().await;
    let session = world.session().await;
    let mut sources = fixture::sources();
    let text = "forbid (principal, action, resource);".to_owned();
    sources.policies.push(PolicyFile { path: "more.cedar".to_owned(), text });
    let stricter = PolicySnapshot::load(sources).unwrap();

    let refused = Entry::new(world.clock.now(), Event::PoliciesRefused);
    let refused = Entry { snapshot: Some(stricter.digest()), ..refused };
    world.journal.record(refused).await.unwrap();
    assert!(open(&world, &session).await.is_ok(), "a refused set changes nothing");

    world.load_policies(&stricter).await;
    assert_eq!(open(&world, &session).await, Err(OpenError::SnapshotStale));
    world.load_policies(&world.policies.0).await;
    assert!(open(&world, &session).await.is_ok());
}

#[tokio::test]
async fn nothing_begins_before_any_policies_were_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let journal = super::world::open(&folder.path().join("journal.db")).unwrap().journal;
    let (snapshot, session) = (fixture::snapshot(), fixture::session());
    let begun = claviger_core::session::Begun {
        policies: vec![],
        snapshot: snapshot.digest(),
        claimed_reason: None,
    };
    let began = journal.begin_session(&session, &super::world::token(1), &begun).await;
    assert_eq!(began, Err(BeginError::SnapshotStale));
    let permit = fixture::permit_in(&snapshot, &session);
    let opened = journal.open_intent(intent(1), &permit, fixture::now()).await;
    assert!(opened.is_err(), "{opened:?}");
}

#[tokio::test]
async fn one_idempotency_key_mints_once_in_a_session() {
    let world = World::new().await;
    let (session, other) = (world.session().await, world.session().await);
    let ask = Ask { idempotency_key: Some("order-17".parse().unwrap()), ..fixture::ask() };
    let lease = world.issue_for(&session, &ask).await.unwrap();
    let again = world.issue_for(&session, &ask).await;
    let Err(IssueError::KeyUsed { lease: first, state }) = again else { panic!("minted twice") };
    assert_eq!((first, state), (lease.id, LeaseState::Active));
    assert!(world.issue_for(&other, &ask).await.is_ok(), "another session, another key");
    assert!(world.issue(&session).await.is_ok() && world.issue(&session).await.is_ok());
}

#[tokio::test]
async fn a_credential_minted_for_a_session_that_ended_meanwhile_falls_due_at_once() {
    let world = World::new().await;
    let session = world.session().await;
    let meanwhile = Arc::downgrade(&world);
    let id = session.id();
    world.plugins.meanwhile(async move |_| {
        let world = meanwhile.upgrade().unwrap();
        let now = world.clock.now();
        world.journal.end_session(id, EndCause::HeartbeatLost, now).await.unwrap();
        assert!(world.take_due().await.is_empty(), "nothing to revoke before it is minted");
    });
    let error = world.issue(&session).await.unwrap_err();
    assert!(matches!(error, IssueError::SessionEnded), "{error}");
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::SessionEnded));
    assert!(due[0].handle.is_some());
}

#[tokio::test]
async fn a_credential_minted_after_the_intent_timeout_stays_due() {
    let world = World::new().await;
    let session = world.session().await;
    let meanwhile = Arc::downgrade(&world);
    world.plugins.meanwhile(async move |id| {
        let world = meanwhile.upgrade().unwrap();
        world.clock.advance(INTENT_TIMEOUT - Duration::from_millis(1));
        assert!(world.take_due().await.is_empty(), "not yet");
        world.clock.advance(Duration::from_millis(1));
        let due = world.take_due().await;
        assert_eq!((due.len(), due[0].id, due[0].cause), (1, id, DueCause::IntentTimeout));
        // The first attempt fails; the next would come much later.
        let next_attempt_at = Some(world.clock.now().after(Duration::from_mins(5)));
        let failed = RevokeOutcome::Failed { error: "no answer".to_owned(), next_attempt_at };
        assert_eq!(record(&world, &due[0], failed).await, LeaseState::Due);
        assert!(world.take_due().await.is_empty());
    });
    let error = world.issue(&session).await.unwrap_err();
    assert!(matches!(error, IssueError::TimedOut), "{error}");
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].attempts), (1, 1), "at once, now that there is something");
    assert!(due[0].handle.is_some());
    assert_eq!(events(&world).await.last(), Some(&Event::IssueFailed));
}

#[tokio::test]
async fn a_lease_given_back_while_it_is_minted_waits_for_the_plugin() {
    let world = World::new().await;
    let session = world.session().await;
    let (meanwhile, id) = (Arc::downgrade(&world), session.id());
    world.plugins.meanwhile(async move |lease| {
        let world = meanwhile.upgrade().unwrap();
        let now = world.clock.now();
        let released = world.journal.release_lease(id, lease, now).await;
        assert_eq!(released, Ok(Some(LeaseState::Due)));
        assert!(world.take_due().await.is_empty(), "a revocation now could come too early");
    });
    assert!(world.issue(&session).await.is_err());
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::Released));
}

#[tokio::test]
async fn what_failed_before_anything_was_sent_falls_due_at_once() {
    let world = World::new().await;
    let session = world.session().await;
    world.plugins.fail_before_sending();
    assert!(matches!(world.issue(&session).await, Err(IssueError::Plugin(_))));
    assert_eq!(world.take_due().await.len(), 1);
}

#[tokio::test]
async fn what_the_upstream_may_still_do_is_revoked_only_after_the_intent_timeout() {
    let world = World::new().await;
    let session = world.session().await;
    world.plugins.fail();
    assert!(matches!(world.issue(&session).await, Err(IssueError::Plugin(_))));
    assert!(world.take_due().await.is_empty(), "a revocation now could come too early");
    world.clock.advance(INTENT_TIMEOUT);
    let due = world.take_due().await;
    assert_eq!((due.len(), due[0].cause), (1, DueCause::IssueFailed));
    assert!(due[0].handle.is_none());
}

#[tokio::test]
async fn the_end_of_a_session_takes_its_active_leases_and_no_others() {
    let world = World::new().await;
    let (session, other) = (world.session().await, world.session().await);
    for _ in 0..3 {
        world.issue(&session).await.unwrap();
    }
    let released = world.issue(&session).await.unwrap();
    let now = world.clock.now();
    world.journal.release_lease(session.id(), released.id, now).await.unwrap();
    world.issue(&other).await.unwrap();

    let ended = world.journal.end_session(session.id(), EndCause::Operator, now).await;
    assert_eq!(ended, Ok(Some(SessionEnded { leases_due: 3, below: 0 })));
    let again = world.journal.end_session(session.id(), EndCause::Operator, now).await;
    assert_eq!(again, Ok(None));
    assert_eq!(world.take_due().await.len(), 4);
    assert_eq!(states(&world, &other).await, [LeaseState::Active]);
    let counts = world.journal.stats().leases();
    assert_eq!((counts.of(LeaseState::Active), counts.of(LeaseState::Due)), (1, 4));
}

#[tokio::test]
async fn a_session_can_give_back_only_its_own_leases() {
    let world = World::new().await;
    let (session, other) = (world.session().await, world.session().await);
    let lease = world.issue(&session).await.unwrap();
    let now = world.clock.now();
    assert_eq!(world.journal.release_lease(other.id(), lease.id, now).await, Ok(None));
    assert_eq!(world.journal.release_lease(session.id(), intent(99), now).await, Ok(None));
    assert_eq!(states(&world, &session).await, [LeaseState::Active]);
}

#[tokio::test]
async fn taking_again_before_the_outcome_returns_the_same_leases_oldest_first() {
    let world = World::new().await;
    let session = world.session().await;
    let mut issued = Vec::new();
    for _ in 0..3 {
        issued.push(world.issue(&session).await.unwrap().id);
        world.clock.advance(Duration::from_secs(1));
    }
    let now = world.clock.advance(Duration::from_hours(1));
    let take = async |limit| -> Vec<(IntentId, LeaseState, DueCause)> {
        let due = world.journal.take_due(&backend(), now, limit).await.unwrap();
        due.iter().map(|lease| (lease.id, lease.state, lease.cause)).collect()
    };
    let due = |id| (id, LeaseState::Due, DueCause::TtlReached);
    assert_eq!(take(2).await, [due(issued[0]), due(issued[1])]);
    assert_eq!(take(2).await, [due(issued[0]), due(issued[1])]);
    assert_eq!(take(9).await, [due(issued[0]), due(issued[1]), due(issued[2])]);
    let entries = events(&world).await;
    let moves = entries.iter().filter(|event| **event == Event::LeaseDue).count();
    assert_eq!(moves, 3, "one entry a lease, however often it is taken");
    let elsewhere = "billing-db".parse().unwrap();
    assert!(world.journal.take_due(&elsewhere, now, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_outcome_recorded_twice_counts_once() {
    let world = World::new().await;
    let lease = due(&world).await;
    assert_eq!(record(&world, &lease, RevokeOutcome::Gone).await, LeaseState::Revoked);
    assert_eq!(record(&world, &lease, RevokeOutcome::Gone).await, LeaseState::Revoked);
    assert_eq!(record(&world, &lease, failure(&world, None)).await, LeaseState::Revoked);
    assert_eq!(events(&world).await.last(), Some(&Event::LeaseRevoked));
}

#[tokio::test]
async fn what_cannot_be_revoked_lapses_and_expires() {
    let world = World::new().await;
    let lease = due(&world).await;
    assert_eq!(record(&world, &lease, RevokeOutcome::CannotRevoke).await, LeaseState::Lapsing);
    assert!(world.take_due().await.is_empty());
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(Some(lease.expires_at)));
    world.clock.advance(lease.expires_at.since(world.clock.now()));
    let lapsed = world.take_due().await;
    assert_eq!((lapsed.len(), lapsed[0].state), (1, LeaseState::Lapsing));
    assert_eq!(record(&world, &lapsed[0], RevokeOutcome::RanOut).await, LeaseState::Expired);
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(None));
}

#[tokio::test]
async fn a_stuck_lease_waits_for_an_operator() {
    let world = World::new().await;
    let lease = due(&world).await;
    let later = world.clock.now().after(Duration::from_secs(4));
    assert_eq!(record(&world, &lease, failure(&world, Some(4))).await, LeaseState::Due);
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(Some(later)));
    world.clock.advance(Duration::from_secs(4));
    let again = world.take_due().await;
    assert_eq!(again[0].attempts, 1);
    assert_eq!(record(&world, &again[0], failure(&world, None)).await, LeaseState::Stuck);
    world.clock.advance(Duration::from_hours(100));
    assert!(world.take_due().await.is_empty());
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(None));

    let now = world.clock.now();
    assert_eq!(world.journal.retry_lease(intent(99), now).await, Ok(None));
    let retried = world.journal.retry_lease(lease.id, now).await;
    assert_eq!(retried, Ok(Some(LeaseState::Due)));
    let taken = world.take_due().await;
    let known = (taken[0].attempts, taken[0].cause);
    assert_eq!(known, (1, DueCause::Operator), "that it has failed is not forgotten");
    assert_eq!(record(&world, &taken[0], RevokeOutcome::Gone).await, LeaseState::Revoked);
    let retried = world.journal.retry_lease(lease.id, now).await;
    assert_eq!(retried, Ok(Some(LeaseState::Revoked)), "only a stuck lease is retried");
}

#[tokio::test]
async fn what_could_not_be_revoked_counts_until_it_has_expired_also_after_a_start() {
    let mut budgets = Budgets::default();
    budgets.role.live_leases = NonZeroU32::new(1);
    let world = World::new().await;
    let session = world.session().await;
    limit(&world, budgets.clone()).await;
    let lease = world.issue(&session).await.unwrap();
    let now = world.clock.now();
    world.journal.release_lease(session.id(), lease.id, now).await.unwrap();
    let given_back = world.take_due().await.remove(0);
    assert_eq!(record(&world, &given_back, failure(&world, Some(4))).await, LeaseState::Due);
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES", "an attempt has failed");
    world.clock.advance(Duration::from_secs(4));
    let again = world.take_due().await.remove(0);
    assert_eq!(record(&world, &again, failure(&world, None)).await, LeaseState::Stuck);
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES", "and every other one");
    retry(&world, lease.id).await;
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES", "to try again ends nothing");
    let retried = world.take_due().await.remove(0);
    assert_eq!(record(&world, &retried, failure(&world, None)).await, LeaseState::Stuck);

    let (path, _folder) = world.close().await;
    let world = World::at(path).await;
    limit(&world, budgets).await;
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES", "read from the tables");
    retry(&world, lease.id).await;
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES");
    world.clock.advance(lease.expires_at.since(world.clock.now()));
    world.issue(&session).await.unwrap();
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES");
}

#[tokio::test]
async fn what_is_revoked_after_a_failed_attempt_makes_room_at_once() {
    let world = World::new().await;
    let session = world.session().await;
    let mut budgets = Budgets::default();
    budgets.session.live_leases = NonZeroU32::new(1);
    limit(&world, budgets).await;
    let lease = world.issue(&session).await.unwrap();
    let now = world.clock.now();
    world.journal.release_lease(session.id(), lease.id, now).await.unwrap();
    let given_back = world.take_due().await.remove(0);
    assert_eq!(record(&world, &given_back, failure(&world, Some(4))).await, LeaseState::Due);
    assert_eq!(refused(&world, &session).await, "BUDGET_LEASES");
    world.clock.advance(Duration::from_secs(4));
    let again = world.take_due().await.remove(0);
    assert_eq!(record(&world, &again, RevokeOutcome::Gone).await, LeaseState::Revoked);
    world.issue(&session).await.unwrap();
}

#[tokio::test]
async fn who_is_refused_in_a_loop_takes_nothing_from_the_budgets_of_others() {
    let world = World::new().await;
    let (greedy, ended) = (world.session().await, world.session().await);
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(world.session().await);
    }
    let mut budgets = Budgets::default();
    budgets.session.live_leases = NonZeroU32::new(1);
    budgets.backend.issues_per_minute = NonZeroU32::new(3);
    limit(&world, budgets).await;
    end(&world, &ended).await;
    let ask = Ask { idempotency_key: Some("order-17".parse().unwrap()), ..fixture::ask() };
    world.issue_for(&greedy, &ask).await.unwrap();
    for _ in 0..10 {
        assert_eq!(refused(&world, &greedy).await, "BUDGET_LEASES");
        let again = world.issue_for(&greedy, &ask).await;
        assert!(matches!(again, Err(IssueError::KeyUsed { .. })), "{:?}", again.err());
        let over = world.issue(&ended).await;
        assert!(matches!(over, Err(IssueError::SessionEnded)), "{:?}", over.err());
    }
    for other in &others[..2] {
        world.issue(other).await.unwrap();
    }
    assert_eq!(refused(&world, &others[2]).await, "BUDGET_ISSUES", "three issues for three");
    world.journal.verify().await.unwrap();
}

#[tokio::test]
async fn the_worker_is_woken_only_for_what_is_earlier_than_it_knows() {
    let world = World::new().await;
    let session = world.session().await;
    assert_eq!(world.journal.next_due_at(&backend()).await, Ok(None));
    let mut news = world.journal.news();
    let first = world.issue(&session).await.unwrap();
    world.clock.advance(Duration::from_secs(1));
    world.issue(&session).await.unwrap();
    let mut due_changes = 0;
    while let Ok(told) = news.try_recv() {
        due_changes += u32::from(matches!(told, JournalNews::DueChanged { .. }));
    }
    assert_eq!(due_changes, 1, "the first intent; the second times out later");

    let expiry = world.journal.next_due_at(&backend()).await.unwrap();
    assert_eq!(expiry, Some(first.expires_at));
    let now = world.clock.now();
    world.journal.release_lease(session.id(), first.id, now).await.unwrap();
    let changed = JournalNews::LeaseChanged {
        session: session.id(),
        lease: first.id,
        state: LeaseState::Due,
        cause: Some(DueCause::Released),
        expires_at: first.expires_at,
        why: None,
    };
    assert_eq!(news.try_recv(), Ok(changed));
    assert_eq!(news.try_recv(), Ok(JournalNews::DueChanged { backend: backend() }));
}

#[tokio::test]
async fn the_end_of_a_session_is_told_after_its_leases() {
    let world = World::new().await;
    let session = world.session().await;
    let lease = world.issue(&session).await.unwrap();
    let mut news = world.journal.news();
    end(&world, &session).await;
    let JournalNews::LeaseChanged { lease: told, state, .. } = news.try_recv().unwrap() else {
        panic!("the lease comes first")
    };
    assert_eq!((told, state), (lease.id, LeaseState::Due));
    let cause = EndCause::Closed;
    let ended = JournalNews::SessionEnded { session: session.id(), cause, why: None };
    assert_eq!(news.try_recv(), Ok(ended));
}

async fn open(world: &World, session: &Arc<Session>) -> Result<(), OpenError> {
    let permit = fixture::permit_in(&world.policies.0, session);
    let now = world.clock.now();
    let mut random = [0; 10];
    claviger_core::ports::Entropy::fill(claviger_core::ports::Ports::entropy(world), &mut random);
    let id = IntentId::mint(now, &random);
    world.journal.open_intent(id, &permit, now).await.map(drop)
}

/// Puts these budgets in force.
async fn limit(world: &World, budgets: Budgets) {
    let sources = PolicySources { budgets, ..fixture::sources() };
    world.put_sources_in_force(sources).await;
}

/// The code with which `session` is refused.
async fn refused(world: &World, session: &Arc<Session>) -> &'static str {
    match world.issue(session).await {
        Err(IssueError::Denied { denial, .. }) => denial.reason.code(),
        other => panic!("not refused: {:?}", other.err()),
    }
}

async fn end(world: &World, session: &Session) {
    let now = world.clock.now();
    world.journal.end_session(session.id(), EndCause::Closed, now).await.unwrap();
}

async fn retry(world: &World, lease: IntentId) {
    let retried = world.journal.retry_lease(lease, world.clock.now()).await;
    assert_eq!(retried, Ok(Some(LeaseState::Due)));
}

async fn states(world: &World, session: &Session) -> Vec<LeaseState> {
    let leases: Vec<Lease> = world.journal.leases(session.id()).await.unwrap();
    leases.iter().map(|lease| lease.state).collect()
}

/// One lease that is due.
async fn due(world: &World) -> DueLease {
    let session = world.session().await;
    world.issue(&session).await.unwrap();
    end(world, &session).await;
    world.take_due().await.remove(0)
}

async fn record(world: &World, lease: &DueLease, outcome: RevokeOutcome) -> LeaseState {
    world.journal.record_revocation(lease, &outcome, world.clock.now()).await.unwrap()
}

fn failure(world: &World, again_in_secs: Option<u64>) -> RevokeOutcome {
    let next_attempt_at =
        again_in_secs.map(|secs| world.clock.now().after(Duration::from_secs(secs)));
    RevokeOutcome::Failed { error: "no answer".to_owned(), next_attempt_at }
}

fn intent(random: u8) -> IntentId {
    IntentId::mint(fixture::now(), &[random; 10])
}
