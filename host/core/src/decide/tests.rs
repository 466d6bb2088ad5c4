//! How a decision follows from an evaluation, a session and the limits; and the sentence of every refusal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::num::NonZeroU32;

use super::*;
use crate::budget::{IssueLimit, Spent};
use crate::catalog::{Scope, ShortTtl};
use crate::fixture;
use crate::policy::{PolicyFile, PolicySources};
use crate::prompt::Role;

/// The fixture's world with one more policy file.
fn snapshot_with(policies: &str) -> PolicySnapshot {
    let mut sources = fixture::sources();
    sources.policies.push(PolicyFile { path: "p.cedar".into(), text: policies.into() });
    load(sources)
}

fn load(sources: PolicySources) -> PolicySnapshot {
    PolicySnapshot::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The fixture's world with another prompt file of role `reader`.
fn snapshot_with_role(role: Role) -> PolicySnapshot {
    let mut sources = fixture::sources();
    sources.roles.insert(role.name.clone(), role);
    load(sources)
}

fn limited(ttl_mins: Option<u64>) -> Role {
    let mut role = fixture::role("reader", &["orders.read"]);
    for limits in role.authorizations.values_mut() {
        limits.ttl_max = ttl_mins.map(Duration::from_mins);
    }
    role
}

fn refusal(snapshot: &PolicySnapshot, session: &Arc<Session>, ask: &Ask) -> DenialReason {
    decide(snapshot, session, ask, fixture::now()).unwrap_err().reason
}

const FAILS: &str = "context.ttl_secs * 9223372036854775807 > 0";

#[test]
fn an_erroring_policy_beside_a_permit_is_a_denial() {
    // INVARIANT (error-is-denial): for a forbid it is what keeps it a forbid; for a permit it
    // keeps a mistake from going unnoticed.
    for effect in ["forbid", "permit"] {
        let snapshot = snapshot_with(&format!(
            r#"@id("broken") {effect} (principal, action == Action::"issue", resource) when {{ {FAILS} }};"#
        ));
        let denial = decide(&snapshot, &fixture::session(), &fixture::ask(), fixture::now());
        let denial = denial.unwrap_err();
        assert_eq!(denial.reason, DenialReason::PolicyError { policies: vec!["broken".into()] });
        assert_eq!(denial.policies, ["broken"]);
        assert_eq!(denial.snapshot, snapshot.digest());
    }
}

#[test]
fn an_erroring_policy_on_sessions_is_a_denial() {
    let snapshot = snapshot_with(
        r#"@id("broken") forbid (principal, action == Action::"open_session", resource)
           when { context.life_secs * 9223372036854775807 > 0 };"#,
    );
    let reason =
        decide_session(&snapshot, &session_ask("reader"), fixture::now()).unwrap_err().reason;
    assert_eq!(reason, DenialReason::PolicyError { policies: vec!["broken".into()] });
}

/// INVARIANT (denied-is-unknown)
#[test]
fn a_role_that_is_kept_from_the_caller_is_told_of_like_one_that_is_not_there() {
    let other = r#"permit (principal, action == Action::"open_session", resource == Role::"a");"#;
    let forbid = |annotation: &str| {
        format!("{annotation} forbid (principal, action == Action::\"open_session\", resource);")
    };
    let broken = r#"forbid (principal, action == Action::"open_session", resource)
        when { context.life_secs * 9223372036854775807 > 0 };"#;
    let told = |policies: &str, role: &str| {
        let mut sources = fixture::sources();
        sources.policies = vec![PolicyFile { path: "t.cedar".into(), text: policies.into() }];
        let denial = decide_session(&load(sources), &session_ask(role), fixture::now());
        let denial = denial.unwrap_err();
        (denial.reason.code(), denial.told())
    };
    let withheld = |role: &str| DenialReason::RoleWithheld { role: role.parse().unwrap() };
    for (policies, role, recorded) in [
        (other, "nobody", "UNKNOWN_ROLE"),
        (other, "reader", "NO_PERMIT"),
        (&forbid(""), "reader", "FORBIDDEN"),
        (broken, "reader", "POLICY_ERROR"),
    ] {
        assert_eq!(told(policies, role), (recorded, withheld(role)), "{policies}");
    }
    let (_, reason) = told(&forbid("@reason(\"only on weekdays\")"), "reader");
    assert!(reason.to_string().ends_with("only on weekdays"), "{reason}");
    // Asking for too long a life tells nothing of the role either.
    for role in ["nobody", "reader"] {
        let ask = SessionAsk { life: Some(SESSION_LIFE_MAX * 2), ..session_ask(role) };
        let denial = decide_session(&fixture::snapshot(), &ask, fixture::now()).unwrap_err();
        assert_eq!(denial.reason.code(), "SESSION_LIFE", "{role}");
    }
}

/// What an ask for a minute comes to on a backend that gives no less than fifteen.
fn a_minute_of_fifteen(short_ttl: ShortTtl, ttl_max_mins: u64) -> Result<Permit, DenialReason> {
    let mut sources = fixture::sources();
    for backend in sources.catalog.backends.values_mut() {
        let mut changed = (**backend).clone();
        changed.ttl_min = Duration::from_mins(15);
        for scope in changed.scopes.values_mut() {
            let ttl_max = Duration::from_mins(ttl_max_mins);
            *scope = Arc::new(Scope { short_ttl, ttl_max, ..(**scope).clone() });
        }
        *backend = Arc::new(changed);
    }
    let ask = Ask { ttl: Some(Duration::from_mins(1)), ..fixture::ask() };
    decide(&load(sources), &fixture::session(), &ask, fixture::now()).map_err(|d| d.reason)
}

#[test]
fn a_wish_below_the_backends_shortest_life_is_refused_or_raised_in_the_open() {
    let refused = a_minute_of_fifteen(ShortTtl::Refuse, 60).unwrap_err();
    assert!(refused.to_string().contains("gives no less than 15m"), "{refused}");

    let permit = a_minute_of_fifteen(ShortTtl::Raise, 60).unwrap();
    assert_eq!(permit.ttl(), Duration::from_mins(15));
    let notice = permit.notice().unwrap();
    assert!(notice.starts_with("1m was asked for; the credential lives 15m"), "{notice}");

    let limited = a_minute_of_fifteen(ShortTtl::Raise, 10).unwrap_err();
    assert!(matches!(limited, DenialReason::TtlTooLong { .. }), "no limit gives way: {limited}");
}

fn session_ask(role: &str) -> SessionAsk {
    SessionAsk {
        principal: Principal::from_unix_peer(1, 1),
        requester: Requester::from_unix_peer(1, None),
        role: role.parse().unwrap(),
        life: None,
        claimed_reason: None,
        parent: None,
    }
}

#[test]
fn a_session_keeps_what_was_declared_then_and_still_is() {
    let (none, one) = (fixture::role("reader", &[]), fixture::role("reader", &["orders.read"]));
    let undeclared = DenialReason::UndeclaredAuthorization {
        role: "reader".parse().unwrap(),
        scope: "orders-db/readonly".parse().unwrap(),
        authorization: "orders.read".parse().unwrap(),
        above: vec![],
    };
    let cases = [
        ("both", one.clone(), one.clone(), None),
        ("taken away since", one.clone(), none.clone(), Some(undeclared.clone())),
        ("added since", none, one.clone(), Some(undeclared.clone())),
    ];
    for (case, at_start, now, expect) in cases {
        let session = fixture::session_in(&snapshot_with_role(at_start), 0);
        let decision = decide(&snapshot_with_role(now), &session, &fixture::ask(), fixture::now());
        assert_eq!(decision.err().map(|denial| denial.reason), expect, "{case}");
    }
    let mut sources = fixture::sources();
    sources.roles.clear();
    let reason =
        refusal(&load(sources), &fixture::session_in(&snapshot_with_role(one), 0), &fixture::ask());
    assert_eq!(reason, undeclared, "the prompt file is gone");
}

#[test]
fn what_an_agent_claims_never_decides() {
    let claims = [
        "authorizations: [orders.read, orders.write]",
        "---\nname: reader\nauthorizations:\n  - orders.write\n---\n",
        "permit (principal, action, resource);",
        "requester: unix:0, approved by the security team",
    ];
    let snapshot = fixture::snapshot();
    let issue = |scope: &str, claimed: Option<&str>| {
        let claimed_reason = claimed.map(str::to_owned);
        let ask = Ask { claimed_reason, ..fixture::ask_for(scope) };
        decide(&snapshot, &fixture::session(), &ask, fixture::now())
            .map(|permit| (permit.policies().to_vec(), permit.ttl(), permit.ttl_max()))
            .map_err(|denial| denial.reason)
    };
    let open = |role: &str, claimed: Option<&str>| {
        let claimed_reason = claimed.map(str::to_owned);
        let ask = SessionAsk { claimed_reason, ..session_ask(role) };
        decide_session(&snapshot, &ask, fixture::now())
            .map(|permit| (permit.policies().to_vec(), permit.life()))
            .map_err(|denial| denial.reason)
    };
    assert!(issue("orders-db/readonly", None).is_ok() && open("reader", None).is_ok());
    for claim in claims {
        for scope in ["orders-db/readonly", "orders-db/admin", "orders-db/nothing"] {
            assert_eq!(issue(scope, Some(claim)), issue(scope, None), "{scope}, {claim}");
        }
        for role in ["reader", "writer"] {
            assert_eq!(open(role, Some(claim)), open(role, None), "{role}, {claim}");
        }
    }
}

#[test]
fn the_smaller_ttl_of_both_prompt_files_counts() {
    let cases =
        [(None, None, 60), (Some(20), None, 20), (None, Some(10), 10), (Some(20), Some(30), 20)];
    for (at_start, now, expect) in cases {
        let session = fixture::session_in(&snapshot_with_role(limited(at_start)), 0);
        let snapshot = snapshot_with_role(limited(now));
        let permit = decide(&snapshot, &session, &fixture::ask(), fixture::now()).unwrap();
        assert_eq!(permit.ttl(), Duration::from_mins(expect), "{at_start:?} {now:?}");
    }
}

#[test]
fn another_permit_never_lengthens_what_one_limits() {
    let snapshot = snapshot_with(
        r#"@id("short") @max_ttl("7m") permit (principal, action == Action::"issue", resource);
           @id("long") @max_ttl("50m") permit (principal, action == Action::"issue", resource);"#,
    );
    let permit = decide(&snapshot, &fixture::session(), &fixture::ask(), fixture::now()).unwrap();
    assert_eq!(permit.ttl(), Duration::from_mins(7));
    assert_eq!(permit.policies(), ["fixture.issue", "long", "short"]);
}

#[test]
fn the_smallest_max_active_counts_beside_every_budget() {
    let mut sources = fixture::sources();
    let text = r#"@id("five") @max_active("5") permit (principal, action == Action::"issue", resource);
        @id("two") @max_active("2") permit (principal, action == Action::"issue", resource);"#;
    sources.policies.push(PolicyFile { path: "p.cedar".into(), text: text.into() });
    sources.budgets.role.live_leases = NonZeroU32::new(9);
    let permit = decide(&load(sources), &fixture::session(), &fixture::ask(), fixture::now());
    let limits: Vec<_> = permit
        .unwrap()
        .lease_limits()
        .iter()
        .map(|limit| (limit.of.to_string(), limit.most.get(), limit.policy.clone()))
        .collect();
    let scope = "role `reader` on scope `orders-db/readonly`".to_owned();
    let expect = [("role `reader`".to_owned(), 9, None), (scope, 2, Some("two".to_owned()))];
    assert_eq!(limits, expect);
}

#[test]
fn a_forbid_beats_every_permit() {
    let snapshot = snapshot_with(
        r#"@id("no") @reason("not on a Monday") forbid (principal in Role::"reader", action, resource in Backend::"orders-db");"#,
    );
    let reason = refusal(&snapshot, &fixture::session(), &fixture::ask());
    let expect = DenialReason::Forbidden {
        policies: vec!["no".into()],
        reason: Some("not on a Monday".into()),
    };
    assert_eq!(reason, expect);
}

#[test]
fn nothing_outlives_its_session() {
    let session = fixture::session();
    let near_end = Timestamp::from_unix_millis(session.ends_at().unix_millis() - 90_000);
    let permit = decide(&fixture::snapshot(), &session, &fixture::ask(), near_end).unwrap();
    assert_eq!(permit.expires_at(), session.ends_at());
    let denial = decide(&fixture::snapshot(), &session, &fixture::ask(), session.ends_at());
    assert_eq!(denial.unwrap_err().reason, DenialReason::SessionNotLive);
}

#[test]
fn a_session_lives_as_long_as_asked_within_the_bound() {
    let snapshot = fixture::snapshot();
    let life = |life| {
        let ask = SessionAsk { life, ..session_ask("reader") };
        decide_session(&snapshot, &ask, fixture::now()).map(|permit| permit.life())
    };
    assert_eq!(life(None).ok(), Some(SESSION_LIFE_DEFAULT));
    assert_eq!(life(Some(SESSION_LIFE_MAX)).ok(), Some(SESSION_LIFE_MAX));
    for refused in [Duration::ZERO, SESSION_LIFE_MAX + Duration::from_nanos(1), Duration::MAX] {
        let reason = life(Some(refused)).unwrap_err().reason;
        assert_eq!(reason, DenialReason::SessionLife { asked: refused, most: SESSION_LIFE_MAX });
    }
}

#[test]
fn says_what_would_have_to_change() {
    let reasons = [
        refusal(&fixture::snapshot(), &fixture::session(), &fixture::ask_for("orders-db/nothing")),
        refusal(&fixture::snapshot(), &fixture::session(), &fixture::ask_for("orders-db/admin")),
        refusal(&fixture::snapshot(), &fixture::session(), &asking(Duration::from_hours(13))),
        refusal(&fixture::snapshot(), &fixture::session(), &asking(Duration::from_hours(2))),
    ];
    let (role, scope) = ("reader".parse::<RoleName>().unwrap(), fixture::ask().scope);
    let (hour, second) = (Duration::from_hours(1), Duration::from_secs(1));
    let many = NonZeroU32::new(20).unwrap();
    let limit = |source| TtlLimit { most: second, source };
    let made = [
        decide_session(&fixture::snapshot(), &session_ask("writer"), fixture::now())
            .unwrap_err()
            .reason,
        DenialReason::UndeclaredAuthorization {
            role: role.clone(),
            scope: scope.clone(),
            authorization: "orders.read".parse().unwrap(),
            above: vec![],
        },
        DenialReason::UndeclaredAuthorization {
            role: role.clone(),
            scope: scope.clone(),
            authorization: "orders.read".parse().unwrap(),
            above: vec!["planner".parse().unwrap(), "worker".parse().unwrap()],
        },
        DenialReason::TooDeep { most: DEPTH_MAX },
        DenialReason::NoIssuePermit { role: role.clone(), scope },
        DenialReason::NoSessionPermit { role: role.clone() },
        DenialReason::RoleWithheld { role },
        DenialReason::Forbidden { policies: vec!["a".into(), "b".into()], reason: None },
        DenialReason::Forbidden { policies: vec!["a".into()], reason: Some("wait".into()) },
        DenialReason::PolicyError { policies: vec!["a".into()] },
        DenialReason::SessionNotLive,
        DenialReason::TtlTooLong { asked: hour, limit: limit(LimitSource::PromptFile) },
        DenialReason::TtlTooLong { asked: hour, limit: limit(LimitSource::Policy("a".into())) },
        DenialReason::TtlTooLong { asked: hour, limit: limit(LimitSource::Plugin) },
        DenialReason::TtlTooShort { got: second, least: hour, limited: None },
        DenialReason::TtlTooShort {
            got: second,
            least: hour,
            limited: Some(limit(LimitSource::SessionEnd)),
        },
        DenialReason::SessionLife { asked: hour * 13, most: SESSION_LIFE_MAX },
        DenialReason::TooManyIssues(Spent {
            limit: IssueLimit { of: Subject::Role(session_ask("reader").role), per_minute: many },
            wait: Duration::from_millis(11_001),
        }),
        DenialReason::TooManyLeases {
            limit: LeaseLimit { of: Subject::Requester("unix:1".into()), most: many, policy: None },
            wait: Some(hour),
        },
        DenialReason::TooManyLeases {
            limit: LeaseLimit {
                of: Subject::Scope(session_ask("reader").role, fixture::ask().scope),
                most: NonZeroU32::MIN,
                policy: Some("a".into()),
            },
            wait: None,
        },
    ];
    let lines = reasons.iter().chain(&made).map(|reason| format!("{}: {reason}", reason.code()));
    insta::assert_snapshot!("sentences", lines.collect::<Vec<_>>().join("\n"));
}

fn asking(ttl: Duration) -> Ask {
    Ask { ttl: Some(ttl), ..fixture::ask() }
}
