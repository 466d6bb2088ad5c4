//! A refusal: its reason as a type, and as a sentence that says what would have to change.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{LimitSource, Refusal, SessionAsk, TtlLimit};
use crate::admin::AdminAsk;
use crate::ask::Ask;
use crate::budget::{LeaseLimit, Spent};
use crate::catalog::Scope;
use crate::name::{Authorization, RoleName, ScopeName};
use crate::policy::{Guardrail, SnapshotDigest};
use crate::session::Session;
use crate::time::Timestamp;

/// A refusal of one request.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Why.
    pub reason: DenialReason,
    /// What was refused.
    pub refused: Refused,
    /// The ids of the policies that decided. For the journal; the agent gets the sentence.
    pub policies: Vec<String>,
    /// The snapshot that decided.
    pub snapshot: SnapshotDigest,
    /// When.
    pub at: Timestamp,
    /// How many like it came before it and were not recorded one by one.
    pub repeats: u64,
}

impl Denial {
    /// What the caller is told. INVARIANT (denied-is-unknown): whoever may not run a role must not
    /// learn whether there is one, or role names could be collected by asking for them. So an
    /// unknown role and one that policies keep from this caller are one answer, unless the policy
    /// carries a `@reason`: that sentence was written to be read. The journal has the reason itself.
    pub fn told(&self) -> DenialReason {
        match (&self.refused, &self.reason) {
            (
                Refused::Session(ask),
                DenialReason::UnknownRole { .. }
                | DenialReason::NoSessionPermit { .. }
                | DenialReason::Forbidden { reason: None, .. }
                | DenialReason::PolicyError { .. },
            ) => DenialReason::RoleWithheld { role: ask.role.clone() },
            (Refused::Session(_) | Refused::Issue { .. } | Refused::Admin(_), reason) => {
                reason.clone()
            }
        }
    }
}

/// What was refused.
#[derive(Clone, Debug)]
pub enum Refused {
    /// A session.
    Session(Box<SessionAsk>),
    /// A credential.
    Issue {
        /// Of this session.
        session: Arc<Session>,
        /// As asked.
        ask: Ask,
    },
    /// An operator's act.
    Admin(Box<AdminAsk>),
}

/// Why a request was refused. `Display` is the sentence that the agent reads, if it may: see
/// [`Denial::told`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenialReason {
    /// No prompt file of that name is loaded.
    UnknownRole {
        /// The name asked for.
        role: RoleName,
    },
    /// No scope of that name is configured.
    UnknownScope {
        /// The name asked for.
        scope: ScopeName,
    },
    /// The prompt file does not declare what the scope needs.
    UndeclaredAuthorization {
        /// The session's role.
        role: RoleName,
        /// The scope asked for.
        scope: ScopeName,
        /// What its prompt file would have to declare.
        authorization: Authorization,
        /// The roles of the sessions above it, whose prompt files would have to as well.
        above: Vec<RoleName>,
    },
    /// The scope is of the tier that is never issued.
    SensitiveScope {
        /// The scope asked for.
        scope: ScopeName,
    },
    /// No policy permits the issue.
    NoIssuePermit {
        /// The session's role.
        role: RoleName,
        /// The scope asked for.
        scope: ScopeName,
    },
    /// No policy permits the session.
    NoSessionPermit {
        /// The role asked for.
        role: RoleName,
    },
    /// What a caller is told of a role that there is not, or not for it: never the reason itself.
    RoleWithheld {
        /// The name asked for.
        role: RoleName,
    },
    /// No policy permits the operator's act.
    NoAdminPermit {
        /// The operator.
        operator: String,
        /// Such as `admin::revoke`.
        action: &'static str,
        /// As Cedar writes it.
        resource: String,
    },
    /// A policy forbids it.
    Forbidden {
        /// The ids of the policies that forbid it.
        policies: Vec<String>,
        /// The first `@reason` among them.
        reason: Option<String>,
    },
    /// A policy could not be evaluated.
    PolicyError {
        /// The ids of the policies that failed.
        policies: Vec<String>,
    },
    /// The session is over.
    SessionNotLive,
    /// A longer life was asked for than a limit allows.
    TtlTooLong {
        /// What was asked for.
        asked: Duration,
        /// The tightest limit.
        limit: TtlLimit,
    },
    /// The upstream cannot make a credential that lives so short.
    TtlTooShort {
        /// The life that it would have.
        got: Duration,
        /// The upstream's minimum.
        least: Duration,
        /// What made it so short, unless it was asked for.
        limited: Option<TtlLimit>,
    },
    /// There are as many sessions above it as there may be.
    TooDeep {
        /// The bound.
        most: usize,
    },
    /// Too many were issued within a minute.
    TooManyIssues(Spent),
    /// Too many are held at once.
    TooManyLeases {
        /// The limit that is reached.
        limit: LeaseLimit,
        /// When the next one that counts ends by itself, if that is known.
        wait: Option<Duration>,
    },
    /// A session life outside the bounds was asked for.
    SessionLife {
        /// What was asked for.
        asked: Duration,
        /// The bound.
        most: Duration,
    },
}

