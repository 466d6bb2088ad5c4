//! What the tests of replaced root credentials share: orders of an operator and what comes of them,
//! and agents that must not notice. Replaces nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use claviger_proto::v1;

use crate::broker::{Broker, claviger, run};
use crate::client::{Agent, journal};
use crate::poll;

/// The exit code of a command, and what it wrote to standard output and error.
pub type Said = (i32, String, String);

/// Runs `claviger` to its end.
pub fn operate(broker: &Broker, args: &[&str]) -> Said {
    run(claviger(broker, args))
}

/// It ended with this code, said this, and no secret.
pub fn check((ended, output, error): &Said, code: i32, hint: &str) {
    let told = format!("{output}{error}");
    assert_eq!(*ended, code, "{told}");
    assert!(told.contains(hint), "no `{hint}` in {told}");
    assert!(!told.contains("canary"), "{told}");
}

/// The entries of this event.
pub async fn entries(broker: &Broker, event: &str) -> Vec<serde_json::Value> {
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    entries.into_iter().filter(|entry| entry["event"] == event).collect()
}

/// How many there are.
pub async fn count(broker: &Broker, event: &str) -> usize {
    entries(broker, event).await.len()
}

/// What an agent asks for.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// In which role.
    pub role: &'static str,
    /// Which scope.
    pub scope: &'static str,
}

/// Issues with whichever root credential is in force.
pub async fn issues(broker: &Broker, want: Want) {
    let agent = Agent::open(&broker.socket(), want.role).await.expect("a session");
    agent.issue(want.scope).await.expect("whichever credential is in force");
    agent.close().await.expect("closed");
}

/// Agents that issue and release until they are stopped; a failed call fails the test.
pub struct Load {
    stop: Arc<AtomicBool>,
    issued: Arc<AtomicU64>,
    agents: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// Starts four.
    pub async fn start(broker: &Broker, want: Want) -> Self {
        let (stop, issued) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut agents = Vec::new();
        for _ in 0..4 {
            let agent = Agent::open(&broker.socket(), want.role).await.expect("a session");
            let (stop, issued) = (Arc::clone(&stop), Arc::clone(&issued));
            agents.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let lease = agent.issue(want.scope).await.expect("issued").lease.lease_id;
                    agent.release(&lease).await.expect("released");
                    issued.fetch_add(1, Ordering::SeqCst);
                }
                agent.close().await.expect("closed");
            }));
        }
        Self { stop, issued, agents }
    }

    /// Waits for some more credentials.
    pub async fn goes_on(&self) {
        let until = self.issued.load(Ordering::SeqCst) + 8;
        poll::until("the load goes on", || {
            std::future::ready((self.issued.load(Ordering::SeqCst) >= until).then_some(()))
        })
        .await;
    }

    /// Stops them.
    pub async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for agent in self.agents {
            agent.await.expect("no call failed");
        }
    }
}
