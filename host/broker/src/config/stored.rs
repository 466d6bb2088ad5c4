//! Where a configuration refers to secrets that the broker keeps, and the values read for it. Reads
//! no journal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use claviger_core::name::{ConnectionName, SecretName};
use zeroize::Zeroizing;

use super::{AuthConfig, BackendConfig, ConfigFile, ConnectionConfig, SecretRef, SecretRefError};
use crate::journal::{RootSecrets, SecretValues};

/// What is known of the secrets that the broker keeps.
pub enum Stored {
    /// The values of those that are kept. What is not among them is not kept.
    Values(SecretValues),
    /// Nothing: the journal is not open. Any name may be kept, and stand-ins take the place of the
    /// values, for `clavigerd check`.
    Unknown,
}

/// A configuration with what is known of the secrets that it refers to.
#[derive(Clone, Copy)]
pub struct WithStored<'a> {
    file: &'a ConfigFile,
    stored: &'a Stored,
}

impl<'a> WithStored<'a> {
    /// `file`, with `stored` for its `store:` references.
    pub const fn new(file: &'a ConfigFile, stored: &'a Stored) -> Self {
        Self { file, stored }
    }

    /// The secret of a connection.
    pub fn secret(&self, reference: &SecretRef) -> Result<Zeroizing<String>, SecretRefError> {
        let SecretRef::Store(name) = reference else { return reference.read(self.file.base()) };
        match self.stored {
            Stored::Unknown => Ok(Zeroizing::new(STAND_IN.to_owned())),
            Stored::Values(values) => match values.get(name) {
                Some(kept) => Ok(kept.current.clone()),
                None => Err(reference.error(format!(
                    "the broker keeps none of this name: put it with `claviger secret put {name}` \
                     or, before the first start, `clavigerd secret put {name}`"
                ))),
            },
        }
    }

    /// The secret that is taking the place of this one, if a rotation has begun.
    pub fn next_secret(&self, reference: &SecretRef) -> Option<Zeroizing<String>> {
        match (reference, self.stored) {
            (SecretRef::Store(name), Stored::Values(values)) => values.get(name)?.pending.clone(),
            _ => None,
        }
    }

    /// Whether the secrets of `backend` are only stand-ins of which one must have a form of its
    /// own: then its connections cannot be made.
    pub fn is_uncheckable(&self, backend: &BackendConfig) -> bool {
        let of_form = |connection: &ConnectionConfig| match &connection.auth {
            Some(AuthConfig::GoogleServiceAccount { key, .. } | AuthConfig::Mtls { key, .. }) => {
                matches!(key, SecretRef::Store(_))
            }
            _ => false,
        };
        matches!(self.stored, Stored::Unknown) && backend.connections.values().any(of_form)
    }
}

impl Deref for WithStored<'_> {
    type Target = ConfigFile;

    fn deref(&self) -> &ConfigFile {
        self.file
    }
}

impl ConfigFile {
    /// The secrets of the store that the configuration refers to, each with the places where it
    /// does, such as `backends.orders-db.connections.admin.auth`.
    pub fn stored_secrets(&self) -> BTreeMap<SecretName, Vec<String>> {
        let mut places: BTreeMap<SecretName, Vec<String>> = BTreeMap::new();
        for (backend, config) in &self.config().backends {
            for (connection, bound) in &config.connections {
                for name in bound.stored_secrets() {
                    places.entry(name).or_default().push(place(backend.as_str(), connection));
                }
            }
        }
        places
    }
}

impl ConnectionConfig {
    /// The secrets of the store that this connection refers to, each once.
    pub fn stored_secrets(&self) -> BTreeSet<SecretName> {
        let references = self.auth.as_ref().map(AuthConfig::secrets).unwrap_or_default();
        let stored = |reference: &SecretRef| match reference {
            SecretRef::Store(name) => Some(name.clone()),
            SecretRef::File(_) | SecretRef::Env(_) | SecretRef::Credential(_) => None,
        };
        references.into_iter().filter_map(stored).collect()
    }

    /// What this connection authenticates with, if it is a root credential that the broker can
    /// replace: a password in its keeping, or an access key with which AWS STS can be asked.
    pub fn rotating(&self) -> Option<RootSecrets> {
        match &self.auth {
            Some(AuthConfig::Password { password: SecretRef::Store(name), .. }) => {
                Some(RootSecrets::Password(name.clone()))
            }
            Some(AuthConfig::Sigv4 { service, .. }) if service == "sts" => self.access_key(),
            _ => None,
        }
    }

    /// The lasting access key in the broker's keeping with which it signs, for whichever service.
    pub fn access_key(&self) -> Option<RootSecrets> {
        let Some(AuthConfig::Sigv4 {
            access_key_id: SecretRef::Store(id),
            secret_access_key: SecretRef::Store(key),
            session_token: None,
            ..
        }) = &self.auth
        else {
            return None;
        };
        (id != key).then(|| RootSecrets::Key { id: id.clone(), key: key.clone() })
    }
}

