//! Decides one ask against one policy snapshot. Pure: no clock, no I/O, no logging.

mod again;
mod denial;
mod permit;
mod ttl;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use again::{Confirmed, decide_lease_again, decide_session_again, one_too_many};
pub use denial::{Denial, DenialReason, Refused};
pub use permit::{Permit, SessionPermit};
pub use ttl::{LimitSource, TTL_DEFAULT, TTL_MAX, TtlLimit};

use crate::ask::Ask;
use crate::budget::{LeaseLimit, Subject};
use crate::catalog::{Backend, Scope};
use crate::name::{Authorization, RoleName};
use crate::policy::{Deciding, Evaluation, Guardrail, IssueQuestion, OpenQuestion, PolicySnapshot};
use crate::principal::{Principal, Requester};
use crate::prompt::AuthorizationLimits;
use crate::session::{SESSION_LIFE_MAX, Session};
use crate::time::Timestamp;

/// Decides whether `session` may be issued what it asks for.
pub fn decide(
    snapshot: &PolicySnapshot,
    session: &Arc<Session>,
    ask: &Ask,
    now: Timestamp,
) -> Result<Permit, Denial> {
    let deny = |reason, policies| {
        let refused = Refused::Issue { session: Arc::clone(session), ask: ask.clone() };
        Denial { reason, refused, policies, snapshot: snapshot.digest(), at: now, repeats: 0 }
    };
    let Some((backend, scope)) = snapshot.catalog().scope(&ask.scope) else {
        return Err(deny(DenialReason::UnknownScope { scope: ask.scope.clone() }, vec![]));
    };
    let wish = scope.wish(ask.ttl, backend.ttl_min);
    let weighing = Weighing {
        session,
        backend,
        scope,
        // What a policy compares is what would be granted: the default shrinks to the scope's limit.
        ttl: wish.unwrap_or_else(|| TTL_DEFAULT.min(scope.ttl_max)),
        asked: ask.ttl,
    };
    let Weighed { policies, limits, lease_limits } =
        weigh(snapshot, &weighing, now).map_err(|(reason, policies)| deny(reason, policies))?;
    let session_left = session.ends_at().since(now);
    let ttl = ttl::settle(wish, &limits, backend.ttl_min, session_left)
        .map_err(|reason| deny(reason, policies.clone()))?;
    Ok(Permit::granted(permit::Granted {
        session: Arc::clone(session),
        backend: Arc::clone(backend),
        scope: Arc::clone(scope),
        ttl,
        ttl_max: ttl::most(&limits).min(session_left),
        issue_limits: snapshot.budgets().issue_limits(session, backend),
        lease_limits,
        now,
        policies,
        snapshot: snapshot.digest(),
        ask: ask.clone(),
    }))
}

/// A life on a scope, to be put to the policies.
struct Weighing<'a> {
    session: &'a Session,
    backend: &'a Backend,
    scope: &'a Scope,
    /// The life that the policies compare.
    ttl: Duration,
    /// What was asked for, for the sentence of a refusal.
    asked: Option<Duration>,
}

/// What permits it and what limits it.
struct Weighed {
    policies: Vec<String>,
    limits: Vec<TtlLimit>,
    lease_limits: Vec<LeaseLimit>,
}

/// What the policies say of a life on a scope: asked for, or given already.
fn weigh(
    snapshot: &PolicySnapshot,
    weighing: &Weighing<'_>,
    now: Timestamp,
) -> Result<Weighed, (DenialReason, Vec<String>)> {
    let Weighing { session, backend, scope, ttl, asked } = *weighing;
    let authorizations = effective_authorizations(snapshot, session);
    let evaluation = snapshot.evaluate_issue(&IssueQuestion {
        session,
        authorizations: &authorizations,
        scope,
        ttl,
        now,
    });
    let permits = permits_of(evaluation).map_err(|refusal| {
        let reason = DenialReason::of_issue(&refusal, session, scope, asked);
        (reason, refusal.policies())
    })?;
    let declared = authorizations.get(&scope.authorization);
    let limits = ttl::limits(backend, scope, declared, &permits);
    let mut lease_limits = snapshot.budgets().lease_limits(session, backend);
    lease_limits.extend(max_active(session, scope, &permits));
    Ok(Weighed { policies: ids(&permits), limits, lease_limits })
}

/// The smallest `@max_active` of the deciding permits: so many leases of the scope for the role.
fn max_active(session: &Session, scope: &Scope, permits: &[Deciding]) -> Option<LeaseLimit> {
    let limits = permits.iter().filter_map(|permit| Some((permit.max_active?, &permit.id)));
    let (most, policy) = limits.min()?;
    let of = Subject::Scope(session.role().clone(), scope.name.clone());
    Some(LeaseLimit { of, most, policy: Some(policy.clone()) })
}