impl DenialReason {
    pub(super) fn of_issue(
        refusal: &Refusal,
        session: &Session,
        scope: &Scope,
        asked: Option<Duration>,
    ) -> Self {
        match refusal.guardrail() {
            Some(Guardrail::SessionNotLive) => Self::SessionNotLive,
            Some(Guardrail::UndeclaredAuthorization) => Self::UndeclaredAuthorization {
                role: session.role().clone(),
                scope: scope.name.clone(),
                authorization: scope.authorization.clone(),
                above: session.ancestors().iter().map(|above| above.role.clone()).collect(),
            },
            Some(Guardrail::SensitiveIssued) => Self::SensitiveScope { scope: scope.name.clone() },
            Some(Guardrail::TtlAboveCap) => Self::TtlTooLong {
                asked: asked.unwrap_or(super::TTL_DEFAULT),
                limit: TtlLimit { most: super::TTL_MAX, source: LimitSource::HardCap },
            },
            None => Self::of_policies(refusal).unwrap_or_else(|| Self::NoIssuePermit {
                role: session.role().clone(),
                scope: scope.name.clone(),
            }),
        }
    }

    pub(super) fn of_open_session(refusal: &Refusal, role: &RoleName) -> Self {
        Self::of_policies(refusal).unwrap_or_else(|| Self::NoSessionPermit { role: role.clone() })
    }

    pub(super) fn of_admin(refusal: &Refusal, ask: &AdminAsk) -> Self {
        Self::of_policies(refusal).unwrap_or_else(|| Self::NoAdminPermit {
            operator: ask.operator.id().to_owned(),
            action: ask.action.as_str(),
            resource: ask.resource.to_string(),
        })
    }

    fn of_policies(refusal: &Refusal) -> Option<Self> {
        match refusal {
            Refusal::Errors(policies) => Some(Self::PolicyError { policies: policies.clone() }),
            Refusal::Forbidden(forbids) => Some(Self::Forbidden {
                policies: forbids.iter().map(|forbid| forbid.id.clone()).collect(),
                reason: forbids.iter().find_map(|forbid| forbid.reason.clone()),
            }),
            Refusal::NoPermit => None,
        }
    }

