//! Puts one question to Cedar, slice by slice, and unites the answers. Decides nothing: what an
//! evaluation means is for [`crate::decide`] to say.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cedar_policy::{
    Authorizer, Context, ContextCreationError, Decision, Entities, Entity, EntityUid, PolicyId,
    Request, RestrictedExpression, Schema,
};

use super::entities::{KnownEntities, Model, depth};
use super::slice::{Slice, Slices};
use super::{Deciding, Evaluation, IssueQuestion, OpenQuestion, PolicyNote};
use crate::admin::{AdminAsk, AdminResource};
use crate::decide::TTL_MAX;
use crate::time::Timestamp;

/// The policies in force and what they may be asked about.
pub(super) struct Engine {
    pub(super) schema: Schema,
    pub(super) model: Model,
    pub(super) known: KnownEntities,
    pub(super) deciding: HashMap<PolicyId, Deciding>,
    pub(super) notes: Vec<PolicyNote>,
    pub(super) issue: Slices,
    pub(super) open_session: Slices,
    pub(super) admin: Slices,
    pub(super) contexts: Contexts,
}

/// The contexts of questions of `issue` within the current second, kept: those of one life differ in
/// nothing, and making a moment in Cedar's terms parses the name of its type each time.
#[derive(Default)]
pub(super) struct Contexts(Mutex<Option<OfSecond>>);

struct OfSecond {
    second: Timestamp,
    moment: RestrictedExpression,
    /// By life in seconds, and whether the session is live.
    made: HashMap<(i64, bool), Context>,
}

impl Contexts {
    fn of(&self, question: &IssueQuestion<'_>) -> Result<Context, ContextCreationError> {
        let (second, ttl_secs) = (question.now.whole_second(), secs(question.ttl));
        let live = question.session.is_live_at(question.now);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_second = match kept.take() {
            Some(kept) if kept.second == second => kept,
            _ => OfSecond { second, moment: moment(second), made: HashMap::new() },
        };
        let OfSecond { moment, made, .. } = kept.insert(of_second);
        if let Some(context) = made.get(&(ttl_secs, live)) {
            return Ok(context.clone());
        }
        let context = Context::from_pairs([
            ("ttl_secs".to_owned(), RestrictedExpression::new_long(ttl_secs)),
            ("ttl_secs_max".to_owned(), RestrictedExpression::new_long(secs(TTL_MAX))),
            ("session_live".to_owned(), RestrictedExpression::new_bool(live)),
            ("now".to_owned(), moment.clone()),
        ])?;
        // Agents choose the life, so they must not choose how many are kept.
        if made.len() < CONTEXTS_KEPT_MAX {
            made.insert((ttl_secs, live), context.clone());
        }
        Ok(context)
    }
}

/// A moment as policies see it, in whole seconds.
fn moment(at: Timestamp) -> RestrictedExpression {
    RestrictedExpression::new_datetime(at.whole_second().to_string())
}

/// A question in Cedar's terms.
pub(super) struct Asked {
    action: EntityUid,
    context: Context,
    /// The principal, then everything that it is in.
    principals: Vec<EntityUid>,
    /// The resource, then everything that it is in.
    resources: Vec<EntityUid>,
    /// What the question is about.
    entities: Vec<Entity>,
}

/// A question that could not be put; the text stands in for a policy id among the errors.
type Unaskable = &'static str;

impl Engine {
    pub(super) fn evaluate_issue(&self, question: &IssueQuestion<'_>) -> Evaluation {
        self.evaluate(&self.issue, self.ask_issue(question))
    }

    pub(super) fn evaluate_open_session(&self, question: &OpenQuestion<'_>) -> Evaluation {
        self.evaluate(&self.open_session, self.ask_open_session(question))
    }

    pub(super) fn evaluate_admin(&self, ask: &AdminAsk, now: Timestamp) -> Evaluation {
        self.evaluate(&self.admin, self.ask_admin(ask, now))
    }

    /// Every policy, in the order of the files.
    pub(super) fn notes(&self) -> impl Iterator<Item = &PolicyNote> {
        self.notes.iter()
    }

