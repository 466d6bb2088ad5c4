//! The Cedar entities behind a question. Those that change only with a reload (roles, scopes,
//! teams) are built once, the others for each question. Evaluates nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use cedar_policy::{
    Entity, EntityAttrEvaluationError, EntityId, EntityTypeName, EntityUid, ParseErrors,
    RestrictedExpression,
};

use super::{PolicySources, Team};
use crate::admin::{AdminAction, AdminResource, Operator};
use crate::catalog::Scope;
use crate::name::{Authorization, RoleName, TeamName};
use crate::principal::{Principal, Requester};
use crate::prompt::AuthorizationLimits;
use crate::session::Session;

/// The entity types and actions of `policies/schema.cedarschema`.
pub(super) struct Model {
    role: EntityTypeName,
    requester: EntityTypeName,
    workload: EntityTypeName,
    session: EntityTypeName,
    scope: EntityTypeName,
    backend: EntityTypeName,
    team: EntityTypeName,
    operator: EntityTypeName,
    plugin: EntityTypeName,
    action: EntityTypeName,
    broker: EntityUid,
    pub(super) open_session: EntityUid,
    pub(super) issue: EntityUid,
    admin: EntityUid,
}

impl Model {
    pub(super) fn new() -> Result<Self, ParseErrors> {
        let action: EntityTypeName = "Action".parse()?;
        Ok(Self {
            role: "Role".parse()?,
            requester: "Requester".parse()?,
            workload: "Workload".parse()?,
            session: "Session".parse()?,
            scope: "Scope".parse()?,
            backend: "Backend".parse()?,
            team: "Team".parse()?,
            operator: "Operator".parse()?,
            plugin: "Plugin".parse()?,
            broker: uid(&"Broker".parse()?, "this"),
            open_session: uid(&action, "open_session"),
            issue: uid(&action, "issue"),
            admin: uid(&action, "admin"),
            action,
        })
    }

    pub(super) fn role(&self, name: &RoleName) -> EntityUid {
        uid(&self.role, name.as_str())
    }

    pub(super) fn requester(&self, id: &str) -> EntityUid {
        uid(&self.requester, id)
    }

    pub(super) fn workload(&self, id: &str) -> EntityUid {
        uid(&self.workload, id)
    }

    pub(super) fn session(&self, session: &Session) -> EntityUid {
        uid(&self.session, &session.id().to_string())
    }

    pub(super) fn scope(&self, scope: &Scope) -> EntityUid {
        uid(&self.scope, scope.name.as_str())
    }

    pub(super) fn operator(&self, id: &str) -> EntityUid {
        uid(&self.operator, id)
    }

    pub(super) fn admin_action(&self, action: AdminAction) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    /// The entity of an operator's action, in its group.
    pub(super) fn admin_action_entity(&self, action: AdminAction) -> Entity {
        Entity::new_no_attrs(self.admin_action(action), HashSet::from([self.admin.clone()]))
    }

    /// Whether `action` is one of operators, or their group.
    pub(super) fn is_of_operators(&self, action: &EntityUid) -> bool {
        *action == self.admin
            || AdminAction::ALL.iter().any(|one| self.admin_action(*one) == *action)
    }

    pub(super) fn admin_resource(&self, resource: &AdminResource) -> EntityUid {
        match resource {
            AdminResource::Broker => self.broker.clone(),
            AdminResource::Session { id, .. } => uid(&self.session, &id.to_string()),
            AdminResource::Role(name) => self.role(name),
            AdminResource::Requester(id) => self.requester(id),
            AdminResource::Workload(id) => self.workload(id),
            AdminResource::Backend(name) => uid(&self.backend, name.as_str()),
            AdminResource::Scope(name) => uid(&self.scope, name.as_str()),
            AdminResource::Plugin(name) => uid(&self.plugin, name.as_str()),
        }
    }

    /// The operator's entity, in its teams, the claims of its proof as tags.
    pub(super) fn operator_entity(
        &self,
        operator: &Operator,
        teams: &[EntityUid],
    ) -> Result<Entity, EntityAttrEvaluationError> {
        let standing = ("standing".to_owned(), text(operator.standing().as_str()));
        let claims = operator.principal().claims().iter();
        let tags = claims.map(|(name, value)| (name.clone(), text(value)));
        Entity::new_with_tags(self.operator(operator.id()), [standing], teams.iter().cloned(), tags)
    }

    /// The session's entity, in the role that is to be judged and in all that this is in.
    pub(super) fn session_entity(
        &self,
        session: &Session,
        roles: &[EntityUid],
        authorizations: &BTreeMap<Authorization, AuthorizationLimits>,
    ) -> Result<Entity, EntityAttrEvaluationError> {
        let declared = authorizations.keys().map(|name| text(name.as_str()));
        let requester = self.requester(session.requester().id());
        let workload = self.workload(session.principal().id());
        let attributes = [
            ("authorizations".to_owned(), RestrictedExpression::new_set(declared)),
            ("requester".to_owned(), RestrictedExpression::new_entity_uid(requester)),
            ("workload".to_owned(), RestrictedExpression::new_entity_uid(workload)),
            ("depth".to_owned(), depth(session.ancestors().len())),
        ];
        Entity::new_with_tags(self.session(session), attributes, roles.iter().cloned(), [])
    }

    /// The workload's entity, its claims as tags.
    pub(super) fn workload_entity(
        &self,
        principal: &Principal,
    ) -> Result<Entity, EntityAttrEvaluationError> {
        let tags = principal.claims().iter().map(|(name, value)| (name.clone(), text(value)));
        Entity::new_with_tags(self.workload(principal.id()), [], [], tags)
    }
}

