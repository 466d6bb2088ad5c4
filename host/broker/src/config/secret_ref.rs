//! References to secrets: `file:`, `env:`, `credential:` (systemd), `store:` (the journal). The
//! secret itself never stands in the configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use claviger_core::name::SecretName;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use zeroize::Zeroizing;

/// Where a secret is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretRef {
    /// A file; one trailing newline is dropped.
    File(PathBuf),
    /// An environment variable of the broker.
    Env(String),
    /// A systemd credential, `$CREDENTIALS_DIRECTORY/<name>`.
    Credential(String),
    /// A secret that the broker keeps sealed in its journal.
    Store(SecretName),
}

impl SecretRef {
    /// Reads the secret. Relative file paths start at `base`. A secret of the store is not read
    /// here, since what is read before the journal is open cannot lie in it: see
    /// [`WithStored`](super::WithStored).
    pub fn read(&self, base: &Path) -> Result<Zeroizing<String>, SecretRefError> {
        match self {
            Self::File(path) => read_file(self, &base.join(path)),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(Zeroizing::new(value)),
                _ => Err(self.error("the variable is not set".into())),
            },
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                    self.error("the service was not started by systemd with LoadCredential=".into())
                })?;
                read_file(self, &Path::new(&folder).join(name))
            }
            Self::Store(_) => Err(self.error(
                "the store is open to connections of backends only: write `file:/path`, \
                 `env:NAME` or `credential:name` here"
                    .into(),
            )),
        }
    }

    pub(super) fn error(&self, problem: String) -> SecretRefError {
        SecretRefError { reference: self.to_string(), problem }
    }
}

fn read_file(reference: &SecretRef, path: &Path) -> Result<Zeroizing<String>, SecretRefError> {
    let fail = |problem: String| reference.error(problem);
    let length = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(fail(format!("{length} bytes is too long for a secret")));
    }
    let mut text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?);
    let trimmed = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(trimmed);
    if text.is_empty() {
        return Err(fail("it is empty".into()));
    }
    Ok(text)
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::Store(name) => write!(f, "store:{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("credential", name)) if !name.is_empty() && !name.contains('/') => {
                Ok(Self::Credential(name.to_owned()))
            }
            // A name that does not parse is not repeated either: it may be the secret.
            Some(("store", name)) => name.parse().map(Self::Store).map_err(|_| {
                serde::de::Error::custom(
                    "not a name of the store: write `store:` and 1 to 64 lower-case letters, \
                     digits or `._-/`, as in `store:aws/prod-key`",
                )
            }),
            // The text may be the secret itself, so it is not repeated.
            _ => Err(serde::de::Error::custom(
                "not a reference to a secret: write `file:/path`, `env:NAME`, \
                 `credential:name` or `store:name`, and keep the secret itself out of the configuration",
            )),
        }
    }
}

/// A secret that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("secret `{reference}`: {problem}")]
pub struct SecretRefError {
    reference: String,
    problem: String,
}

/// A PEM key chain fits; a mistaken path to a large file does not fill memory.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn reads_a_file_without_its_newline() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("s"), "hunter2\n").expect("written");
        let secret = SecretRef::File("s".into()).read(folder.path()).expect("read");
        assert_eq!(secret.as_str(), "hunter2");
    }

    #[test]
    fn refuses_a_literal_without_repeating_it() {
        let error = serde_json::from_str::<SecretRef>("\"hunter2\"").expect_err("refused");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_name_of_the_store_is_parsed_and_what_is_none_is_not_repeated() {
        let parse = |text: &str| serde_json::from_str::<SecretRef>(&format!("\"{text}\""));
        let parsed = parse("store:aws/prod-key").expect("a name");
        assert_eq!(parsed.to_string(), "store:aws/prod-key");
        for text in ["store:", "store:Hunter2", "store:a b", "store:/a"] {
            let error = parse(text).expect_err("refused").to_string();
            assert!(error.contains("store:aws/prod-key") && !error.contains("unter2"), "{error}");
        }
        let error = parsed.read(Path::new("/")).expect_err("refused").to_string();
        assert!(error.contains("connections of backends only"), "{error}");
    }

    #[test]
    fn names_the_reference_that_fails() {
        let here = Path::new("/");
        for (reference, name) in [
            (SecretRef::File("no/such/file".into()), "file:no/such/file"),
            (SecretRef::Env("CLAVIGER_NO_SUCH_VARIABLE".into()), "env:CLAVIGER_NO_SUCH_VARIABLE"),
        ] {
            let error = reference.read(here).expect_err("refused").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