    /// How many policies a question of `issue` looks at.
    pub(super) fn looked_at_for_issue(&self, question: &IssueQuestion<'_>) -> usize {
        let count = |asked: Asked| {
            let slices = self.issue.covering(&asked.principals, &asked.resources);
            slices.map(|slice| slice.policies.num_of_policies()).sum()
        };
        self.ask_issue(question).map_or(0, count)
    }

    pub(super) fn ask_issue(&self, question: &IssueQuestion<'_>) -> Result<Asked, Unaskable> {
        let IssueQuestion { session, role, scope, .. } = question;
        let scope = self.model.scope(scope);
        let scope_entity = self.known.get(&scope).ok_or("engine.scope")?.clone();
        let role = self.model.role(role);
        // With all that the role is in, so that the role itself need not stand among the entities.
        let roles = [std::slice::from_ref(&role), self.known.parents(&role)].concat();
        let session_entity = self.model.session_entity(session, &roles, question.authorizations);
        let session_entity = session_entity.map_err(|_| "engine.session")?;
        let workload_entity =
            self.model.workload_entity(session.principal()).map_err(|_| "engine.workload")?;
        Ok(Asked {
            action: self.model.issue.clone(),
            context: self.contexts.of(question).map_err(|_| "engine.context")?,
            principals: [&[session_entity.uid()], roles.as_slice()].concat(),
            resources: [std::slice::from_ref(&scope), self.known.parents(&scope)].concat(),
            entities: [session_entity, workload_entity, scope_entity]
                .into_iter()
                .chain(self.known.requester(&self.model, session.requester()))
                .collect(),
        })
    }

    pub(super) fn ask_open_session(&self, question: &OpenQuestion<'_>) -> Result<Asked, Unaskable> {
        let workload_entity =
            self.model.workload_entity(question.principal).map_err(|_| "engine.workload")?;
        let requester = self.model.requester(question.requester.id());
        let role = self.model.role(&question.role.name);
        let parent = question.ancestors.last().map(|parent| self.model.role(&parent.role));
        let of_parent = parent.iter().map(|role| {
            ("parent_role".to_owned(), RestrictedExpression::new_entity_uid(role.clone()))
        });
        let context = Context::from_pairs(
            [
                ("requester".to_owned(), RestrictedExpression::new_entity_uid(requester)),
                ("life_secs".to_owned(), RestrictedExpression::new_long(secs(question.life))),
                ("depth".to_owned(), depth(question.ancestors.len())),
            ]
            .into_iter()
            .chain(of_parent),
        );
        Ok(Asked {
            action: self.model.open_session.clone(),
            context: context.map_err(|_| "engine.context")?,
            principals: vec![workload_entity.uid()],
            resources: [std::slice::from_ref(&role), self.known.parents(&role)].concat(),
            // The parent may be of the same role, and no entity may stand there twice.
            entities: [workload_entity, self.known.entity(&role)]
                .into_iter()
                .chain(self.known.requester(&self.model, question.requester))
                .chain(parent.filter(|parent| *parent != role).map(|it| self.known.entity(&it)))
                .collect(),
        })
    }

    fn ask_admin(&self, ask: &AdminAsk, now: Timestamp) -> Result<Asked, Unaskable> {
        let operator = self.model.operator(ask.operator.id());
        let teams = self.known.parents(&operator);
        let operator_entity = self.model.operator_entity(&ask.operator, teams);
        let context = Context::from_pairs([("now".to_owned(), moment(now))]);
        let resource = self.model.admin_resource(&ask.resource);
        let (entities, within) = self.acted_on(&ask.resource)?;
        let mut entities = entities;
        entities.push(operator_entity.map_err(|_| "engine.operator")?);
        entities.push(self.model.admin_action_entity(ask.action));
        Ok(Asked {
            action: self.model.admin_action(ask.action),
            context: context.map_err(|_| "engine.context")?,
            principals: [std::slice::from_ref(&operator), teams].concat(),
            resources: [vec![resource], within].concat(),
            entities,
        })
    }

