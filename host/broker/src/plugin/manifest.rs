//! What a plugin says of itself: JSON in the custom section `claviger:manifest` of its component,
//! so that it is covered by the component's digest. Claims only: the operator grants.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use claviger_core::catalog::RevocationClass;
use claviger_core::name::ConnectionName;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use wasmparser::{Parser, Payload};

use super::plain;
pub use crate::egress::sql::Dialect;

/// A plugin's manifest. Unknown keys are refused: a newer plugin must not seem to work while the
/// host ignores what it asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// A stable id, such as `claviger.postgres`.
    pub id: String,
    /// The plugin's own version.
    pub version: String,
    /// The exported interface: `claviger:provider@0.1.0`.
    pub abi: String,
    /// One line for people.
    pub title: String,
    /// JSON Schema (2020-12) of a backend's settings.
    pub settings_schema: serde_json::Value,
    /// JSON Schema (2020-12) of a scope's parameters.
    pub parameters_schema: serde_json::Value,
    /// What it mints.
    pub credential: CredentialSpec,
    /// The connections it asks for.
    #[serde(default, deserialize_with = "distinct_connections")]
    pub connections: BTreeMap<ConnectionName, ConnectionRequest>,
    /// What ending a credential means.
    pub revocation: Revocation,
    /// What life the upstream can give a credential.
    pub ttl: Ttl,
    /// For an upstream whose objects cannot carry the intent id: the longest life of a
    /// credential that a crash could leave unknown.
    #[serde(default)]
    pub orphan_ttl_secs_max: Option<u64>,
    /// What the upstream logs for uses of a credential, and where it reappears.
    #[serde(default, deserialize_with = "distinct_join_keys")]
    pub join_keys: BTreeMap<String, String>,
    /// How much of the machine a call needs. More than `standard` must be granted.
    #[serde(default)]
    pub limits_class: LimitsClass,
}

/// How much of the machine a call needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitsClass {
    /// Compiled to WebAssembly: a few hundred kilobytes, started in microseconds.
    #[default]
    Standard,
    /// A language's interpreter with the plugin inside it: megabytes, and seconds to compile.
    Interpreted,
}

impl std::str::FromStr for LimitsClass {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Standard, Self::Interpreted];
        let found = all.into_iter().find(|class| class.as_str() == text);
        found.ok_or("write `standard` or `interpreted`")
    }
}

impl LimitsClass {
    /// As manifests, the configuration and messages spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Interpreted => "interpreted",
        }
    }
}

/// What a plugin mints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CredentialSpec {
    /// Such as `postgres-login`.
    pub kind: String,
    /// Its fields, in the order in which the manifest lists them. All must be set.
    #[serde(deserialize_with = "ordered_fields")]
    pub fields: Vec<(String, FieldSpec)>,
}

/// One field of a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FieldSpec {
    /// Whether only the agent may see it. The manifest decides, not the call.
    #[serde(default)]
    pub secret: bool,
    /// The environment variable under which clients look for it.
    #[serde(default)]
    pub env: Option<String>,
}

/// A connection that a plugin asks for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConnectionRequest {
    /// Which door.
    pub kind: ConnectionKind,
    /// Which SQL dialects it speaks.
    #[serde(default)]
    pub dialects: Vec<Dialect>,
    /// How the broker may authenticate.
    #[serde(default)]
    pub auth: Vec<Auth>,
    /// Which HTTP methods it sends.
    #[serde(default)]
    pub methods: Vec<String>,
    /// What the paths of its HTTP requests begin with.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Which parts of HTTP responses it reads: JSON pointers, or paths of XML elements, with `*`
    /// for any one step. Everything else stays hidden from it.
    #[serde(default)]
    pub reads: Vec<String>,
    /// What it needs the connection for, shown to the operator who grants it.
    pub why: String,
    /// Whether it issues and revokes without it: what needs it is then an ability of its own.
    #[serde(default)]
    pub optional: bool,
}

/// A door to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionKind {
    /// An SQL database.
    Sql,
    /// An HTTP service.
    Http,
    /// The broker as an issuer of tokens.
    Jwt,
}

