//! The sliced evaluation must be the unsliced one: random policies, both ways, same answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cedar_policy::{Policy, PolicySet, Response};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::catalog::{Catalog, Tier};
use crate::fixture;
use crate::ids::SessionId;
use crate::policy::{PolicySources, SCHEMA, Team};
use crate::principal::{Grounds, Principal, Requester};
use crate::session::{Ancestor, Session, SessionRecord};

const ROLES: [&str; 3] = ["r0", "r1", "r2"];
const REQUESTERS: [&str; 3] = ["unix:0", "unix:1", "unix:9"];
const SCOPES: [&str; 4] = ["b0/s0", "b0/s1", "b1/s0", "b1/s1"];
const TTLS_SECS: [u64; 3] = [1, 60, 3600];

/// Well-typed or not: Cedar evaluates what it is given, and so must the slices.
const PRINCIPALS: [&str; 13] = [
    "principal",
    "principal == Session::\"$SESSION\"",
    "principal in Session::\"$SESSION\"",
    "principal == Session::\"another\"",
    "principal in Role::\"r0\"",
    "principal == Role::\"r0\"",
    "principal in Role::\"r1\"",
    "principal in Team::\"t0\"",
    "principal is Session",
    "principal is Session in Role::\"r1\"",
    "principal is Session in Team::\"t1\"",
    "principal is Workload",
    "principal == Workload::\"unix:1\"",
];

const ACTIONS: [&str; 5] = [
    "action",
    "action == Action::\"issue\"",
    "action == Action::\"open_session\"",
    "action in [Action::\"issue\", Action::\"open_session\"]",
    "action in [Action::\"other\"]",
];

const RESOURCES: [&str; 12] = [
    "resource",
    "resource == Scope::\"b0/s0\"",
    "resource == Scope::\"b1/s0\"",
    "resource in Scope::\"b0/s1\"",
    "resource in Backend::\"b0\"",
    "resource == Backend::\"b0\"",
    "resource is Scope",
    "resource is Scope in Backend::\"b1\"",
    "resource is Role",
    "resource == Role::\"r0\"",
    "resource in Role::\"r1\"",
    "resource in Team::\"t0\"",
];

const CONDITIONS: [&str; 19] = [
    "",
    "when { principal.authorizations.contains(\"a.read\") }",
    "unless { principal.authorizations.contains(\"a.read\") }",
    "when { context.ttl_secs < 100 }",
    "when { context.ttl_secs * 9223372036854775807 > 0 }",
    "unless { context.ttl_secs * 9223372036854775807 > 0 }",
    "when { context has ttl_secs && context.now < datetime(\"2020-01-01\") }",
    "when { principal.requester in Team::\"t0\" }",
    "when { principal.workload.getTag(\"uid\") == \"1\" }",
    "when { context.requester in Team::\"t1\" }",
    "when { resource.tier == \"standard\" }",
    "when { context has parent_role && context.parent_role in Team::\"t0\" }",
    "when { context.parent_role == Role::\"r1\" }",
    "unless { principal.depth == 0 }",
    // Entities that are not part of the question.
    "when { Role::\"r0\" in Team::\"t0\" }",
    "unless { Requester::\"unix:0\" in Team::\"t1\" }",
    "when { Scope::\"b0/s1\" in Backend::\"b0\" && Scope::\"b1/s0\".tier == \"standard\" }",
    "when { Scope::\"nowhere\".tier == \"standard\" }",
    "when { principal in Role::\"r2\" }",
];

static PARSED_SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).unwrap().0);

#[derive(Debug, Clone)]
struct World {
    policies: Vec<String>,
    teams: Vec<(Vec<&'static str>, Vec<&'static str>)>,
    role: &'static str,
    requester: &'static str,
    parent: Option<&'static str>,
    scope: &'static str,
    authorizations: Vec<&'static str>,
    ttl_secs: u64,
}

fn policy() -> impl Strategy<Value = String> {
    let effect = select(vec!["permit", "permit", "forbid"]);
    (
        effect,
        select(&PRINCIPALS[..]),
        select(&ACTIONS[..]),
        select(&RESOURCES[..]),
        select(&CONDITIONS[..]),
    )
        .prop_map(|(effect, principal, action, resource, condition)| {
            let principal = principal.replace("$SESSION", &session_id().to_string());
            format!("{effect} ({principal}, {action}, {resource}) {condition};")
        })
}

