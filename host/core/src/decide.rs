//! Decides one ask against one policy snapshot. Pure: no clock, no I/O, no logging.

mod admin;
mod again;
mod denial;
mod permit;
mod ttl;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use admin::{AdminPermit, decide_admin};
pub use again::{Confirmed, decide_lease_again, decide_session_again, one_too_many};
pub use denial::{Denial, DenialReason, Refused};
pub(crate) use permit::SessionParts;
pub use permit::{Permit, SessionPermit};
pub use ttl::{LimitSource, TTL_DEFAULT, TTL_MAX, TtlLimit};

use crate::ask::Ask;
use crate::budget::{LeaseLimit, Subject};
use crate::catalog::{Backend, Scope};
use crate::name::{Authorization, RoleName};
use crate::policy::{Deciding, Evaluation, Guardrail, IssueQuestion, OpenQuestion, PolicySnapshot};
use crate::principal::{Principal, Requester};
use crate::prompt::{AuthorizationLimits, Role};
use crate::session::{Ancestor, DEPTH_MAX, SESSION_LIFE_MAX, Session};
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

/// Why something is refused, and the ids of the policies that decided.
type RefusedBy = (DenialReason, Vec<String>);

/// What the policies say of a life on a scope: asked for, or given already.
fn weigh(
    snapshot: &PolicySnapshot,
    weighing: &Weighing<'_>,
    now: Timestamp,
) -> Result<Weighed, RefusedBy> {
    let Weighing { session, backend, scope, ttl, asked } = *weighing;
    let authorizations = effective_authorizations(snapshot, session);
    let role = session.role();
    let authorizations_of = &authorizations;
    let question =
        IssueQuestion { session, role, authorizations: authorizations_of, scope, ttl, now };
    let evaluation = evaluate_for_all(snapshot, &question);
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

/// What the policies say to the session, and what they forbid to a session above it.
///
/// INVARIANT (forbids-are-inherited): what a policy forbids to a role, it forbids to everything that
/// runs below a session of that role. Otherwise an agent could get round every `forbid` by opening a
/// child of a role that the policy does not name. Permits are not inherited: the decision note on child sessions says why.
fn evaluate_for_all(snapshot: &PolicySnapshot, question: &IssueQuestion<'_>) -> Evaluation {
    let mut evaluation = snapshot.evaluate_issue(question);
    for ancestor in question.session.ancestors() {
        let above = IssueQuestion { role: &ancestor.role, ..*question };
        evaluation.also_forbidden_by(snapshot.evaluate_issue(&above));
    }
    evaluation
}

/// Decides whether `principal` may run a session of `role` for `requester`, and below a parent if
/// the ask names one: then for the parent's requester, no longer than the parent lives, and with no
/// authorization that the parent lacks.
pub fn decide_session(
    snapshot: &PolicySnapshot,
    ask: &SessionAsk,
    now: Timestamp,
) -> Result<SessionPermit, Denial> {
    let deny = |reason, policies| {
        let refused = Refused::Session(Box::new(ask.clone()));
        Denial { reason, refused, policies, snapshot: snapshot.digest(), at: now, repeats: 0 }
    };
    // Before the role is looked at: what is wrong with the life must not tell which roles there are.
    let life = ask.life.unwrap_or(SESSION_LIFE_DEFAULT);
    if life > SESSION_LIFE_MAX || life.is_zero() {
        return Err(deny(
            DenialReason::SessionLife { asked: life, most: SESSION_LIFE_MAX },
            vec![],
        ));
    }
    if let Some(parent) = &ask.parent {
        fits_below(parent, now).map_err(|reason| deny(reason, vec![]))?;
    }
    let parent = ask.parent.as_deref();
    let life = parent.map_or(life, |parent| life.min(parent.ends_at().since(now)));
    let requester = parent.map_or(&ask.requester, Session::requester);
    let ancestors = parent.map(Session::lineage).unwrap_or_default();
    let run = Run { principal: &ask.principal, requester, life, ancestors: &ancestors };
    let (role, policies) = permits_to_run(snapshot, &ask.role, &run)
        .map_err(|(reason, policies)| deny(reason, policies))?;
    Ok(SessionPermit {
        role: within_parent(snapshot, role, parent),
        principal: ask.principal.clone(),
        requester: requester.clone(),
        life,
        policies,
        snapshot: snapshot.digest(),
        ancestors,
    })
}

/// Who runs a role, for whom, how long and below whom: asked for, or running already.
struct Run<'a> {
    principal: &'a Principal,
    requester: &'a Requester,
    life: Duration,
    ancestors: &'a [Ancestor],
}