impl AuthConfig {
    /// Every reference to a secret.
    fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::None {} | Self::TokenExchange { .. } | Self::WebIdentity { .. } => Vec::new(),
            Self::Password { password, .. } | Self::Basic { password, .. } => vec![password],
            Self::Bearer { token } => vec![token],
            Self::Header { value, .. } => vec![value],
            Self::Sigv4 { access_key_id, secret_access_key, session_token, .. } => {
                let fixed = [access_key_id, secret_access_key];
                fixed.into_iter().chain(session_token).collect()
            }
            Self::OAuth2ClientCredentials { client_secret, .. } => vec![client_secret],
            Self::GoogleServiceAccount { key, .. } | Self::Mtls { key, .. } => vec![key],
        }
    }
}

fn place(backend: &str, connection: &ConnectionName) -> String {
    format!("backends.{backend}.connections.{connection}.auth")
}

/// Takes every place where a secret of any form may stand.
const STAND_IN: &str = "a-secret-that-the-broker-keeps";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::path::Path;

    use super::*;
    use crate::journal::SecretValue;

    const CONFIG: &str = r#"
[listen]
socket = "a"
admin_socket = "b"
[journal]
path = "j"
sealing_key = "file:key"
[policies]
path = "p"
[prompts]
path = "p"
[backends.b]
plugin = "p"
[backends.b.connections.db]
address = "postgres://localhost/db?sslmode=disable"
auth = { password = { user = "u", password = "store:db" } }
[backends.b.connections.aws]
address = "https://sts.amazonaws.com"
auth = { sigv4 = { access_key_id = "store:aws/id", secret_access_key = "store:db", region = "r", service = "s" } }
[backends.c]
plugin = "p"
[backends.c.connections.api]
address = "https://api.internal"
auth = { google-service-account = { key = "store:gcp", scopes = [] } }
"#;

    fn file() -> ConfigFile {
        ConfigFile::parse(Path::new("c.toml"), CONFIG.to_owned()).unwrap()
    }

    #[test]
    fn finds_every_place_that_refers_to_the_store() {
        let found = file().stored_secrets();
        let places: Vec<_> =
            found.iter().map(|(name, places)| (name.as_str(), places.join(" "))).collect();
        let (aws, db) = ("backends.b.connections.aws.auth", "backends.b.connections.db.auth");
        assert_eq!(
            places,
            [
                ("aws/id", aws.to_owned()),
                ("db", format!("{aws} {db}")),
                ("gcp", "backends.c.connections.api.auth".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_kept_is_read_what_is_not_is_refused_and_what_is_unknown_stood_in_for() {
        let file = file();
        let reference = SecretRef::Store("db".parse().unwrap());
        let current = Zeroizing::new("hunter2".to_owned());
        let value = SecretValue { current, pending: None };
        let kept = Stored::Values([("db".parse().unwrap(), value)].into());
        let secret = WithStored::new(&file, &kept).secret(&reference).unwrap();
        assert_eq!(secret.as_str(), "hunter2");
        let none = Stored::Values(SecretValues::new());
        let error = WithStored::new(&file, &none).secret(&reference).unwrap_err().to_string();
        assert!(
            error.contains("`store:db`") && error.contains("claviger secret put db"),
            "{error}"
        );
        let unknown = WithStored::new(&file, &Stored::Unknown);
        assert!(unknown.secret(&reference).is_ok());
        let uncheckable = |backend: &str| {
            let found = file.config().backends.iter().find(|(name, _)| name.as_str() == backend);
            unknown.is_uncheckable(found.unwrap().1)
        };
        assert!(uncheckable("c") && !uncheckable("b"));
    }

    #[test]
    fn only_what_is_wholly_kept_and_can_be_proven_is_replaced() {
        let rotating = |auth: &str| {
            let text = format!("address = \"https://sts.internal\"\nauth = {{ {auth} }}\n");
            let config: ConnectionConfig = toml::from_str(&text).unwrap();
            config.rotating().map(|root| root.main().to_string())
        };
        let sigv4 = |id: &str, key: &str, more: &str| {
            let keys = format!("access_key_id = \"{id}\", secret_access_key = \"{key}\"");
            rotating(&format!("sigv4 = {{ {keys}, region = \"r\", {more} }}"))
        };
        let sts = "service = \"sts\"";
        assert_eq!(sigv4("store:id", "store:key", sts).as_deref(), Some("key"));
        assert_eq!(sigv4("store:id", "store:key", "service = \"iam\""), None);
        assert_eq!(sigv4("file:id", "store:key", sts), None);
        assert_eq!(sigv4("store:key", "store:key", sts), None);
        let token = format!("{sts}, session_token = \"store:token\"");
        assert_eq!(sigv4("store:id", "store:key", &token), None);
        let password = rotating("password = { user = \"u\", password = \"store:db\" }");
        assert_eq!(password.as_deref(), Some("db"));
        assert_eq!(rotating("bearer = { token = \"store:t\" }"), None);
    }
}