/// A way of logging in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Not at all.
    None,
    /// User and password, for SQL.
    Password,
    /// A bearer token (RFC 6750).
    Bearer,
    /// User and password (RFC 7617).
    Basic,
    /// A header of the service's own.
    Header,
    /// AWS Signature Version 4.
    Sigv4,
    /// A token for the broker's client id and secret (RFC 6749, section 4.4).
    #[serde(rename = "oauth2-client-credentials")]
    OAuth2ClientCredentials,
    /// A token for one that the broker signs (RFC 8693).
    TokenExchange,
    /// A token for an assertion signed with a service account's key (RFC 7523).
    GoogleServiceAccount,
    /// A token that the broker signs.
    WebIdentity,
    /// A client certificate.
    Mtls,
}

/// What ending a credential means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Revocation {
    /// Which of the three.
    pub class: RevocationClass,
    /// The longest time for which a credential may go on working after its revocation.
    pub residual_exposure_secs: u64,
}

/// What life the upstream can give a credential.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Ttl {
    /// The shortest.
    pub min_secs: u64,
    /// Who ends a credential at its expiry.
    #[serde(default)]
    pub enforced_by: Enforcer,
}

/// Who ends a credential at its expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enforcer {
    /// The upstream knows the expiry and refuses the credential from then on, broker or not.
    #[default]
    Upstream,
    /// The upstream does not know it: the credential ends when the broker revokes it, and while
    /// the broker is down it lives on.
    Broker,
}

impl Enforcer {
    /// As manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Broker => "broker",
        }
    }
}

/// A manifest that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// The bytes are no WebAssembly.
    #[error("is not a WebAssembly component: {0}")]
    NotWasm(String),
    /// No manifest.
    #[error("has no manifest: build it with the plugin SDK, which adds the section `{SECTION}`")]
    Missing,
    /// More than one.
    #[error("has {0} manifests: there must be exactly one section `{SECTION}`")]
    Several(usize),
    /// Too large.
    #[error("has a manifest of {0} bytes: at most {MANIFEST_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not of the form.
    #[error("has a manifest that cannot be read: {0}")]
    Malformed(String),
    /// Text that an operator's screen would not show as it is.
    #[error("has a control character in its manifest, at `{0}`: take it out")]
    Unprintable(String),
    /// Another contract.
    #[error(
        "speaks `{0}`: this broker speaks `{ABI}` and earlier ones of `{ABI_TRACK}N`, so use an earlier plugin or a newer broker"
    )]
    Abi(String),
    /// More fields or join keys than a lease holds.
    #[error("lists {count} {what}: at most {most} fit in a lease")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many fit.
        most: usize,
    },
}

impl Manifest {
    /// Reads the manifest of a component, at component level or inside a nested module.
    pub fn of_component(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut sections = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(|error| {
                ManifestError::NotWasm(plain::line(&error.to_string(), MESSAGE_BYTES_MAX))
            })? {
                Payload::CustomSection(section) if section.name() == SECTION => {
                    sections.push(section.data());
                }
                _ => {}
            }
        }
        match sections.as_slice() {
            [] => Err(ManifestError::Missing),
            [section] => Self::parse(section),
            several => Err(ManifestError::Several(several.len())),
        }
    }

    fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge(json.len()));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(malformed)?;
        plain_texts(&serde_json::from_slice(json).map_err(malformed)?)?;
        if !speaks(&manifest.abi) {
            return Err(ManifestError::Abi(manifest.abi));
        }
        let fields = manifest.credential.fields.len();
        fits("credential fields", fields, LEASE_FIELDS_MAX)?;
        fits("join keys", manifest.join_keys.len(), LEASE_JOIN_KEYS_MAX)?;
        Ok(manifest)
    }

    /// The longest time for which a credential may go on working after its revocation.
    pub const fn residual_exposure(&self) -> Duration {
        Duration::from_secs(self.revocation.residual_exposure_secs)
    }

    /// The shortest life that the upstream can give a credential.
    pub const fn ttl_min(&self) -> Duration {
        Duration::from_secs(self.ttl.min_secs)
    }

    /// The longest life of a credential that a crash could leave unknown.
    pub fn orphan_ttl_max(&self) -> Option<Duration> {
        self.orphan_ttl_secs_max.map(Duration::from_secs)
    }

    /// Whether it asks for a connection of this kind.
    pub fn wants(&self, kind: ConnectionKind) -> bool {
        self.connections.values().any(|request| request.kind == kind)
    }
}

