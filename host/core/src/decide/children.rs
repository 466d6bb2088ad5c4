//! Whatever a child session may be issued, its parent may have too: in authorizations, life and
//! requester, and against every `forbid`. Random trees of roles, policies and asks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic"
)]

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::catalog::{Backend, Catalog, Scope, Tier};
use crate::fixture;
use crate::ids::SessionId;
use crate::name::ScopeName;
use crate::policy::{PolicyFile, PolicySources, Team};

const ROLES: [&str; 4] = ["r0", "r1", "r2", "r3"];
const AUTHORIZATIONS: [&str; 3] = ["a.read", "a.write", "b.read"];
const SCOPES: [(&str, &str); 4] =
    [("a/read", "a.read"), ("a/write", "a.write"), ("b/read", "b.read"), ("b/again", "a.read")];

/// What may stand between `permit` or `forbid` and the end. Sessions are permitted generously, so
/// that trees grow.
const ISSUES: [&str; 7] = [
    "(principal, action == Action::\"issue\", resource)",
    "(principal in Role::\"r0\", action == Action::\"issue\", resource)",
    "(principal in Role::\"r1\", action == Action::\"issue\", resource in Backend::\"a\")",
    "(principal in Team::\"t\", action == Action::\"issue\", resource)",
    "(principal, action == Action::\"issue\", resource == Scope::\"b/read\")",
    "(principal, action == Action::\"issue\", resource) when { principal.depth > 1 }",
    "(principal, action == Action::\"issue\", resource) when { context.ttl_secs > 1000 }",
];

