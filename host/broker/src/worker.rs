//! The revoke worker and the session reaper. Woken by a timer or by news, without input,
//! idempotent: what a pass leaves, the next one takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_core::flow;
use claviger_core::flow::again::{Again, PassError};
use claviger_core::lease::DueLease;
use claviger_core::name::BackendName;
use claviger_core::ports::{Clock, Journal, JournalError, Policies, Ports};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::journal::JournalNews;

/// Runs one loop for each backend, so that a dead backend delays no other. Also for backends that
/// only the journal knows: their leases become stuck, and so visible, instead of lost.
pub async fn revoke_all(broker: Arc<Broker>) {
    let mut known = BTreeSet::new();
    let mut loops = JoinSet::new();
    // Subscribed before the journal is asked, so that no backend falls between the two.
    let mut news = broker.journal.news();
    loop {
        for backend in backends(&broker).await {
            if known.insert(backend.clone()) {
                loops.spawn(revoke_on(Arc::clone(&broker), backend));
            }
        }
        loop {
            match news.recv().await {
                Ok(JournalNews::DueChanged { backend }) if !known.contains(&backend) => break,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// Ends sessions whose life or heartbeat is over.
pub async fn reap(broker: Arc<Broker>, heartbeat_grace: Duration) {
    let mut tick = tokio::time::interval(REAP_EVERY.min(heartbeat_grace / 2));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (session, cause) in broker.sessions.overdue(broker.clock().now(), heartbeat_grace) {
            match flow::session::end(&*broker, session, cause).await {
                Ok(_) => broker.sessions.remove(session),
                // The session stays, and the next tick tries again.
                Err(error) => {
                    tracing::error!(session.id = %session, %error, "a session could not be ended");
                    break;
                }
            }
        }
    }
}

/// Decides again what lives, at the start and after each change of what decides, and ends what is
/// no longer permitted. A pass that fails is made again: it begins anew and repeats nothing.
pub async fn decide_again(broker: Arc<Broker>) {
    let mut again = Again::default();
    loop {
        // Read before the pass, which may see a newer one: then the next pass finds nothing to do.
        let snapshot = broker.policies().current().digest();
        let began = Instant::now();
        let stopped = again.pass(&*broker).await;
        let passed = again.take_passed();
        for session in &passed.sessions_ended {
            broker.sessions.remove(*session);
        }
        broker.metrics.decided_again(&passed, began.elapsed());
        let wait = match stopped {
            Ok(()) => again.next_at().map_or(NEVER, |at| at.since(broker.clock().now())),
            Err(PassError::Overtaken) => Duration::ZERO,
            Err(error) => {
                tracing::error!(%error, "what lives cannot be decided again yet");
                JOURNAL_WAIT
            }
        };
        tokio::select! {
            () = broker.policies.changed_from(snapshot) => {}
            () = tokio::time::sleep(wait.max(PASS_PAUSE)) => {}
        }
    }
}

async fn revoke_on(broker: Arc<Broker>, backend: BackendName) {
    let mut news = broker.journal.news();
    loop {
        let wait = match pass(&broker, &backend).await {
            Ok(Pass::More) => continue,
            Ok(Pass::Done { wait }) => wait,
            Err(error) => {
                tracing::error!(backend.name = %backend, %error, "the revoke worker cannot go on yet");
                JOURNAL_WAIT
            }
        };
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => break,
                heard = news.recv() => match heard {
                    Ok(JournalNews::DueChanged { backend: of }) if of == backend => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }
}

enum Pass {
    More,
    Done { wait: Duration },
}

/// Takes what is due and attempts all of it, a few at a time.
async fn pass(broker: &Arc<Broker>, backend: &BackendName) -> Result<Pass, JournalError> {
    let due = flow::revoke::take(&**broker, backend, TAKE_MAX).await?;
    if due.is_empty() {
        let next = broker.journal().next_due_at(backend).await?;
        let now = broker.clock().now();
        return Ok(Pass::Done { wait: next.map_or(IDLE_WAIT, |at| at.since(now).min(IDLE_WAIT)) });
    }
    let mut attempts = JoinSet::new();
    let mut recorded = Ok(Pass::More);
    for lease in due {
        while attempts.len() >= ATTEMPTS_AT_ONCE {
            recorded = recorded.and(joined(attempts.join_next().await));
        }
        attempts.spawn(attempt(Arc::clone(broker), lease));
    }
    while !attempts.is_empty() {
        recorded = recorded.and(joined(attempts.join_next().await));
    }
    recorded
}

async fn attempt(broker: Arc<Broker>, lease: DueLease) -> Result<(), JournalError> {
    let state = flow::revoke::revoke(&*broker, &lease).await?;
    broker.metrics.revoked(&lease, state, broker.clock().now());
    Ok(())
}

/// A panicking attempt is the sandbox's bug and has been logged; its lease stays due.
fn joined(
    ended: Option<Result<Result<(), JournalError>, tokio::task::JoinError>>,
) -> Result<Pass, JournalError> {
    match ended {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(JournalError::Damaged(format!("an attempt to revoke: {panic}"))),
        Some(Ok(Ok(()))) | None => Ok(Pass::More),
    }
}

async fn backends(broker: &Broker) -> Vec<BackendName> {
    let configured = broker.policies().current();
    let mut all: Vec<_> = configured.catalog().backends.keys().cloned().collect();
    match broker.journal.backends_with_work().await {
        Ok(recorded) => all.extend(recorded),
        Err(error) => tracing::error!(%error, "the journal cannot tell which backends have work"),
    }
    all
}

/// Enough to keep the attempts busy; more would only age in memory.
const TAKE_MAX: usize = 256;

/// The most revocations at once on one backend: twice as many as its pool has connections, so that
/// a connection is used while what was done on it before is made durable.
const ATTEMPTS_AT_ONCE: usize = 16;

/// How often sessions are looked at; a session ends at most this much late.
const REAP_EVERY: Duration = Duration::from_millis(500);

/// The journal looks at itself twice a second; asking more often gains nothing.
const JOURNAL_WAIT: Duration = Duration::from_millis(500);

/// Between the record of a snapshot and its swap a pass finds itself overtaken; it must not spin.
const PASS_PAUSE: Duration = Duration::from_millis(10);

/// Longer than any broker runs: only a change brings the next pass.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Look again now and then even if nothing is due: a bound on any missed nudge.
const IDLE_WAIT: Duration = Duration::from_secs(30);