fn world() -> impl Strategy<Value = World> {
    let team = (subsequence(&ROLES[..], 0..=3), subsequence(&REQUESTERS[..2], 0..=2));
    (
        prop::collection::vec(policy(), 0..16),
        prop::collection::vec(team, 2),
        select(&ROLES[..]),
        select(&REQUESTERS[..]),
        prop::option::of(select(&ROLES[..])),
        select(&SCOPES[..]),
        subsequence(&["a.read", "orders.read"][..], 0..=2),
        select(&TTLS_SECS[..]),
    )
        .prop_map(
            |(policies, teams, role, requester, parent, scope, authorizations, ttl_secs)| World {
                policies,
                teams,
                role,
                requester,
                parent,
                scope,
                authorizations,
                ttl_secs,
            },
        )
}

fn session_id() -> SessionId {
    SessionId::mint(fixture::now(), &[1; 10])
}

impl World {
    fn sources(&self) -> PolicySources {
        let backend =
            |name| fixture::backend(name, &[("s0", Tier::Standard), ("s1", Tier::Sensitive)]);
        let backends = ["b0", "b1"].map(backend).map(|b| (b.name.clone(), Arc::new(b)));
        // The last role is not loaded; a team may have it nevertheless.
        let roles = ["r0", "r1"].map(|name| fixture::role(name, &self.authorizations));
        let team = |(n, (roles, requesters)): (usize, &(Vec<&str>, Vec<&str>))| {
            let roles = roles.iter().map(|role| role.parse().unwrap()).collect();
            let requesters = requesters.iter().map(|id| (*id).to_owned()).collect();
            (format!("t{n}").parse().unwrap(), Team { roles, requesters, groups: vec![] })
        };
        PolicySources {
            policies: vec![],
            roles: roles.map(|role| (role.name.clone(), role)).into(),
            catalog: Catalog { backends: backends.into() },
            teams: self.teams.iter().enumerate().map(team).collect(),
            ..PolicySources::default()
        }
    }

    /// An engine with these policies, unvalidated, and no guardrails beside them.
    fn engine(&self, sources: &PolicySources) -> (Engine, PolicySet) {
        let text = self.policies.join("\n");
        let set: PolicySet = text.parse().unwrap();
        let schema = PARSED_SCHEMA.clone();
        let model = Model::new().unwrap();
        let known = KnownEntities::new(&model, sources).unwrap();
        let deciding = set.policies().map(|p| (p.id().clone(), deciding(p))).collect();
        let issue = Slices::build(&model.issue, set.policies()).unwrap();
        let open_session = Slices::build(&model.open_session, set.policies()).unwrap();
        let admin = Slices::for_operators(&model, set.policies()).unwrap();
        let (contexts, notes) = (Contexts::default(), vec![]);
        let engine =
            Engine { schema, model, known, deciding, notes, issue, open_session, admin, contexts };
        (engine, set)
    }

    fn session(&self) -> Session {
        let role = fixture::role(self.role, &self.authorizations);
        Session::from_record(SessionRecord {
            id: session_id(),
            role: role.name,
            prompt_digest: role.digest,
            authorizations: role.authorizations,
            principal: Principal::from_unix_peer(1, 1),
            requester: Requester::from_record(self.requester.to_owned(), None, Grounds::default()),
            opened_at: fixture::now(),
            ends_at: fixture::now().after(Duration::from_hours(1)),
            ancestors: self.parent.map(above).into_iter().collect(),
        })
    }
}

fn above(role: &str) -> Ancestor {
    let session = SessionId::mint(fixture::now(), &[2; 10]);
    Ancestor { session, role: role.parse().unwrap() }
}

fn deciding(policy: &Policy) -> Deciding {
    Deciding {
        id: policy.id().to_string(),
        guardrail: None,
        ttl_max: None,
        max_active: None,
        reason: None,
    }
}

/// The whole set, over everything that is known, as Cedar answers by itself.
fn unsliced(engine: &Engine, set: &PolicySet, asked: Asked) -> Response {
    let mut present: HashSet<_> = asked.entities.iter().map(Entity::uid).collect();
    let others = engine.known.all().filter(|e| present.insert(e.uid())).cloned();
    let entities = asked.entities.iter().cloned().chain(others.collect::<Vec<_>>());
    let entities = Entities::from_entities(entities, None).unwrap();
    let (principal, resource) = (asked.principals[0].clone(), asked.resources[0].clone());
    let request =
        Request::new(principal, asked.action, resource, asked.context, Some(&engine.schema));
    Authorizer::new().is_authorized(&request.unwrap(), set, &entities)
}

