//! Seven policy snapshots that the run swaps between, and, written down a second time by hand,
//! what each of them lets a role have.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use claviger_core::budget::{Budget, Budgets};
use claviger_core::catalog::{Backend, Catalog, RevocationClass, Scope, ShortTtl, Tier};
use claviger_core::policy::{PolicyFile, PolicySnapshot, PolicySources};
use claviger_core::prompt::{AuthorizationLimits, PromptDigest, Role};

/// A snapshot and the truth about it.
pub struct Known {
    pub snapshot: Arc<PolicySnapshot>,
    /// `role scope` pairs that may be issued.
    pub grants: &'static [(&'static str, &'static str)],
    /// The roles of which a session may run. One whose prompt file is not loaded may not, once it
    /// has been gone for long enough.
    pub sessions: &'static [&'static str],
    /// The longest life of a credential.
    pub ttl_max: Duration,
    /// The most leases that a role may hold at once.
    pub role_max: Option<NonZeroU32>,
    /// The most that a top session may hold with all below it.
    pub tree_max: Option<NonZeroU32>,
}

pub const ROLES: [&str; 2] = ["reader", "writer"];
pub const BACKENDS: [&str; 2] = ["orders-db", "sts"];
/// What clients ask for; the two that are never issued come seldom.
pub const ASKED: [&str; 8] = [
    "orders-db/readonly",
    "orders-db/readonly",
    "orders-db/readonly",
    "sts/report",
    "sts/report",
    "orders-db/refunds",
    "orders-db/admin",
    "orders-db/keys",
];

/// The snapshots; loading one takes longer than a whole run.
pub static SNAPSHOTS: LazyLock<[Known; 7]> = LazyLock::new(|| {
    let everything = "permit (principal, action == Action::\"issue\", resource);";
    let orders_only =
        "permit (principal, action == Action::\"issue\", resource in Backend::\"orders-db\");";
    let readers_only = "permit (principal, action == Action::\"open_session\", \
         resource == Role::\"reader\");";
    let short = "@max_ttl(\"5m\")\npermit (principal, action == Action::\"issue\", resource);";
    [
        known(everything, &["orders.read", "tickets.refund"], &EVERYTHING),
        known(
            orders_only,
            &["orders.read", "tickets.refund"],
            &[
                ("reader", "orders-db/readonly"),
                ("writer", "orders-db/readonly"),
                ("writer", "orders-db/refunds"),
            ],
        ),
        known("", &["orders.read", "tickets.refund"], &[]),
        known(
            short,
            &["orders.read"],
            &[
                ("reader", "orders-db/readonly"),
                ("reader", "sts/report"),
                ("writer", "orders-db/readonly"),
                ("writer", "sts/report"),
            ],
        )
        .within(Duration::from_mins(5)),
        load(readers_only, everything, &BOTH_ROLES, &NO_NEW_WRITERS),
        load(OPEN, everything, &READER_ONLY, &READERS),
        load(OPEN, everything, &BOTH_ROLES, &FEW),
    ]
});

const OPEN: &str = "permit (principal, action == Action::\"open_session\", resource);";
const DECLARED: [&str; 2] = ["orders.read", "tickets.refund"];
const BOTH_ROLES: [(&str, &[&str]); 2] = [("reader", &["orders.read"]), ("writer", &DECLARED)];
const READER_ONLY: [(&str, &[&str]); 1] = [("reader", &["orders.read"])];
const EVERYTHING: [(&str, &str); 5] = [
    ("reader", "orders-db/readonly"),
    ("reader", "sts/report"),
    ("writer", "orders-db/readonly"),
    ("writer", "orders-db/refunds"),
    ("writer", "sts/report"),
];
/// Writers may run no session; one that still runs may be issued what it could before.
const NO_NEW_WRITERS: Truth = Truth { grants: &EVERYTHING, sessions: &["reader"], role_max: None };
/// Writers are not even known.
const READERS: Truth = Truth {
    grants: &[("reader", "orders-db/readonly"), ("reader", "sts/report")],
    sessions: &["reader"],
    role_max: None,
};
/// Everything, two at once for a role and six a minute; for a top session with all below it three,
/// also by the minute.
const FEW: Truth = Truth { grants: &EVERYTHING, sessions: &ROLES, role_max: NonZeroU32::new(2) };