    /// A stable code, for machines: error details, metrics, the journal.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownRole { .. } => "UNKNOWN_ROLE",
            Self::UnknownScope { .. } => "UNKNOWN_SCOPE",
            Self::UndeclaredAuthorization { .. } => "UNDECLARED_AUTHORIZATION",
            Self::SensitiveScope { .. } => "SENSITIVE_SCOPE",
            Self::NoIssuePermit { .. }
            | Self::NoSessionPermit { .. }
            | Self::RoleWithheld { .. }
            | Self::NoAdminPermit { .. } => "NO_PERMIT",
            Self::Forbidden { .. } => "FORBIDDEN",
            Self::PolicyError { .. } => "POLICY_ERROR",
            Self::SessionNotLive => "SESSION_NOT_LIVE",
            Self::TtlTooLong { .. } => "TTL_TOO_LONG",
            Self::TtlTooShort { .. } => "TTL_TOO_SHORT",
            Self::SessionLife { .. } => "SESSION_LIFE",
            Self::TooDeep { .. } => "TOO_DEEP",
            Self::TooManyIssues(_) => "BUDGET_ISSUES",
            Self::TooManyLeases { limit: LeaseLimit { policy: None, .. }, .. } => "BUDGET_LEASES",
            Self::TooManyLeases { limit: LeaseLimit { policy: Some(_), .. }, .. } => "MAX_ACTIVE",
        }
    }

    /// Whether it is a budget that is used up: what was asked for is permitted, only not now.
    pub const fn is_budget(&self) -> bool {
        matches!(self, Self::TooManyIssues(_) | Self::TooManyLeases { .. })
    }

    /// When to come back, where time alone helps.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyIssues(Spent { wait, .. }) => Some(*wait),
            Self::TooManyLeases { wait, .. } => *wait,
            _ => None,
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRole { role } => write!(
                f,
                "no prompt file of role `{role}` is loaded: check the name, or have `claviger prompt lint` say why its file was not taken"
            ),
            Self::UnknownScope { scope } => write!(
                f,
                "scope `{scope}` is not configured: `claviger grants` lists what there is"
            ),
            Self::UndeclaredAuthorization { role, scope, authorization, above } => {
                let needs = (scope, authorization);
                if above.is_empty() {
                    undeclared(f, role, needs)
                } else {
                    undeclared_above(f, (role, above), needs)
                }
            }
            Self::SensitiveScope { scope } => write!(
                f,
                "scope `{scope}` is sensitive and is never handed out: have a person do this, or ask the platform team for a narrower scope"
            ),
            Self::NoIssuePermit { role, scope } => write!(
                f,
                "no policy lets role `{role}` be issued scope `{scope}`: the platform team would have to add a permit for Action::\"issue\" on Scope::\"{scope}\""
            ),
            Self::NoSessionPermit { role } => no_session_permit(f, role),
            Self::RoleWithheld { role } => role_withheld(f, role),
            Self::NoAdminPermit { operator, action, resource } => {
                no_admin_permit(f, operator, (action, resource))
            }
            Self::Forbidden { policies, reason } => {
                let reason = reason.as_deref().unwrap_or(FORBIDDEN_WITHOUT_REASON);
                write!(f, "forbidden by policy {}: {reason}", quoted(policies))
            }
            Self::PolicyError { policies } => write!(
                f,
                "policy {} could not be evaluated, and that counts as a refusal: tell the platform team",
                quoted(policies)
            ),
            Self::SessionNotLive => f.write_str("the session has ended: open a new one"),
            Self::TtlTooLong { asked, limit } => write!(
                f,
                "{} was asked for, but at most {} is allowed, by {}: ask for less",
                span(*asked),
                span(limit.most),
                limit.source
            ),
            Self::TtlTooShort { got, least, limited: None } => write!(
                f,
                "{} was asked for, but this backend gives no less than {}: ask for more",
                span(*got),
                span(*least)
            ),
            Self::TtlTooShort { got, least, limited: Some(limit) } => write!(
                f,
                "this backend gives no less than {}, but {} allows only {}",
                span(*least),
                limit.source,
                span(*got)
            ),
            Self::TooDeep { most } => too_deep(f, *most),
            Self::TooManyIssues(spent) => too_many_issues(f, spent),
            Self::TooManyLeases { limit, wait } => too_many_leases(f, limit, *wait),
            Self::SessionLife { asked, most } => session_life(f, *asked, *most),
        }
    }
}