fn same(sliced: &Evaluation, whole: &Response) -> Result<(), TestCaseError> {
    let allowed = sliced.forbids.is_empty() && !sliced.permits.is_empty();
    prop_assert!(sliced.forbids.is_empty() || sliced.permits.is_empty());
    prop_assert_eq!(allowed, whole.decision() == Decision::Allow);
    let decisive = if allowed { &sliced.permits } else { &sliced.forbids };
    let decisive: BTreeSet<_> = decisive.iter().map(|policy| policy.id.clone()).collect();
    let reasons: BTreeSet<_> = whole.diagnostics().reason().map(ToString::to_string).collect();
    prop_assert_eq!(decisive, reasons);
    let mut errors: Vec<_> = whole.diagnostics().errors().map(policy_of).collect();
    errors.sort();
    prop_assert_eq!(&sliced.errors, &errors);
    Ok(())
}

// A wrong index shows within a few dozen worlds; the default is 256, and
// `PROPTEST_CASES` asks for more.
proptest! {
    #[test]
    fn slicing_changes_no_answer(world in world()) {
        let sources = world.sources();
        let (engine, set) = world.engine(&sources);
        let session = world.session();
        let (_, scope) = sources.catalog.scope(&world.scope.parse().unwrap()).unwrap();
        let issue = IssueQuestion {
            session: &session,
            role: session.role(),
            authorizations: session.authorizations(),
            scope,
            ttl: Duration::from_secs(world.ttl_secs),
            now: fixture::now(),
        };
        let whole = unsliced(&engine, &set, engine.ask_issue(&issue).unwrap());
        same(&engine.evaluate_issue(&issue), &whole)?;

        let role = fixture::role(world.role, &world.authorizations);
        let open = OpenQuestion {
            principal: session.principal(),
            requester: session.requester(),
            role: &role,
            life: Duration::from_secs(world.ttl_secs),
            ancestors: session.ancestors(),
        };
        let whole = unsliced(&engine, &set, engine.ask_open_session(&open).unwrap());
        same(&engine.evaluate_open_session(&open), &whole)?;
    }

    #[test]
    fn what_is_put_before_cedar_fits_the_schema(world in world()) {
        let sources = world.sources();
        let (engine, _) = World { policies: vec![], ..world.clone() }.engine(&sources);
        let session = world.session();
        let (_, scope) = sources.catalog.scope(&world.scope.parse().unwrap()).unwrap();
        let asked = engine.ask_issue(&IssueQuestion {
            session: &session,
            role: session.role(),
            authorizations: session.authorizations(),
            scope,
            ttl: Duration::MAX,
            now: fixture::now(),
        });
        let entities = Entities::from_entities(asked.unwrap().entities, Some(&engine.schema));
        prop_assert!(entities.is_ok(), "{:?}", entities.err());
    }
}

#[test]
fn a_scope_outside_the_catalog_is_an_error() {
    let world = World {
        policies: vec!["permit (principal, action, resource);".to_owned()],
        teams: vec![],
        role: "r0",
        requester: "unix:0",
        parent: None,
        scope: "b0/s0",
        authorizations: vec![],
        ttl_secs: 1,
    };
    let (engine, _) = world.engine(&world.sources());
    let elsewhere = fixture::backend("elsewhere", &[("s", Tier::Standard)]);
    let session = world.session();
    let said = engine.evaluate_issue(&IssueQuestion {
        session: &session,
        role: session.role(),
        authorizations: session.authorizations(),
        scope: elsewhere.scopes.values().next().unwrap(),
        ttl: Duration::from_secs(1),
        now: fixture::now(),
    });
    assert_eq!(said, Evaluation { errors: vec!["engine.scope".into()], ..Default::default() });
}

#[test]
fn a_kept_context_answers_only_the_question_that_it_was_made_for() {
    let snapshot = fixture::snapshot();
    let session = fixture::session_in(&snapshot, 1);
    let (_, scope) = snapshot.catalog().scopes().next().unwrap();
    let (role, authorizations) = (session.role(), session.authorizations());
    let kept = Contexts::default();
    let text = |contexts: &Contexts, ttl, now| {
        let question = IssueQuestion { session: &session, role, authorizations, scope, ttl, now };
        format!("{:?}", contexts.of(&question).unwrap())
    };
    let later = fixture::now().after(Duration::from_secs(1));
    for now in [fixture::now(), later, session.ends_at(), fixture::now()] {
        // More lives than are kept, and each asked for twice.
        for secs in (1..=100).chain(1..=100) {
            let ttl = Duration::from_secs(secs);
            assert_eq!(text(&kept, ttl, now), text(&Contexts::default(), ttl, now), "{secs}");
        }
    }
    assert!(kept.0.lock().unwrap().as_ref().unwrap().made.len() <= CONTEXTS_KEPT_MAX);
}
