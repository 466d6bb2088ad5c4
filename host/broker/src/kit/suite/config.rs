//! The suite's configuration: one backend as in `claviger.toml`, one scope, and two commands.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use claviger_core::name::ConnectionName;
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use crate::config::{ConfigFile, ConnectionConfig, Span, Stored, WithStored};
use crate::egress::http::HttpAuth;
use crate::journal::SecretValues;
use crate::load::connections;
use crate::plugin::{BackendSpec, ConnectionSpec, TRIAL_SCOPE};

/// A configuration, parsed anew for each backend that is made of it.
pub struct Conformance {
    path: PathBuf,
    text: String,
}

/// How a backend's connections are reached.
pub enum Route {
    /// As configured.
    Direct,
    /// Through proxies, by connection.
    Through(BTreeMap<ConnectionName, SocketAddr>),
    /// Where nobody listens.
    Down(SocketAddr),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    settings: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    connections: BTreeMap<ConnectionName, ConnectionConfig>,
    #[serde(default)]
    scope: Scope,
    r#use: CommandLine,
    #[serde(default)]
    list: Option<CommandLine>,
}

/// As in `claviger.toml`, without what only a broker needs.
#[derive(Default, Deserialize)]
struct Scope {
    #[serde(default)]
    max_ttl: Option<Span>,
    #[serde(flatten)]
    parameters: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandLine {
    command: Vec<String>,
}

impl Conformance {
    /// Reads and parses the file at `path`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("`{}` cannot be read", path.display()))?;
        let config = Self { path: path.to_owned(), text };
        let document = config.document()?;
        let commands = std::iter::once(&document.r#use).chain(&document.list);
        for line in commands {
            ensure!(!line.command.is_empty(), "`{}`: a command is empty", path.display());
        }
        Ok(config)
    }

