//! Decides again what was decided before: whether a session may go on, and whether a lease may. The
//! same questions to the same policies as the first time, so that the two cannot disagree.

use std::sync::Arc;

use super::{Denial, DenialReason, Refused, Run, SessionAsk, Weighing, permits_to_run, ttl, weigh};
use crate::ask::Ask;
use crate::budget::LeaseLimit;
use crate::lease::HeldLease;
use crate::policy::{PolicySnapshot, SnapshotDigest};
use crate::session::Session;
use crate::time::Timestamp;

/// A permission that still holds, by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The ids of the policies that permit it now.
    pub policies: Vec<String>,
    /// The snapshot that decided.
    pub snapshot: SnapshotDigest,
    /// How many such leases there may be; a session counts none.
    pub lease_limits: Vec<LeaseLimit>,
}

/// Decides whether `session` may go on: whether its workload might open it now, for its
/// requester, with the whole life that it was given.
pub fn decide_session_again(
    snapshot: &PolicySnapshot,
    session: &Session,
    now: Timestamp,
) -> Result<Confirmed, Denial> {
    let life = session.ends_at().since(session.opened_at());
    let run = Run {
        principal: session.principal(),
        requester: session.requester(),
        life,
        ancestors: session.ancestors(),
    };
    let (_, policies) = permits_to_run(snapshot, session.role(), &run).map_err(|refused| {
        let (reason, policies) = refused;
        let ask = SessionAsk {
            principal: session.principal().clone(),
            requester: session.requester().clone(),
            role: session.role().clone(),
            life: Some(life),
            claimed_reason: None,
            parent: None,
        };
        let refused = Refused::Session(Box::new(ask));
        Denial { reason, refused, policies, snapshot: snapshot.digest(), at: now, repeats: 0 }
    })?;
    Ok(Confirmed { policies, snapshot: snapshot.digest(), lease_limits: Vec::new() })
}

/// Decides whether the session of `held` may go on holding it: whether it might be issued now
/// with the whole life that it was given. How much of that life is left makes no difference:
/// a limit that was lowered ends what is longer at once, and what is within it lives on.
pub fn decide_lease_again(
    snapshot: &PolicySnapshot,
    held: &HeldLease,
    now: Timestamp,
) -> Result<Confirmed, Denial> {
    let life = held.life();
    let deny = |reason, policies| Denial {
        reason,
        refused: refused(held),
        policies,
        snapshot: snapshot.digest(),
        at: now,
        repeats: 0,
    };
    let Some((backend, scope)) = snapshot.catalog().scope(&held.scope) else {
        return Err(deny(DenialReason::UnknownScope { scope: held.scope.clone() }, vec![]));
    };
    let weighing =
        Weighing { session: &held.session, backend, scope, ttl: life, asked: Some(life) };
    let weighed =
        weigh(snapshot, &weighing, now).map_err(|(reason, policies)| deny(reason, policies))?;
    ttl::within(life, &weighed.limits).map_err(|reason| deny(reason, weighed.policies.clone()))?;
    Ok(Confirmed {
        policies: weighed.policies,
        snapshot: snapshot.digest(),
        lease_limits: weighed.lease_limits,
    })
}

/// The refusal of a lease that is permitted, and one too many under `limit`.
pub fn one_too_many(
    held: &HeldLease,
    confirmed: &Confirmed,
    (limit, now): (LeaseLimit, Timestamp),
) -> Denial {
    Denial {
        reason: DenialReason::TooManyLeases { limit, wait: None },
        refused: refused(held),
        policies: confirmed.policies.clone(),
        snapshot: confirmed.snapshot,
        at: now,
        repeats: 0,
    }
}

