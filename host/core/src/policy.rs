//! Policies in force: parsed, validated against the schema in strict mode, sliced. Does not
//! decide what an evaluation means; [`crate::decide`] does.

mod annotations;
mod entities;
mod evaluate;
mod load;
mod report;
mod seal;
mod slice;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use cedar_policy::{PolicySetError, Schema};

use crate::admin::AdminAsk;
use crate::budget::Budgets;
use crate::catalog::{Catalog, Scope};
use crate::digest::digest;
use crate::name::{Authorization, RoleName, TeamName};
use crate::principal::{Principal, Requester};
use crate::prompt::{AuthorizationLimits, Role};
use crate::session::{Ancestor, Session};
use crate::time::Timestamp;
use entities::{KnownEntities, Model};
use evaluate::{Contexts, Engine};
use slice::Slices;

/// Everything that decides, at one moment: policies, roles, catalog, teams. Immutable; a reload
/// makes a new one and swaps it in whole.
pub struct PolicySnapshot {
    digest: SnapshotDigest,
    roles: BTreeMap<RoleName, Role>,
    catalog: Catalog,
    budgets: Budgets,
    engine: Engine,
    warnings: Vec<PolicyProblem>,
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
    /// How much may be issued.
    pub budgets: Budgets,
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
    /// The groups whose members are in it: an issuer's name, a colon, and the group as the
    /// issuer's tokens call it, as in `corp:payments`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
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
        let digest = seal::seal(&sources).map_err(|error| built_in(&error))?;
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| built_in(&error))?;
        let model = Model::new().map_err(|error| built_in(&error))?;
        let known = KnownEntities::new(&model, &sources).map_err(|error| built_in(&error))?;
        let load::Checked { policies, deciding, notes, warnings } =
            load::check(&sources.policies, &schema, &model, &known)?;
        let slices = |action| {
            Slices::build(action, &policies).map_err(|error: PolicySetError| built_in(&error))
        };
        let (issue, open_session) = (slices(&model.issue)?, slices(&model.open_session)?);
        let admin = Slices::for_operators(&model, &policies).map_err(|error| built_in(&error))?;
        let contexts = Contexts::default();
        let engine =
            Engine { schema, model, known, deciding, notes, issue, open_session, admin, contexts };
        let PolicySources { roles, catalog, budgets, .. } = sources;
        Ok(Self { digest, roles, catalog, budgets, engine, warnings })
    }

    /// Its digest.
    pub const fn digest(&self) -> SnapshotDigest {
        self.digest
    }

    /// What can be granted.
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// How much may be issued.
    pub const fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// The roles that loaded.
    pub const fn roles(&self) -> &BTreeMap<RoleName, Role> {
        &self.roles
    }

    /// What is probably a mistake but stops nothing: policies that name a role, scope, backend or
    /// team that does not exist.
    pub fn warnings(&self) -> &[PolicyProblem] {
        &self.warnings
    }

    /// What the policies say of issuing a scope.
    pub fn evaluate_issue(&self, question: &IssueQuestion<'_>) -> Evaluation {
        self.engine.evaluate_issue(question)
    }

    /// What the policies say of opening a session.
    pub fn evaluate_open_session(&self, question: &OpenQuestion<'_>) -> Evaluation {
        self.engine.evaluate_open_session(question)
    }

    /// What the policies say of an operator's act.
    pub fn evaluate_admin(&self, ask: &AdminAsk, now: Timestamp) -> Evaluation {
        self.engine.evaluate_admin(ask, now)
    }

    /// Every policy in force, built-in ones included, in the order of their ids.
    pub fn policies(&self) -> Vec<&PolicyNote> {
        let mut notes: Vec<_> = self.engine.notes().collect();
        notes.sort_by(|a, b| a.id.cmp(&b.id));
        notes
    }

    /// How many policies [`evaluate_issue`](Self::evaluate_issue) looks at. A decision costs what
    /// these cost, however many others there are.
    pub fn policies_looked_at(&self, question: &IssueQuestion<'_>) -> usize {
        self.engine.looked_at_for_issue(question)
    }
}

/// A problem of what the broker itself brings. The tests load it; no user can cause one.
fn built_in(error: &dyn Display) -> Vec<PolicyProblem> {
    let message = format!("the broker's own policy model does not load, please report it: {error}");
    vec![PolicyProblem { path: "schema.cedarschema".to_owned(), line: 1, column: 1, message }]
}

/// May this session be issued this scope?
#[derive(Clone, Copy)]
pub struct IssueQuestion<'a> {
    /// The session.
    pub session: &'a Session,
    /// The role that is to be judged: the session's own, or that of a session above it.
    pub role: &'a RoleName,
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
    /// The sessions above it.
    pub ancestors: &'a [Ancestor],
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

impl Evaluation {
    /// What another evaluation forbids, or could not find out, is forbidden by this one too.
    pub(crate) fn also_forbidden_by(&mut self, other: Self) {
        for forbid in other.forbids {
            if !self.forbids.contains(&forbid) {
                self.forbids.push(forbid);
            }
        }
        for error in other.errors {
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
        }
        if !self.forbids.is_empty() {
            self.permits.clear();
        }
    }
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
    /// Its `@max_active`.
    pub max_active: Option<NonZeroU32>,
    /// Its `@reason`: a sentence for the agent.
    pub reason: Option<String>,
}

/// A policy as operators see it listed. Its text stays in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNote {
    /// Its `@id`, or `file.cedar:3`.
    pub id: String,
    /// Where it stands: `file.cedar:12:1`.
    pub place: String,
    /// Whether it permits or forbids.
    pub effect: cedar_policy::Effect,
    /// Its annotations, by name.
    pub annotations: BTreeMap<String, String>,
}

/// The built-in forbids of `policies/guardrails.cedar`, in the order in which a refusal names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guardrail {
    /// The session is over.
    SessionNotLive,
    /// A sensitive scope would be issued. Named before the next one, since declaring the
    /// authorization would not help.
    SensitiveIssued,
    /// The prompt file does not declare what the scope needs.
    UndeclaredAuthorization,
    /// A longer life than the cap was asked for.
    TtlAboveCap,
}

impl Guardrail {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::SessionNotLive,
        Self::SensitiveIssued,
        Self::UndeclaredAuthorization,
        Self::TtlAboveCap,
    ];

    /// Its `@id` in `policies/guardrails.cedar`.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SessionNotLive => "guardrail.session-not-live",
            Self::SensitiveIssued => "guardrail.sensitive-issued",
            Self::UndeclaredAuthorization => "guardrail.undeclared-authorization",
            Self::TtlAboveCap => "guardrail.ttl-above-cap",
        }
    }

    fn of_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guardrail| guardrail.id() == id)
    }
}

digest!(
    SnapshotDigest,
    "SHA-256 over everything a snapshot decides with. Stands in every journal entry."
);

/// What policies may speak of.
const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");

/// The policies that are always in force.
const GUARDRAILS: &str = include_str!("../../../policies/guardrails.cedar");

/// What the broker's own user and the listed operators may do.
const OPERATORS: &str = include_str!("../../../policies/operators.cedar");

#[cfg(test)]
mod tests;
