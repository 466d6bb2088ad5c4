//! The operator's settings and parameters, and what no JSON schema can say about them. The
//! comments on the fields are what operators read in the manifest's schemas.

use claviger_plugin_sdk::{Config, Problem, Schema};
use serde::Deserialize;

use crate::LOGIN_PREFIX;

/// One backend's settings.
#[derive(Debug, Deserialize, Schema)]
pub struct Settings {
    /// Iterations of the SCRAM-SHA-256 verifier. The passwords are random and longer than 128
    /// bits, so stretching adds nothing and 1 is sound; raise it only if a rule asks for it.
    #[serde(default = "default_scram_iterations")]
    #[schema(minimum = 1, maximum = 1000000, default = 1)]
    pub scram_iterations: u32,
    /// Who inherits what a login leaves behind in the connection's database. Without it, what a
    /// login made is dropped with it.
    #[schema(min_length = 1, max_length = 63)]
    pub reassign_owned_to: Option<String>,
}

/// One scope's parameters.
#[derive(Debug, Deserialize, Schema)]
pub struct Parameters {
    /// The group role whose rights each login of this scope inherits.
    #[schema(min_length = 1, max_length = 63)]
    pub grant_role: String,
    /// How many connections a login may hold at once.
    #[serde(default = "default_connection_limit")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub connection_limit: u32,
    /// What a login's statements may take unless it sets another value itself, in PostgreSQL's
    /// notation: `30s`, `5min`.
    #[schema(pattern = "^[1-9][0-9]{0,8}(ms|s|min|h)$")]
    pub statement_timeout: Option<String>,
}

/// Finds what would make a scope useless or mightier than it looks.
pub fn problems(config: &Config<Settings, Parameters>) -> Vec<Problem> {
    let heir = config.settings.reassign_owned_to.iter().filter_map(|heir| {
        let why = reserved(heir)?;
        Some(Problem::in_setting("reassign_owned_to", format!("`{heir}` {why}")))
    });
    let groups = config.scopes.iter().filter_map(|(scope, parameters)| {
        let group = &parameters.grant_role;
        let why = if HARMLESS.contains(&group.as_str()) { None } else { reserved(group) }?;
        Some(Problem::in_parameter(scope, "grant_role", format!("`{group}` {why}")))
    });
    heir.chain(groups).collect()
}

fn reserved(role: &str) -> Option<&'static str> {
    if role.starts_with("pg_") {
        return Some(
            "is a predefined role that reaches beyond the database's data: make a group role of \
             your own and grant it what it needs",
        );
    }
    if role.starts_with(LOGIN_PREFIX) {
        return Some("is a login of the broker's and will be dropped: name a group role");
    }
    None
}

fn default_scram_iterations() -> u32 {
    1
}

/// Room for a client's pool, and not for exhausting the server's 100 connections.
fn default_connection_limit() -> u32 {
    10
}

/// The predefined roles that only read or write data or watch the server. The others run
/// programs, reach the server's files, end other sessions or are not made for people.
const HARMLESS: [&str; 5] = [
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_monitor",
    "pg_read_all_stats",
    "pg_read_all_settings",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::BTreeMap;

    use super::*;

    fn check(heir: Option<&str>, group: &str, pointers: &[&str]) {
        let settings =
            Settings { scram_iterations: 1, reassign_owned_to: heir.map(ToOwned::to_owned) };
        let parameters = Parameters {
            grant_role: group.to_owned(),
            connection_limit: 10,
            statement_timeout: None,
        };
        let scopes = BTreeMap::from([("readonly".to_owned(), parameters)]);
        let problems = problems(&Config { settings, scopes });
        let found: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{heir:?} {group}");
    }

    #[test]
    fn refuses_roles_that_reach_beyond_the_data() {
        check(None, "orders_readonly", &[]);
        check(Some("orders_owner"), "pg_read_all_data", &[]);
        check(None, "pg_execute_server_program", &["/scopes/readonly/grant_role"]);
        check(None, "pg_signal_backend", &["/scopes/readonly/grant_role"]);
        check(None, "clav_0123", &["/scopes/readonly/grant_role"]);
        check(Some("pg_read_all_data"), "orders_readonly", &["/settings/reassign_owned_to"]);
        check(Some("clav_0123"), "orders_readonly", &["/settings/reassign_owned_to"]);
    }
}
