//! Which root credentials can be replaced, and what logs in with them. Replaces none.

use std::collections::BTreeSet;
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName};
use zeroize::Zeroizing;

use super::{RotateError, Wish};
use crate::config::{ConfigError, ConfigFile, Stored, WithStored};
use crate::egress::{Failure, FailureKind};
use crate::journal::{RootSecrets, SecretValue};
use crate::load::connections;
use crate::plugin::ConnectionSpec;

/// A root credential that can be replaced.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The backend that uses it.
    pub backend: BackendName,
    /// The connection on which a new one is tried.
    pub connection: ConnectionName,
    /// Under which names it is kept.
    pub root: RootSecrets,
    /// How often it is to be replaced.
    pub every: Option<Duration>,
}

impl Target {
    /// The connection with these values in the places of its secrets.
    pub fn connection_with(
        &self,
        file: &ConfigFile,
        values: Vec<Zeroizing<String>>,
    ) -> Result<ConnectionSpec, Failure> {
        let value = |current| SecretValue { current, pending: None };
        let names = self.root.names().into_iter().cloned();
        let stored = Stored::Values(names.zip(values.into_iter().map(value)).collect());
        let backend = file.config().backends.get(&self.backend);
        let config = backend.and_then(|backend| backend.connections.get(&self.connection));
        let gone = || Failure::unsent(FailureKind::InvalidConfig, "the connection is gone");
        let config = config.ok_or_else(gone)?;
        let keys = ["backends", self.backend.as_str(), "connections", self.connection.as_str()];
        let invalid =
            |error: ConfigError| Failure::unsent(FailureKind::InvalidConfig, error.to_string());
        connections::spec(WithStored::new(file, &stored), &keys, config).map_err(invalid)
    }

    /// Where its secrets are used, if anything else than itself uses them: another login, which
    /// would be locked out. The connections of one backend that sign with the same access key lead
    /// to the same account.
    fn strangers(&self, file: &ConfigFile) -> Option<BTreeSet<String>> {
        let (mut places, mut has_strangers) = (BTreeSet::new(), false);
        for (backend, config) in &file.config().backends {
            for (connection, bound) in &config.connections {
                let used = bound.stored_secrets();
                if !self.root.names().iter().any(|name| used.contains(*name)) {
                    continue;
                }
                places.insert(format!("backends.{backend}.connections.{connection}.auth"));
                let is_own = match &self.root {
                    RootSecrets::Password(_) => *connection == self.connection,
                    RootSecrets::Key { .. } => bound.access_key().as_ref() == Some(&self.root),
                };
                has_strangers |= *backend != self.backend || !is_own;
            }
        }
        has_strangers.then_some(places)
    }

    /// Whether it is the same access key, in another connection of the same backend.
    fn is_same_key(&self, other: &Self) -> bool {
        matches!(self.root, RootSecrets::Key { .. })
            && (&self.backend, &self.root) == (&other.backend, &other.root)
    }
}

/// The one root credential that `wish` names. Of several connections with the same access key the
/// first one is taken.
pub(super) fn target(file: &ConfigFile, wish: &Wish) -> Result<Target, RotateError> {
    let fits = |target: &Target| {
        wish.backend.as_ref().is_none_or(|backend| *backend == target.backend)
            && wish.connection.as_ref().is_none_or(|connection| *connection == target.connection)
            && wish.secret.as_ref().is_none_or(|secret| target.root.names().contains(&secret))
    };
    let mut found = targets(file).into_iter().filter(fits);
    let Some(target) = found.next() else { return Err(RotateError::NotKept) };
    if let Some(places) = target.strangers(file) {
        let places = places.into_iter().collect::<Vec<_>>().join("`, `");
        return Err(RotateError::Shared { secret: target.root.main().clone(), places });
    }
    let others: Vec<_> = found.filter(|other| !other.is_same_key(&target)).collect();
    if !others.is_empty() {
        let all = std::iter::once(&target).chain(&others);
        let named = all.map(|target| format!("{} {}", target.backend, target.connection));
        return Err(RotateError::Ambiguous(named.collect::<Vec<_>>().join(", ")));
    }
    Ok(target)
}

/// Every root credential that can be replaced.
pub(super) fn targets(file: &ConfigFile) -> Vec<Target> {
    let mut targets = Vec::new();
    for (backend, config) in &file.config().backends {
        for (connection, bound) in &config.connections {
            let Some(root) = bound.rotating() else { continue };
            targets.push(Target {
                backend: backend.clone(),
                connection: connection.clone(),
                root,
                every: bound.rotate_every.map(|span| span.0),
            });
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::path::Path;

    use super::*;

    const REST: &str = "[listen]\nsocket = \"a\"\nadmin_socket = \"b\"\n\
        [journal]\npath = \"j\"\nsealing_key = \"file:key\"\n\
        [policies]\npath = \"p\"\n[prompts]\npath = \"p\"\n";

    fn signing(backend: &str, connection: &str, (service, key): (&str, &str)) -> String {
        format!(
            "[backends.{backend}.connections.{connection}]\naddress = \"https://a.internal\"\n\
             auth = {{ sigv4 = {{ access_key_id = \"store:id\", secret_access_key = \"store:{key}\", \
             region = \"r\", service = \"{service}\" }} }}\n"
        )
    }

    fn check(connections: &[&str], secret: &str, expect: &str) {
        let backends = "[backends.a]\nplugin = \"p\"\n[backends.b]\nplugin = \"p\"\n";
        let text = format!("{REST}{backends}{}", connections.concat());
        let file = ConfigFile::parse(Path::new("c.toml"), text).unwrap();
        let wish = Wish { secret: Some(secret.parse().unwrap()), ..Wish::default() };
        match target(&file, &wish) {
            Ok(target) => assert_eq!(format!("{} {}", target.backend, target.connection), expect),
            Err(error) => assert!(error.to_string().contains(expect), "{error}"),
        }
    }

    #[test]
    fn an_access_key_may_serve_several_connections_of_one_backend_and_no_others() {
        let sts = signing("a", "sts", ("sts", "key"));
        let iam = signing("a", "iam", ("iam", "key"));
        check(&[&sts], "key", "a sts");
        check(&[&sts, &iam], "key", "a sts");
        check(&[&sts, &iam], "id", "a sts");
        check(&[&iam], "key", "no connection of that name");
        let elsewhere = signing("a", "sts-eu", ("sts", "key"));
        check(&[&elsewhere, &sts, &iam], "key", "a sts");
        check(&[&elsewhere, &sts, &iam], "id", "a sts");
        let another = signing("a", "sts-us", ("sts", "other"));
        let both = "`backends.a.connections.sts-us.auth`, `backends.a.connections.sts.auth`";
        check(&[&sts, &another], "id", both);
        let elsewhere = signing("b", "iam", ("iam", "key"));
        check(&[&sts, &elsewhere], "key", "is used by `backends.a.connections.sts.auth`");
        let half = signing("a", "iam", ("iam", "other"));
        check(&[&sts, &half], "key", "`backends.a.connections.iam.auth`");
        let bearer = "[backends.a.connections.api]\naddress = \"https://a.internal\"\n\
                      auth = { bearer = { token = \"store:key\" } }\n";
        check(&[&sts, bearer], "key", "give each a secret of its own");
    }
}
