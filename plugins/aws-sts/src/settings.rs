//! The operator's settings and parameters, and what no JSON schema can say about them. Their
//! documentation stands in `manifest.json`, where operators and the host read it.

use claviger_plugin_sdk::{Config, Problem};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::policy;

/// One backend's settings.
#[derive(Debug, Deserialize)]
pub struct Settings {
    /// Who asks for the role.
    #[serde(default)]
    pub identity: Identity,
}

/// Who asks for the role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The IAM user or role of the connection's key, which signs the request.
    #[default]
    AccessKey,
    /// The broker, with a token that it signs itself.
    WebIdentity,
}

/// One scope's parameters.
#[derive(Debug, Deserialize)]
pub struct Parameters {
    /// The role.
    pub role_arn: String,
    /// What clients use as their region.
    pub region: String,
    /// The session policy.
    pub policy: Option<Map<String, Value>>,
    /// Managed policies that limit the session.
    #[serde(default)]
    pub policy_arns: Vec<String>,
    /// What somebody else's trust policy demands.
    pub external_id: Option<String>,
}

impl Identity {
    /// The operation of STS.
    pub const fn operation(self) -> &'static str {
        match self {
            Self::AccessKey => "AssumeRole",
            Self::WebIdentity => "AssumeRoleWithWebIdentity",
        }
    }
}

/// Finds what STS would refuse later.
pub fn problems(config: &Config<Settings, Parameters>) -> Vec<Problem> {
    let identity = config.settings.identity;
    config.scopes.iter().flat_map(|(scope, found)| problems_in(identity, scope, found)).collect()
}

fn problems_in(identity: Identity, scope: &str, parameters: &Parameters) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(Err(problem)) = parameters.policy.as_ref().map(policy::compile) {
        problems.push(Problem::in_parameter(scope, "policy", problem));
    }
    if identity == Identity::WebIdentity && parameters.external_id.is_some() {
        let problem = "goes with `identity = \"access-key\"` only: set that, or leave this out";
        problems.push(Problem::in_parameter(scope, "external_id", problem));
    }
    problems
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn check(settings: &str, parameters: &str, pointers: &[&str]) {
        let scopes = [("reports".to_owned(), serde_json::from_str(parameters).unwrap())];
        let settings = serde_json::from_str(settings).unwrap();
        let problems = problems(&Config { settings, scopes: scopes.into() });
        let found: Vec<_> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(found, pointers, "{parameters}");
    }

    #[test]
    fn finds_what_sts_would_refuse() {
        let with = |more: &str| format!(r#"{{"role_arn":"a","region":"r"{more}}}"#);
        let external = with(r#","external_id":"x1""#);
        check("{}", &with(""), &[]);
        check("{}", &external, &[]);
        check(r#"{"identity":"web-identity"}"#, &with(""), &[]);
        check(r#"{"identity":"web-identity"}"#, &external, &["/scopes/reports/external_id"]);
        check("{}", &with(r#","policy":{}"#), &["/scopes/reports/policy"]);
        check("{}", &with(r#","policy":{"Statement":[]}"#), &[]);
    }
}
