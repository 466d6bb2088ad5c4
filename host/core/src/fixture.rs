//! A small world for the tests of other crates: one role, one backend, policies that permit. Makes
//! nothing by a back door: its permits come from `decide`.
#![expect(clippy::expect_used, reason = "a fixture of constants; a mistake in it fails every test")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ask::Ask;
use crate::budget::Budgets;
use crate::catalog::{Backend, Catalog, RevocationClass, Scope, ShortTtl, Tier};
use crate::decide::{Permit, SessionAsk, decide, decide_session};
use crate::ids::SessionId;
use crate::policy::{PolicyFile, PolicySnapshot, PolicySources};
use crate::principal::{Principal, Requester};
use crate::prompt::{AuthorizationLimits, PromptDigest, Role};
use crate::session::Session;
use crate::time::Timestamp;

/// Role `reader` (authorization `orders.read`); backend `orders-db` on plugin `postgres` with
/// scopes `readonly` (standard) and `admin` (sensitive); permits for sessions and for issuing.
pub fn snapshot() -> PolicySnapshot {
    PolicySnapshot::load(sources()).expect("the fixture's policies are valid")
}

/// What [`snapshot`] is made of, to be changed by a test.
pub fn sources() -> PolicySources {
    let role = role("reader", &["orders.read"]);
    let backend = backend("orders-db", &[("readonly", Tier::Standard), ("admin", Tier::Sensitive)]);
    PolicySources {
        policies: vec![PolicyFile { path: "fixture.cedar".into(), text: POLICIES.into() }],
        roles: BTreeMap::from([(role.name.clone(), role)]),
        catalog: Catalog { backends: BTreeMap::from([(backend.name.clone(), Arc::new(backend))]) },
        teams: BTreeMap::new(),
        budgets: Budgets::default(),
    }
}

/// A role that declares these authorizations, without limits of its own.
pub fn role(name: &str, authorizations: &[&str]) -> Role {
    let declared = authorizations.iter().map(|authorization| {
        (authorization.parse().expect("a valid authorization"), AuthorizationLimits::default())
    });
    Role {
        name: name.parse().expect("a valid role name"),
        description: None,
        digest: PromptDigest::from_bytes([7; 32]),
        authorizations: declared.collect(),
        path: format!("prompts/{name}.md"),
    }
}

/// A revocable backend on plugin `postgres`; each scope satisfies `orders.read` for up to an hour.
pub fn backend(name: &str, scopes: &[(&str, Tier)]) -> Backend {
    let scopes = scopes.iter().map(|(scope, tier)| {
        let scope = Scope {
            name: format!("{name}/{scope}").parse().expect("a valid scope name"),
            authorization: "orders.read".parse().expect("a valid authorization"),
            tier: *tier,
            ttl_max: Duration::from_hours(1),
            short_ttl: ShortTtl::Refuse,
            parameters: serde_json::json!({ "grant_role": "orders_readonly" }),
        };
        (scope.name.clone(), Arc::new(scope))
    });
    Backend {
        name: name.parse().expect("a valid backend name"),
        plugin: "postgres".parse().expect("a valid plugin name"),
        plugin_sha256: "00".repeat(32),
        revocation: RevocationClass::Revocable,
        residual_exposure: Duration::ZERO,
        ttl_min: Duration::from_secs(1),
        orphan_ttl_max: None,
        scopes: scopes.collect(),
    }
}

/// The moment at which the fixture's session begins.
pub const fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_795_000_000_000)
}

/// A session of role `reader`, permitted by [`snapshot`], for user 1000 of this machine.
pub fn session() -> Arc<Session> {
    session_in(&snapshot(), 0)
}

/// The same in another snapshot, with an id of its own for each `number`.
pub fn session_in(snapshot: &PolicySnapshot, number: u8) -> Arc<Session> {
    let ask = SessionAsk {
        principal: Principal::from_unix_peer(1000, 1000),
        requester: Requester::from_unix_peer(1000, Some("dev".into())),
        role: "reader".parse().expect("a valid role name"),
        life: None,
        claimed_reason: Some("a test".into()),
        parent: None,
    };
    begin(snapshot, &ask, number)
}

/// The same of another workload, on its own behalf.
pub fn session_of(snapshot: &PolicySnapshot, principal: &Principal, number: u8) -> Arc<Session> {
    let ask = SessionAsk {
        principal: principal.clone(),
        requester: Requester::from_workload(principal),
        role: "reader".parse().expect("a valid role name"),
        life: None,
        claimed_reason: None,
        parent: None,
    };
    begin(snapshot, &ask, number)
}

/// A session of the same role below `parent`.
pub fn child_in(snapshot: &PolicySnapshot, parent: &Arc<Session>, number: u8) -> Arc<Session> {
    let ask = SessionAsk {
        principal: parent.principal().clone(),
        requester: parent.requester().clone(),
        role: parent.role().clone(),
        life: None,
        claimed_reason: None,
        parent: Some(Arc::clone(parent)),
    };
    begin(snapshot, &ask, number)
}

fn begin(snapshot: &PolicySnapshot, ask: &SessionAsk, number: u8) -> Arc<Session> {
    let permit = decide_session(snapshot, ask, now()).expect("the fixture permits sessions");
    Arc::new(Session::begin(permit, SessionId::mint(now(), &[number; 10]), now()))
}

/// An ask for `orders-db/readonly` with the default life.
pub fn ask() -> Ask {
    ask_for("orders-db/readonly")
}

/// An ask for `scope` with the default life.
pub fn ask_for(scope: &str) -> Ask {
    Ask {
        scope: scope.parse().expect("a valid scope name"),
        ttl: None,
        idempotency_key: None,
        claimed_reason: None,
    }
}

/// A permit for [`ask`] in [`session`], by [`snapshot`]; each call gives another of the same kind.
pub fn permit() -> Permit {
    permit_in(&snapshot(), &session())
}

/// A permit for [`ask`] in `session`, by `snapshot`.
pub fn permit_in(snapshot: &PolicySnapshot, session: &Arc<Session>) -> Permit {
    decide(snapshot, session, &ask(), now()).expect("the fixture permits its own ask")
}

const POLICIES: &str = r#"
@id("fixture.open")
permit (principal, action == Action::"open_session", resource == Role::"reader");

@id("fixture.issue")
permit (principal in Role::"reader", action == Action::"issue", resource in Backend::"orders-db");
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_permit_for_an_hour() {
        assert_eq!(permit().ttl(), Duration::from_hours(1));
    }

    #[test]
    fn its_admin_scope_is_never_issued() {
        assert!(decide(&snapshot(), &session(), &ask_for("orders-db/admin"), now()).is_err());
    }
}