fn too_deep(f: &mut fmt::Formatter<'_>, most: usize) -> fmt::Result {
    write!(
        f,
        "there are {most} sessions above this one, and no more may be: open the session from one further up"
    )
}

fn role_withheld(f: &mut fmt::Formatter<'_>, role: &RoleName) -> fmt::Result {
    write!(
        f,
        "there is no role `{role}` that this workload may run: check the name (`claviger prompt lint` checks the file), or have the platform team add a permit for Action::\"open_session\" on Role::\"{role}\""
    )
}

fn session_life(f: &mut fmt::Formatter<'_>, asked: Duration, most: Duration) -> fmt::Result {
    write!(
        f,
        "a session of {} was asked for, but it lasts between 1s and {}",
        span(asked),
        span(most)
    )
}

fn no_admin_permit(
    f: &mut fmt::Formatter<'_>,
    operator: &str,
    (action, resource): (&str, &str),
) -> fmt::Result {
    write!(
        f,
        "no policy lets `{operator}` do `{action}` on {resource}: the platform team would have to add a permit for Action::\"{action}\", or list the user under `operator_uids`"
    )
}

fn no_session_permit(f: &mut fmt::Formatter<'_>, role: &RoleName) -> fmt::Result {
    write!(
        f,
        "no policy lets this workload open a session of role `{role}`: the platform team would have to add a permit for Action::\"open_session\" on Role::\"{role}\""
    )
}

fn undeclared(
    f: &mut fmt::Formatter<'_>,
    role: &RoleName,
    (scope, authorization): (&ScopeName, &Authorization),
) -> fmt::Result {
    write!(
        f,
        "the prompt file of role `{role}` does not declare `{authorization}`, which scope `{scope}` needs: add it under `authorizations:`, have the change reviewed, and open a new session"
    )
}

fn undeclared_above(
    f: &mut fmt::Formatter<'_>,
    (role, above): (&RoleName, &[RoleName]),
    (scope, authorization): (&ScopeName, &Authorization),
) -> fmt::Result {
    let above: Vec<_> = above.iter().map(ToString::to_string).collect();
    write!(
        f,
        "scope `{scope}` needs `{authorization}`, which the prompt file of role `{role}` and those of the sessions above it (role {}) must all declare: add it under `authorizations:` where it is missing, have the change reviewed, and open a new session",
        quoted(&above)
    )
}

fn too_many_issues(f: &mut fmt::Formatter<'_>, Spent { limit, wait }: &Spent) -> fmt::Result {
    write!(
        f,
        "{} may be issued {} a minute, and has been: ask again in {}",
        limit.of,
        credentials(limit.per_minute),
        soon(*wait)
    )
}

fn too_many_leases(
    f: &mut fmt::Formatter<'_>,
    LeaseLimit { of, most, policy }: &LeaseLimit,
    wait: Option<Duration>,
) -> fmt::Result {
    write!(f, "{of} may hold {} at once", credentials(*most))?;
    if let Some(policy) = policy {
        write!(f, ", by `@max_active` of policy `{policy}`")?;
    }
    f.write_str(", and does: release one")?;
    match wait {
        Some(wait) => {
            write!(f, ", or ask again in {}, when the next one ends by itself", soon(wait))
        }
        None => Ok(()),
    }
}

fn credentials(count: NonZeroU32) -> String {
    if count == NonZeroU32::MIN {
        "1 credential".to_owned()
    } else {
        format!("{count} credentials")
    }
}

/// Whole seconds, rounded up: who comes back then is not too early.
fn soon(wait: Duration) -> humantime::FormattedDuration {
    let secs = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    humantime::format_duration(Duration::from_secs(secs.max(1)))
}

pub(super) fn span(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What is said of a forbid that says nothing itself.
const FORBIDDEN_WITHOUT_REASON: &str = "ask the platform team which condition it sets";
