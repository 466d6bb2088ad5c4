//! Who acts in a run: clients, the worker, the reaper, the loader of policies. Each is one future.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ask::Ask;
use claviger_core::binding::Binding;
use claviger_core::decide::SessionAsk;
use claviger_core::flow::issue::{Delivery, IssueError};
use claviger_core::flow::{issue, revoke, session};
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::journal::{Entry, Event};
use claviger_core::ports::{Journal, Policies, Ports};
use claviger_core::principal::{Principal, Requester};
use claviger_core::session::{EndCause, Session};
use rand::Rng;

use super::policies::{ASKED, BACKENDS, Known, ROLES, SNAPSHOTS};
use super::world::{Client, Sim};

pub async fn open_session(sim: Sim, parent: Option<Arc<Session>>) {
    let ask = {
        let world = &mut *sim.world();
        let principal = Principal::from_unix_peer(1000, 1000);
        SessionAsk {
            requester: Requester::from_workload(&principal),
            principal,
            role: ROLES[world.rng.random_range(0..ROLES.len())].parse().unwrap(),
            life: Some(Duration::from_mins(world.rng.random_range(1..480))),
            claimed_reason: None,
            parent: parent.clone(),
        }
    };
    if let Ok(opened) = session::open(&sim, &ask, Binding::Unix { uid: 1000 }).await {
        let world = &mut *sim.world();
        world.coverage.sessions += 1;
        world.coverage.children += u64::from(parent.is_some());
        world.clients.push(Client { session: opened.session, leases: Vec::new() });
    }
}

pub async fn issue(sim: Sim, session: Arc<Session>) {
    let ask = {
        let rng = &mut sim.world().rng;
        // Few keys, so that they are used again.
        let key = rng.random_range(0..5_u8);
        Ask {
            scope: ASKED[rng.random_range(0..ASKED.len())].parse().unwrap(),
            ttl: rng.random_bool(0.5).then(|| Duration::from_secs(rng.random_range(1..7200))),
            idempotency_key: (key < 3).then(|| format!("k{key}").parse().unwrap()),
            claimed_reason: None,
        }
    };
    let result = issue::issue(&sim, &session, &ask).await;
    match &result {
        // The error tells the agent to release that lease and to ask again; some do at once.
        Err(IssueError::KeyUsed { lease, .. }) if sim.world().chance(50) => {
            release(sim.clone(), session.id(), *lease).await;
        }
        Err(IssueError::Plugin(_)) => {}
        _ => return known(&sim, &session, result),
    }
    // What falls due wakes the worker.
    worker_pass(sim.clone(), 0).await;
    known(&sim, &session, result);
}

/// What the client learns from the answer.
fn known(sim: &Sim, session: &Session, result: Result<Delivery, IssueError>) {
    let world = &mut *sim.world();
    let lease = match result {
        Ok(Delivery { lease, .. }) => {
            world.coverage.issued += 1;
            if !world.ledger.has_issued(lease.id) {
                world.violations.push(format!("{} was handed out and not recorded", lease.id));
            }
            lease.id
        }
        Err(IssueError::KeyUsed { lease, .. }) => {
            world.coverage.key_used += 1;
            lease
        }
        Err(error) => {
            match error {
                IssueError::Denied { .. } => world.coverage.denied += 1,
                IssueError::SessionEnded => {
                    world.coverage.session_ended += 1;
                    world.clients.retain(|client| client.session.id() != session.id());
                }
                IssueError::PoliciesUnsettled => world.coverage.policies_unsettled += 1,
                IssueError::TimedOut => world.coverage.timed_out += 1,
                IssueError::Plugin(_) => world.coverage.plugin_failed += 1,
                IssueError::KeyUsed { .. } | IssueError::Journal(_) => {}
            }
            return;
        }
    };
    if let Some(client) = world.clients.iter_mut().find(|c| c.session.id() == session.id()) {
        client.leases.push(lease);
    }
}

pub async fn release(sim: Sim, session: SessionId, lease: IntentId) {
    let _refused_while_the_journal_is_down = session::release(&sim, session, lease).await;
}

pub async fn end_session(sim: Sim, session: SessionId, cause: EndCause) {
    let _refused_while_the_journal_is_down = session::end(&sim, session, cause).await;
}

/// Ends the sessions whose life is over.
pub async fn reap(sim: Sim) {
    let over: Vec<_> = {
        let world = sim.world();
        let rows = world.ledger.sessions.values();
        rows.filter(|row| !row.ended && !row.session.is_live_at(world.now))
            .map(|row| row.session.id())
            .collect()
    };
    for session in over {
        end_session(sim.clone(), session, EndCause::LifeReached).await;
    }
}

/// One pass of the worker over one backend.
pub async fn worker_pass(sim: Sim, backend: usize) {
    let backend = BACKENDS[backend].parse().unwrap();
    let limit = sim.world().rng.random_range(1..6);
    let Ok(groups) = revoke::take(&sim, &backend, limit).await else { return };
    for group in groups {
        sim.dawdle().await;
        let _taken_again_in_the_next_pass = revoke::revoke(&sim, &group).await;
    }
}

/// One pass over everything that lives.
pub async fn decide_again(sim: Sim) {
    let digest = sim.policies().current().digest();
    // Two at once would each know half; the broker has one task for it.
    let mut again = std::mem::take(&mut sim.world().again);
    let passed = again.pass(&sim).await;
    let world = &mut *sim.world();
    if again.next_at().is_some() {
        world.coverage.roles_spared += 1;
    }
    world.again = again;
    if passed.is_ok() {
        world.passed = Some(digest);
    }
}

/// The same, and what falls due by it wakes the worker.
pub async fn decide_again_and_work(sim: Sim) {
    decide_again(sim.clone()).await;
    for backend in 0..BACKENDS.len() {
        worker_pass(sim.clone(), backend).await;
    }
}

/// Records a snapshot as loaded, then shows it, as the broker does.
pub async fn load_policies(sim: Sim, index: usize) {
    let digest = SNAPSHOTS[index].snapshot.digest();
    if sim.policies().current().digest() == digest {
        return;
    }
    let mut entry = Entry::new(sim.world().now, Event::PoliciesLoaded);
    entry.snapshot = Some(digest);
    if sim.record(entry).await.is_ok() {
        sim.dawdle().await;
        sim.world().policies = index;
    }
}

/// Shows what was recorded last, if who loaded it has gone in between: the broker's reloads run to
/// their end whoever goes away.
pub fn finish_reload(sim: &Sim) {
    let world = &mut *sim.world();
    let recorded = world.ledger.snapshot;
    let shown = |known: &Known| Some(known.snapshot.digest()) == recorded;
    world.policies = SNAPSHOTS.iter().position(shown).expect("a known snapshot");
}
