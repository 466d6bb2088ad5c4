//! What can be granted: backends and their scopes, as the configuration and the plugin manifests
//! describe them. Built by the broker at load; decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::name::{Authorization, BackendName, PluginName, ScopeName};

/// Every backend by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Catalog {
    /// The configured backends.
    #[serde(serialize_with = "serialize_shared")]
    pub backends: BTreeMap<BackendName, Arc<Backend>>,
}

/// A configured instance of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// The plugin that it uses.
    pub plugin: PluginName,
    /// SHA-256 of the plugin's bytes, in hex: part of the snapshot digest, so that the journal
    /// tells which code minted a credential.
    pub plugin_sha256: String,
    /// What ending a lease early means here.
    pub revocation: RevocationClass,
    /// The longest time for which a credential may go on working after its revocation.
    pub residual_exposure: Duration,
    /// The shortest life that the upstream can give a credential.
    pub ttl_min: Duration,
    /// For an upstream whose objects cannot carry the intent id: the longest life of a
    /// credential that a crash could leave unknown. Caps every TTL on the backend.
    pub orphan_ttl_max: Option<Duration>,
    /// Its scopes.
    #[serde(serialize_with = "serialize_shared")]
    pub scopes: BTreeMap<ScopeName, Arc<Scope>>,
}

impl Backend {
    /// The longest time for which a credential of this life may go on working after its
    /// revocation: one that only expires goes on to its end, and not beyond.
    pub fn residual_exposure(&self, ttl: Duration) -> Duration {
        match self.revocation {
            RevocationClass::ExpireOnly => self.residual_exposure.min(ttl),
            RevocationClass::Revocable | RevocationClass::DenyByPolicy => self.residual_exposure,
        }
    }
}

/// One grantable thing on a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scope {
    /// `backend/scope`.
    pub name: ScopeName,
    /// The authorization that a prompt file must declare for it.
    pub authorization: Authorization,
    /// Whether it may be issued at all.
    pub tier: Tier,
    /// The operator's limit.
    pub ttl_max: Duration,
    /// What happens to a wish below the backend's `ttl_min`.
    pub short_ttl: ShortTtl,
    /// The plugin's parameters, already checked against its schema.
    pub parameters: serde_json::Value,
}

impl Scope {
    /// The life that `asked` comes to on a backend that gives no less than `least`.
    pub fn wish(&self, asked: Option<Duration>, least: Duration) -> Option<Duration> {
        match self.short_ttl {
            ShortTtl::Refuse => asked,
            ShortTtl::Raise => asked.map(|asked| asked.max(least)),
        }
    }
}

/// What happens to a wish for a shorter life than the upstream can give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShortTtl {
    /// It is refused, and the agent learns the shortest life.
    #[default]
    Refuse,
    /// The shortest life is granted, if every limit allows it, and the agent is told.
    Raise,
}

/// How dangerous a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// May be issued.
    Standard,
    /// Never leaves the broker: a built-in guardrail forbids issuing it.
    Sensitive,
}

impl Tier {
    /// As policies and journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Sensitive => "sensitive",
        }
    }
}

/// What ending a lease early means on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationClass {
    /// The upstream object is removed; the credential stops working.
    Revocable,
    /// The credential stays valid but a policy at the upstream refuses what it tries.
    DenyByPolicy,
    /// Nothing can end it before its expiry.
    ExpireOnly,
}

impl RevocationClass {
    /// As manifests, messages and the journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revocable => "revocable",
            Self::DenyByPolicy => "deny-by-policy",
            Self::ExpireOnly => "expire-only",
        }
    }
}

impl Catalog {
    /// The backend and the scope of that name.
    pub fn scope(&self, name: &ScopeName) -> Option<(&Arc<Backend>, &Arc<Scope>)> {
        let backend = self.backends.get(name.backend())?;
        Some((backend, backend.scopes.get(name)?))
    }

    /// Every scope with its backend, in name order.
    pub fn scopes(&self) -> impl Iterator<Item = (&Arc<Backend>, &Arc<Scope>)> {
        self.backends.values().flat_map(|b| b.scopes.values().map(move |s| (b, s)))
    }
}

fn serialize_shared<K: Serialize, V: Serialize, S: serde::Serializer>(
    map: &BTreeMap<K, Arc<V>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(key, value)| (key, value.as_ref())))
}