/// Decides whether `principal` may run a session of `role` for `requester`.
pub fn decide_session(
    snapshot: &PolicySnapshot,
    ask: &SessionAsk,
    now: Timestamp,
) -> Result<SessionPermit, Denial> {
    let deny = |reason, policies| {
        let refused = Refused::Session(ask.clone());
        Denial { reason, refused, policies, snapshot: snapshot.digest(), at: now, repeats: 0 }
    };
    let Some(role) = snapshot.roles().get(&ask.role) else {
        return Err(deny(DenialReason::UnknownRole { role: ask.role.clone() }, vec![]));
    };
    let life = ask.life.unwrap_or(SESSION_LIFE_DEFAULT);
    if life > SESSION_LIFE_MAX || life.is_zero() {
        return Err(deny(
            DenialReason::SessionLife { asked: life, most: SESSION_LIFE_MAX },
            vec![],
        ));
    }
    let question =
        OpenQuestion { principal: &ask.principal, requester: &ask.requester, role, life };
    let permits = permits_of(snapshot.evaluate_open_session(&question)).map_err(|refusal| {
        deny(DenialReason::of_open_session(&refusal, &ask.role), refusal.policies())
    })?;
    let SessionAsk { principal, requester, .. } = ask.clone();
    Ok(SessionPermit {
        role: role.clone(),
        principal,
        requester,
        life,
        policies: ids(&permits),
        snapshot: snapshot.digest(),
    })
}

/// What a workload wants when it opens a session, already proven or parsed.
#[derive(Clone, Debug)]
pub struct SessionAsk {
    /// Who asks.
    pub principal: Principal,
    /// For whom.
    pub requester: Requester,
    /// Which role is to run.
    pub role: RoleName,
    /// How long at most; `None` takes the default.
    pub life: Option<Duration>,
    /// What the caller says this is for (a ticket, a sentence). Recorded, never decides.
    pub claimed_reason: Option<String>,
}

/// An evaluation that permits nothing.
pub(crate) enum Refusal {
    /// Policies failed to evaluate.
    Errors(Vec<String>),
    /// Guardrails or policies forbid it.
    Forbidden(Vec<Deciding>),
    /// No policy permits it.
    NoPermit,
}

impl Refusal {
    fn policies(&self) -> Vec<String> {
        match self {
            Self::Errors(policies) => policies.clone(),
            Self::Forbidden(forbids) => ids(forbids),
            Self::NoPermit => vec![],
        }
    }

    fn guardrail(&self) -> Option<Guardrail> {
        match self {
            Self::Forbidden(forbids) => forbids.iter().filter_map(|f| f.guardrail).min(),
            Self::Errors(_) | Self::NoPermit => None,
        }
    }
}

/// INVARIANT (error-is-denial): Cedar skips a policy that fails to evaluate, so an erroring
/// `forbid` beside a permit would read as an allow. Any error is a refusal, and errors are
/// looked at before anything else.
fn permits_of(evaluation: Evaluation) -> Result<Vec<Deciding>, Refusal> {
    if !evaluation.errors.is_empty() {
        return Err(Refusal::Errors(evaluation.errors));
    }
    if !evaluation.forbids.is_empty() {
        return Err(Refusal::Forbidden(evaluation.forbids));
    }
    if evaluation.permits.is_empty() {
        return Err(Refusal::NoPermit);
    }
    Ok(evaluation.permits)
}

/// What the prompt file declared when the session began *and* still declares: a changed prompt
/// file takes away from running sessions at once, and gives only to new ones. The smaller TTL
/// of the two counts.
fn effective_authorizations(
    snapshot: &PolicySnapshot,
    session: &Session,
) -> BTreeMap<Authorization, AuthorizationLimits> {
    let Some(role) = snapshot.roles().get(session.role()) else {
        return BTreeMap::new();
    };
    let both = |(name, at_start): (&Authorization, &AuthorizationLimits)| {
        let now = role.authorizations.get(name)?;
        Some((name.clone(), at_start.narrowed_by(now)))
    };
    session.authorizations().iter().filter_map(both).collect()
}

fn ids(policies: &[Deciding]) -> Vec<String> {
    policies.iter().map(|policy| policy.id.clone()).collect()
}

/// Long enough for an agent's task, short enough that a forgotten session is gone by evening.
pub const SESSION_LIFE_DEFAULT: Duration = Duration::from_hours(8);

#[cfg(test)]
mod golden;
#[cfg(test)]
mod proven;
#[cfg(test)]
mod tests;
