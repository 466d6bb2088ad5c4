//! Reads a configuration and says where in the file something is wrong.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger_core::flow::issue::START_WITHIN_MAX;
use claviger_core::session::SESSION_LIFE_MAX;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::Config;

/// A configuration with the text that it came from.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    /// What was appended to the text of the file itself.
    appended: String,
    config: Config,
}

impl ConfigFile {
    /// Reads and parses the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            path: path.display().to_string(),
            line: 0,
            problem: error.to_string(),
        })?;
        Self::parse(path, text)
    }

    /// Reads the same file again, completed as it was.
    pub fn read_again(&self) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(&self.path).map_err(|error| ConfigError {
            path: self.path.display().to_string(),
            line: 0,
            problem: error.to_string(),
        })?;
        Self::parse_completed(&self.path, read, &self.appended)
    }

    /// The sections, but for `except`, that `other` has otherwise. Both parsed before, so their
    /// text is a table.
    pub fn sections_changed(&self, other: &Self, except: &[&str]) -> Vec<String> {
        let table = |file: &Self| file.text.parse::<toml::Table>().unwrap_or_default();
        let (mine, theirs) = (table(self), table(other));
        let names: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        let changed = |name: &&&String| {
            !except.contains(&name.as_str()) && mine.get(**name) != theirs.get(**name)
        };
        names.iter().filter(changed).map(|name| (*name).clone()).collect()
    }

    /// Parses `text`; `path` stands in messages, and relative paths start in its folder.
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        Self::parse_completed(path, text, "")
    }

    /// Parses `text` with `appended` at its end, so that the lines of its own part stay where
    /// they are.
    pub fn parse_completed(
        path: &Path,
        mut text: String,
        appended: &str,
    ) -> Result<Self, ConfigError> {
        text.push_str(appended);
        let config = toml::from_str(&text).map_err(|error| ConfigError {
            path: path.display().to_string(),
            line: error.span().map_or(0, |span| line_at(&text, span.start)),
            problem: error.message().to_owned(),
        })?;
        let (path, appended) = (path.to_owned(), appended.to_owned());
        let file = Self { path, text, appended, config };
        file.bounds()?;
        Ok(file)
    }

    /// What the types cannot say: spans that would end everything at once, or nothing in time.
    fn bounds(&self) -> Result<(), ConfigError> {
        let grace = self.config.sessions.heartbeat_grace.0;
        if grace < HEARTBEAT_GRACE_MIN || grace > SESSION_LIFE_MAX {
            let problem = "write a span between `1s` and `12h`";
            return Err(self.problem(&["sessions", "heartbeat_grace"], problem));
        }
        let timeout = self.config.journal.intent_timeout.0;
        if timeout < INTENT_TIMEOUT_MIN || timeout > SESSION_LIFE_MAX {
            let problem = "write a span between `16s` and `12h`";
            return Err(self.problem(&["journal", "intent_timeout"], problem));
        }
        if self.config.journal.previous_sealing_keys.len() > PREVIOUS_SEALING_KEYS_MAX {
            let problem = "write at most 8: those that the journal can no longer be under go";
            return Err(self.problem(&["journal", "previous_sealing_keys"], problem));
        }
        if self.config.sessions.live_max == 0 {
            return Err(self.problem(&["sessions", "live_max"], "write at least 1"));
        }
        Ok(())
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The SHA-256 of its text in hex, for the journal.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.text.as_bytes()))
    }

    /// Every text in it, with the key that it stands under.
    pub fn texts(&self) -> Vec<(String, String)> {
        // Parsed before, so it is a table.
        let table: toml::Table = self.text.parse().unwrap_or_default();
        let mut texts = Vec::new();
        let mut open: Vec<(String, toml::Value)> = table.into_iter().collect();
        while let Some((key, value)) = open.pop() {
            match value {
                toml::Value::String(text) => texts.push((key, text)),
                toml::Value::Array(values) => {
                    open.extend(values.into_iter().map(|value| (key.clone(), value)));
                }
                toml::Value::Table(inner) => open.extend(inner),
                _ => {}
            }
        }
        texts
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder where relative paths start.
    pub fn base(&self) -> &Path {
        self.path.parent().unwrap_or_else(|| Path::new("."))
    }

    /// A problem with what stands at `keys`, such as `["backends", "orders-db", "plugin"]`; the
    /// line is that of the last key that exists.
    pub fn problem(&self, keys: &[&str], problem: impl Display) -> ConfigError {
        ConfigError {
            path: self.path.display().to_string(),
            line: self.line_of(keys),
            problem: format!("`{}`: {problem}", keys.join(".")),
        }
    }

    fn line_of(&self, keys: &[&str]) -> usize {
        let Ok(document) = DeTable::parse(&self.text) else { return 0 };
        let mut line = 0;
        let mut table = Some(document.get_ref());
        for key in keys {
            let Some((found, value)) =
                table.and_then(|t| t.iter().find(|(name, _)| name.get_ref() == key))
            else {
                break;
            };
            line = line_at(&self.text, found.span().start);
            table = match value.get_ref() {
                DeValue::Table(inner) => Some(inner),
                _ => None,
            };
        }
        line
    }
}

