//! Which changes of a configuration loosen a guard: the explicit list. Decides nothing about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::NonZeroU32;
use std::time::Duration;

use claviger_core::budget::Budget;
use claviger_core::name::{BackendName, PluginName};

use crate::app::Mode;
use crate::config::{Config, Requirement, Tier};
use crate::load;

/// The guards of the configurations that were in force since the start. INVARIANT (two-persons): what
/// was removed is remembered as it was last. Otherwise a scope could go with one reload and come back
/// with the next, without its guard, and nobody would be asked about either.
pub struct Guards {
    mode: Mode,
    removed_scopes: BTreeMap<ScopeKey, ScopeGuard>,
    /// What each said itself of its signature.
    removed_plugins: BTreeMap<PluginName, Option<Requirement>>,
}

/// The names of a backend and of a scope on it.
type ScopeKey = (BackendName, String);

/// What guards a scope.
struct ScopeGuard {
    tier: Tier,
    ttl_max: Duration,
}

impl Guards {
    /// Those of a broker that starts in `mode`.
    pub const fn new(mode: Mode) -> Self {
        Self { mode, removed_scopes: BTreeMap::new(), removed_plugins: BTreeMap::new() }
    }

    /// What `after` allows that `before`, or what stood under the same name earlier, did not: a
    /// phrase for each.
    pub fn loosened(&self, before: &Config, after: &Config) -> Vec<String> {
        [
            sessions(before, after),
            admin(before, after),
            self.signing(before, after),
            self.scopes(before, after),
            budgets(before, after),
        ]
        .concat()
    }

    /// `after` has taken the place of `before`: what is gone is remembered, what is back is not.
    pub fn replaced(&mut self, before: &Config, after: &Config) {
        let plugins = before.plugins.iter();
        self.removed_plugins
            .extend(plugins.map(|(name, plugin)| (name.clone(), plugin.require_signature)));
        self.removed_plugins.retain(|name, _| !after.plugins.contains_key(name));
        self.removed_scopes.extend(scopes_of(before));
        let there: BTreeSet<ScopeKey> = scopes_of(after).map(|(key, _)| key).collect();
        self.removed_scopes.retain(|key, _| !there.contains(key));
    }

    fn signing(&self, before: &Config, after: &Config) -> Vec<String> {
        let mut found = Vec::new();
        let required = |config: &Config, own: Option<Requirement>| {
            strictness(load::requirement(config, self.mode, own))
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
            // Of a name that never was there, what holds for all plugins counts.
            let earlier = match before.plugins.get(name) {
                Some(earlier) => earlier.require_signature,
                None => self.removed_plugins.get(name).copied().flatten(),
            };
            let own = plugin.require_signature;
            if own != earlier && required(after, own) < required(before, earlier) {
                found.push(format!("plugin `{name}` needs a signature no longer"));
            }
        }
        found
    }

    fn scopes(&self, before: &Config, after: &Config) -> Vec<String> {
        let before: BTreeMap<ScopeKey, ScopeGuard> = scopes_of(before).collect();
        let mut found = Vec::new();
        for (key, scope) in scopes_of(after) {
            let Some(earlier) = before.get(&key).or_else(|| self.removed_scopes.get(&key)) else {
                continue;
            };
            let (backend, name) = &key;
            if earlier.tier == Tier::Sensitive && scope.tier == Tier::Standard {
                found.push(format!("scope `{backend}/{name}` is sensitive no longer"));
            }
            if scope.ttl_max > earlier.ttl_max {
                found.push(format!("scope `{backend}/{name}` lives longer"));
            }
        }
        found
    }
}

