//! Which changes of a configuration loosen a guard: the explicit list. Decides nothing about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::NonZeroU32;

use claviger_core::budget::Budget;

use crate::config::{BackendConfig, Config, Requirement, Tier};

/// What `after` allows that `before` did not, a phrase for each.
pub fn loosened(before: &Config, after: &Config) -> Vec<String> {
    [
        sessions(before, after),
        admin(before, after),
        signing(before, after),
        scopes(before, after),
        budgets(before, after),
    ]
    .concat()
}

fn sessions(before: &Config, after: &Config) -> Vec<String> {
    let (before, after) = (&before.sessions, &after.sessions);
    let mut found = Vec::new();
    if after.heartbeat_grace.0 > before.heartbeat_grace.0 {
        found.push("`sessions.heartbeat_grace` grows".to_owned());
    }
    if after.live_max > before.live_max {
        found.push("`sessions.live_max` grows".to_owned());
    }
    found
}

fn admin(before: &Config, after: &Config) -> Vec<String> {
    let (before, after) = (&before.admin, &after.admin);
    let mut found = Vec::new();
    if before.two_person.iter().any(|rule| !after.two_person.contains(rule)) {
        found.push("`admin.two_person` asks for less".to_owned());
    }
    if after.operator_uids.iter().any(|uid| !before.operator_uids.contains(uid)) {
        found.push("`admin.operator_uids` names more operators".to_owned());
    }
    found
}

fn signing(before: &Config, after: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let required = |config: &Config, own: Option<Requirement>| {
        let general = config.signing.as_ref().map(|signing| signing.require_signature);
        own.or(general).map_or(0, strictness)
    };
    let keys = |config: &Config| {
        config.signing.as_ref().map(|signing| signing.trusted_keys.clone()).unwrap_or_default()
    };
    if required(after, None) < required(before, None) {
        found.push("`signing` demands fewer signatures".to_owned());
    }
    let known = keys(before);
    if keys(after).iter().any(|key| !known.contains(key)) {
        found.push("`signing.trusted_keys` trusts more keys".to_owned());
    }
    for (name, plugin) in &after.plugins {
        let Some(earlier) = before.plugins.get(name) else { continue };
        if required(after, plugin.require_signature) < required(before, earlier.require_signature)
            && plugin.require_signature != earlier.require_signature
        {
            found.push(format!("plugin `{name}` needs a signature no longer"));
        }
    }
    found
}

fn scopes(before: &Config, after: &Config) -> Vec<String> {
    let mut found = Vec::new();
    for (name, backend) in &after.backends {
        if let Some(earlier) = before.backends.get(name) {
            let of_backend = of_backend(earlier, backend);
            found.extend(of_backend.map(|(scope, what)| format!("scope `{name}/{scope}` {what}")));
        }
    }
    found
}

fn of_backend<'a>(
    before: &'a BackendConfig,
    after: &'a BackendConfig,
) -> impl Iterator<Item = (&'a str, &'static str)> {
    after.scopes.iter().flat_map(move |(name, scope)| {
        let earlier = before.scopes.get(name);
        let issued = earlier
            .is_some_and(|earlier| earlier.tier == Tier::Sensitive && scope.tier == Tier::Standard);
        let longer = earlier.is_some_and(|earlier| scope.max_ttl.0 > earlier.max_ttl.0);
        let what = [(issued, "is sensitive no longer"), (longer, "lives longer")];
        what.into_iter().filter(|(is, _)| *is).map(move |(_, what)| (name.as_str(), what))
    })
}

fn budgets(before: &Config, after: &Config) -> Vec<String> {
    let (before, after) = (&before.budgets, &after.budgets);
    [
        grown("session", before.session, after.session),
        grown("role", before.role, after.role),
        grown("requester", before.requester, after.requester),
        grown("backend", before.backend, after.backend),
        grown_by_name("roles", (before.role, &before.roles), (after.role, &after.roles)),
        grown_by_name(
            "requesters",
            (before.requester, &before.requesters),
            (after.requester, &after.requesters),
        ),
        grown_by_name(
            "backends",
            (before.backend, &before.backends),
            (after.backend, &after.backends),
        ),
    ]
    .concat()
}

