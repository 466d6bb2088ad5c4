//! Tells the service manager how the broker is: systemd, or whoever else gave it a
//! `NOTIFY_SOCKET`. Without one it tells nobody. Restarts nothing itself.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::lease::LeaseState;
use sd_notify::NotifyState;
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::Broker;

/// The broker serves.
pub fn ready(broker: &Broker) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(broker))]);
}

/// The configuration is being read again. The broker serves meanwhile; [`ready`] ends it.
pub fn reloading() {
    // systemd tells by the time whether this answers its own request.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => {
            tell(&[NotifyState::Reloading, now, NotifyState::Status("reading its files again")])
        }
        Err(error) => tracing::warn!(%error, "the reload cannot be told to the service manager"),
    }
}

/// The broker takes no more calls.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing the calls that run")]);
}

/// Runs until it is dropped: feeds the watchdog while the journal's writer answers. A full disk is
/// an answer too; a restart would not make room.
pub async fn keep_alive(broker: Arc<Broker>) {
    let every = sd_notify::watchdog_enabled().map_or(STATUS_EVERY, |limit| limit / PER_LIMIT);
    loop {
        let begun = Instant::now();
        if timeout(every, broker.journal.is_answering()).await == Ok(true) {
            tell(&[NotifyState::Watchdog, NotifyState::Status(&status(&broker))]);
        } else {
            tracing::error!(
                waited_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
                "the journal's writer does not answer: the watchdog is not fed"
            );
        }
        sleep_until(begun + every).await;
    }
}

/// One line for `systemctl status`.
fn status(broker: &Broker) -> String {
    if !broker.journal.health().borrow().is_writable() {
        return "issues nothing: the journal cannot write".to_owned();
    }
    let leases = broker.journal.stats().leases();
    let [active, due, stuck] =
        [LeaseState::Active, LeaseState::Due, LeaseState::Stuck].map(|state| leases.of(state));
    format!(
        "serves {} sessions with {active} active leases; {due} to revoke, {stuck} stuck",
        broker.sessions.len()
    )
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Three times within the limit: one that comes late does not end the broker.
const PER_LIMIT: u32 = 3;

/// Without a watchdog only the status line is told, which nobody waits for.
const STATUS_EVERY: Duration = Duration::from_secs(20);