fn scopes_of(config: &Config) -> impl Iterator<Item = (ScopeKey, ScopeGuard)> {
    config.backends.iter().flat_map(|(backend, of_backend)| {
        of_backend.scopes.iter().map(move |(name, scope)| {
            let guard = ScopeGuard { tier: scope.tier, ttl_max: scope.max_ttl.0 };
            ((backend.clone(), name.clone()), guard)
        })
    })
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
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

    use super::*;

    fn config(more: &str) -> Config {
        let rest = r#"
            listen = { socket = "agent.sock", admin_socket = "admin.sock" }
            journal = { path = "journal.db", sealing_key = "file:key" }
            policies = { path = "policies" }
            prompts = { path = "prompts" }
        "#;
        toml::from_str(&format!("{rest}\n{more}\n")).unwrap()
    }

    fn check(before: &str, after: &str, expect: &[&str]) {
        let of = |budgets: &str| format!("budgets = {{ {budgets} }}");
        check_path(Mode::Serve, &[&of(before), &of(after)], expect);
    }

    /// One configuration after the other is put in force; of the last it is asked what it loosens.
    fn check_path(mode: Mode, path: &[&str], expect: &[&str]) {
        let mut guards = Guards::new(mode);
        let configs: Vec<Config> = path.iter().map(|text| config(text)).collect();
        let mut found = Vec::new();
        for step in configs.windows(2) {
            found = guards.loosened(&step[0], &step[1]);
            guards.replaced(&step[0], &step[1]);
        }
        assert_eq!(found, expect, "by the way of {path:?}");
    }

    fn plugin(more: &str) -> String {
        format!("[plugins.postgres]\npath = \"postgres.wasm\"\n{more}\n")
    }

    fn require(when: &str) -> String {
        format!("require_signature = \"{when}\"")
    }

    fn signing(when: &str) -> String {
        format!("[signing]\ntrusted_keys = []\n{}\n", require(when))
    }

    fn scope(tier: &str, max_ttl: &str) -> String {
        let head = "[backends.orders-db]\nplugin = \"postgres\"\n[backends.orders-db.scopes.owner]";
        format!(
            "{head}\nauthorization = \"orders.read\"\ntier = \"{tier}\"\nmax_ttl = \"{max_ttl}\""
        )
    }

    const NEVER: &str = "never-and-i-accept-unsigned-plugins";
    const PINNED: &str = "sha256 = \"00\"";
    const UNSIGNED: [&str; 1] = ["plugin `postgres` needs a signature no longer"];
    const FEWER: [&str; 1] = ["`signing` demands fewer signatures"];

    #[test]
    fn where_nothing_is_said_of_signatures_the_default_of_the_loader_is_what_is_loosened() {
        let serve = |before: &str, after: &str, expect: &[&str]| {
            check_path(Mode::Serve, &[before, after], expect);
        };
        serve(&plugin(PINNED), &plugin(&require(NEVER)), &UNSIGNED);
        serve(&plugin(PINNED), &plugin(&require("unless-pinned")), &[]);
        serve("", &signing(NEVER), &FEWER);
        serve(&plugin(PINNED), &format!("{}{}", signing(NEVER), plugin("")), &FEWER);
        serve("", &signing("unless-pinned"), &[]);
        serve(&signing("always"), "", &FEWER);
        check_path(Mode::Dev, &[&plugin(""), &plugin(&require(NEVER))], &[]);
    }

    #[test]
    fn a_new_plugin_is_held_to_what_holds_for_all() {
        let always = signing("always");
        let with = |more: &str| format!("{always}{}", plugin(more));
        check_path(Mode::Serve, &[&always, &with(&require(NEVER))], &UNSIGNED);
        check_path(Mode::Serve, &[&always, &with(&require("unless-pinned"))], &UNSIGNED);
        check_path(Mode::Serve, &[&always, &with("")], &[]);
        check_path(Mode::Serve, &["", &plugin(&require(NEVER))], &UNSIGNED);
        check_path(Mode::Serve, &["", &plugin(&require("always"))], &[]);
    }

    #[test]
    fn what_is_removed_and_comes_back_is_held_to_what_it_was() {
        let (strict, open) = (scope("sensitive", "15m"), scope("standard", "15m"));
        let longer = scope("sensitive", "20m");
        let issued = ["scope `orders-db/owner` is sensitive no longer"];
        let lives = ["scope `orders-db/owner` lives longer"];
        check_path(Mode::Serve, &[&strict, "", &open], &issued);
        check_path(Mode::Serve, &[&strict, "", "", &longer], &lives);
        check_path(Mode::Serve, &[&strict, "", &strict], &[]);
        // What two operators have agreed to is what it is held to from then on.
        check_path(Mode::Serve, &[&strict, "", &open, &open], &[]);
        check_path(Mode::Serve, &[&strict, &open, "", &open], &[]);
        check_path(Mode::Serve, &["", &open], &[]);
        let always = plugin(&require("always"));
        check_path(Mode::Serve, &[&always, "", &plugin(PINNED)], &UNSIGNED);
        check_path(Mode::Serve, &[&always, "", &always], &[]);
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
