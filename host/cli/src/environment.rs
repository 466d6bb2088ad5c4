//! The environment of a child: what it must not inherit, and what a lease gives it. Starts nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use zeroize::Zeroizing;

use crate::client;
use crate::exit::Failure;
use crate::view::CredentialView;

/// Changes to the environment that a child inherits.
#[derive(Default)]
pub struct Environment {
    removed: Vec<OsString>,
    plain: Vec<(&'static str, OsString)>,
    granted: BTreeMap<String, Granted>,
}

struct Granted {
    scope: String,
    value: Zeroizing<String>,
}

impl Environment {
    /// Takes every known credential out of what `inherited` names, but for `kept`, and blocks the
    /// files that clients would read instead.
    pub fn scrubbed(inherited: impl Iterator<Item = OsString>, kept: &[String]) -> Self {
        let is_kept = |name: &OsStr| kept.iter().any(|kept| name == OsStr::new(kept));
        let removed = inherited.filter(|name| is_credential(name) && !is_kept(name)).collect();
        let plain = SHADOWED
            .iter()
            .filter(|(name, _)| !is_kept(OsStr::new(name)))
            .map(|(name, value)| (*name, OsString::from(value)))
            .collect();
        Self { removed, plain, granted: BTreeMap::new() }
    }

    /// Adds variables that hold no credential of a backend.
    pub fn add(&mut self, variables: impl IntoIterator<Item = (&'static str, OsString)>) {
        self.plain.extend(variables);
    }

    /// Adds the variables of a credential. Two scopes that set one variable to different values
    /// are refused: one of them would silently not work.
    pub fn grant(&mut self, scope: &str, credential: &CredentialView) -> Result<(), Failure> {
        for (name, value) in variables(credential)? {
            match self.granted.get(name) {
                Some(other) if other.value.as_str() != value => {
                    return Err(Failure::usage(format!(
                        "scopes `{}` and `{scope}` both set {name}: grant one of them, and run `claviger issue SCOPE -- COMMAND` where the other is needed",
                        other.scope
                    )));
                }
                _ => {
                    let value = Zeroizing::new(value.to_owned());
                    self.granted
                        .insert(name.to_owned(), Granted { scope: scope.to_owned(), value });
                }
            }
        }
        Ok(())
    }

    /// Applies the changes to a command that is about to start.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        for name in &self.removed {
            command.env_remove(name);
        }
        for (name, value) in &self.plain {
            command.env(name, value);
        }
        for (name, granted) in &self.granted {
            command.env(name, granted.value.as_str());
        }
    }
}

/// The variables that a credential sets: its fields that name one.
pub fn variables(credential: &CredentialView) -> Result<Vec<(&str, &str)>, Failure> {
    let with_name = credential.fields.iter().filter(|field| !field.env.is_empty());
    with_name.map(|field| Ok((allowed_name(&field.env)?, field.value.as_str()))).collect()
}

/// The variables that lead a child to the broker and into its session.
pub fn of_session(
    target: &client::Target,
    session_id: &str,
    token: &client::SessionToken,
) -> Vec<(&'static str, OsString)> {
    let mut variables = target.variables();
    variables.push(("CLAVIGER_SESSION_ID", session_id.into()));
    variables.push((client::SESSION_TOKEN, token.expose().as_str().into()));
    variables
}

/// One `NAME=value` line that a shell reads back as written.
pub fn assignment(name: &str, value: &str) -> Zeroizing<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return Zeroizing::new(format!("{name}={value}\n"));
    }
    let quoted = Zeroizing::new(value.replace('\'', r"'\''"));
    Zeroizing::new(format!("{name}='{}'\n", quoted.as_str()))
}

/// The name comes from a plugin, and its author may not decide which code the agent's programs
/// load, nor what a shell evaluates.
fn allowed_name(name: &str) -> Result<&str, Failure> {
    let is_inner = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_name = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(is_inner);
    let is_taken = FORBIDDEN.contains(&name)
        || FORBIDDEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_name && !is_taken {
        return Ok(name);
    }
    Err(Failure::other(format!(
        "the credential wants to set the variable `{name}`, which is not for a credential: tell the platform team"
    )))
}

