//! Faults that the simulation found, each played again step by step.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use claviger_core::ask::Ask;
use claviger_core::binding::Binding;
use claviger_core::decide::SessionAsk;
use claviger_core::flow::issue::{IssueError, START_WITHIN_MAX};
use claviger_core::flow::{issue, session};
use claviger_core::principal::{Principal, Requester};

use super::policies::SNAPSHOTS;
use super::world::{Flaw, Sim};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Commits and polls until the future is done.
fn finish<F: Future>(sim: &Sim, mut future: Pin<&mut F>) -> F::Output {
    loop {
        if let Poll::Ready(output) = poll(future.as_mut()) {
            return output;
        }
        commit(sim);
    }
}

fn commit(sim: &Sim) {
    let world = &mut *sim.world();
    if let Some(write) = world.queue.pop_front() {
        write(world);
    }
}

/// Issues with a stall of this length between the commit of the intent and the next poll.
fn issue_after_a_stall_of(stall: Duration) -> (Sim, Result<(), IssueError>) {
    let sim = Sim::new(0, Flaw::None);
    {
        let world = &mut *sim.world();
        world.ledger.load_policies(SNAPSHOTS[0].snapshot.digest(), world.now);
    }
    let principal = Principal::from_unix_peer(1000, 1000);
    let ask = SessionAsk {
        requester: Requester::from_workload(&principal),
        principal,
        role: "reader".parse().unwrap(),
        life: None,
        claimed_reason: None,
        parent: None,
    };
    let opened =
        finish(&sim, pin!(session::open(&sim, &ask, Binding::Unix { uid: 1000 }))).unwrap();
    let ask = Ask {
        scope: "orders-db/readonly".parse().unwrap(),
        ttl: None,
        idempotency_key: None,
        claimed_reason: None,
    };
    let result = {
        let mut issuing = pin!(issue::issue(&sim, &opened.session, &ask));
        assert!(poll(issuing.as_mut()).is_pending(), "the intent waits for its commit");
        commit(&sim);
        sim.world().advance(stall);
        finish(&sim, issuing.as_mut()).map(drop)
    };
    (sim, result)
}

/// Found as: the intent stalled after its record, timed out, was revoked by the worker, and only
/// then did its plugin start; what it minted belonged to a lease that was final.
#[test]
fn no_plugin_starts_when_recording_the_intent_took_too_long() {
    let (sim, result) = issue_after_a_stall_of(START_WITHIN_MAX + Duration::from_millis(1));
    assert!(matches!(result, Err(IssueError::TimedOut)));
    assert!(sim.world().upstream.called.is_empty());

    let (sim, result) = issue_after_a_stall_of(START_WITHIN_MAX);
    assert!(result.is_ok());
    assert_eq!(sim.world().upstream.live.len(), 1);
}