/// Budgets of single ones, beside what holds for all of their kind: what counts for each, before
/// and after. Where only the general one has changed, that has been said of it.
fn grown_by_name<N: Ord + Display>(
    kind: &str,
    before: (Budget, &BTreeMap<N, Budget>),
    after: (Budget, &BTreeMap<N, Budget>),
) -> Vec<String> {
    let names: BTreeSet<&N> = before.1.keys().chain(after.1.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let (earlier, own) = (before.1.get(name), after.1.get(name));
        if earlier != own {
            let what = format!("{kind}.{name}");
            found.extend(grown(&what, before.0.with(earlier), after.0.with(own)));
        }
    }
    found
}

/// The limits of one budget that are larger or gone.
fn grown(what: &str, before: Budget, after: Budget) -> Vec<String> {
    let keys = [
        ("issues_per_minute", before.issues_per_minute, after.issues_per_minute),
        ("live_leases", before.live_leases, after.live_leases),
    ];
    let phrase = |(key, before, after): (&str, Option<NonZeroU32>, Option<NonZeroU32>)| {
        let before = before?;
        match after {
            Some(after) if after > before => Some(format!("`budgets.{what}.{key}` grows")),
            Some(_) => None,
            None => Some(format!("`budgets.{what}.{key}` is gone")),
        }
    };
    keys.into_iter().filter_map(phrase).collect()
}

/// More is stricter.
const fn strictness(requirement: Requirement) -> u8 {
    match requirement {
        Requirement::Always => 2,
        Requirement::UnlessPinned => 1,
        Requirement::NeverAndIAcceptUnsignedPlugins => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn config(budgets: &str) -> Config {
        let rest = r#"
            listen = { socket = "agent.sock", admin_socket = "admin.sock" }
            journal = { path = "journal.db", sealing_key = "file:key" }
            policies = { path = "policies" }
            prompts = { path = "prompts" }
        "#;
        toml::from_str(&format!("{rest}\nbudgets = {{ {budgets} }}\n")).unwrap()
    }

    fn check(before: &str, after: &str, expect: &[&str]) {
        let found = loosened(&config(before), &config(after));
        assert_eq!(found, expect, "from {before} to {after}");
    }

    #[test]
    fn a_larger_budget_and_one_that_is_gone_loosen_and_a_smaller_one_does_not() {
        for kind in ["session", "role", "requester", "backend"] {
            for key in ["issues_per_minute", "live_leases"] {
                let budget = |most: u32| format!("{kind} = {{ {key} = {most} }}");
                check(&budget(5), &budget(6), &[&format!("`budgets.{kind}.{key}` grows")]);
                check(&budget(5), "", &[&format!("`budgets.{kind}.{key}` is gone")]);
                check(&budget(5), &budget(4), &[]);
                check(&budget(5), &budget(5), &[]);
                check("", &budget(5), &[]);
            }
        }
    }

    #[test]
    fn of_a_budget_by_name_it_counts_what_holds_before_and_after() {
        let general = "role = { live_leases = 5 }";
        let named =
            |most: u32| format!("{general}, roles = {{ reader = {{ live_leases = {most} }} }}");
        let grows = ["`budgets.roles.reader.live_leases` grows"];
        check(&named(3), &named(4), &grows);
        check(&named(3), general, &grows);
        check(general, &named(6), &grows);
        check(&named(6), general, &[]);
        check(general, &named(3), &[]);
        let only = |kind: &str, name: &str| {
            format!("{kind} = {{ \"{name}\" = {{ issues_per_minute = 3 }} }}")
        };
        for (kind, name) in
            [("roles", "reader"), ("requesters", "unix:1000"), ("backends", "orders-db")]
        {
            let gone = format!("`budgets.{kind}.{name}.issues_per_minute` is gone");
            check(&only(kind, name), "", &[&gone]);
        }
    }
}
