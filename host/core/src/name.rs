//! Names of roles, backends, scopes, authorizations: parsed once, then trusted.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

macro_rules! name {
    ($name:ident, $what:literal, $allowed:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                parse($what, $allowed, text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    RoleName,
    "role",
    Allowed { also: "._-", space: true, upper: true },
    "The name of an agent role, as its prompt file states it. Inner single spaces are allowed, \
     because agent files found in the wild have them."
);
name!(
    Authorization,
    "authorization",
    LOWER_DOTTED,
    "An abstract capability, such as `orders.read`."
);
name!(
    BackendName,
    "backend",
    LOWER_DOTTED,
    "A configured instance of a plugin, such as `orders-db`."
);
name!(PluginName, "plugin", LOWER_DOTTED, "A plugin as the configuration names it.");
name!(ConnectionName, "connection", LOWER_DOTTED, "A named route from a plugin to the outside.");
name!(TeamName, "team", LOWER_DOTTED, "A team of requesters and roles.");
name!(IssuerName, "issuer", LOWER_DOTTED, "An issuer of tokens as the configuration names it.");
name!(
    SecretName,
    "secret",
    Allowed { also: "._-/", space: false, upper: false },
    "A secret that the broker keeps, as `store:` names it."
);
name!(
    IdempotencyKey,
    "idempotency key",
    Allowed { also: "._-:/+=", space: false, upper: true },
    "Chosen by the client; at most one credential is minted for one key in one session."
);

/// A scope, written `backend/scope`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName {
    backend: BackendName,
    text: String,
}

impl ScopeName {
    /// The scope called `scope` on `backend`.
    pub fn new(backend: &BackendName, scope: &str) -> Result<Self, NameError> {
        let scope = parse("scope", LOWER_DOTTED, scope)?;
        Ok(Self { backend: backend.clone(), text: format!("{backend}/{scope}") })
    }

    /// The backend that the scope is on.
    pub const fn backend(&self) -> &BackendName {
        &self.backend
    }

    /// `backend/scope`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ScopeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (backend, scope) = text.split_once('/').ok_or_else(|| NameError {
            what: "scope",
            text: clip(text),
            allowed: "a backend, a slash and a scope, as in `orders-db/readonly`".into(),
        })?;
        Self::new(&backend.parse()?, scope)
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for ScopeName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ScopeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Text that is not a name of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a valid {what} name: it takes {allowed}")]
pub struct NameError {
    what: &'static str,
    text: String,
    allowed: String,
}

#[derive(Clone, Copy)]
struct Allowed {
    also: &'static str,
    space: bool,
    upper: bool,
}

const LOWER_DOTTED: Allowed = Allowed { also: "._-", space: false, upper: false };

/// Long enough for every name seen in practice, short enough for every log line, label and
/// Cedar entity id.
const NAME_CHARS_MAX: usize = 64;

fn parse(what: &'static str, allowed: Allowed, text: &str) -> Result<String, NameError> {
    let letter = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || (allowed.upper && c.is_ascii_uppercase())
    };
    let inner = |c: char| letter(c) || allowed.also.contains(c) || (allowed.space && c == ' ');
    let edges = text.chars().next().is_some_and(letter) && !text.ends_with(' ');
    if text.len() <= NAME_CHARS_MAX && edges && text.chars().all(inner) && !text.contains("  ") {
        return Ok(text.to_owned());
    }
    Err(NameError { what, text: clip(text), allowed: allowed.sentence() })
}

impl Allowed {
    fn sentence(self) -> String {
        let letters = if self.upper { "letters" } else { "lower-case letters" };
        let spaces = if self.space { " and single inner spaces" } else { "" };
        format!(
            "1 to {NAME_CHARS_MAX} characters, {letters}, digits, `{}`{spaces}, starting with a letter or digit",
            self.also
        )
    }
}

/// Control characters are escaped, so that a name can forge no second line of an error.
fn clip(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_debug().collect() } else { c.to_string() };
    text.chars().take(NAME_CHARS_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_as_people_write_them() {
        for text in ["support-triage", "Code Reviewer", "a", "v1.2_x"] {
            assert!(text.parse::<RoleName>().is_ok(), "{text}");
        }
        assert!("orders-db/readonly".parse::<ScopeName>().is_ok());
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        let long = "x".repeat(65);
        for text in ["", " a", "a ", "a  b", "-a", "a\nb", "a\"b", "ä", long.as_str()] {
            assert!(text.parse::<RoleName>().is_err(), "{text:?}");
        }
        for text in ["orders", "/x", "a/", "a/b/c", "A/b"] {
            assert!(text.parse::<ScopeName>().is_err(), "{text:?}");
        }
    }
}