/// The entities that change only with a reload.
pub(super) struct KnownEntities {
    known: HashMap<EntityUid, Known>,
    /// The teams of each group of requesters.
    groups: HashMap<String, Vec<EntityUid>>,
    /// What a policy may name without a warning.
    declared: HashSet<EntityUid>,
}

struct Known {
    entity: Entity,
    parents: Vec<EntityUid>,
}

impl KnownEntities {
    pub(super) fn new(
        model: &Model,
        sources: &PolicySources,
    ) -> Result<Self, EntityAttrEvaluationError> {
        let mut known = HashMap::new();
        for (member, teams) in members(model, &sources.roles, &sources.teams) {
            let entity = Entity::new_no_attrs(member.clone(), teams.iter().cloned().collect());
            known.insert(member, Known { entity, parents: teams });
        }
        let mut declared: HashSet<_> = sources.roles.keys().map(|name| model.role(name)).collect();
        declared.extend(sources.teams.keys().map(|name| uid(&model.team, name.as_str())));
        for (backend, scope) in sources.catalog.scopes() {
            let backend = uid(&model.backend, backend.name.as_str());
            let scope_uid = model.scope(scope);
            let attributes = HashMap::from([
                ("authorization".to_owned(), text(scope.authorization.as_str())),
                ("tier".to_owned(), text(scope.tier.as_str())),
            ]);
            let entity =
                Entity::new(scope_uid.clone(), attributes, HashSet::from([backend.clone()]))?;
            declared.insert(scope_uid.clone());
            known.insert(scope_uid, Known { entity, parents: vec![backend] });
        }
        let backends = sources.catalog.backends.keys();
        declared.extend(backends.map(|name| uid(&model.backend, name.as_str())));
        Ok(Self { known, groups: groups(model, &sources.teams), declared })
    }

    /// The entity of that id. A role, scope or requester of which nothing is known has no
    /// parents and no attributes; a policy that reads an attribute of it fails to evaluate, and
    /// that is a denial.
    pub(super) fn entity(&self, uid: &EntityUid) -> Entity {
        match self.known.get(uid) {
            Some(known) => known.entity.clone(),
            None => Entity::with_uid(uid.clone()),
        }
    }

    /// The requester's entity: in the teams that name it, and in those of the groups that its
    /// token says it is in. Tokens that name none give nobody a team; of who is in none there is
    /// nothing to say, since a requester has no attributes.
    pub(super) fn requester(&self, model: &Model, requester: &Requester) -> Option<Entity> {
        let uid = model.requester(requester.id());
        let by_group = requester.grounds().groups.iter().filter_map(|group| self.groups.get(group));
        let mut teams: HashSet<EntityUid> = by_group.flatten().cloned().collect();
        teams.extend(self.parents(&uid).iter().cloned());
        (!teams.is_empty()).then(|| Entity::new_no_attrs(uid, teams))
    }

    /// The entity of that id, if something is known of it.
    pub(super) fn get(&self, uid: &EntityUid) -> Option<&Entity> {
        self.known.get(uid).map(|known| &known.entity)
    }

    /// Everything that the entity is in. One level is all there is: teams and backends are in nothing.
    pub(super) fn parents(&self, uid: &EntityUid) -> &[EntityUid] {
        self.known.get(uid).map_or(&[], |known| &known.parents)
    }

    /// Why a policy that names `uid` is probably misspelt; `None` if all is well.
    pub(super) fn missing(&self, model: &Model, uid: &EntityUid) -> Option<&'static str> {
        if self.declared.contains(uid) {
            return None;
        }
        let kind = uid.type_name();
        let sentences = [
            (&model.role, "no prompt file of that role is loaded"),
            (&model.scope, "no such scope is configured"),
            (&model.backend, "no such backend is configured"),
            (&model.team, "no such team is configured"),
        ];
        sentences.into_iter().find(|(of, _)| *of == kind).map(|(_, sentence)| sentence)
    }

    /// Every known entity, for tests that compare with the unsliced engine.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Entity> {
        self.known.values().map(|known| &known.entity)
    }
}

/// Every role and every requester that some team has, and every role that loaded, with its teams.
fn members(
    model: &Model,
    roles: &BTreeMap<RoleName, crate::prompt::Role>,
    teams: &BTreeMap<TeamName, Team>,
) -> HashMap<EntityUid, Vec<EntityUid>> {
    let mut members: HashMap<_, Vec<_>> =
        roles.keys().map(|name| (model.role(name), vec![])).collect();
    for (name, team) in teams {
        let team_uid = uid(&model.team, name.as_str());
        let roles = team.roles.iter().map(|role| model.role(role));
        let requesters = team.requesters.iter().map(|id| model.requester(id));
        // A person is in the same teams whether an agent runs for them or they operate the broker.
        let operators = team.requesters.iter().map(|id| model.operator(id));
        for member in roles.chain(requesters).chain(operators) {
            let of = members.entry(member).or_default();
            if !of.contains(&team_uid) {
                of.push(team_uid.clone());
            }
        }
    }
    members
}

/// The teams of each group.
fn groups(model: &Model, teams: &BTreeMap<TeamName, Team>) -> HashMap<String, Vec<EntityUid>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for (name, team) in teams {
        for group in &team.groups {
            groups.entry(group.clone()).or_default().push(uid(&model.team, name.as_str()));
        }
    }
    groups
}

fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}

/// How many sessions are above one.
pub(super) fn depth(above: usize) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(above).unwrap_or(i64::MAX))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}