    /// The command that uses a credential.
    pub fn use_command(&self) -> Vec<String> {
        self.document().map(|document| document.r#use.command).unwrap_or_default()
    }

    /// The command that lists what an intent left upstream.
    pub fn list_command(&self) -> Option<Vec<String>> {
        self.document().ok()?.list.map(|list| list.command)
    }

    /// The longest life that is asked for: the scope's own limit, or that of every session.
    pub fn life_max_secs(&self) -> anyhow::Result<u64> {
        let most = self.document()?.scope.max_ttl.map(|most| most.0);
        Ok(most.map_or(LIFE_SECS_MAX, |most| most.as_secs().min(LIFE_SECS_MAX)))
    }

    /// The connections that a proxy can stand before, with what they lead to.
    pub fn plain_addresses(&self) -> anyhow::Result<BTreeMap<ConnectionName, String>> {
        let connections = self.document()?.connections;
        Ok(connections
            .into_iter()
            .filter_map(|(name, connection)| {
                let url = plain_url(connection.address.as_deref()?)?;
                Some((name, format!("{}:{}", url.host_str()?, port(&url)?)))
            })
            .collect())
    }

    /// Why no fault can be put between plugin and backend, if it cannot.
    pub fn skip_network(&self) -> anyhow::Result<Option<String>> {
        let connections = self.document()?.connections;
        let addresses: Vec<_> =
            connections.values().filter_map(|connection| connection.address.as_deref()).collect();
        Ok(match addresses.iter().find(|address| plain_url(address).is_none()) {
            _ if addresses.is_empty() => Some("the plugin reaches no network".to_owned()),
            Some(address) => Some(format!(
                "`{address}` is TLS or a unix socket, which a proxy cannot stand before: run the \
                 suite against a plain loopback address as well"
            )),
            None => None,
        })
    }

    /// The backend `name`, reached by `route`, and the root secrets of its connections.
    pub fn backend(
        &self,
        name: &str,
        route: &Route,
    ) -> anyhow::Result<(BackendSpec, Vec<Zeroizing<String>>)> {
        // Only for its folder and for messages; what a whole configuration needs is not read.
        let file = ConfigFile::parse(&self.path, REST.to_owned())?;
        let nothing_kept = Stored::Values(SecretValues::new());
        let file = WithStored::new(&file, &nothing_kept);
        let document = self.document()?;
        let mut bound = BTreeMap::new();
        let mut secrets = Vec::new();
        for (connection, mut config) in document.connections {
            reroute(&mut config, route, &connection);
            let keys = ["connections", connection.as_str()];
            let spec = connections::spec(file, &keys, &config)?;
            secrets.extend(roots(&spec));
            bound.insert(connection, spec);
        }
        let scopes = BTreeMap::from([(TRIAL_SCOPE.to_owned(), document.scope.parameters.into())]);
        let backend = BackendSpec {
            name: name.parse().map_err(|error| anyhow!("{error}"))?,
            plugin: "plugin".parse().map_err(|error| anyhow!("{error}"))?,
            settings: document.settings.into(),
            connections: bound,
            scopes,
        };
        Ok((backend, secrets))
    }

    fn document(&self) -> anyhow::Result<Document> {
        toml::from_str(&self.text).with_context(|| format!("`{}`", self.path.display()))
    }
}

/// The address of a connection without TLS over TCP.
fn plain_url(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let plain = url.scheme() == "http" || url.query_pairs().any(|(_, value)| value == "disable");
    (plain && url.host_str().is_some_and(|host| !host.is_empty())).then_some(url)
}

fn port(url: &Url) -> Option<u16> {
    url.port_or_known_default().or_else(|| match url.scheme() {
        "postgres" | "postgresql" => Some(5432),
        "mysql" => Some(3306),
        _ => None,
    })
}

/// Leads a connection elsewhere; the credential goes on naming the true address.
fn reroute(config: &mut ConnectionConfig, route: &Route, name: &ConnectionName) {
    let place = match route {
        Route::Direct => None,
        Route::Through(proxies) => proxies.get(name).copied(),
        Route::Down(closed) => Some(*closed),
    };
    let (Some(place), Some(address)) = (place, &config.address) else { return };
    let Some(mut url) = plain_url(address) else { return };
    let Some((host, port)) = url.host_str().map(str::to_owned).zip(port(&url)) else { return };
    let client = match url.scheme() {
        "http" => address.trim_end_matches('/').to_owned(),
        _ => format!("{host}:{port}"),
    };
    config.client_address.get_or_insert(client);
    // Neither fails for an address that has a host.
    let _host = url.set_host(Some(&place.ip().to_string()));
    let _port = url.set_port(Some(place.port()));
    let text = url.to_string();
    let text = if url.path() == "/" { text.trim_end_matches('/').to_owned() } else { text };
    config.address = Some(text);
}

/// What the broker itself authenticates with.
fn roots(spec: &ConnectionSpec) -> Vec<Zeroizing<String>> {
    match spec {
        ConnectionSpec::Sql(sql) => vec![sql.password.clone()],
        ConnectionSpec::Jwt(_) => Vec::new(),
        ConnectionSpec::Http(http) => match &http.auth {
            HttpAuth::None | HttpAuth::TokenExchange { .. } | HttpAuth::WebIdentity { .. } => {
                Vec::new()
            }
            HttpAuth::Bearer { token } => vec![token.clone()],
            HttpAuth::Basic { password, .. } => vec![password.clone()],
            HttpAuth::Header { value, .. } => vec![value.clone()],
            HttpAuth::Sigv4 { secret_access_key, session_token, .. } => {
                std::iter::once(secret_access_key).chain(session_token).cloned().collect()
            }
            HttpAuth::OAuth2ClientCredentials { client_secret, .. } => vec![client_secret.clone()],
            HttpAuth::GoogleServiceAccount { key, .. } | HttpAuth::Mtls { key, .. } => {
                vec![key.clone()]
            }
        },
    }
}

/// The longest life that a broker asks for: that of a session.
const LIFE_SECS_MAX: u64 = 12 * 60 * 60;

/// What `claviger.toml` must have and the suite does not need.
const REST: &str = "\
[listen]\nsocket = \"none\"\nadmin_socket = \"none\"\n\
[journal]\npath = \"none\"\nsealing_key = \"env:NONE\"\n\
[policies]\npath = \"none\"\n[prompts]\npath = \"none\"\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn rerouted(address: &str) -> (String, Option<String>) {
        let text = format!("address = \"{address}\"");
        let mut config: ConnectionConfig = toml::from_str(&text).unwrap();
        let route = Route::Down("127.0.0.1:9".parse().unwrap());
        reroute(&mut config, &route, &"admin".parse().unwrap());
        (config.address.unwrap(), config.client_address)
    }

    #[test]
    fn a_scope_may_limit_the_life_as_in_the_brokers_configuration() {
        for (scope, expect) in [
            ("", 43_200),
            ("[scope]\ngroup = \"a\"", 43_200),
            ("[scope]\nmax_ttl = \"1h\"\ngroup = \"a\"", 3_600),
            ("[scope]\nmax_ttl = \"30h\"", 43_200),
        ] {
            let text = format!("{scope}\n[use]\ncommand = [\"true\"]");
            let config = Conformance { path: PathBuf::new(), text };
            assert_eq!(config.life_max_secs().unwrap(), expect, "{scope}");
            let parameters = config.document().unwrap().scope.parameters;
            assert!(!parameters.contains_key("max_ttl"), "{parameters:?}");
        }
    }

    #[test]
    fn a_plain_address_leads_elsewhere_and_the_credential_names_the_true_one() {
        let client = |text: &str| Some(text.to_owned());
        for (address, there, true_one) in [
            (
                "postgres://localhost:7000/db?sslmode=disable",
                "postgres://127.0.0.1:9/db?sslmode=disable",
                client("localhost:7000"),
            ),
            (
                "postgres://localhost/db?sslmode=disable",
                "postgres://127.0.0.1:9/db?sslmode=disable",
                client("localhost:5432"),
            ),
            ("http://127.0.0.1:8080", "http://127.0.0.1:9", client("http://127.0.0.1:8080")),
            ("https://api.internal", "https://api.internal", None),
            ("postgres:///db?host=/run", "postgres:///db?host=/run", None),
        ] {
            assert_eq!(rerouted(address), (there.to_owned(), true_one), "{address}");
        }
    }
}
