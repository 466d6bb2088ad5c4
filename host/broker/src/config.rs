//! The configuration `claviger.toml`: typed, unknown keys refused, units in the values (`"1h"`).
//! Reads the file and the secrets that it refers to; opens nothing else.

mod identity;
mod listen;
mod load;
mod process;
mod secret_ref;
mod spiffe;
mod stored;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use claviger_core::budget::Budgets;
use claviger_core::name::{Authorization, BackendName, ConnectionName, PluginName, TeamName};
use claviger_core::policy::Team;
use serde::{Deserialize, Deserializer};

pub use self::spiffe::SpiffeConfig;
pub use crate::egress::http::Reach;
pub use crate::plugin::{LimitsClass, Requirement};
pub use claviger_core::catalog::{ShortTtl, Tier};
pub use identity::{AwsConfig, IdentityConfig, ReviewConfig, TrustedIssuerConfig};
pub use listen::{ClientCertificates, Listen, PlainConfig, TlsConfig};
pub use load::{ConfigError, ConfigFile};
pub use process::{LandlockMode, LockMemory, ProcessConfig, SeccompMode};
pub use secret_ref::{SecretRef, SecretRefError};
pub use stored::{Stored, WithStored};

/// A whole configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where agents and operators connect.
    pub listen: Listen,
    /// The durable store and audit log.
    pub journal: JournalConfig,
    /// Where the Cedar policies are.
    pub policies: Folder,
    /// Where the prompt files are.
    pub prompts: Folder,
    /// How sessions end.
    #[serde(default)]
    pub sessions: SessionsConfig,
    /// Who operates the broker.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Whose word is taken for who asks and for whom.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Where Prometheus may scrape.
    pub metrics: Option<MetricsConfig>,
    /// The broker as an issuer of tokens.
    pub issuer: Option<IssuerConfig>,
    /// Whose plugins are trusted by their signature.
    pub signing: Option<SigningConfig>,
    /// Where plugins run.
    #[serde(default)]
    pub sandbox: SandboxConfig,
    /// What the process gives up before it serves.
    #[serde(default)]
    pub process: ProcessConfig,
    /// Teams of roles and requesters.
    #[serde(default)]
    pub teams: BTreeMap<TeamName, Team>,
    /// How much may be issued, a minute and at once.
    #[serde(default)]
    pub budgets: Budgets,
    /// The plugins.
    #[serde(default)]
    pub plugins: BTreeMap<PluginName, PluginConfig>,
    /// The backends.
    #[serde(default)]
    pub backends: BTreeMap<BackendName, BackendConfig>,
}

/// The durable store and audit log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// 32 bytes, as 64 hexadecimal digits or base64.
    pub sealing_key: SecretRef,
    /// Keys that the journal may still be under, while `sealing_key` is being changed.
    #[serde(default)]
    pub previous_sealing_keys: Vec<SecretRef>,
    /// How long an intent may stay open before what it may have minted is revoked.
    #[serde(default = "default_intent_timeout")]
    pub intent_timeout: Span,
}

/// A folder that is read at start and whenever it changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folder {
    /// The folder.
    pub path: PathBuf,
}

/// How sessions end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionsConfig {
    /// A session ends when nothing is heard of it for this long.
    pub heartbeat_grace: Span,
    /// How many sessions may live at once.
    pub live_max: usize,
}

/// Who operates the broker.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The user ids that may use the admin socket besides the broker's own.
    pub operator_uids: Vec<u32>,
    /// What takes a second operator.
    pub two_person: Vec<TwoPerson>,
}

/// What may take a second operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TwoPerson {
    /// To revoke everything.
    RevokeEverything,
    /// To load a configuration that loosens a guard.
    Loosen,
}

/// Where Prometheus may scrape.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port; plain HTTP, so a loopback address.
    pub address: SocketAddr,
}

