//! The operator's settings and parameters, and what no JSON schema can say about them. Their
//! documentation stands in `manifest.json`, where operators and the host read it.

use claviger_plugin_sdk::{Config, Problem};
use serde::Deserialize;

use crate::LOGIN_PREFIX;

/// One backend's settings: there are none.
#[derive(Debug, Deserialize)]
pub struct Settings {}

/// One scope's parameters.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    /// The role whose rights each login has.
    pub grant_role: String,
    /// How many connections a login may hold at once.
    #[serde(default = "default_max_user_connections")]
    pub max_user_connections: u32,
}

/// Finds what would make a scope useless or mightier than it looks.
pub fn problems(config: &Config<Settings, Parameters>) -> Vec<Problem> {
    let reserved = config.scopes.iter().filter_map(|(scope, parameters)| {
        let role = &parameters.grant_role;
        let message = format!("`{role}` {}", reserved(role)?);
        Some(Problem::in_parameter(scope, "grant_role", message))
    });
    reserved.collect()
}

fn reserved(role: &str) -> Option<&'static str> {
    let lower = role.to_lowercase();
    if role.trim() != role || role.is_empty() {
        return Some("begins or ends with a space, or is empty: name a role");
    }
    if lower.starts_with(LOGIN_PREFIX) {
        return Some("is a login of the broker's and will be dropped: name a role");
    }
    if NOT_ROLES.contains(&lower.as_str()) || SYSTEM.iter().any(|p| lower.starts_with(p)) {
        return Some("is no role made for people: make one of your own and grant it what it needs");
    }
    None
}

/// Room for a client's pool, and not for exhausting the server's 151 connections.
fn default_max_user_connections() -> u32 {
    10
}

/// Words that stand for everybody, nobody or the broker itself, and the administrator, whom MySQL
/// can grant like a role.
const NOT_ROLES: [&str; 6] = ["public", "none", "default", "current_user", "current_role", "root"];

/// The servers' own accounts.
const SYSTEM: [&str; 2] = ["mysql.", "mariadb."];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeMap;

    use super::*;

    fn check(role: &str, pointers: &[&str]) {
        let parameters = Parameters { grant_role: role.to_owned(), max_user_connections: 10 };
        let scopes = BTreeMap::from([("readonly".to_owned(), parameters)]);
        let problems = problems(&Config { settings: Settings {}, scopes });
        let found: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{role}");
    }

    #[test]
    fn refuses_what_is_no_role_made_for_people() {
        check("orders_readonly", &[]);
        for role in ["", " readers", "clav_0123", "PUBLIC", "none", "root", "mysql.sys"] {
            check(role, &["/scopes/readonly/grant_role"]);
        }
    }
}