    /// The entities that tell what a resource is, and everything that it is in.
    fn acted_on(&self, of: &AdminResource) -> Result<(Vec<Entity>, Vec<EntityUid>), Unaskable> {
        let AdminResource::Session { known: Some(session), .. } = of else {
            let resource = self.model.admin_resource(of);
            return Ok((
                vec![self.known.entity(&resource)],
                self.known.parents(&resource).to_vec(),
            ));
        };
        let role = self.model.role(session.role());
        let within = [std::slice::from_ref(&role), self.known.parents(&role)].concat();
        let entity = self.model.session_entity(session, &within, session.authorizations());
        let workload = self.model.workload_entity(session.principal());
        let entities =
            [entity.map_err(|_| "engine.session")?, workload.map_err(|_| "engine.workload")?]
                .into_iter()
                .chain(self.known.requester(&self.model, session.requester()))
                .collect();
        Ok((entities, within))
    }

    fn evaluate(&self, slices: &Slices, asked: Result<Asked, Unaskable>) -> Evaluation {
        let answer = asked.and_then(|asked| {
            let found: Vec<_> = slices.covering(&asked.principals, &asked.resources).collect();
            let entities = self.entities(asked.entities, &found)?;
            let request = Request::new(
                asked.principals.first().cloned().ok_or("engine.request")?,
                asked.action,
                asked.resources.first().cloned().ok_or("engine.request")?,
                asked.context,
                self.schema_to_check(),
            )
            .map_err(|_| "engine.request")?;
            Ok(self.unite(&request, &entities, &found))
        });
        answer.unwrap_or_else(|id| Evaluation { errors: vec![id.to_owned()], ..Default::default() })
    }

    /// Questions are made here and nowhere else, so whether they fit the schema does not depend on
    /// who asks: it is checked where tests run, and takes a tenth of a decision elsewhere.
    fn schema_to_check(&self) -> Option<&Schema> {
        cfg!(debug_assertions).then_some(&self.schema)
    }

    /// The question's own entities and what the looked-at policies name besides.
    fn entities(&self, asked: Vec<Entity>, found: &[&Slice]) -> Result<Entities, Unaskable> {
        let mut present: HashSet<EntityUid> = asked.iter().map(Entity::uid).collect();
        let literals = found.iter().flat_map(|slice| &slice.literals);
        let named: Vec<_> = literals
            .filter(|uid| present.insert((*uid).clone()))
            .filter_map(|uid| self.known.get(uid).cloned())
            .collect();
        Entities::from_entities(asked.into_iter().chain(named), None).map_err(|_| "engine.entities")
    }

    fn unite(&self, request: &Request, entities: &Entities, found: &[&Slice]) -> Evaluation {
        let authorizer = Authorizer::new();
        let mut evaluation = Evaluation::default();
        for slice in found {
            let response = authorizer.is_authorized(request, &slice.policies, entities);
            let satisfied = match response.decision() {
                Decision::Allow => &mut evaluation.permits,
                Decision::Deny => &mut evaluation.forbids,
            };
            for id in response.diagnostics().reason() {
                match self.deciding.get(id) {
                    Some(deciding) => satisfied.push(deciding.clone()),
                    None => evaluation.errors.push(id.to_string()),
                }
            }
            evaluation.errors.extend(response.diagnostics().errors().map(policy_of));
        }
        if !evaluation.forbids.is_empty() {
            evaluation.permits.clear();
        }
        // Cedar names policies in no fixed order; people and golden files want one.
        evaluation.permits.sort_by(|a, b| a.id.cmp(&b.id));
        evaluation.forbids.sort_by(|a, b| a.id.cmp(&b.id));
        evaluation.errors.sort();
        evaluation
    }
}

fn policy_of(error: &cedar_policy::AuthorizationError) -> String {
    let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
    error.policy_id().to_string()
}

/// Seconds, rounded up, so that a fraction above the cap is above the cap.
fn secs(duration: Duration) -> i64 {
    let rounded_up = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i64::try_from(rounded_up).map_or(SECS_MAX, |secs| secs.min(SECS_MAX))
}

/// 136 years. Longer lives are all the same to a policy, and a policy that multiplies one does
/// not overflow, which would turn a plain refusal into a policy error.
const SECS_MAX: i64 = u32::MAX as i64;

/// More than there are lives in use at a time; others are made anew.
const CONTEXTS_KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests;
