//! For whom: groups, names, and who acts for whom.

use claviger_core::principal::Signer;

use super::*;

fn workload(id: &str) -> Principal {
    let signer = Signer { issuer: "corp".to_owned(), key: "k".to_owned() };
    Principal::from_signed_token(id.to_owned(), Default::default(), signer)
}

#[tokio::test]
async fn an_id_token_proves_the_engineer_and_the_groups() {
    let world = World::new();
    let token = world.key.sign(&claims_but(json!({
        "sub": "u-17", "email": "ada@corp.example", "groups": ["payments", "on call"],
    })));
    let requester = world.requester(&token, &Principal::from_unix_peer(1, 1)).await.unwrap();
    assert_eq!((requester.id(), requester.name()), ("oidc:corp:u-17", Some("ada@corp.example")));
    let groups: Vec<_> = requester.grounds().groups.iter().map(String::as_str).collect();
    assert_eq!(groups, ["corp:on call", "corp:payments"]);
    assert!(requester.grounds().act.is_empty());
    assert_eq!(requester.grounds().signer.as_ref().unwrap().issuer, "corp");
}

#[tokio::test]
async fn groups_that_cannot_all_be_known_are_refused_and_not_cut() {
    let world = World::new();
    let groups = |error| Some(TokenError::Claim(error));
    let refused = || groups(ClaimError::Groups("groups".to_owned()));
    for (case, changes, expect) in [
        ("as many as may be", json!({ "groups": vec!["g"; 200] }), None),
        ("one more", json!({ "groups": vec!["g"; 201] }), refused()),
        ("no list", json!({ "groups": "payments" }), refused()),
        ("no names", json!({ "groups": [1] }), refused()),
        ("a name with a line break", json!({ "groups": ["a\nb"] }), refused()),
        ("an endless name", json!({ "groups": ["g".repeat(513)] }), refused()),
        (
            "elsewhere",
            json!({ "_claim_names": { "groups": "src1" } }),
            groups(ClaimError::GroupsElsewhere("groups".to_owned())),
        ),
    ] {
        let token = world.key.sign(&claims_but(changes));
        let found = world.requester(&token, &Principal::from_unix_peer(1, 1)).await.err();
        assert_eq!(found, expect, "{case}");
    }
}

/// Who acts, or why nobody may.
type Chain = Result<Vec<String>, TokenError>;

#[tokio::test]
async fn the_outermost_actor_must_be_who_sends_the_token() {
    let world = World::new();
    let (agent, local) = (workload("oidc:corp:agent"), Principal::from_unix_peer(1000, 1000));
    let spiffe = Principal::from_client_certificate("spiffe://example.org/agent", "00");
    let nested =
        json!({ "sub": "agent", "act": { "sub": "tool", "iss": "https://other.example" } });
    let is_chain = |texts: &[&str]| Ok(texts.iter().map(|text| (*text).to_owned()).collect());
    let other = || Err(TokenError::OtherActor);
    let malformed = || Err(TokenError::Act(8));
    let deep =
        (0..8).fold(json!({ "sub": "agent" }), |inner, _| json!({ "sub": "agent", "act": inner }));
    let cases: Vec<(&str, Value, &Principal, Chain)> = vec![
        ("by its subject", json!({ "act": { "sub": "agent" } }), &agent, is_chain(&["agent"])),
        ("by its id", json!({ "act": { "sub": "unix:1000" } }), &local, is_chain(&["unix:1000"])),
        (
            "by its SPIFFE id",
            json!({ "act": { "sub": "spiffe://example.org/agent" } }),
            &spiffe,
            is_chain(&["spiffe://example.org/agent"]),
        ),
        (
            "by issuer and subject",
            json!({ "act": { "sub": "agent", "iss": double::ISSUER } }),
            &agent,
            is_chain(&["https://id.corp.example#agent"]),
        ),
        (
            "with others before it",
            json!({ "act": nested }),
            &agent,
            is_chain(&["agent", "https://other.example#tool"]),
        ),
        ("another workload", json!({ "act": { "sub": "agent" } }), &local, other()),
        ("another by name", json!({ "act": { "sub": "another" } }), &agent, other()),
        (
            "the right one, but further in",
            json!({ "act": { "sub": "tool", "act": { "sub": "agent" } } }),
            &agent,
            other(),
        ),
        (
            "the right subject of another issuer",
            json!({ "act": { "sub": "agent", "iss": "https://other.example" } }),
            &agent,
            other(),
        ),
        (
            "an id with an issuer",
            json!({ "act": { "sub": "unix:1000", "iss": double::ISSUER } }),
            &local,
            other(),
        ),
        ("nobody", json!({ "act": {} }), &agent, malformed()),
        ("no object", json!({ "act": "agent" }), &agent, malformed()),
        ("passed on too often", json!({ "act": deep }), &agent, malformed()),
        ("who may act", json!({ "may_act": { "sub": "agent" } }), &agent, is_chain(&[])),
        ("who may not act", json!({ "may_act": { "sub": "agent" } }), &local, other()),
        ("null", json!({ "act": Value::Null }), &agent, is_chain(&[])),
    ];
    for (case, changes, principal, expect) in cases {
        let token = world.key.sign(&claims_but(changes));
        let found = world.requester(&token, principal).await;
        assert_eq!(found.map(|requester| requester.grounds().act.clone()), expect, "{case}");
    }
}
