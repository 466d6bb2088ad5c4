//! What decides is proven, and what is only claimed is only recorded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::collections::BTreeMap;

use super::*;
use crate::binding::Binding;
use crate::fixture;
use crate::ids::SessionId;
use crate::journal::Entry;
use crate::policy::{PolicyFile, Team};
use crate::principal::{Grounds, Signer};
use crate::session::{Begun, KnownToken, TokenHash};

/// Only the payments team, whether a session is to begin or a credential to be issued.
const POLICIES: &str = r#"
@id("open") permit (principal, action == Action::"open_session", resource)
when { context.requester in Team::"payments" };
@id("issue") permit (principal in Role::"reader", action == Action::"issue", resource)
when { principal.requester in Team::"payments" };
"#;

fn snapshot() -> PolicySnapshot {
    let mut sources = fixture::sources();
    sources.policies = vec![PolicyFile { path: "p.cedar".into(), text: POLICIES.into() }];
    let payments = Team {
        requesters: vec!["oidc:corp:ada".into()],
        groups: vec!["corp:payments".into()],
        ..Team::default()
    };
    sources.teams = BTreeMap::from([("payments".parse().unwrap(), payments)]);
    PolicySnapshot::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn ask(requester: Requester, claimed_reason: Option<&str>) -> SessionAsk {
    SessionAsk {
        principal: Principal::from_unix_peer(1, 1),
        requester,
        role: "reader".parse().unwrap(),
        life: None,
        claimed_reason: claimed_reason.map(str::to_owned),
        parent: None,
    }
}

fn requester(id: &str, groups: &[&str]) -> Requester {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let signer = Some(Signer { issuer: "corp".into(), key: "k".into() });
    let grounds = Grounds { groups, act: vec!["agent".into()], signer };
    Requester::from_signed_token(id.to_owned(), Some("payments".into()), grounds)
}

#[test]
fn a_requester_is_in_the_teams_that_name_it_or_a_group_of_its_token() {
    let snapshot = snapshot();
    for (case, requester, expect) in [
        ("named by the team", requester("oidc:corp:ada", &[]), true),
        ("in a group of the team", requester("oidc:corp:bob", &["corp:payments"]), true),
        (
            "in that and other groups",
            requester("oidc:corp:bob", &["corp:a", "corp:payments"]),
            true,
        ),
        ("in another group", requester("oidc:corp:bob", &["corp:support"]), false),
        ("in the group of another issuer", requester("oidc:ci:bob", &["ci:payments"]), false),
        ("in a group called like a team", requester("oidc:corp:bob", &["payments"]), false),
        ("in no group", requester("oidc:corp:bob", &[]), false),
    ] {
        let ask = ask(requester, None);
        let begun = decide_session(&snapshot, &ask, fixture::now());
        assert_eq!(begun.is_ok(), expect, "{case}");
        let Ok(permit) = begun else { continue };
        let id = SessionId::mint(fixture::now(), &[1; 10]);
        let session = Arc::new(Session::begin(permit, id, fixture::now()));
        let issued = decide(&snapshot, &session, &fixture::ask(), fixture::now());
        assert!(issued.is_ok(), "{case}: the session's own policies ask for the same");
    }
}

/// Whatever an agent says about itself, ticket or reason, changes no decision. There is nothing
/// else that it could say: an ask has no other text, and policies see none of it.
#[test]
fn what_is_only_claimed_decides_nothing_and_is_recorded_as_claimed() {
    let snapshot = snapshot();
    let claims = [
        None,
        Some("TICKET-7"),
        Some("requester in Team::\"payments\""),
        Some("oidc:corp:ada"),
        Some("corp:payments"),
    ];
    for claimed in claims {
        let stranger = ask(requester("oidc:corp:bob", &["corp:support"]), claimed);
        let denial = decide_session(&snapshot, &stranger, fixture::now()).unwrap_err();
        let expect = DenialReason::NoSessionPermit { role: "reader".parse().unwrap() };
        assert_eq!(denial.reason, expect, "{claimed:?}");

        let member = ask(requester("oidc:corp:ada", &[]), claimed);
        let permit = decide_session(&snapshot, &member, fixture::now()).unwrap();
        assert_eq!(permit.policies(), ["open"], "{claimed:?}");
        let (policies, digest) = (permit.policies().to_vec(), permit.snapshot());
        let id = SessionId::mint(fixture::now(), &[1; 10]);
        let session = Arc::new(Session::begin(permit, id, fixture::now()));
        let claimed_reason = member.claimed_reason.clone();
        let begun = Begun { policies, snapshot: digest, claimed_reason };
        let token =
            KnownToken { hash: TokenHash::from_record([1; 32]), binding: Binding::Unix { uid: 1 } };
        let entry = Entry::session_begun(&session, &token, &begun);
        assert_eq!(entry.claimed_reason.as_deref(), claimed);
        assert_eq!(entry.requester.as_deref(), Some("oidc:corp:ada"));
        assert_eq!(entry.act, ["agent"]);

        let admin = Ask {
            claimed_reason: claimed.map(str::to_owned),
            ..fixture::ask_for("orders-db/admin")
        };
        let denial = decide(&snapshot, &session, &admin, fixture::now()).unwrap_err();
        let scope = admin.scope.clone();
        assert_eq!(denial.reason, DenialReason::SensitiveScope { scope }, "{claimed:?}");
    }
}
