//! What Prometheus sees: counts, durations and queue lengths. Never a name that an agent chose.

use std::sync::Arc;
use std::time::Duration;

use claviger_core::ask::Ask;
use claviger_core::flow::again::Passed;
use claviger_core::flow::issue::{Delivery, IssueError};
use claviger_core::flow::session::{OpenSessionError, Opened};
use claviger_core::lease::{DueLease, LeaseState};
use claviger_core::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::broker::Broker;
use crate::journal::CommitObserver;
use crate::plugin::{Observation, Observe};

/// All metrics.
pub struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    plugin_calls: Family<PluginLabels, Histogram>,
    revocation_lag: Histogram,
    revocations: Family<StateLabels, Counter>,
    passes: Histogram,
    withdrawn: Family<WithdrawnLabels, Counter>,
    commits: Histogram,
    leases: Family<StateLabels, Gauge>,
    sessions: Gauge,
    journal_queue: Gauge,
    journal_writable: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    action: &'static str,
    decision: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PluginLabels {
    plugin: String,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WithdrawnLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers everything under the prefix `claviger`.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("claviger");
        let metrics = Self {
            registry: Registry::default(),
            decisions: Family::default(),
            plugin_calls: Family::new_with_constructor(latency as fn() -> Histogram),
            revocation_lag: Histogram::new(exponential_buckets(0.01, 2.0, 18)),
            revocations: Family::default(),
            passes: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            withdrawn: Family::default(),
            commits: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            leases: Family::default(),
            sessions: Gauge::default(),
            journal_queue: Gauge::default(),
            journal_writable: Gauge::default(),
        };
        metrics.register(&mut registry);
        Self { registry, ..metrics }
    }

    fn register(&self, to: &mut Registry) {
        to.register(
            "decisions",
            "Requests decided, by action, decision and code",
            self.decisions.clone(),
        );
        let help = "Plugin calls, by plugin, call and outcome";
        to.register_with_unit("plugin_call", help, Unit::Seconds, self.plugin_calls.clone());
        let help = "Passes that decided everything alive again";
        to.register_with_unit("decide_again", help, Unit::Seconds, self.passes.clone());
        let help = "Sessions and leases ended because they are no longer permitted";
        to.register("withdrawn", help, self.withdrawn.clone());
        let help = "From the moment a lease fell due to its end upstream";
        to.register_with_unit("revocation_lag", help, Unit::Seconds, self.revocation_lag.clone());
        to.register(
            "revocations",
            "Attempts to revoke, by the state that followed",
            self.revocations.clone(),
        );
        let help = "Durable commits of the journal";
        to.register_with_unit("journal_commit", help, Unit::Seconds, self.commits.clone());
        to.register("leases", "Leases by state", self.leases.clone());
        to.register("sessions", "Live sessions", self.sessions.clone());
        to.register(
            "journal_queue",
            "Writes that wait for the journal",
            self.journal_queue.clone(),
        );
        to.register(
            "journal_writable",
            "1 while the journal can write",
            self.journal_writable.clone(),
        );
    }

    /// A request to open a session was decided.
    pub fn session_decided(&self, opened: &Result<Opened, OpenSessionError>) {
        let (decision, code) = match opened {
            Ok(_) => ("permit", String::new()),
            Err(OpenSessionError::Denied { denial, .. }) => {
                ("deny", denial.reason.code().to_owned())
            }
            Err(OpenSessionError::Begin(_)) => ("error", "PARENT".to_owned()),
            Err(OpenSessionError::PoliciesUnsettled) => ("error", "POLICIES_UNSETTLED".to_owned()),
            Err(OpenSessionError::Journal(_)) => ("error", "JOURNAL".to_owned()),
        };
        self.decided("open_session", decision, code);
    }

    /// A request for a credential was decided, and perhaps issued.
    pub fn issue_decided(&self, ask: &Ask, issued: &Result<Delivery, IssueError>) {
        let (decision, code) = match issued {
            Ok(Delivery { lease, .. }) => {
                // The journal has an entry for each; a line besides took 8 % of an issue's time.
                tracing::debug!(lease.id = %lease.id, session.id = %lease.session, scope = %lease.scope, decision = "permit", "issued");
                ("permit", String::new())
            }
            Err(IssueError::Denied { id, denial }) => {
                tracing::info!(denial.id = %id, scope = %ask.scope, decision = "deny", code = denial.reason.code(), "refused");
                ("deny", denial.reason.code().to_owned())
            }
            Err(error) => {
                tracing::warn!(scope = %ask.scope, decision = "error", %error, "not issued");
                ("error", String::new())
            }
        };
        self.decided("issue", decision, code);
    }

    fn decided(&self, action: &'static str, decision: &'static str, code: String) {
        self.decisions.get_or_create(&DecisionLabels { action, decision, code }).inc();
    }

    /// An attempt to revoke was recorded.
    pub fn revoked(&self, lease: &DueLease, state: LeaseState, now: Timestamp) {
        self.revocations.get_or_create(&StateLabels { state: state.as_str() }).inc();
        if state == LeaseState::Revoked {
            self.revocation_lag.observe(now.since(lease.due_at).as_secs_f64());
        } else {
            tracing::warn!(lease.id = %lease.id, scope = %lease.scope, state = state.as_str(), attempts = lease.attempts, "a lease was not revoked");
        }
    }

    /// What lives was decided again.
    pub fn decided_again(&self, passed: &Passed, took: Duration) {
        self.passes.observe(took.as_secs_f64());
        let sessions_ended = passed.sessions_ended.len();
        let count = |kind| self.withdrawn.get_or_create(&WithdrawnLabels { kind });
        count("session").inc_by(u64::try_from(sessions_ended).unwrap_or(u64::MAX));
        count("lease").inc_by(passed.leases_due);
        let Passed { sessions, leases, leases_due, .. } = passed;
        let duration_ms = took.as_millis();
        if sessions_ended > 0 || *leases_due > 0 {
            tracing::warn!(
                sessions,
                leases,
                sessions_ended,
                leases_due,
                duration_ms,
                "ended what is no longer permitted"
            );
        } else {
            tracing::debug!(sessions, leases, duration_ms, "decided again: all is permitted still");
        }
    }

    /// Everything in the OpenMetrics text format.
    pub fn text(&self, broker: &Broker) -> Result<String, std::fmt::Error> {
        let stats = broker.journal.stats();
        for (state, count) in stats.leases().iter() {
            let gauge = self.leases.get_or_create(&StateLabels { state: state.as_str() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.sessions.set(i64::try_from(broker.sessions.len()).unwrap_or(i64::MAX));
        self.journal_queue.set(i64::try_from(stats.queued()).unwrap_or(i64::MAX));
        self.journal_writable.set(broker.journal.health().borrow().is_writable().into());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Lets the sandbox tell how each call went.
pub fn plugin_observer(metrics: &Arc<Metrics>) -> Observe {
    let calls = metrics.plugin_calls.clone();
    Arc::new(move |seen: &Observation<'_>| {
        let labels = PluginLabels {
            plugin: seen.plugin.to_string(),
            call: seen.call.as_str(),
            outcome: seen.outcome.as_str(),
        };
        calls.get_or_create(&labels).observe(seen.duration.as_secs_f64());
    })
}

/// Lets the journal tell how long each commit took.
pub fn commit_observer(metrics: &Arc<Metrics>) -> CommitObserver {
    let commits = metrics.commits.clone();
    Arc::new(move |took| commits.observe(took.as_secs_f64()))
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}