/// One plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// The `.wasm` component.
    pub path: PathBuf,
    /// SHA-256 of its bytes in hex. Left out only in `clavigerd dev` or where a signature, or the
    /// operator's word, stands in for it.
    pub sha256: Option<String>,
    /// Its minisign signature [default: `<path>.minisig`, if it exists].
    pub signature: Option<PathBuf>,
    /// When it must be signed, if it differs from `[signing]`.
    pub require_signature: Option<Requirement>,
    /// How much of the machine its calls may have.
    #[serde(default)]
    pub limits: LimitsClass,
}

/// Whose plugins are trusted by their signature.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigningConfig {
    /// minisign public keys: the lines that begin with `RW`.
    pub trusted_keys: Vec<String>,
    /// When a plugin must be signed.
    #[serde(default = "always")]
    pub require_signature: Requirement,
}

/// Where plugins run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// The folder of compiled components [default: beside the journal].
    pub cache: Option<PathBuf>,
}

/// One backend: a configured instance of a plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// The plugin that it uses.
    pub plugin: PluginName,
    /// The plugin's settings, checked against its schema.
    #[serde(default = "empty_object")]
    pub settings: serde_json::Value,
    /// Its routes to the outside.
    #[serde(default)]
    pub connections: BTreeMap<ConnectionName, ConnectionConfig>,
    /// What it grants.
    #[serde(default)]
    pub scopes: BTreeMap<String, ScopeConfig>,
}

/// One route from a plugin to the outside. Which keys it takes depends on the kind of
/// connection: a database, an HTTP service, or the broker's own tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionConfig {
    /// A URL without credentials: `postgres://db.internal:5432/orders?sslmode=verify-full`,
    /// `mysql://…`, `https://api.internal`. Not for the broker's own tokens.
    pub address: Option<String>,
    /// What clients should connect to, if it differs: `host:port`, or a URL for HTTP.
    pub client_address: Option<String>,
    /// The authority that signed the server's certificate, PEM; the system's roots otherwise.
    pub ca: Option<PathBuf>,
    /// How the host authenticates. The plugin never sees it.
    pub auth: Option<AuthConfig>,
    /// Where the broker keeps the database's password, or the access key for AWS STS: how often it is
    /// replaced.
    pub rotate_every: Option<Span>,
    /// HTTP: the methods that the plugin may send.
    #[serde(default)]
    pub methods: Vec<String>,
    /// HTTP: what its paths must begin with.
    #[serde(default)]
    pub paths: Vec<String>,
    /// HTTP: the parts of responses that it may read, as its manifest names them.
    #[serde(default)]
    pub reads: Vec<String>,
    /// HTTP: what the address may resolve to besides public addresses.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// Tokens: for whom the plugin may have the broker sign.
    #[serde(default)]
    pub audiences: Vec<String>,
}

