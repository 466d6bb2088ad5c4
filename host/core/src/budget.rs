//! How much may be issued: so many a minute, so many at once, for each session, role, requester and
//! backend. Part of a snapshot; counts nothing itself.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::Backend;
use crate::ids::SessionId;
use crate::name::{BackendName, RoleName, ScopeName};
use crate::session::{Ancestor, Session};

/// Every budget. What is absent does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Of each session, with those above and below it.
    pub session: Budget,
    /// Of each role, over all of its sessions.
    pub role: Budget,
    /// Of each requester, over all sessions for it.
    pub requester: Budget,
    /// Of each backend, over all sessions.
    pub backend: Budget,
    /// Of single roles, key by key in place of `role`.
    pub roles: BTreeMap<RoleName, Budget>,
    /// Of single requesters, by id, in place of `requester`.
    pub requesters: BTreeMap<String, Budget>,
    /// Of single backends, in place of `backend`.
    pub backends: BTreeMap<BackendName, Budget>,
}

/// One budget. To allow nothing at all is for a policy that forbids it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Credentials issued within a minute. As many may come at once; then one comes back with
    /// each share of a minute.
    pub issues_per_minute: Option<NonZeroU32>,
    /// Leases held at once.
    pub live_leases: Option<NonZeroU32>,
}

/// What a budget counts for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A top session with every session below it; the id is that of the top one.
    Session(SessionId),
    /// A role, over all of its sessions.
    Role(RoleName),
    /// A requester, by id, over all sessions for it.
    Requester(String),
    /// A backend, over all sessions.
    Backend(BackendName),
    /// A scope in the hands of a role, over all of its sessions.
    Scope(RoleName, ScopeName),
}

impl Subject {
    /// What a session budget counts for.
    ///
    /// INVARIANT (one-budget-for-a-tree): whatever runs below a top session uses up the same budget,
    /// or an agent could get round it by opening children.
    pub fn of_session(id: SessionId, ancestors: &[Ancestor]) -> Self {
        Self::Session(ancestors.first().map_or(id, |top| top.session))
    }

    /// Whether those who have nothing to do with each other use it up together.
    pub const fn is_shared(&self) -> bool {
        !matches!(self, Self::Session(_))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(_) => f.write_str("this session (with those above and below it)"),
            Self::Role(role) => write!(f, "role `{role}`"),
            Self::Requester(id) => write!(f, "requester `{id}`"),
            Self::Backend(name) => write!(f, "backend `{name}`"),
            Self::Scope(role, scope) => write!(f, "role `{role}` on scope `{scope}`"),
        }
    }
}

/// So many issues a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssueLimit {
    /// Of whom.
    pub of: Subject,
    /// How many.
    pub per_minute: NonZeroU32,
}

/// So many leases at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLimit {
    /// Of whom.
    pub of: Subject,
    /// How many.
    pub most: NonZeroU32,
    /// The policy whose `@max_active` it is, if it is not a budget.
    pub policy: Option<String>,
}

/// No more issues for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The limit that is reached.
    pub limit: IssueLimit,
    /// When another is possible, if nobody else takes it.
    pub wait: Duration,
}

impl Budgets {
    /// Every limit on issues of `session` on `backend`, the narrowest first: what floods is
    /// refused by its own budget, before it asks for those that it shares.
    pub fn issue_limits(&self, session: &Session, backend: &Backend) -> Vec<IssueLimit> {
        let limit = |(of, budget): (Subject, Budget)| {
            Some(IssueLimit { of, per_minute: budget.issues_per_minute? })
        };
        self.of(session, backend).into_iter().filter_map(limit).collect()
    }

    /// Every limit on live leases of `session` on `backend`.
    pub fn lease_limits(&self, session: &Session, backend: &Backend) -> Vec<LeaseLimit> {
        let limit = |(of, budget): (Subject, Budget)| {
            Some(LeaseLimit { of, most: budget.live_leases?, policy: None })
        };
        self.of(session, backend).into_iter().filter_map(limit).collect()
    }

