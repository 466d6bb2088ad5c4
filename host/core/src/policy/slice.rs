//! An index over the policies of one action, so that a question looks only at those whose scope
//! constraints can match it. Draws no conclusion from what they say.
//!
//! Why slicing is sound: Cedar evaluates each policy by itself, and its answer is a function of
//! three sets: the permits that are satisfied, the forbids that are satisfied, the policies that
//! fail. A policy whose scope constraint does not match is in none of them, because the scope is
//! evaluated before the conditions and cannot fail. So leaving it out changes nothing, and the
//! sets of several slices may be united in any order.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicySet, PolicySetError, PrincipalConstraint,
    ResourceConstraint,
};

use super::entities::Model;

/// The entity that a scope constraint names; `None` if it names none. `==` is filed like `in`:
/// a question looks under the entity itself and everything it is in, so it finds both.
pub(super) type Key = Option<EntityUid>;

/// The policies that can apply to one action, by principal and resource constraint.
#[derive(Default)]
pub(super) struct Slices {
    by_principal: HashMap<Key, HashMap<Key, Slice>>,
}

/// The policies with the same constraints.
#[derive(Default)]
pub(super) struct Slice {
    /// The policies.
    pub(super) policies: PolicySet,
    /// Every entity that they name. What is known of these must be before the engine, since a
    /// condition may ask about an entity that is not part of the question.
    pub(super) literals: HashSet<EntityUid>,
}

impl Slices {
    /// Files the policies that can apply to `action`.
    pub(super) fn build<'a>(
        action: &EntityUid,
        policies: impl IntoIterator<Item = &'a Policy>,
    ) -> Result<Self, PolicySetError> {
        Self::of(policies.into_iter().filter(|policy| covers(policy, action)))
    }

    /// Files the policies that can apply to what operators do.
    pub(super) fn for_operators<'a>(
        model: &Model,
        policies: impl IntoIterator<Item = &'a Policy>,
    ) -> Result<Self, PolicySetError> {
        Self::of(policies.into_iter().filter(|policy| reaches_operators(policy, model)))
    }

    fn of<'a>(policies: impl Iterator<Item = &'a Policy>) -> Result<Self, PolicySetError> {
        let mut slices = Self::default();
        for policy in policies {
            let by_resource = slices.by_principal.entry(principal_key(policy)).or_default();
            let slice = by_resource.entry(resource_key(policy)).or_default();
            slice.policies.add(policy.clone())?;
            slice.literals.extend(policy.entity_literals());
        }
        Ok(slices)
    }

    /// The slices in which a policy could match. `principals` and `resources` are the question's
    /// own entities and everything that they are in.
    pub(super) fn covering<'a>(
        &'a self,
        principals: &'a [EntityUid],
        resources: &'a [EntityUid],
    ) -> impl Iterator<Item = &'a Slice> {
        let keys =
            |uids: &'a [EntityUid]| std::iter::once(None).chain(uids.iter().cloned().map(Some));
        keys(principals)
            .filter_map(|key| self.by_principal.get(&key))
            .flat_map(move |found| keys(resources).filter_map(|key| found.get(&key)))
    }
}

/// Whether the policy's action constraint matches. For the actions of agents, which are in no
/// group: each is in nothing but itself.
pub(super) fn covers(policy: &Policy, action: &EntityUid) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(only) => only == *action,
        ActionConstraint::In(list) => list.contains(action),
    }
}

/// INVARIANT (operators-are-named): a permit without a constraint on the action is left out.
/// Somebody who writes `permit (principal, action, resource);` thinks of agents; on a listener that
/// takes client certificates it would make an operator of each of them. A forbid is never left out.
fn reaches_operators(policy: &Policy, model: &Model) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => policy.effect() == Effect::Forbid,
        ActionConstraint::Eq(only) => model.is_of_operators(&only),
        ActionConstraint::In(list) => list.iter().any(|action| model.is_of_operators(action)),
    }
}

fn principal_key(policy: &Policy) -> Key {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::In(uid)
        | PrincipalConstraint::Eq(uid)
        | PrincipalConstraint::IsIn(_, uid) => Some(uid),
    }
}

fn resource_key(policy: &Policy) -> Key {
    match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::In(uid)
        | ResourceConstraint::Eq(uid)
        | ResourceConstraint::IsIn(_, uid) => Some(uid),
    }
}
