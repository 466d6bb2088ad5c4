//! Decides whether an operator may do something. Pure, like the other decisions.

use super::{Denial, DenialReason, Refused, ids, permits_of};
use crate::admin::{AdminAction, AdminAsk, Standing};
use crate::policy::{PolicySnapshot, SnapshotDigest};
use crate::time::Timestamp;

/// A permission for one act of an operator. Made only by `decide_admin`. Not `Clone`.
#[derive(Debug)]
pub struct AdminPermit {
    ask: AdminAsk,
    policies: Vec<String>,
    snapshot: SnapshotDigest,
    at: Timestamp,
}

impl AdminPermit {
    /// What is permitted, and to whom.
    pub const fn ask(&self) -> &AdminAsk {
        &self.ask
    }

    /// The ids of the policies that permitted it.
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// The snapshot that decided.
    pub const fn snapshot(&self) -> SnapshotDigest {
        self.snapshot
    }

    /// When it was decided.
    pub const fn decided_at(&self) -> Timestamp {
        self.at
    }
}

/// Decides whether the operator may do what it asks for.
pub fn decide_admin(
    snapshot: &PolicySnapshot,
    ask: AdminAsk,
    now: Timestamp,
) -> Result<AdminPermit, Denial> {
    let digest = snapshot.digest();
    if keeps_the_way_back(&ask) {
        let policies = vec![OWN_USER.to_owned()];
        return Ok(AdminPermit { ask, policies, snapshot: digest, at: now });
    }
    match permits_of(snapshot.evaluate_admin(&ask, now)) {
        Ok(permits) => Ok(AdminPermit { ask, policies: ids(&permits), snapshot: digest, at: now }),
        Err(refusal) => {
            let reason = DenialReason::of_admin(&refusal, &ask);
            let (refused, policies) = (Refused::Admin(Box::new(ask)), refusal.policies());
            Err(Denial { reason, refused, policies, snapshot: digest, at: now, repeats: 0 })
        }
    }
}

/// INVARIANT (no-lock-out): the broker's own user may always look and load policies again,
/// whatever they forbid, so that a policy that forbids too much can be taken back. It could
/// restart the broker with other policies anyway.
fn keeps_the_way_back(ask: &AdminAsk) -> bool {
    ask.operator.standing() == Standing::Own
        && matches!(ask.action, AdminAction::Read | AdminAction::Reload)
}

/// Stands in the journal where no policy was asked.
const OWN_USER: &str = "builtin.own-user";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

    use super::*;
    use crate::admin::{AdminResource, Operator};
    use crate::fixture;
    use crate::policy::{PolicyFile, Team};
    use crate::principal::Principal;

    const PAYMENTS: &str = r#"permit (principal in Team::"payments", action == Action::"admin::revoke", resource in Team::"payments");"#;
    const NIGHT: &str = r#"@id("night") forbid (principal, action in Action::"admin", resource);"#;
    const OPEN: &str = "permit (principal, action, resource);";

    /// User 1000 operates; the policies are the fixture's and `more`.
    fn check(
        (standing, more): (Standing, &str),
        action: AdminAction,
        resource: &AdminResource,
    ) -> String {
        let mut sources = fixture::sources();
        sources.policies.push(PolicyFile { path: "more.cedar".into(), text: more.into() });
        let roles = vec!["reader".parse().unwrap()];
        let team = Team { roles, requesters: vec!["unix:1000".into()], ..Team::default() };
        sources.teams.insert("payments".parse().unwrap(), team);
        let snapshot = PolicySnapshot::load(sources).unwrap_or_else(|all| panic!("{all:#?}"));
        let operator = Operator::proven(Principal::from_unix_peer(1000, 1000), standing);
        let (what, resource) = (String::new(), resource.clone());
        let ask = AdminAsk { operator, action, resource, what, claimed_reason: None };
        match decide_admin(&snapshot, ask, fixture::now()) {
            Ok(permit) => permit.policies().join(","),
            Err(denial) => denial.reason.code().to_owned(),
        }
    }

    #[test]
    fn who_operates_without_any_policy_and_who_does_not() {
        for action in AdminAction::ALL {
            let resource = match action {
                AdminAction::Plugin => AdminResource::Plugin("postgres".parse().unwrap()),
                _ => AdminResource::Broker,
            };
            for (standing, expect) in
                [(Standing::Listed, "builtin.operators"), (Standing::Unlisted, "NO_PERMIT")]
            {
                assert_eq!(check((standing, ""), action, &resource), expect, "{action:?}");
            }
            let own = match action {
                AdminAction::Read | AdminAction::Reload => OWN_USER,
                _ => "builtin.operators",
            };
            assert_eq!(check((Standing::Own, ""), action, &resource), own, "{action:?}");
        }
    }

    #[test]
    fn a_forbid_narrows_everybody_but_leaves_the_own_user_the_way_back() {
        let broker = AdminResource::Broker;
        assert_eq!(check((Standing::Listed, NIGHT), AdminAction::Read, &broker), "FORBIDDEN");
        assert_eq!(check((Standing::Own, NIGHT), AdminAction::Revoke, &broker), "FORBIDDEN");
        assert_eq!(check((Standing::Own, NIGHT), AdminAction::Read, &broker), OWN_USER);
        assert_eq!(check((Standing::Own, NIGHT), AdminAction::Reload, &broker), OWN_USER);
    }

    #[test]
    fn a_permit_for_everything_makes_nobody_an_operator() {
        for action in [AdminAction::Read, AdminAction::Revoke, AdminAction::Reload] {
            let found = check((Standing::Unlisted, OPEN), action, &AdminResource::Broker);
            assert_eq!(found, "NO_PERMIT", "{action:?}");
        }
    }

    #[test]
    fn a_team_revokes_what_is_its_own_and_nothing_else() {
        let session = fixture::session();
        let (id, known) = (session.id(), Some(session));
        let own = [
            AdminResource::Role("reader".parse().unwrap()),
            AdminResource::Requester("unix:1000".into()),
            AdminResource::Session { id, known },
        ];
        for resource in own {
            let found = check((Standing::Unlisted, PAYMENTS), AdminAction::Revoke, &resource);
            assert_eq!(found, "more.cedar:1", "{resource}");
            let found = check((Standing::Unlisted, PAYMENTS), AdminAction::Read, &resource);
            assert_eq!(found, "NO_PERMIT", "{resource}");
        }
        let others = [
            AdminResource::Broker,
            AdminResource::Role("writer".parse().unwrap()),
            AdminResource::Requester("unix:1001".into()),
            AdminResource::Workload("unix:1000".into()),
            AdminResource::Backend("orders-db".parse().unwrap()),
            AdminResource::Session { id, known: None },
        ];
        for resource in others {
            let found = check((Standing::Unlisted, PAYMENTS), AdminAction::Revoke, &resource);
            assert_eq!(found, "NO_PERMIT", "{resource}");
        }
    }
}