    /// Those that limit anything. A broker without budgets pays nothing for them.
    fn of(&self, session: &Session, backend: &Backend) -> Vec<(Subject, Budget)> {
        let (role, requester) = (session.role(), session.requester().id());
        let on_role = self.role.with(self.roles.get(role));
        let on_requester = self.requester.with(self.requesters.get(requester));
        let on_backend = self.backend.with(self.backends.get(&backend.name));
        let mut all = Vec::new();
        let mut add = |budget: Budget, of: &dyn Fn() -> Subject| {
            if budget != Budget::default() {
                all.push((of(), budget));
            }
        };
        add(self.session, &|| Subject::of_session(session.id(), session.ancestors()));
        add(on_role, &|| Subject::Role(role.clone()));
        add(on_requester, &|| Subject::Requester(requester.to_owned()));
        add(on_backend, &|| Subject::Backend(backend.name.clone()));
        all
    }
}

impl Budget {
    /// The same with what `own` sets in its place.
    #[must_use]
    pub fn with(self, own: Option<&Self>) -> Self {
        let own = own.copied().unwrap_or_default();
        Self {
            issues_per_minute: own.issues_per_minute.or(self.issues_per_minute),
            live_leases: own.live_leases.or(self.live_leases),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::fixture;

    #[test]
    fn what_is_set_for_one_by_name_takes_the_place_of_the_default_key_by_key() {
        let budget = |issues, leases| Budget {
            issues_per_minute: NonZeroU32::new(issues),
            live_leases: NonZeroU32::new(leases),
        };
        let budgets = Budgets {
            session: budget(10, 0),
            role: budget(100, 50),
            roles: BTreeMap::from([("reader".parse().unwrap(), budget(0, 7))]),
            requesters: BTreeMap::from([("unix:1000".to_owned(), budget(5, 0))]),
            backends: BTreeMap::from([("other".parse().unwrap(), budget(1, 1))]),
            ..Budgets::default()
        };
        let (session, snapshot) = (fixture::session(), fixture::snapshot());
        let (backend, _) = snapshot.catalog().scope(&fixture::ask().scope).unwrap();
        let issues: Vec<_> = budgets
            .issue_limits(&session, backend)
            .into_iter()
            .map(|limit| (limit.of.to_string(), limit.per_minute.get()))
            .collect();
        let expect = [
            ("this session (with those above and below it)", 10),
            ("role `reader`", 100),
            ("requester `unix:1000`", 5),
        ];
        assert_eq!(issues, expect.map(|(of, most)| (of.to_owned(), most)));
        let leases: Vec<_> = budgets
            .lease_limits(&session, backend)
            .into_iter()
            .map(|limit| (limit.of.to_string(), limit.most.get()))
            .collect();
        assert_eq!(leases, [("role `reader`".to_owned(), 7)]);
    }

    #[test]
    fn what_runs_below_a_session_uses_up_the_same_budget() {
        let snapshot = fixture::snapshot();
        let top = fixture::session_in(&snapshot, 1);
        let child = fixture::child_in(&snapshot, &top, 2);
        let grandchild = fixture::child_in(&snapshot, &child, 3);
        let session =
            Budget { issues_per_minute: Some(NonZeroU32::MIN), live_leases: Some(NonZeroU32::MIN) };
        let budgets = Budgets { session, ..Budgets::default() };
        let (backend, _) = snapshot.catalog().scope(&fixture::ask().scope).unwrap();
        let expect = [Subject::Session(top.id())];
        for session in [&top, &child, &grandchild] {
            let issues = budgets.issue_limits(session, backend).into_iter();
            assert_eq!(issues.map(|limit| limit.of).collect::<Vec<_>>(), expect);
            let leases = budgets.lease_limits(session, backend).into_iter();
            assert_eq!(leases.map(|limit| limit.of).collect::<Vec<_>>(), expect);
        }
    }
}