/// The role and the policies that let it run.
fn permits_to_run<'a>(
    snapshot: &'a PolicySnapshot,
    name: &RoleName,
    run: &Run<'_>,
) -> Result<(&'a Role, Vec<String>), RefusedBy> {
    let Some(role) = snapshot.roles().get(name) else {
        return Err((DenialReason::UnknownRole { role: name.clone() }, vec![]));
    };
    let Run { principal, requester, life, ancestors } = *run;
    let question = OpenQuestion { principal, requester, role, life, ancestors };
    let permits = permits_of(snapshot.evaluate_open_session(&question))
        .map_err(|refusal| (DenialReason::of_open_session(&refusal, name), refusal.policies()))?;
    Ok((role, ids(&permits)))
}

/// Whether there may be a session below `parent` at all.
fn fits_below(parent: &Session, now: Timestamp) -> Result<(), DenialReason> {
    if !parent.is_live_at(now) {
        return Err(DenialReason::SessionNotLive);
    }
    if parent.ancestors().len() >= DEPTH_MAX {
        return Err(DenialReason::TooDeep { most: DEPTH_MAX });
    }
    Ok(())
}

/// The role with those of its authorizations that the parent has too, each with the smaller limit.
fn within_parent(snapshot: &PolicySnapshot, role: &Role, parent: Option<&Session>) -> Role {
    let Some(parent) = parent else { return role.clone() };
    let of_parent = effective_authorizations(snapshot, parent);
    let both = |(name, own): (&Authorization, &AuthorizationLimits)| {
        Some((name.clone(), own.narrowed_by(of_parent.get(name)?)))
    };
    let authorizations = role.authorizations.iter().filter_map(both).collect();
    Role { authorizations, ..role.clone() }
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
    /// The session below which it is to run. Its requester counts, whatever stands above.
    pub parent: Option<Arc<Session>>,
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

/// What the prompt file declared when the session began *and* still declares, and what those of the
/// sessions above it declare too: a changed prompt file takes away from running sessions at once,
/// and gives only to new ones. The smallest TTL counts.
///
/// INVARIANT (child-within-parent): what a session had at its beginning is within what its parent
/// had then, and each side is narrowed here by all that narrows the parent. So at no time has a
/// child an authorization, or a longer limit, that its parent has not.
fn effective_authorizations(
    snapshot: &PolicySnapshot,
    session: &Session,
) -> BTreeMap<Authorization, AuthorizationLimits> {
    let above = session.ancestors().iter().map(|Ancestor { role, .. }| role);
    let roles: Option<Vec<&Role>> =
        above.chain([session.role()]).map(|name| snapshot.roles().get(name)).collect();
    // A role that is no longer there declares nothing.
    let Some(roles) = roles else { return BTreeMap::new() };
    let all = |(name, at_start): (&Authorization, &AuthorizationLimits)| {
        let narrowed = roles.iter().try_fold(*at_start, |limits, role| {
            Some(limits.narrowed_by(role.authorizations.get(name)?))
        })?;
        Some((name.clone(), narrowed))
    };
    session.authorizations().iter().filter_map(all).collect()
}

fn ids(policies: &[Deciding]) -> Vec<String> {
    policies.iter().map(|policy| policy.id.clone()).collect()
}

/// Long enough for an agent's task, short enough that a forgotten session is gone by evening.
pub const SESSION_LIFE_DEFAULT: Duration = Duration::from_hours(8);

#[cfg(test)]
mod children;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod proven;
#[cfg(test)]
mod tests;