/// How the host authenticates on a connection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum AuthConfig {
    /// Not at all.
    None {},
    /// A user and a password, for SQL.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: SecretRef,
    },
    /// `authorization: Bearer …` (RFC 6750).
    Bearer {
        /// The token.
        token: SecretRef,
    },
    /// `authorization: Basic …` (RFC 7617).
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: SecretRef,
    },
    /// A header of the service's own.
    Header {
        /// Its name, such as `x-api-key`.
        name: String,
        /// Its value.
        value: SecretRef,
    },
    /// AWS Signature Version 4.
    Sigv4 {
        /// The access key's id.
        access_key_id: SecretRef,
        /// The access key.
        secret_access_key: SecretRef,
        /// For temporary keys.
        session_token: Option<SecretRef>,
        /// Such as `eu-central-1`.
        region: String,
        /// Such as `sts`.
        service: String,
    },
    /// A token for a client id and secret (RFC 6749, section 4.4).
    #[serde(rename = "oauth2-client-credentials")]
    OAuth2ClientCredentials {
        /// The token endpoint.
        token_url: String,
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: SecretRef,
        /// The scopes to ask for.
        #[serde(default)]
        scopes: Vec<String>,
        /// The audience to ask for, where the server wants one.
        audience: Option<String>,
    },
    /// A token for one that the broker signs (RFC 8693).
    TokenExchange {
        /// The token endpoint.
        token_url: String,
        /// The audience of the broker's own token, which the endpoint checks.
        subject_audience: String,
        /// The audience to ask for.
        audience: Option<String>,
        /// The scopes to ask for.
        #[serde(default)]
        scopes: Vec<String>,
    },
    /// A token for an assertion signed with a service account's key (RFC 7523).
    GoogleServiceAccount {
        /// The key file's JSON.
        key: SecretRef,
        /// The scopes to ask for.
        scopes: Vec<String>,
    },
    /// A token that the broker signs.
    WebIdentity {
        /// Its audience.
        audience: String,
        /// The form parameter that carries it, such as `WebIdentityToken`; without one it is a
        /// bearer token.
        form_parameter: Option<String>,
        /// The further claims that the plugin may add, such as session tags for AWS.
        #[serde(default)]
        claims: Vec<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, PEM.
        certificate: PathBuf,
        /// Its private key, PEM.
        key: SecretRef,
    },
}

/// The broker as an issuer of tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The claim `iss`: an `https` URL under which the discovery page is reached.
    pub url: String,
    /// Where the discovery page and the keys are served, in plain HTTP for a proxy or, with a
    /// certificate, over TLS.
    pub address: SocketAddr,
    /// The certificate chain of the page, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<SecretRef>,
    /// How long a key signs before the next one does.
    #[serde(default = "default_rotate_every")]
    pub rotate_every: Span,
}

/// One grantable thing. Keys that are not listed here are the plugin's parameters.
#[derive(Debug, Deserialize)]
pub struct ScopeConfig {
    /// What a prompt file must declare for it.
    pub authorization: Authorization,
    /// How dangerous it is; `sensitive` is never issued.
    #[serde(default = "standard")]
    pub tier: Tier,
    /// The operator's limit on a credential's life.
    #[serde(default = "default_scope_ttl_max")]
    pub max_ttl: Span,
    /// What happens to a wish below the backend's shortest life: `refuse` it, or `raise` it and
    /// tell the agent.
    #[serde(default)]
    pub short_ttl: ShortTtl,
    /// The plugin's parameters, checked against its schema.
    #[serde(flatten)]
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// A duration written as people do: `"90s"`, `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            serde::de::Error::custom(format!(
                "`{text}` is not a duration ({error}): write it as `\"30s\"`, `\"15m\"` or `\"1h\"`"
            ))
        })
    }
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { heartbeat_grace: Span(HEARTBEAT_GRACE), live_max: SESSIONS_LIVE_MAX }
    }
}

const fn default_intent_timeout() -> Span {
    Span(INTENT_TIMEOUT)
}

const fn default_scope_ttl_max() -> Span {
    Span(claviger_core::decide::TTL_DEFAULT)
}

const fn standard() -> Tier {
    Tier::Standard
}

const fn always() -> Requirement {
    Requirement::Always
}

const fn default_rotate_every() -> Span {
    Span(ROTATE_EVERY)
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// Twice what may pass from the record of an intent to the end of its plugin call. INVARIANT
/// (late-answer): were it shorter than that, a credential could appear upstream after its intent
/// was revoked; the least that is accepted stands beside the parser.
const INTENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Long enough to restart an agent's runner, short enough that a killed agent's credentials are
/// gone within about a minute.
const HEARTBEAT_GRACE: Duration = Duration::from_secs(60);

/// Relying parties fetch the keys anew at least daily; a stolen key is useless within a month.
const ROTATE_EVERY: Duration = Duration::from_hours(30 * 24);

/// About 2 KiB a session: a hundred megabytes at the most.
const SESSIONS_LIVE_MAX: usize = 50_000;