/// What the session would have had to ask for.
fn refused(held: &HeldLease) -> Refused {
    let ask = Ask {
        scope: held.scope.clone(),
        ttl: Some(held.life()),
        idempotency_key: None,
        claimed_reason: None,
    };
    Refused::Issue { session: Arc::clone(&held.session), ask }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::time::Duration;

    use super::*;
    use crate::decide::{LimitSource, decide};
    use crate::fixture;
    use crate::ids::IntentId;
    use crate::policy::{PolicyFile, PolicySources};

    fn load(change: impl FnOnce(&mut PolicySources)) -> PolicySnapshot {
        let mut sources = fixture::sources();
        change(&mut sources);
        PolicySnapshot::load(sources).unwrap()
    }

    fn with(policies: &str) -> PolicySnapshot {
        let file = PolicyFile { path: "more.cedar".into(), text: policies.into() };
        load(|sources| sources.policies.push(file))
    }

    /// What the fixture's session gets for an ask with `ttl`.
    fn held(ttl: Option<Duration>) -> HeldLease {
        let ask = Ask { ttl, ..fixture::ask() };
        let permit =
            decide(&fixture::snapshot(), &fixture::session(), &ask, fixture::now()).unwrap();
        HeldLease {
            id: IntentId::mint(fixture::now(), &[1; 10]),
            session: Arc::clone(permit.session()),
            scope: permit.scope().name.clone(),
            granted_at: permit.decided_at(),
            expires_at: permit.expires_at(),
        }
    }

    /// Halfway through the lease: what is left of it must make no difference.
    fn later() -> Timestamp {
        fixture::now().after(Duration::from_mins(25))
    }

    fn refusal(snapshot: &PolicySnapshot, held: &HeldLease) -> Option<&'static str> {
        decide_lease_again(snapshot, held, later()).err().map(|denial| denial.reason.code())
    }

    #[test]
    fn what_was_permitted_is_permitted_again() {
        let snapshot = fixture::snapshot();
        for mins in [None, Some(1), Some(30), Some(60)] {
            let held = held(mins.map(Duration::from_mins));
            let confirmed = decide_lease_again(&snapshot, &held, later()).unwrap();
            assert_eq!(confirmed.policies, ["fixture.issue"]);
            assert_eq!(confirmed.snapshot, snapshot.digest());
        }
        assert!(decide_session_again(&snapshot, &fixture::session(), later()).is_ok());
    }

    #[test]
    fn a_lease_ends_with_whatever_permitted_it() {
        let held = held(None);
        let all = r#"(principal, action == Action::"issue", resource)"#;
        let cases = [
            ("FORBIDDEN", with(&format!("forbid {all};"))),
            (
                "POLICY_ERROR",
                with(&format!(
                    "forbid {all} when {{ context.ttl_secs * 9223372036854775807 > 0 }};"
                )),
            ),
            ("TTL_TOO_LONG", with(&format!("@max_ttl(\"59m\") permit {all};"))),
            ("NO_PERMIT", load(|sources| sources.policies.clear())),
            ("UNKNOWN_SCOPE", load(|sources| sources.catalog.backends.clear())),
            (
                "UNDECLARED_AUTHORIZATION",
                load(|sources| {
                    sources.roles.insert("reader".parse().unwrap(), fixture::role("reader", &[]));
                }),
            ),
        ];
        for (code, snapshot) in cases {
            assert_eq!(refusal(&snapshot, &held), Some(code));
        }
    }

    #[test]
    fn a_lowered_limit_ends_the_longer_lives_only() {
        let snapshot = with(
            r#"@id("short") @max_ttl("30m") permit (principal, action == Action::"issue", resource);"#,
        );
        let [short, long] = [30, 31].map(|mins| held(Some(Duration::from_mins(mins))));
        assert_eq!(refusal(&snapshot, &short), None);
        let denial = decide_lease_again(&snapshot, &long, later()).unwrap_err();
        let DenialReason::TtlTooLong { limit, .. } = denial.reason else {
            panic!("{}", denial.reason)
        };
        assert_eq!(limit.source, LimitSource::Policy("short".into()));
        assert_eq!(denial.policies, ["fixture.issue", "short"]);
    }

    #[test]
    fn a_session_ends_with_whatever_permitted_it() {
        let session = fixture::session();
        let all = r#"(principal, action == Action::"open_session", resource)"#;
        let cases = [
            ("FORBIDDEN", with(&format!("forbid {all};"))),
            ("FORBIDDEN", with(&format!("forbid {all} when {{ context.life_secs > 28799 }};"))),
            (
                "POLICY_ERROR",
                with(&format!(
                    "forbid {all} when {{ context.life_secs * 9223372036854775807 > 0 }};"
                )),
            ),
            ("NO_PERMIT", load(|sources| sources.policies.clear())),
            ("UNKNOWN_ROLE", load(|sources| sources.roles.clear())),
        ];
        for (code, snapshot) in cases {
            let denial = decide_session_again(&snapshot, &session, later()).unwrap_err();
            assert_eq!((denial.reason.code(), denial.snapshot), (code, snapshot.digest()));
        }
        let within = with(&format!("forbid {all} when {{ context.life_secs > 28800 }};"));
        assert!(decide_session_again(&within, &session, later()).is_ok());
    }
}
