//! What takes two operators: on a real broker, by the real command, as two users.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic"
)]

use claviger_e2e::broker::{Broker, claviger, run};
use claviger_e2e::client::{Agent, admin, journal};
use claviger_e2e::other_user;
use claviger_e2e::world::{Settings, World, plugins, sha256_of};
use claviger_proto::v1;
use serde_json::Value;

/// A world in which `nobody` operates too, and what takes two takes two.
async fn two_operators() -> (World, Broker) {
    let more = format!(
        "[admin]\noperator_uids = [{}]\ntwo_person = [\"revoke-everything\", \"loosen\"]",
        other_user::NOBODY
    );
    let world = World::with(Settings { more, ..Settings::default() });
    let broker = Broker::start(&world).await;
    other_user::let_in(&world);
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(broker.admin_socket(), everybody).expect("its owner may");
    (world, broker)
}

fn as_nobody(broker: &Broker, args: &[&str]) -> (i32, String) {
    let output = other_user::run(claviger(broker, args));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

/// The first approval that is named.
fn approval_in(said: &str) -> String {
    let from = said.find("apr_").unwrap_or_else(|| panic!("no approval in: {said}"));
    said[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[tokio::test]
async fn to_revoke_everything_takes_another_operator_once_for_exactly_this() {
    if !other_user::available("a second operator approves") {
        return;
    }
    let (world, broker) = two_operators().await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let everything = ["revoke", "everything", "--yes", "--reason", "drill"];
    let (code, _, said) = run(claviger(&broker, &everything));
    assert_eq!(code, 4, "{said}");
    let id = approval_in(&said);
    let with = |reason: &str| {
        let args = ["revoke", "everything", "--yes", "--reason", reason, "--approval", &id];
        run(claviger(&broker, &args))
    };
    assert_eq!(with("drill").0, 4, "nobody has granted it");
    let (code, _, said) = run(claviger(&broker, &["approve", "grant", &id]));
    assert!(code == 3 && said.contains("another operator than the one who asked"), "{said}");
    let (code, said) = as_nobody(&broker, &["approve", "list"]);
    assert!(code == 0 && said.contains(&id) && said.contains("everything"), "{said}");
    let (code, said) = as_nobody(&broker, &["approve", "grant", &id]);
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = with("something else");
    assert!(code == 1 && said.contains("given for another request"), "{said}");
    let theirs = ["revoke", "everything", "--yes", "--reason", "drill", "--approval", &id];
    let (code, said) = as_nobody(&broker, &theirs);
    assert!(code == 1 && said.contains("to another operator"), "{said}");
    assert_eq!(world.logins().len(), 1, "nothing has ended yet");
    let (code, told, said) = with("drill");
    assert_eq!(code, 0, "{told} {said}");
    assert_eq!(world.logins(), Vec::<String>::new());
    let (code, _, said) = with("drill");
    assert!(code == 1 && said.contains("was used"), "a replay: {said}");
    // One role ends without a second operator.
    assert_eq!(run(claviger(&broker, &["revoke", "role", "support-triage", "--yes"])).0, 0);
    let entries = journal(&broker.admin_socket(), v1::QueryJournalRequest::default()).await;
    let ended = entries.iter().find(|entry| entry["event"] == "session-ended").expect("an entry");
    assert_eq!(ended["approver"], format!("unix:{}", other_user::NOBODY));
}

#[tokio::test]
async fn to_loosen_a_guard_takes_another_operator_and_to_tighten_it_does_not() {
    if !other_user::available("a second operator approves") {
        return;
    }
    let (world, broker) = two_operators().await;
    world.configure("max_ttl = \"15m\"", "max_ttl = \"10m\"");
    let (code, told, said) = run(claviger(&broker, &["reload"]));
    assert_eq!(code, 0, "{told} {said}");
    world.configure("max_ttl = \"10m\"", "max_ttl = \"2h\"");
    let (code, told, _) = run(claviger(&broker, &["reload"]));
    assert!(code == 1 && told.contains("scope `orders-db/readwrite` lives longer"), "{told}");
    let id = approval_in(&told);
    assert_eq!(as_nobody(&broker, &["approve", "grant", &id]).0, 0);
    // What is granted is that file and no other.
    world.configure("max_ttl = \"2h\"", "max_ttl = \"3h\"");
    let (code, told, _) = run(claviger(&broker, &["reload", "--approval", &id]));
    assert!(code == 1 && told.contains("given for another request"), "{told}");
    world.configure("max_ttl = \"3h\"", "max_ttl = \"2h\"");
    let (code, told, said) = run(claviger(&broker, &["reload", "--approval", &id]));
    assert_eq!(code, 0, "{told} {said}");
    let request =
        v1::QueryJournalRequest { event: "configuration-loaded".into(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    let nobody = format!("unix:{}", other_user::NOBODY);
    assert!(entries.iter().any(|entry| entry["approver"] == nobody), "{entries:?}");
}

#[tokio::test]
async fn no_guard_is_loosened_by_what_is_left_unsaid_or_by_removing_it_first() {
    let (world, broker) = two_operators().await;
    let check = |expect: i32, hint: &str| {
        let (code, told, said) = run(claviger(&broker, &["reload"]));
        assert!(
            code == expect && told.contains(hint),
            "{code}, not {expect} {hint}: {told} {said}"
        );
    };
    let pin = format!("sha256 = \"{}\"", sha256_of(&plugins().join("postgres.wasm")));
    let unsigned = "require_signature = \"never-and-i-accept-unsigned-plugins\"";
    world.configure(&pin, unsigned);
    check(1, "plugin `postgres` needs a signature no longer");
    world.configure(unsigned, &pin);
    check(0, "");
    let signing = format!("[signing]\ntrusted_keys = []\n{unsigned}\n[admin]\n");
    world.configure("[admin]\n", &signing);
    check(1, "`signing` demands fewer signatures");
    world.configure(&signing, "[admin]\n");
    check(0, "");
    let owner = "[backends.orders-db.scopes.owner]\nauthorization = \"orders.read\"\n\
                 tier = \"sensitive\"\ngrant_role = \"orders_readwrite\"\n";
    world.configure(owner, "");
    check(0, "");
    let open = format!("{}[admin]\n", owner.replace("sensitive", "standard"));
    world.configure("[admin]\n", &open);
    check(1, "scope `orders-db/owner` is sensitive no longer");
    world.configure("tier = \"standard\"", "tier = \"sensitive\"");
    check(0, "");
}

#[tokio::test]
async fn a_grant_is_void_once_its_approver_may_not_approve() {
    if !other_user::available("a second operator loses the right to approve") {
        return;
    }
    let (world, broker) = two_operators().await;
    let agent = Agent::open(&broker.socket(), "support-triage").await.expect("a session");
    agent.issue("orders-db/readonly").await.expect("a credential");
    let everything = |more: &[&str]| {
        run(claviger(&broker, &[&["revoke", "everything", "--yes"] as &[&str], more].concat()))
    };
    let granted = || {
        let (_, _, said) = everything(&[]);
        let id = approval_in(&said);
        let (code, said) = as_nobody(&broker, &["approve", "grant", &id]);
        assert_eq!(code, 0, "{said}");
        id
    };
    let id = granted();
    let forbid = format!(
        "forbid (principal == Operator::\"unix:{}\", action == Action::\"admin::approve\", resource);\n",
        other_user::NOBODY
    );
    world.write("policies/left.cedar", &forbid);
    assert_eq!(run(claviger(&broker, &["reload"])).0, 0);
    let (code, _, said) = everything(&["--approval", &id]);
    assert!(code == 1 && said.contains("may not approve any longer"), "{said}");
    assert_eq!(world.logins().len(), 1, "nothing has ended");
    std::fs::remove_file(world.path().join("policies/left.cedar")).expect("removed");
    assert_eq!(run(claviger(&broker, &["reload"])).0, 0);
    let (code, _, said) = everything(&["--approval", &id]);
    assert!(code == 1 && said.contains("no approval"), "it is void for good: {said}");
    let anew = granted();
    let (code, told, said) = everything(&["--approval", &anew]);
    assert_eq!(code, 0, "{told} {said}");
    assert_eq!(world.logins(), Vec::<String>::new());
}

#[tokio::test]
async fn a_reload_that_is_refused_for_its_own_faults_uses_no_approval_up() {
    if !other_user::available("a second operator approves of a reload") {
        return;
    }
    let (world, broker) = two_operators().await;
    world.configure("max_ttl = \"15m\"", "max_ttl = \"2h\"");
    let (_, told, _) = run(claviger(&broker, &["reload"]));
    let id = approval_in(&told);
    assert_eq!(as_nobody(&broker, &["approve", "grant", &id]).0, 0);
    world.write("policies/broken.cedar", "permit (");
    let (code, told, said) = run(claviger(&broker, &["reload", "--approval", &id]));
    assert_eq!(code, 1, "{told} {said}");
    std::fs::remove_file(world.path().join("policies/broken.cedar")).expect("removed");
    let (code, told, said) = run(claviger(&broker, &["reload", "--approval", &id]));
    assert_eq!(code, 0, "{told} {said}");
    let me = format!("unix:{}", rustix::process::geteuid().as_raw());
    let nobody = format!("unix:{}", other_user::NOBODY);
    for (event, approver) in [
        ("configuration-refused", Value::Null),
        ("policies-refused", nobody.clone().into()),
        ("configuration-loaded", nobody.into()),
    ] {
        let request = v1::QueryJournalRequest { event: event.into(), ..Default::default() };
        let entries = journal(&broker.admin_socket(), request).await;
        let signed = |entry: &Value| entry["operator"] == me && entry["approver"] == approver;
        assert!(entries.iter().any(signed), "{event}: {entries:?}");
    }
}

#[tokio::test]
async fn what_is_decided_neither_way_is_decided_and_recorded_like_any_other() {
    let world = World::new();
    world.write(
        "policies/operators.cedar",
        "@id(\"no-approvals\")\nforbid (principal, action == Action::\"admin::approve\", resource);\n",
    );
    let broker = Broker::start(&world).await;
    for decision in [0, 99] {
        let approval_id = "apr_0000000000e0000000000000000".to_owned();
        let request = v1::DecideApprovalRequest { approval_id, decision };
        let answer = admin(&broker.admin_socket()).await.decide_approval(request).await;
        let refused = answer.expect_err("nobody may approve");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{decision}: {refused:?}");
    }
    let request = v1::QueryJournalRequest { action: "admin::approve".into(), ..Default::default() };
    let entries = journal(&broker.admin_socket(), request).await;
    assert!(entries.iter().any(|entry| entry["decision"] == "deny"), "{entries:?}");
}

#[tokio::test]
async fn a_grant_covers_nothing_that_was_tightened_since() {
    if !other_user::available("a second operator approves") {
        return;
    }
    let (world, broker) = two_operators().await;
    let (readonly, readwrite) = ("max_ttl = \"1h\"", "max_ttl = \"15m\"");
    world.configure(readonly, "max_ttl = \"2h\"");
    let (_, told, said) = run(claviger(&broker, &["reload"]));
    let id = approval_in(&format!("{told}{said}"));
    assert_eq!(as_nobody(&broker, &["approve", "grant", &id]).0, 0);
    // Meanwhile somebody finds that too much is possible.
    world.configure("max_ttl = \"2h\"", readonly);
    world.configure(readwrite, "max_ttl = \"5m\"");
    assert_eq!(run(claviger(&broker, &["reload"])).0, 0, "to tighten takes one");
    world.configure("max_ttl = \"5m\"", readwrite);
    world.configure(readonly, "max_ttl = \"2h\"");
    let (code, told, said) = run(claviger(&broker, &["reload", "--approval", &id]));
    assert_eq!(code, 1, "the grant was of less: {told} {said}");
}