const THREE: NonZeroU32 = NonZeroU32::new(3).unwrap();

struct Truth {
    grants: &'static [(&'static str, &'static str)],
    sessions: &'static [&'static str],
    role_max: Option<NonZeroU32>,
}

impl Known {
    fn within(self, ttl_max: Duration) -> Self {
        Self { ttl_max, ..self }
    }
}

fn known(issue: &str, writer: &[&str], grants: &'static [(&'static str, &'static str)]) -> Known {
    let truth = Truth { grants, sessions: &ROLES, role_max: None };
    load(OPEN, issue, &[("reader", &["orders.read"]), ("writer", writer)], &truth)
}

fn load(open: &str, issue: &str, roles: &[(&str, &[&str])], truth: &Truth) -> Known {
    let roles = roles.iter().map(|(name, authorizations)| role(name, authorizations));
    let backends = [
        backend(
            "orders-db",
            RevocationClass::Revocable,
            &[
                ("readonly", "orders.read", Tier::Standard),
                ("refunds", "tickets.refund", Tier::Standard),
                ("admin", "orders.read", Tier::Sensitive),
                ("keys", "keys.read", Tier::Standard),
            ],
        ),
        backend("sts", RevocationClass::ExpireOnly, &[("report", "orders.read", Tier::Standard)]),
    ];
    let mut sources = PolicySources {
        policies: vec![PolicyFile { path: "sim.cedar".into(), text: format!("{open}\n{issue}") }],
        roles: roles.map(|role| (role.name.clone(), role)).collect(),
        catalog: Catalog {
            backends: backends.into_iter().map(|b| (b.name.clone(), Arc::new(b))).collect(),
        },
        teams: BTreeMap::new(),
        budgets: Budgets::default(),
    };
    let tree_max = truth.role_max.and_then(|max| max.checked_add(1));
    let role_rate = truth.role_max.and_then(|max| max.checked_mul(THREE));
    sources.budgets.role = Budget { issues_per_minute: role_rate, live_leases: truth.role_max };
    sources.budgets.session = Budget { issues_per_minute: tree_max, live_leases: tree_max };
    let snapshot = Arc::new(PolicySnapshot::load(sources).expect("valid policies"));
    let Truth { grants, sessions, role_max } = *truth;
    Known { snapshot, grants, sessions, ttl_max: Duration::from_hours(2), role_max, tree_max }
}

fn role(name: &str, authorizations: &[&str]) -> Role {
    let declared =
        authorizations.iter().map(|a| (a.parse().unwrap(), AuthorizationLimits::default()));
    Role {
        name: name.parse().unwrap(),
        description: None,
        digest: PromptDigest::from_bytes([7; 32]),
        authorizations: declared.collect(),
        path: format!("prompts/{name}.md"),
    }
}

fn backend(name: &str, revocation: RevocationClass, scopes: &[(&str, &str, Tier)]) -> Backend {
    let scopes = scopes.iter().map(|(scope, authorization, tier)| {
        let scope = Scope {
            name: format!("{name}/{scope}").parse().unwrap(),
            authorization: authorization.parse().unwrap(),
            tier: *tier,
            ttl_max: Duration::from_hours(2),
            short_ttl: ShortTtl::Refuse,
            parameters: serde_json::json!({}),
        };
        (scope.name.clone(), Arc::new(scope))
    });
    Backend {
        name: name.parse().unwrap(),
        plugin: "simulated".parse().unwrap(),
        plugin_sha256: "00".repeat(32),
        revocation,
        residual_exposure: Duration::ZERO,
        ttl_min: Duration::from_secs(1),
        orphan_ttl_max: None,
        scopes: scopes.collect(),
    }
}