fn is_credential(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    SCRUBBED.contains(&name) || SCRUBBED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Credentials, and what points clients to credentials, that a child of `claviger run` must not
/// inherit from whoever started it. Keys of model providers (`ANTHROPIC_API_KEY` and the like)
/// are not here: the agent itself cannot run without them. `--keep NAME` spares one.
pub const SCRUBBED: [&str; 63] = [
    // AWS: a profile or a static key would win over everything else.
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    // Google Cloud.
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CREDENTIALS",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE",
    // Azure.
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USERNAME",
    "AZURE_PASSWORD",
    "ARM_CLIENT_SECRET",
    "ARM_ACCESS_KEY",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IMDS_ENDPOINT",
    // PostgreSQL: PGHOSTADDR and PGSERVICE would also send a minted password elsewhere.
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSSLKEY",
    "DATABASE_URL",
    // Other databases.
    "MYSQL_PWD",
    "REDISCLI_AUTH",
    "REDIS_URL",
    "MONGODB_URI",
    // Code hosts, registries, CI.
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "GH_ENTERPRISE_TOKEN",
    "GITLAB_TOKEN",
    "CI_JOB_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_RUNTIME_TOKEN",
    "NPM_TOKEN",
    "CARGO_REGISTRY_TOKEN",
    "TWINE_PASSWORD",
    "DOCKER_AUTH_CONFIG",
    // Services.
    "STRIPE_API_KEY",
    "STRIPE_SECRET_KEY",
    "SLACK_TOKEN",
    "SLACK_BOT_TOKEN",
    // Other vaults and clusters: keys to more keys.
    "VAULT_TOKEN",
    "BAO_TOKEN",
    "OP_SERVICE_ACCOUNT_TOKEN",
    "DOPPLER_TOKEN",
    "KUBECONFIG",
    // Other people's logins.
    "SSH_AUTH_SOCK",
];

/// The same, for families of names. Claviger's own go too: the child is told afresh how to reach
/// the broker, and neither an outer session nor the operators' socket is its business.
const SCRUBBED_PREFIXES: [&str; 2] = ["AWS_BEARER_TOKEN_", "CLAVIGER_"];

/// Files that clients read without being told, blocked by a path that holds nothing.
const SHADOWED: [(&str, &str); 5] = [
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    // libpq warns about /dev/null ("not a plain file") and is silent about what does not exist.
    ("PGPASSFILE", "/dev/null/none"),
    ("PGSERVICEFILE", "/dev/null/none"),
];

/// Variables that decide which code a program runs, or where it finds the broker.
const FORBIDDEN: [&str; 11] = [
    "PATH",
    "HOME",
    "SHELL",
    "IFS",
    "ENV",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "EDITOR",
    "PAGER",
    "CLASSPATH",
    "JAVA_TOOL_OPTIONS",
];

/// The same, for families of names.
const FORBIDDEN_PREFIXES: [&str; 9] =
    ["LD_", "DYLD_", "PYTHON", "NODE_", "RUBY", "PERL", "GIT_", "BASH_FUNC", CLAVIGER_PREFIX];

const CLAVIGER_PREFIX: &str = "CLAVIGER_";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;
    use crate::view::FieldView;

    fn credential(env: &str, value: &str) -> CredentialView {
        let value = Zeroizing::new(value.to_owned());
        let field = FieldView { name: "f".to_owned(), value, secret: true, env: env.to_owned() };
        CredentialView { kind: "k".to_owned(), expires_at: String::new(), fields: vec![field] }
    }

    #[test]
    fn inherited_credentials_go_and_the_rest_stays() {
        let inherited = ["AWS_SECRET_ACCESS_KEY", "AWS_BEARER_TOKEN_BEDROCK", "GH_TOKEN", "PATH"]
            .into_iter()
            .chain(["CLAVIGER_ADMIN_SOCKET", "ANTHROPIC_API_KEY", "AWS_REGION", "PGPASSWORD"]);
        let kept = ["GH_TOKEN".to_owned()];
        let environment = Environment::scrubbed(inherited.map(OsString::from), &kept);
        let expect = [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_BEARER_TOKEN_BEDROCK",
            "CLAVIGER_ADMIN_SOCKET",
            "PGPASSWORD",
        ];
        assert_eq!(environment.removed, expect);
    }

    #[test]
    fn a_kept_variable_is_not_shadowed_either() {
        let kept = ["PGPASSFILE".to_owned()];
        let environment = Environment::scrubbed(std::iter::empty(), &kept);
        assert_eq!(environment.plain.len(), SHADOWED.len() - 1);
        assert!(environment.plain.iter().all(|(name, _)| *name != "PGPASSFILE"));
    }

    #[test]
    fn a_plugin_cannot_choose_the_code_that_the_agent_runs() {
        for (name, is_allowed) in [
            ("PGPASSWORD", true),
            ("AWS_SESSION_TOKEN", true),
            ("LD_PRELOAD", false),
            ("PATH", false),
            ("CLAVIGER_SOCKET", false),
            ("PG$(id)", false),
            ("A;id", false),
            ("A B", false),
            ("pgpassword", false),
            ("_A", false),
        ] {
            assert_eq!(variables(&credential(name, "v")).is_ok(), is_allowed, "{name}");
        }
        assert_eq!(variables(&credential("", "v")).unwrap(), []);
    }

    #[test]
    fn two_scopes_cannot_fight_over_a_variable() {
        let mut environment = Environment::default();
        environment.grant("a/x", &credential("PGHOST", "db")).unwrap();
        environment.grant("b/y", &credential("PGHOST", "db")).unwrap();
        let failure = environment.grant("c/z", &credential("PGHOST", "other")).unwrap_err();
        assert!(failure.sentence.contains("`b/y` and `c/z` both set PGHOST"));
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        for value in ["plain-1.2", "", "it's", "a b\"c$d`e\\", "new\nline", "$(touch /tmp/x)"] {
            let script = format!("{}printf %s \"$X\"", assignment("X", value).as_str());
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{script}");
        }
    }
}