/// What a prompt file declares, with `max_ttl` in minutes.
type Declared = Vec<(&'static str, Option<u64>)>;

#[derive(Clone, Debug)]
struct Tree {
    policies: Vec<String>,
    /// What the roles declare when the sessions begin, and later.
    declared: [Vec<Declared>; 2],
    team: Vec<&'static str>,
    /// Each session opens the next one: its role, and the life that is asked for in minutes.
    chain: Vec<(&'static str, Option<u64>)>,
    /// Minutes between one session and the next, and before the asks.
    pause: u64,
    ttl: Option<u64>,
}

fn declared() -> impl Strategy<Value = Vec<Declared>> {
    let limits = prop::collection::vec(prop::option::of(1..90_u64), 3);
    let one = (subsequence(&AUTHORIZATIONS[..], 1..=3), limits)
        .prop_map(|(names, limits)| names.into_iter().zip(limits).collect::<Declared>());
    prop::collection::vec(one, ROLES.len())
}

fn policies() -> impl Strategy<Value = Vec<String>> {
    let permit = (select(&ISSUES[..]), prop::option::of(1..60_u32)).prop_map(|(head, mins)| {
        let annotation = mins.map(|mins| format!("@max_ttl(\"{mins}m\") ")).unwrap_or_default();
        let (scope, when) = head.split_at(head.find(" when").unwrap_or(head.len()));
        format!("{annotation}permit {scope}{when};")
    });
    let forbid = select(&ISSUES[1..]).prop_map(|head| format!("forbid {head};"));
    (prop::collection::vec(permit, 1..4), prop::collection::vec(forbid, 0..2))
        .prop_map(|(permits, forbids)| [permits, forbids].concat())
}

fn tree() -> impl Strategy<Value = Tree> {
    let level = (select(&ROLES[..]), prop::option::of(1..800_u64));
    (
        policies(),
        [declared(), declared()],
        subsequence(&ROLES[..], 0..=2),
        prop::collection::vec(level, 2..=DEPTH_MAX + 2),
        0..20_u64,
        prop::option::of(1..120_u64),
    )
        .prop_map(|(policies, declared, team, chain, pause, ttl)| Tree {
            policies,
            declared,
            team,
            chain,
            pause,
            ttl,
        })
}

impl Tree {
    fn snapshot(&self, declared: &[Declared]) -> PolicySnapshot {
        let roles = ROLES.iter().zip(declared).map(|(name, declared)| {
            let declared = declared.iter().map(|(name, mins)| {
                let ttl_max = mins.map(Duration::from_mins);
                (name.parse().unwrap(), AuthorizationLimits { ttl_max })
            });
            let role = Role { authorizations: declared.collect(), ..fixture::role(name, &[]) };
            (role.name.clone(), role)
        });
        let open = "permit (principal, action == Action::\"open_session\", resource);".to_owned();
        let text = [vec![open], self.policies.clone()].concat().join("\n");
        let team = self.team.iter().map(|role| role.parse().unwrap()).collect();
        let team = Team { roles: team, ..Team::default() };
        let loaded = PolicySnapshot::load(PolicySources {
            policies: vec![PolicyFile { path: "p.cedar".into(), text }],
            roles: roles.collect(),
            catalog: Catalog { backends: ["a", "b"].map(backend).into() },
            teams: [("t".parse().unwrap(), team)].into(),
            ..PolicySources::default()
        });
        loaded.unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    fn pause(&self) -> Duration {
        Duration::from_mins(self.pause)
    }

    /// The sessions from the top down, as far as they may be opened.
    fn sessions(&self, snapshot: &PolicySnapshot) -> Vec<Arc<Session>> {
        let mut now = fixture::now();
        let mut sessions: Vec<Arc<Session>> = Vec::new();
        for (role, life) in &self.chain {
            // Whatever a child's ask says of the requester, its parent's counts.
            let uid = u32::try_from(sessions.len()).unwrap();
            let ask = SessionAsk {
                principal: Principal::from_unix_peer(1, 1),
                requester: Requester::from_unix_peer(uid, None),
                role: role.parse().unwrap(),
                life: life.map(Duration::from_mins),
                claimed_reason: None,
                parent: sessions.last().cloned(),
            };
            let Ok(permit) = decide_session(snapshot, &ask, now) else { break };
            let number = u8::try_from(sessions.len()).unwrap();
            let id = SessionId::mint(now, &[number; 10]);
            sessions.push(Arc::new(Session::begin(permit, id, now)));
            now = now.after(self.pause());
        }
        sessions
    }
}

fn backend(name: &str) -> (crate::name::BackendName, Arc<Backend>) {
    let own = SCOPES.iter().filter(|(scope, _)| scope.starts_with(&format!("{name}/")));
    let one = fixture::backend(name, &[]);
    let scopes = own.map(|(scope, authorization)| {
        let (_, short) = scope.split_once('/').unwrap();
        let of = fixture::backend(name, &[(short, Tier::Standard)]);
        let made = of.scopes.values().next().unwrap();
        let (authorization, ttl_max) = (authorization.parse().unwrap(), Duration::from_hours(2));
        (made.name.clone(), Arc::new(Scope { authorization, ttl_max, ..(**made).clone() }))
    });
    (one.name.clone(), Arc::new(Backend { scopes: scopes.collect(), ..one }))
}

/// What holds between a session and the one that opened it, when asked for `scope`.
fn within(
    snapshot: &PolicySnapshot,
    (parent, child): (&Arc<Session>, &Arc<Session>),
    (ask, now): (&Ask, Timestamp),
) -> Result<(), TestCaseError> {
    prop_assert_eq!(child.requester(), parent.requester());
    prop_assert!(child.ends_at() <= parent.ends_at());
    let (of_child, of_parent) =
        (effective_authorizations(snapshot, child), effective_authorizations(snapshot, parent));
    for (name, limits) in &of_child {
        let above = of_parent.get(name);
        prop_assert!(above.is_some(), "{name} is the child's alone");
        prop_assert_eq!(&limits.narrowed_by(above.unwrap()), limits, "{} lives longer", name);
    }
    let Ok(permit) = decide(snapshot, child, ask, now) else { return Ok(()) };
    prop_assert!(permit.expires_at() <= parent.ends_at());
    prop_assert!(of_parent.contains_key(&permit.scope().authorization));
    let limit = of_parent[&permit.scope().authorization].ttl_max.unwrap_or(TTL_MAX);
    prop_assert!(permit.ttl() <= limit);
    match decide(snapshot, parent, ask, now).map_err(|denial| denial.reason) {
        // No permit of its own, or a shorter one: what a role is given is its own affair.
        Ok(_) | Err(DenialReason::NoIssuePermit { .. } | DenialReason::TtlTooLong { .. }) => Ok(()),
        // A child has a depth of its own, and the defaults of the two lives may differ: these two
        // conditions can hold for the parent alone, and the child is still judged in its role.
        Err(DenialReason::Forbidden { .. }) => {
            let as_parent = IssueQuestion {
                session: child,
                role: parent.role(),
                authorizations: &of_child,
                scope: permit.scope(),
                ttl: permit.ttl(),
                now,
            };
            prop_assert_eq!(snapshot.evaluate_issue(&as_parent).forbids, vec![]);
            Ok(())
        }
        Err(other) => Err(TestCaseError::fail(format!("the parent alone is refused: {other}"))),
    }
}

// Enough for a narrowing that is left out to show; `PROPTEST_CASES` asks for more.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_childs_reach_is_never_wider_than_its_parents(tree in tree()) {
        let before = tree.snapshot(&tree.declared[0]);
        let sessions = tree.sessions(&before);
        prop_assert!(sessions.len() <= DEPTH_MAX + 1);
        let now = fixture::now().after(tree.pause() * u32::try_from(sessions.len()).unwrap());
        // Under the policies and prompt files of the beginning, and under later ones.
        for snapshot in [&before, &tree.snapshot(&tree.declared[1])] {
            for (scope, _) in SCOPES {
                let scope: ScopeName = scope.parse().unwrap();
                let ttl = tree.ttl.map(Duration::from_mins);
                let ask = Ask { scope, ttl, ..fixture::ask() };
                for pair in sessions.windows(2) {
                    within(snapshot, (&pair[0], &pair[1]), (&ask, now))?;
                }
            }
        }
    }
}

fn world(issue: &str) -> (PolicySnapshot, Arc<Session>) {
    let mut sources = fixture::sources();
    let planner = fixture::role("planner", &["orders.read"]);
    sources.roles.insert(planner.name.clone(), planner);
    let open = "permit (principal, action == Action::\"open_session\", resource);";
    let text = format!("{open}\n{issue}");
    sources.policies = vec![PolicyFile { path: "p.cedar".into(), text }];
    let snapshot = PolicySnapshot::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let ask = SessionAsk { role: "planner".parse().unwrap(), ..ask_below(None) };
    let permit = decide_session(&snapshot, &ask, fixture::now()).unwrap();
    let id = SessionId::mint(fixture::now(), &[1; 10]);
    (snapshot, Arc::new(Session::begin(permit, id, fixture::now())))
}

fn ask_below(parent: Option<&Arc<Session>>) -> SessionAsk {
    SessionAsk {
        principal: Principal::from_unix_peer(1, 1),
        requester: Requester::from_unix_peer(1, None),
        role: "reader".parse().unwrap(),
        life: None,
        claimed_reason: None,
        parent: parent.cloned(),
    }
}

fn child(snapshot: &PolicySnapshot, parent: &Arc<Session>) -> Arc<Session> {
    let permit = decide_session(snapshot, &ask_below(Some(parent)), fixture::now()).unwrap();
    let id = SessionId::mint(fixture::now(), &[2; 10]);
    Arc::new(Session::begin(permit, id, fixture::now()))
}

const FOR_READERS: &str =
    "permit (principal in Role::\"reader\", action == Action::\"issue\", resource);";

#[test]
fn a_child_gets_what_its_own_role_is_permitted_and_its_parents_is_not() {
    let (snapshot, parent) = world(FOR_READERS);
    let child = child(&snapshot, &parent);
    assert!(decide(&snapshot, &child, &fixture::ask(), fixture::now()).is_ok());
    let refused = decide(&snapshot, &parent, &fixture::ask(), fixture::now()).unwrap_err();
    assert_eq!(refused.reason.code(), "NO_PERMIT");
}

/// INVARIANT (forbids-are-inherited)
#[test]
fn no_child_gets_round_what_is_forbidden_to_a_session_above_it() {
    for (condition, expect) in [
        ("", "FORBIDDEN"),
        (" when { context.ttl_secs * 9223372036854775807 > 0 }", "POLICY_ERROR"),
    ] {
        let (snapshot, parent) = world(&format!(
            "{FOR_READERS} @id(\"wall\") forbid (principal in Role::\"planner\", action == Action::\"issue\", resource){condition};"
        ));
        let child = child(&snapshot, &parent);
        let grandchild = self::child(&snapshot, &child);
        for session in [&child, &grandchild] {
            let refused = decide(&snapshot, session, &fixture::ask(), fixture::now()).unwrap_err();
            assert_eq!((refused.reason.code(), refused.policies), (expect, vec!["wall".into()]));
        }
        let other = fixture::session_in(&snapshot, 9);
        assert!(decide(&snapshot, &other, &fixture::ask(), fixture::now()).is_ok(), "a top one");
    }
}

#[test]
fn a_policy_sees_whose_child_is_to_be_opened_and_how_deep() {
    let (snapshot, parent) = world("");
    let load = |open: &str| {
        let mut sources = fixture::sources();
        let planner = fixture::role("planner", &["orders.read"]);
        sources.roles.insert(planner.name.clone(), planner);
        let text =
            format!("permit (principal, action == Action::\"open_session\", resource) {open};");
        sources.policies = vec![PolicyFile { path: "p.cedar".into(), text }];
        PolicySnapshot::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
    };
    let below = child(&snapshot, &parent);
    let asks = [None, Some(&parent), Some(&below)].map(ask_below);
    for (condition, expect) in [
        ("", [true, true, true]),
        ("when { context.depth == 0 }", [true, false, false]),
        ("unless { context has parent_role }", [true, false, false]),
        (
            "when { context has parent_role && context.parent_role == Role::\"planner\" }",
            [false, true, false],
        ),
        ("when { context.depth <= 1 }", [true, true, false]),
    ] {
        let snapshot = load(condition);
        let found =
            asks.each_ref().map(|ask| decide_session(&snapshot, ask, fixture::now()).is_ok());
        assert_eq!(found, expect, "{condition}");
    }
}

#[test]
fn the_depth_of_a_tree_is_bounded_and_ended_sessions_open_none() {
    let (snapshot, mut session) = world("");
    for _ in 0..DEPTH_MAX {
        session = child(&snapshot, &session);
    }
    let refused = decide_session(&snapshot, &ask_below(Some(&session)), fixture::now());
    assert_eq!(refused.unwrap_err().reason, DenialReason::TooDeep { most: DEPTH_MAX });
    let (snapshot, parent) = world("");
    let refused = decide_session(&snapshot, &ask_below(Some(&parent)), parent.ends_at());
    assert_eq!(refused.unwrap_err().reason, DenialReason::SessionNotLive);
}

#[test]
fn a_child_lives_no_longer_than_its_parent() {
    let (snapshot, parent) = world("");
    let half = parent.opened_at().after(SESSION_LIFE_DEFAULT / 2);
    for life in [None, Some(SESSION_LIFE_MAX)] {
        let ask = SessionAsk { life, ..ask_below(Some(&parent)) };
        let permit = decide_session(&snapshot, &ask, half).unwrap();
        assert_eq!(permit.life(), SESSION_LIFE_DEFAULT / 2);
    }
}
