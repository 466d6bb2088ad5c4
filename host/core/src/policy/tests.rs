//! What a policy set must do and must not be able to do: guardrails, problems, digests, the index.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::sync::Arc;

use cedar_policy::{Effect, PolicySet};

use super::*;
use crate::catalog::Tier;
use crate::decide::TTL_MAX;
use crate::fixture;

fn sources(text: &str) -> PolicySources {
    let file = PolicyFile { path: "p.cedar".into(), text: text.into() };
    PolicySources { policies: vec![file], ..fixture::sources() }
}

fn problems(sources: PolicySources) -> Vec<String> {
    let problems = PolicySnapshot::load(sources).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

/// A policy and all that must be said of it.
fn check(text: &str, expect: &[&str]) {
    let found = problems(sources(text));
    let matches = found.len() == expect.len()
        && found.iter().zip(expect).all(|(found, expect)| found.contains(expect));
    assert!(matches, "{text}\nexpected {expect:#?}\nfound {found:#?}");
}

fn load(text: &str) -> PolicySnapshot {
    PolicySnapshot::load(sources(text)).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What `snapshot` says when the fixture's session asks for `scope`.
fn evaluate(snapshot: &PolicySnapshot, scope: &str, ttl: Duration, now: Timestamp) -> Evaluation {
    let session = fixture::session();
    let (_, scope) = snapshot.catalog().scope(&scope.parse().unwrap()).unwrap();
    let authorizations = session.authorizations();
    let session = &session;
    snapshot.evaluate_issue(&IssueQuestion {
        session,
        role: session.role(),
        authorizations,
        scope,
        ttl,
        now,
    })
}

fn guardrails(evaluation: &Evaluation) -> Vec<Guardrail> {
    evaluation.forbids.iter().filter_map(|forbid| forbid.guardrail).collect()
}

const HOUR: Duration = Duration::from_hours(1);

/// The loosest policy that can be written.
const PERMIT_ALL: &str = "permit (principal, action, resource);";

#[test]
fn every_guardrail_is_a_forbid_in_the_embedded_file_and_the_reverse() {
    let file: PolicySet = GUARDRAILS.parse().unwrap();
    let ids: Vec<_> = file.policies().filter_map(|policy| policy.annotation("id")).collect();
    assert_eq!(ids, Guardrail::ALL.map(Guardrail::id));
    assert!(file.policies().all(|policy| policy.effect() == Effect::Forbid));
    assert_eq!(file.num_of_policies(), Guardrail::ALL.len());
}

#[test]
fn no_permit_loosens_a_guardrail() {
    let mut sources = sources(PERMIT_ALL);
    let orders =
        fixture::backend("orders-db", &[("readonly", Tier::Standard), ("admin", Tier::Sensitive)]);
    let mut other = fixture::backend("other", &[("undeclared", Tier::Standard)]);
    for scope in other.scopes.values_mut() {
        *scope = Arc::new(Scope { authorization: "x.y".parse().unwrap(), ..(**scope).clone() });
    }
    sources.catalog.backends =
        [orders, other].map(|backend| (backend.name.clone(), Arc::new(backend))).into();
    let snapshot = PolicySnapshot::load(sources).unwrap();
    let (now, late) = (fixture::now(), fixture::session().ends_at());
    let above = TTL_MAX + Duration::from_millis(1);
    let cases = [
        ("orders-db/readonly", HOUR, now, None),
        ("orders-db/readonly", TTL_MAX, now, None),
        ("orders-db/readonly", HOUR, late, Some(Guardrail::SessionNotLive)),
        ("other/undeclared", HOUR, now, Some(Guardrail::UndeclaredAuthorization)),
        ("orders-db/admin", HOUR, now, Some(Guardrail::SensitiveIssued)),
        ("orders-db/readonly", above, now, Some(Guardrail::TtlAboveCap)),
        ("orders-db/readonly", Duration::MAX, now, Some(Guardrail::TtlAboveCap)),
    ];
    for (scope, ttl, now, expect) in cases {
        let said = evaluate(&snapshot, scope, ttl, now);
        assert_eq!(guardrails(&said), Vec::from_iter(expect), "{scope} {ttl:?}: {said:?}");
        assert_eq!(said.permits.is_empty(), expect.is_some(), "{scope} {ttl:?}: {said:?}");
        assert!(said.errors.is_empty(), "{said:?}");
    }
}

#[test]
fn no_policy_passes_for_a_guardrail() {
    check(
        r#"@id("guardrail.sensitive-issued") permit (principal, action, resource);"#,
        &["p.cedar:1:1: id `guardrail.sensitive-issued` starts with `guardrail.`"],
    );
    let path = "guardrail.cedar".to_owned();
    let file = PolicyFile { path, text: PERMIT_ALL.to_owned() };
    let found = problems(PolicySources { policies: vec![file], ..fixture::sources() });
    assert!(found[0].contains("id `guardrail.cedar:1` starts with"), "{found:?}");
}

#[test]
fn policies_have_no_word_for_what_an_agent_claims() {
    for claim in ["context.claimed_reason", "context.reason", "principal.reason", "principal.said"]
    {
        for action in ["issue", "open_session"] {
            let policy = format!(
                "permit (principal, action == Action::\"{action}\", resource) when {{ {claim} == \"x\" }};"
            );
            assert!(!problems(sources(&policy)).is_empty(), "{action}, {claim}");
        }
    }
}

#[test]
fn says_where_and_what_is_wrong() {
    let cases: [(&str, &[&str]); 19] = [
        (PERMIT_ALL, &[]),
        ("", &[]),
        ("// fine\n\n  permit (principle, action, resource);", &["p.cedar:3:11: "]),
        ("permit (principal, action, resource)", &["p.cedar:1:"]),
        (
            "permit (principal == Robot::\"x\", action, resource);",
            &["p.cedar:1:22: for policy `p.cedar:1`"],
        ),
        ("permit (principal, action == Action::\"isue\", resource);", &["`Action::\"isue\"`"]),
        (
            "permit (principal, action == Action::\"issue\", resource)\nwhen { principal.team == \"x\" };",
            &["p.cedar:2:8: "],
        ),
        (
            "permit (principal, action == Action::\"issue\", resource) when { context.ttl_secs == \"1h\" };",
            &["p.cedar:1:"],
        ),
        (
            "permit (principal in Role::\"a\", action == Action::\"open_session\", resource);",
            &["unable to find an applicable action"],
        ),
        (
            "forbid (principal, action == Action::\"issue\", resource) when { resource.tier == \"раypal\" };",
            &["mixed scripts"],
        ),
        (
            "permit (principal == ?principal, action, resource);",
            &["p.cedar:1:1: a template decides nothing"],
        ),
        (
            "@maxttl(\"1h\") permit (principal, action, resource);",
            &[
                "annotation `@maxttl` is not known: the known ones are `@id`, `@max_ttl`, `@max_active` and `@reason`",
            ],
        ),
        (
            "\n @approval(\"ops\") permit (principal, action, resource);",
            &["p.cedar:2:2: `@approval` is not supported yet"],
        ),
        (
            "@max_active(\"0\") permit (principal, action, resource);",
            &["`@max_active(\"0\")` is not a number between 1 and 1000000"],
        ),
        ("@max_ttl(\"30m\") forbid (principal, action, resource);", &["but this is a forbid"]),
        (
            "@max_ttl(\"30m\") permit (principal, action == Action::\"open_session\", resource);",
            &["does not apply to `Action::\"issue\"`"],
        ),
        ("@reason(\"x\") permit (principal, action, resource);", &["but this is a permit"]),
        ("@reason(\"a\\nb\") forbid (principal, action, resource);", &["`@reason` takes one line"]),
        ("@id permit (principal, action, resource);", &["`@id(\"\")` cannot be an id"]),
    ];
    for (text, expect) in cases {
        check(text, expect);
    }
}

#[test]
fn takes_only_a_sensible_max_active() {
    for good in ["1", "20", "1000000"] {
        check(&format!("@max_active(\"{good}\") {PERMIT_ALL}"), &[]);
    }
    for bad in ["", "0", "01", "+1", " 1", "-1", "1.0", "1e3", "two", "1000001", "99999999999"] {
        check(&format!("@max_active(\"{bad}\") {PERMIT_ALL}"), &["is not a number between 1"]);
    }
    check("@max_active(\"1\") forbid (principal, action, resource);", &["but this is a forbid"]);
    check(
        "@max_active(\"1\") permit (principal, action == Action::\"open_session\", resource);",
        &["does not apply to `Action::\"issue\"`"],
    );
}

#[test]
fn takes_only_a_sensible_max_ttl() {
    for good in ["1s", "30m", "1h 30m", "12h", "43200s"] {
        check(&format!("@max_ttl(\"{good}\") {PERMIT_ALL}"), &[]);
    }
    for bad in ["", "30", "0s", "500ms", "1500ms", "12h 1s", "99999999999999999999h", "-1s"] {
        check(
            &format!("@max_ttl(\"{bad}\") {PERMIT_ALL}"),
            &["is not a duration between 1s and 12h"],
        );
    }
}

#[test]
fn reports_every_problem_at_once() {
    let file = |path: &str, text: &str| PolicyFile { path: path.into(), text: text.into() };
    let policies = vec![
        file(
            "a.cedar",
            "@id(\"x\") permit (principal, action, resource);\npermit (principal, action, resource) wen { true };",
        ),
        file("b.cedar", "@id(\"x\")\npermit (principal, action, resource);"),
        file("c.cedar", "\n@id(\"x\") @colour(\"red\") permit (principal, action, resource);"),
        file("d.cedar", "forbid (principal == Nobody::\"x\", action, resource);"),
    ];
    let found = problems(PolicySources { policies, ..fixture::sources() });
    let expect = [
        "a.cedar:2:",
        "c.cedar:2:1: annotation",
        "c.cedar:2:1: id `x` is taken by the policy at b.cedar:1:1",
        "d.cedar:1:22: ",
    ];
    assert_eq!(found.len(), expect.len(), "{found:#?}");
    for (found, expect) in found.iter().zip(expect) {
        assert!(found.contains(expect), "{found}");
    }
}

#[test]
fn refuses_more_than_the_bounds() {
    let long = format!("{PERMIT_ALL}//{}", "x".repeat(1024 * 1024));
    check(&long, &["more than 1048576: split it"]);
    let many = "permit(principal,action,resource);".repeat(20_001 - Guardrail::ALL.len());
    check(&many, &["more than 20000 policies"]);
    let file = PolicyFile { path: "p".into(), text: String::new() };
    let found = problems(PolicySources { policies: vec![file; 1_001], ..fixture::sources() });
    assert!(found[0].contains("1001 policy files"), "{found:?}");
}

#[test]
fn warns_of_names_that_nothing_answers_to() {
    let snapshot = load(
        r#"permit (principal in Role::"raeder", action == Action::"issue", resource == Scope::"orders-db/readonyl")
           unless { principal.requester in Team::"ops" };
           permit (principal in Role::"reader", action == Action::"issue", resource in Backend::"oders-db");"#,
    );
    let warnings: Vec<_> = snapshot.warnings().iter().map(ToString::to_string).collect();
    let expect = [
        "`Role::\"raeder\"`",
        "`Scope::\"orders-db/readonyl\"`",
        "`Team::\"ops\"`",
        "`Backend::\"oders-db\"`",
    ];
    assert_eq!(warnings.len(), expect.len(), "{warnings:#?}");
    for expect in expect {
        assert!(warnings.iter().any(|warning| warning.contains(expect)), "{expect}: {warnings:#?}");
    }
    assert!(warnings[3].starts_with("p.cedar:3:12: policy `p.cedar:2` names"), "{warnings:#?}");
    assert!(fixture::snapshot().warnings().is_empty());
}

#[test]
fn the_digest_tells_any_change_that_decides() {
    let digest = |sources| PolicySnapshot::load(sources).unwrap().digest();
    let base = || sources(PERMIT_ALL);
    let mut others = vec![sources(&format!("{PERMIT_ALL} "))];
    others.push(base());
    others[1].policies[0].path = "q.cedar".into();
    others.push(base());
    others[2].roles =
        [fixture::role("reader", &["orders.read", "x"])].map(|r| (r.name.clone(), r)).into();
    others.push(base());
    others[3].catalog.backends.clear();
    others.push(base());
    others[4].teams = [("ops".parse().unwrap(), Team::default())].into();
    // Two files are not one file that contains the other's text.
    others.push(base());
    others[5].policies.push(PolicyFile { path: String::new(), text: String::new() });
    let mut seen = vec![digest(base())];
    for other in others {
        let digest = digest(other);
        assert!(!seen.contains(&digest), "change {} is not seen", seen.len());
        seen.push(digest);
    }
    assert_eq!(digest(base()), seen[0]);
}

#[test]
fn a_question_looks_at_as_many_policies_among_ten_as_among_ten_thousand() {
    let looked_at = |others: usize| {
        let mut text = String::from(
            r#"permit (principal in Role::"reader", action == Action::"issue", resource in Backend::"orders-db");
               forbid (principal, action, resource == Scope::"orders-db/admin");"#,
        );
        for n in 0..others {
            text.push_str(&format!(
                r#"permit (principal in Role::"r{n}", action == Action::"issue", resource == Scope::"orders-db/readonly");"#
            ));
        }
        let snapshot = load(&text);
        let (_, scope) = snapshot.catalog().scope(&"orders-db/readonly".parse().unwrap()).unwrap();
        let session = fixture::session();
        let authorizations = session.authorizations();
        let question = IssueQuestion {
            session: &session,
            role: session.role(),
            authorizations,
            scope,
            ttl: HOUR,
            now: fixture::now(),
        };
        snapshot.policies_looked_at(&question)
    };
    let guardrails_and_one = Guardrail::ALL.len() + 1;
    assert_eq!((looked_at(8), looked_at(9_998)), (guardrails_and_one, guardrails_and_one));
}