/// Whether a plugin of this contract runs here: the same one, or an earlier minor of its track.
/// A minor only adds to the contract, so what an earlier plugin calls is still there; what a
/// later one calls may not be.
fn speaks(abi: &str) -> bool {
    let minor = |abi: &str| {
        let minor = abi.strip_prefix(ABI_TRACK)?;
        // `+1` and `01` parse as numbers too, but no contract is called so.
        let number: u32 = minor.parse().ok()?;
        (number.to_string() == minor).then_some(number)
    };
    match (minor(abi), minor(ABI)) {
        (Some(theirs), Some(ours)) => theirs <= ours,
        _ => false,
    }
}

fn fits(what: &'static str, count: usize, most: usize) -> Result<(), ManifestError> {
    if count > most { Err(ManifestError::TooMany { what, count, most }) } else { Ok(()) }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn malformed(error: serde_json::Error) -> ManifestError {
    ManifestError::Malformed(plain::line(&error.to_string(), MESSAGE_BYTES_MAX))
}

/// Operators read the manifest's texts when they grant: none may pose as another. The schemas are
/// left out: they are shown only as JSON, which escapes.
fn plain_texts(manifest: &serde_json::Value) -> Result<(), ManifestError> {
    let mut left: Vec<(String, &serde_json::Value)> = vec![(String::new(), manifest)];
    while let Some((at, value)) = left.pop() {
        let key_fits = at.is_empty() || plain::is_plain(&at);
        if !key_fits || value.as_str().is_some_and(|text| !plain::is_plain(text)) {
            return Err(ManifestError::Unprintable(plain::line(&at, MESSAGE_BYTES_MAX)));
        }
        let children = value.as_object().into_iter().flatten();
        let shown = children.filter(|(key, _)| !SCHEMAS.contains(&key.as_str()));
        left.extend(shown.map(|(key, child)| (format!("{at}/{key}"), child)));
        let items = value.as_array().into_iter().flatten();
        left.extend(items.map(|item| (format!("{at}/-"), item)));
    }
    Ok(())
}

fn distinct_connections<'de, D>(
    deserializer: D,
) -> Result<BTreeMap<ConnectionName, ConnectionRequest>, D::Error>
where
    D: Deserializer<'de>,
{
    let entries = Entries::new("connection");
    Ok(deserializer.deserialize_map(entries)?.into_iter().collect())
}

fn distinct_join_keys<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(deserializer.deserialize_map(Entries::new("join key"))?.into_iter().collect())
}

/// Keeps the manifest's order, which is the order in which people read a credential.
fn ordered_fields<'de, D>(deserializer: D) -> Result<Vec<(String, FieldSpec)>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Entries::new("field"))
}

/// The entries of an object in their order, each key at most once: of two, people would read the
/// one and the host would take the other.
struct Entries<K, V> {
    what: &'static str,
    entries: PhantomData<(K, V)>,
}

impl<K, V> Entries<K, V> {
    const fn new(what: &'static str) -> Self {
        Self { what, entries: PhantomData }
    }
}

impl<'de, K, V> Visitor<'de> for Entries<K, V>
where
    K: Deserialize<'de> + PartialEq + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = Vec<(K, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with one key a {}", self.what)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries: Self::Value = Vec::new();
        while let Some((name, entry)) = map.next_entry::<K, V>()? {
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("{} `{name}` is listed twice", self.what)));
            }
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

/// The custom section's name.
pub const SECTION: &str = "claviger:manifest";

/// The contract that this host speaks, and with it every earlier minor of its track.
pub const ABI: &str = "claviger:provider@0.1.0";

/// What the contracts that this host speaks begin with.
const ABI_TRACK: &str = "claviger:provider@0.1.";

/// The keys whose values are JSON schemas.
const SCHEMAS: [&str; 2] = ["settings-schema", "parameters-schema"];

