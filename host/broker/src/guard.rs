//! Which changes of a configuration loosen a guard: the explicit list. Decides nothing about them.

use crate::config::{BackendConfig, Config, Requirement, Tier};

/// What `after` allows that `before` did not, a phrase for each.
pub fn loosened(before: &Config, after: &Config) -> Vec<String> {
    [sessions(before, after), admin(before, after), signing(before, after), scopes(before, after)]
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

/// More is stricter.
const fn strictness(requirement: Requirement) -> u8 {
    match requirement {
        Requirement::Always => 2,
        Requirement::UnlessPinned => 1,
        Requirement::NeverAndIAcceptUnsignedPlugins => 0,
    }
}