/// Something wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}{}: {problem}", if *line > 0 { format!(":{line}") } else { String::new() })]
pub struct ConfigError {
    path: String,
    line: usize,
    problem: String,
}

/// Each is tried at the start. One is usual, two are a rotation that was begun anew.
const PREVIOUS_SEALING_KEYS_MAX: usize = 8;

/// A session must survive the pause between two calls of its agent.
const HEARTBEAT_GRACE_MIN: Duration = Duration::from_secs(1);

/// INVARIANT (late-answer): a call may start up to `START_WITHIN_MAX` after its record and then
/// takes its own five seconds; an intent that times out sooner could be revoked before it mints.
const INTENT_TIMEOUT_MIN: Duration = Duration::from_secs(START_WITHIN_MAX.as_secs() + 6);

fn line_at(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    const GOOD: &str = r#"
[listen]
socket = "agent.sock"
admin_socket = "admin.sock"

[journal]
path = "journal.db"
sealing_key = "file:key"

[policies]
path = "policies"

[prompts]
path = "prompts"

[plugins.postgres]
path = "postgres.wasm"

[backends.orders-db]
plugin = "postgres"
[backends.orders-db.connections.admin]
address = "postgres://localhost/orders"
auth = { password = { user = "claviger", password = "env:PG" } }
[backends.orders-db.scopes.readonly]
authorization = "orders.read"
max_ttl = "30m"
grant_role = "orders_readonly"
"#;

    fn error_of(text: &str) -> String {
        ConfigFile::parse(Path::new("c.toml"), text.to_owned()).expect_err("refused").to_string()
    }

    #[test]
    fn keeps_the_plugin_parameters_of_a_scope() {
        let file = ConfigFile::parse(Path::new("c.toml"), GOOD.to_owned()).expect("parsed");
        let backend = file.config().backends.values().next().expect("one backend");
        let scope = backend.scopes.get("readonly").expect("the scope");
        assert_eq!(scope.parameters.get("grant_role"), Some(&"orders_readonly".into()));
        assert_eq!(scope.max_ttl.0.as_secs(), 1800);
    }

    #[test]
    fn says_in_which_line_and_what_to_write() {
        let cases = [
            ("socket = \"agent.sock\"", "sockett = \"agent.sock\"", "c.toml:3", "sockett"),
            ("max_ttl = \"30m\"", "max_ttl = \"30 fortnights\"", "c.toml:", "`\"30s\"`"),
            ("\"file:key\"", "\"hunter2\"", "c.toml:8", "`file:/path`"),
            ("\"file:key\"", "\"file:key\"\nintent_timeout = \"2s\"", "c.toml:9", "`16s`"),
            ("[prompts]", "[sessions]\nheartbeat_grace = \"0s\"\n[prompts]", "c.toml:14", "`1s`"),
            ("plugin = \"postgres\"", "plugin = \"Post gres\"", "c.toml:20", "lower-case"),
        ];
        for (good, bad, place, hint) in cases {
            let error = error_of(&GOOD.replacen(good, bad, 1));
            assert!(error.starts_with(place) && error.contains(hint), "{bad}: {error}");
        }
    }

    #[test]
    fn tells_which_sections_changed() {
        let file =
            |text: &str| ConfigFile::parse(Path::new("c.toml"), text.to_owned()).expect(text);
        let changed = GOOD
            .replace("30m", "20m")
            .replace("[prompts]", "[sessions]\nlive_max = 5\n[prompts]")
            .replace("max_ttl", "  max_ttl");
        let found = file(GOOD).sections_changed(&file(&changed), &["backends"]);
        assert_eq!(found, ["sessions"]);
        assert_eq!(file(&changed).sections_changed(&file(GOOD), &[]), ["backends", "sessions"]);
        assert!(file(GOOD).sections_changed(&file(GOOD), &[]).is_empty());
    }

    #[test]
    fn finds_the_line_of_a_key_path() {
        let file = ConfigFile::parse(Path::new("c.toml"), GOOD.to_owned()).expect("parsed");
        let keys = ["backends", "orders-db", "scopes", "readonly", "grant_role"];
        assert!(
            file.problem(&keys, "no").to_string().starts_with("c.toml:27: `backends.orders-db")
        );
        let missing = file.problem(&["backends", "orders-db", "nothing"], "no").to_string();
        assert!(missing.starts_with("c.toml:19:"), "{missing}");
    }
}