/// What an operator reads of a parser's complaint.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Two schemas with descriptions take a few KiB.
const MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// Documented in the plugin contract.
pub const LEASE_FIELDS_MAX: usize = 16;

/// Documented in the plugin contract.
pub const LEASE_JOIN_KEYS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "id": "x", "version": "1", "abi": ABI, "title": "t",
            "settings-schema": {}, "parameters-schema": {},
            "credential": {"kind": "k", "fields": {"z": {"secret": true}, "a": {}}},
            "revocation": {"class": "revocable", "residual-exposure-secs": 0},
            "ttl": {"min-secs": 1},
        })
    }

    #[test]
    fn the_upstream_ends_what_expires_unless_the_manifest_says_otherwise() {
        for (ttl, expect) in [
            (serde_json::json!({"min-secs": 1}), Some(Enforcer::Upstream)),
            (
                serde_json::json!({"min-secs": 1, "enforced-by": "upstream"}),
                Some(Enforcer::Upstream),
            ),
            (serde_json::json!({"min-secs": 1, "enforced-by": "broker"}), Some(Enforcer::Broker)),
            (serde_json::json!({"min-secs": 1, "enforced-by": "nobody"}), None),
        ] {
            let mut json = manifest();
            json["ttl"] = ttl.clone();
            let parsed = Manifest::parse(json.to_string().as_bytes());
            assert_eq!(parsed.ok().map(|manifest| manifest.ttl.enforced_by), expect, "{ttl}");
        }
    }

    fn check(change: impl Fn(&mut serde_json::Value), sentence: &str) {
        let mut json = manifest();
        change(&mut json);
        let error = Manifest::parse(json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }

    /// The manifest's text with other credential fields.
    fn with_fields(fields: &str) -> String {
        let mut json = manifest();
        json["credential"]["fields"] = "FIELDS".into();
        json.to_string().replace("\"FIELDS\"", fields)
    }

    #[test]
    fn keeps_the_order_of_fields() {
        let text = with_fields(r#"{"z": {"secret": true}, "a": {}, "m": {}}"#);
        let fields = Manifest::parse(text.as_bytes()).unwrap().credential.fields;
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["z", "a", "m"]);
    }

    #[test]
    fn refuses_what_the_host_would_have_to_guess() {
        check(|json| json["extra"] = 1.into(), "unknown field `extra`");
        check(|json| json["abi"] = "claviger:provider@9.0.0".into(), "speaks `claviger:provider@9");
        check(
            |json| json["connections"] = serde_json::json!({"a": {"kind": "smtp", "why": ""}}),
            "unknown variant `smtp`",
        );
        check(|json| json["title"] = "x".repeat(70_000).into(), "at most 65536 are read");
        let fields = |n| {
            (0..n)
                .map(|i| (format!("f{i}"), serde_json::json!({})))
                .collect::<serde_json::Map<_, _>>()
        };
        check(
            |json| json["credential"]["fields"] = fields(17).into(),
            "17 credential fields: at most 16",
        );
        let twice = with_fields(r#"{"z": {}, "z": {"secret": true}}"#);
        assert!(
            Manifest::parse(twice.as_bytes()).unwrap_err().to_string().contains("listed twice")
        );
    }

    #[test]
    fn speaks_its_own_contract_and_the_earlier_minors_of_its_track() {
        for (abi, expect) in [
            (ABI, true),
            ("claviger:provider@0.1.0", true),
            ("claviger:provider@0.1.99", false),
            ("claviger:provider@0.1.00", false),
            ("claviger:provider@0.1.+0", false),
            ("claviger:provider@0.1.", false),
            ("claviger:provider@0.2.0", false),
            ("claviger:provider@0.1.0-rc.1", false),
            ("claviger:providers@0.1.0", false),
            ("", false),
        ] {
            assert_eq!(speaks(abi), expect, "{abi}");
        }
    }

    #[test]
    fn finds_exactly_one_section() {
        assert_eq!(
            Manifest::of_component(b"\0asm\x0d\0\x01\0").err(),
            Some(ManifestError::Missing)
        );
        assert!(matches!(Manifest::of_component(b"hello"), Err(ManifestError::NotWasm(_))));
    }
}
