//! What the host is told to load. Plain values: the configuration is mapped onto them elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use claviger_core::name::{BackendName, ConnectionName, PluginName};
use zeroize::Zeroizing;

use super::manifest::LimitsClass;
use super::signature::Signing;
use crate::egress::http::{HttpAuth, Reach};

/// One plugin to load.
pub struct PluginSpec {
    /// Its name in the configuration.
    pub name: PluginName,
    /// Where the bytes came from, for messages.
    pub path: PathBuf,
    /// The component.
    pub bytes: Vec<u8>,
    /// What the bytes must hash to.
    pub sha256_pin: Option<[u8; 32]>,
    /// What else must hold of it, and what it is granted.
    pub terms: Terms,
}

/// What must hold of a plugin before it is loaded, and what it is granted.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How it must be signed.
    pub signing: Signing,
    /// How much of the machine its calls may have at most.
    pub limits: LimitsClass,
}

impl Terms {
    /// No terms but these limits: for whoever has judged the component by other means, such as its
    /// own author.
    pub fn unchecked(limits: LimitsClass) -> Self {
        Self { signing: Signing::unchecked(), limits }
    }
}

/// One backend: a plugin with settings, bound connections and scopes.
pub struct BackendSpec {
    /// Its name.
    pub name: BackendName,
    /// The plugin that it uses.
    pub plugin: PluginName,
    /// Its settings, for the plugin's `settings-schema`.
    pub settings: serde_json::Value,
    /// The connections that the operator granted, by the names that the manifest requests.
    pub connections: BTreeMap<ConnectionName, ConnectionSpec>,
    /// Each scope's parameters, for the plugin's `parameters-schema`.
    pub scopes: BTreeMap<String, serde_json::Value>,
}

/// One connection, bound to an address and to the broker's own credential.
pub enum ConnectionSpec {
    /// An SQL database.
    Sql(SqlSpec),
    /// An HTTP service.
    Http(HttpSpec),
    /// The broker as an issuer of tokens.
    Jwt(JwtSpec),
}

/// A connection to an SQL database.
pub struct SqlSpec {
    /// Such as `postgres://db.internal:5432/orders?sslmode=verify-full`.
    pub address: String,
    /// The broker's own user.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// The password that is taking its place.
    pub next_password: Option<Zeroizing<String>>,
    /// A PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where clients reach the database, if not at `address`.
    pub client: ClientAddress,
    /// How many connections may be open at once; `None` takes the default.
    pub connections_max: Option<usize>,
}

/// A connection to an HTTP service.
pub struct HttpSpec {
    /// Such as `https://api.internal:8443`: no path.
    pub address: String,
    /// The address that clients should use, if it differs.
    pub client_address: Option<String>,
    /// A PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How the broker authenticates.
    pub auth: HttpAuth,
    /// The methods that the operator granted.
    pub methods: Vec<String>,
    /// What granted paths begin with.
    pub paths: Vec<String>,
    /// The parts of responses that the plugin may read.
    pub reads: Vec<String>,
    /// Which addresses the name may resolve to besides public ones.
    pub reach: Vec<Reach>,
}

/// The broker as an issuer of tokens for some audiences.
pub struct JwtSpec {
    /// The audiences that the operator granted.
    pub audiences: Vec<String>,
}

/// Where clients reach a server that the broker itself may reach another way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    /// The host, if it differs.
    pub host: Option<String>,
    /// The port, if it differs.
    pub port: Option<u16>,
}

/// The largest component of a class: the time to compile grows with the size. A Rust plugin takes
/// 50 to 500 KB, an interpreter about ten megabytes.
pub const fn component_bytes_max(class: LimitsClass) -> usize {
    match class {
        LimitsClass::Standard => 4 * 1024 * 1024,
        LimitsClass::Interpreted => 32 * 1024 * 1024,
    }
}

/// What one call may use, and how many run at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Over all linear memories of a call. 32 MiB hold any plugin that composes requests; the
    /// product with `calls_max` is what a flood of calls can take from the machine.
    pub memory_bytes_max: usize,
    /// Processor time inside the guest. A plugin composes a few requests in well under 1 ms;
    /// 100 ms forgive a slow machine and still end a loop before anyone notices.
    pub guest_cpu: Duration,
    /// From the start of the call to its end, waiting included. Must lie well below the intent
    /// timeout: see `nothing-after-the-deadline`.
    pub wall: Duration,
    /// What calls of interpreted plugins have instead of the two above.
    pub interpreted: Share,
    /// How many calls run at once. Each holds a slot of the pool; more calls wait.
    pub calls_max: u32,
    /// How long a call waits for its turn before it is refused.
    pub wait_max: Duration,
}

/// What a call has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Over all linear memories of the call.
    pub memory_bytes_max: usize,
    /// Processor time inside the guest.
    pub guest_cpu: Duration,
}

impl Limits {
    /// What a call of a plugin of `class` has.
    pub const fn share(&self, class: LimitsClass) -> Share {
        match class {
            LimitsClass::Standard => {
                Share { memory_bytes_max: self.memory_bytes_max, guest_cpu: self.guest_cpu }
            }
            LimitsClass::Interpreted => self.interpreted,
        }
    }

    /// What a slot of the pool must have room for. It is address space only: a slot reserves
    /// 4 GiB of it in any case, and a call's own limit is enforced per call.
    pub fn memory_bytes_max_of_any(&self) -> usize {
        self.memory_bytes_max.max(self.interpreted.memory_bytes_max)
    }

    /// The defaults, with calls ended by half of `intent_timeout` at the latest.
    pub fn within(intent_timeout: Duration) -> Self {
        let limits = Self::default();
        Self { wall: limits.wall.min(intent_timeout / 2), ..limits }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 32 * 1024 * 1024,
            guest_cpu: Duration::from_millis(100),
            wall: Duration::from_secs(5),
            // An interpreter's heap is tens of megabytes before the plugin runs, and starting
            // it takes some 100 ms; two seconds leave the upstream most of the five of `wall`.
            interpreted: Share {
                memory_bytes_max: 256 * 1024 * 1024,
                guest_cpu: Duration::from_secs(2),
            },
            calls_max: 256,
            wait_max: Duration::from_secs(2),
        }
    }
}
