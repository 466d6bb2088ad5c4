//! The table of decisions under `policies/examples`: role × action × resource, each credential
//! asked for with the default life and, where that differs, for ten minutes. People review it
//! with every change of the examples, the guardrails or this module; it changes by
//! `INSTA_UPDATE=always cargo test -p claviger-core golden`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::fmt::Write;

use cedar_policy::{PolicySet, Schema};

use super::*;
use crate::catalog::{Backend, Catalog, Scope, Tier};
use crate::fixture;
use crate::ids::SessionId;
use crate::policy::{PolicyFile, PolicySources, Team};
use crate::principal::Grounds;
use crate::prompt::Role;
use crate::session::SessionRecord;

const EXAMPLES: [(&str, &str); 3] = [
    ("generic.cedar", include_str!("../../../../policies/examples/generic.cedar")),
    ("orders.cedar", include_str!("../../../../policies/examples/orders.cedar")),
    ("sessions.cedar", include_str!("../../../../policies/examples/sessions.cedar")),
];

/// A role and what its prompt file declares, with `max_ttl` in minutes.
type Declared = (&'static str, &'static [(&'static str, Option<u64>)]);

const ROLES: [Declared; 4] = [
    ("code-reviewer", &[]),
    (
        "incident-responder",
        &[("orders.read", None), ("orders.write", None), ("orders.admin", None)],
    ),
    ("report-writer", &[("analytics.read", None), ("analytics.archive", None)]),
    ("support-triage", &[("orders.read", None), ("tickets.refund", Some(15))]),
];

/// Scope, the authorization that it satisfies, its tier.
const SCOPES: [(&str, &str, Tier); 7] = [
    ("analytics/archive", "analytics.archive", Tier::Standard),
    ("analytics/readonly", "analytics.read", Tier::Standard),
    ("orders-db/admin", "orders.admin", Tier::Sensitive),
    ("orders-db/readonly", "orders.read", Tier::Standard),
    ("orders-db/readwrite", "orders.write", Tier::Standard),
    ("tickets/comments", "tickets.comment", Tier::Standard),
    ("tickets/refunds", "tickets.refund", Tier::Standard),
];

/// Role, workload and requester. Alice is on call and in payments, Bob is on call, Carol is neither.
const CAST: [(&str, Workload, &str); 7] = [
    ("code-reviewer", Workload::Local, "carol"),
    ("incident-responder", Workload::Local, "alice"),
    ("incident-responder", Workload::Local, "bob"),
    ("incident-responder", Workload::Local, "carol"),
    ("report-writer", Workload::ReportJob, "itself"),
    ("support-triage", Workload::Local, "alice"),
    ("support-triage", Workload::ReportJob, "carol"),
];

#[derive(Clone, Copy)]
enum Workload {
    Local,
    ReportJob,
}

/// What the table is about and what it shows.
#[derive(Default)]
struct Table {
    text: String,
    roles: BTreeSet<String>,
    actions: BTreeSet<String>,
    scopes: BTreeSet<String>,
    policies: BTreeSet<String>,
}

#[test]
fn golden_every_role_action_and_resource() {
    let table = table();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../../../policies");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("decisions", table.text));
}

#[test]
fn golden_table_leaves_nothing_out() {
    let table = table();
    let snapshot = snapshot();
    let roles = snapshot.roles().keys().map(ToString::to_string);
    assert_eq!(table.roles, roles.collect(), "roles");
    let scopes = snapshot.catalog().scopes().map(|(_, scope)| scope.name.to_string());
    assert_eq!(table.scopes, scopes.collect(), "scopes");
    let schema = include_str!("../../../../policies/schema.cedarschema");
    let (schema, _) = Schema::from_cedarschema_str(schema).unwrap();
    let actions = schema.actions().map(|action| action.id().unescaped().to_owned());
    // What operators do has a table of its own, in `decide/admin.rs`.
    let actions = actions.filter(|action| !action.starts_with("admin"));
    assert_eq!(table.actions, actions.collect(), "actions");
    for (path, text) in EXAMPLES {
        for policy in text.parse::<PolicySet>().unwrap().policies() {
            let id =
                policy.annotation("id").unwrap_or_else(|| panic!("{path}: {policy} has no id"));
            assert!(table.policies.contains(id), "policy `{id}` decides no cell of the table");
        }
    }
    assert!(snapshot.warnings().is_empty(), "{:?}", snapshot.warnings());
}

fn snapshot() -> PolicySnapshot {
    let file = |(path, text): (&str, &str)| PolicyFile { path: path.into(), text: text.into() };
    let team = |name: &str, roles: &[&str], requesters: &[&str]| {
        let roles = roles.iter().map(|role| role.parse().unwrap()).collect();
        let requesters = requesters.iter().map(|name| requester(name).id().to_owned()).collect();
        (name.parse().unwrap(), Team { roles, requesters, groups: vec![] })
    };
    let sources = PolicySources {
        policies: EXAMPLES.map(file).to_vec(),
        roles: ROLES.map(role).into(),
        catalog: Catalog { backends: backends() },
        teams: [
            team("support", &["support-triage"], &[]),
            team("on-call", &[], &["alice", "bob"]),
            team("payments", &[], &["alice"]),
        ]
        .into(),
        ..PolicySources::default()
    };
    PolicySnapshot::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn role((name, declared): (&str, &[(&str, Option<u64>)])) -> (RoleName, Role) {
    let authorizations = declared.iter().map(|(name, mins)| {
        let limits = AuthorizationLimits { ttl_max: mins.map(Duration::from_mins) };
        (name.parse().unwrap(), limits)
    });
    let role = Role { authorizations: authorizations.collect(), ..fixture::role(name, &[]) };
    (role.name.clone(), role)
}

fn backends() -> BTreeMap<crate::name::BackendName, Arc<Backend>> {
    let mut backends = BTreeMap::new();
    for (name, authorization, tier) in SCOPES {
        let (backend, scope) = name.split_once('/').unwrap();
        let one = fixture::backend(backend, &[(scope, tier)]);
        let scopes = one.scopes.values().map(|scope| {
            let authorization = authorization.parse().unwrap();
            (scope.name.clone(), Arc::new(Scope { authorization, ..(**scope).clone() }))
        });
        let scopes: Vec<_> = scopes.collect();
        backends
            .entry(one.name.clone())
            .or_insert(Backend { scopes: BTreeMap::new(), ..one })
            .scopes
            .extend(scopes);
    }
    backends.into_iter().map(|(name, backend)| (name, Arc::new(backend))).collect()
}

fn principal(workload: Workload) -> Principal {
    match workload {
        Workload::Local => Principal::from_unix_peer(1000, 1000),
        Workload::ReportJob => {
            Principal::from_client_certificate("spiffe://example.org/report-job", "00")
        }
    }
}

fn requester(name: &str) -> Requester {
    match name {
        "itself" => Requester::from_workload(&principal(Workload::ReportJob)),
        name => Requester::from_record(format!("oidc:{name}"), None, Grounds::default()),
    }
}

fn table() -> Table {
    let snapshot = snapshot();
    let mut table = Table::default();
    for (role, workload, name) in CAST {
        writeln!(table.text, "{role} for {name}").unwrap();
        table.roles.insert(role.to_owned());
        open_session(&mut table, &snapshot, (role, workload, name));
        let session = session(&snapshot, (role, workload, name));
        for (scope, _, _) in SCOPES {
            issue(&mut table, &snapshot, &session, scope);
        }
        table.text.push('\n');
    }
    table
}

fn open_session(
    table: &mut Table,
    snapshot: &PolicySnapshot,
    (role, workload, name): (&str, Workload, &str),
) {
    let ask = SessionAsk {
        principal: principal(workload),
        requester: requester(name),
        role: role.parse().unwrap(),
        life: None,
        claimed_reason: None,
        parent: None,
    };
    table.actions.insert("open_session".into());
    let cell = match decide_session(snapshot, &ask, fixture::now()) {
        Ok(permit) => permitted(table, permit.life(), permit.policies()),
        Err(denial) => refused(table, &denial),
    };
    writeln!(table.text, "  open_session: {cell}").unwrap();
}

/// A session, whether or not it may be opened: the cells of `issue` speak for themselves.
fn session(
    snapshot: &PolicySnapshot,
    (role, workload, name): (&str, Workload, &str),
) -> Arc<Session> {
    let role = &snapshot.roles()[role];
    Arc::new(Session::from_record(SessionRecord {
        id: SessionId::mint(fixture::now(), &[0; 10]),
        role: role.name.clone(),
        prompt_digest: role.digest,
        authorizations: role.authorizations.clone(),
        principal: principal(workload),
        requester: requester(name),
        opened_at: fixture::now(),
        ends_at: fixture::now().after(SESSION_LIFE_DEFAULT),
        ancestors: vec![],
    }))
}

fn issue(table: &mut Table, snapshot: &PolicySnapshot, session: &Arc<Session>, scope: &str) {
    table.actions.insert("issue".into());
    table.scopes.insert(scope.to_owned());
    let cells = [None, Some(Duration::from_mins(10))].map(|ttl| {
        let ask = Ask { ttl, ..fixture::ask_for(scope) };
        match decide(snapshot, session, &ask, fixture::now()) {
            Ok(permit) => permitted(table, permit.ttl(), permit.policies()),
            Err(denial) => refused(table, &denial),
        }
    });
    writeln!(table.text, "  issue {scope}: {}", cells[0]).unwrap();
    if cells[0] != cells[1] {
        writeln!(table.text, "  issue {scope} for 10m: {}", cells[1]).unwrap();
    }
}

fn permitted(table: &mut Table, span: Duration, policies: &[String]) -> String {
    table.policies.extend(policies.iter().cloned());
    format!("PERMIT {} [{}]", humantime::format_duration(span), policies.join(", "))
}

fn refused(table: &mut Table, denial: &Denial) -> String {
    table.policies.extend(denial.policies.iter().cloned());
    format!("{} [{}] {}", denial.reason.code(), denial.policies.join(", "), denial.reason)
}
