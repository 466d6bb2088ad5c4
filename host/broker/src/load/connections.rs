//! From a connection's configuration to what the plugin host is told, with the secrets read.

use crate::config::{AuthConfig, ConfigError, ConfigFile, ConnectionConfig, SecretRef};
use crate::egress::http::HttpAuth;
use crate::plugin::{ClientAddress, ConnectionSpec, HttpSpec, JwtSpec, SqlSpec};

/// The connection that `config`, which stands at `keys`, describes.
pub fn spec(
    file: &ConfigFile,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<ConnectionSpec, ConfigError> {
    let scheme = config.address.as_deref().and_then(|address| address.split_once("://"));
    match scheme.map(|(scheme, _)| scheme) {
        None => Ok(ConnectionSpec::Jwt(JwtSpec { audiences: config.audiences.clone() })),
        Some("http" | "https") => http_spec(file, keys, config).map(ConnectionSpec::Http),
        Some(_) => sql_spec(file, keys, config).map(ConnectionSpec::Sql),
    }
}

fn sql_spec(
    file: &ConfigFile,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<SqlSpec, ConfigError> {
    let Some(AuthConfig::Password { user, password }) = &config.auth else {
        let problem = "a database is logged in to with a password: write `auth = { password = { user = \"…\", password = \"file:…\" } }`";
        return Err(file.problem(&[keys, &["auth"]].concat(), problem));
    };
    let password = password
        .read(file.base())
        .map_err(|error| file.problem(&[keys, &["auth"]].concat(), error))?;
    Ok(SqlSpec {
        address: config.address.clone().unwrap_or_default(),
        user: user.clone(),
        password,
        ca_file: config.ca.as_ref().map(|path| file.base().join(path)),
        client: client_address(file, keys, config.client_address.as_deref())?,
        connections_max: None,
    })
}

fn http_spec(
    file: &ConfigFile,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<HttpSpec, ConfigError> {
    let auth = match &config.auth {
        Some(auth) => http_auth(file, &[keys, &["auth"]].concat(), auth)?,
        None => {
            let problem = "say how the broker authenticates, such as `auth = { bearer = { token = \"file:…\" } }`, or `auth = { none = {} }`";
            return Err(file.problem(keys, problem));
        }
    };
    Ok(HttpSpec {
        address: config.address.clone().unwrap_or_default(),
        client_address: config.client_address.clone(),
        ca_file: config.ca.as_ref().map(|path| file.base().join(path)),
        auth,
        methods: config.methods.clone(),
        paths: config.paths.clone(),
        reads: config.reads.clone(),
        reach: config.reach.clone(),
    })
}

/// Reads the secrets that `auth` refers to.
fn http_auth(file: &ConfigFile, keys: &[&str], auth: &AuthConfig) -> Result<HttpAuth, ConfigError> {
    let read =
        |secret: &SecretRef| secret.read(file.base()).map_err(|error| file.problem(keys, error));
    Ok(match auth {
        AuthConfig::None {} => HttpAuth::None,
        AuthConfig::Password { .. } => {
            return Err(file.problem(keys, "`password` is for databases: write `basic`"));
        }
        AuthConfig::Bearer { token } => HttpAuth::Bearer { token: read(token)? },
        AuthConfig::Basic { user, password } => {
            HttpAuth::Basic { user: user.clone(), password: read(password)? }
        }
        AuthConfig::Header { name, value } => {
            HttpAuth::Header { name: name.clone(), value: read(value)? }
        }
        AuthConfig::Sigv4 { access_key_id, secret_access_key, session_token, region, service } => {
            HttpAuth::Sigv4 {
                access_key_id: read(access_key_id)?,
                secret_access_key: read(secret_access_key)?,
                session_token: session_token.as_ref().map(read).transpose()?,
                region: region.clone(),
                service: service.clone(),
            }
        }
        AuthConfig::OAuth2ClientCredentials {
            token_url,
            client_id,
            client_secret,
            scopes,
            audience,
        } => HttpAuth::OAuth2ClientCredentials {
            token_url: token_url.clone(),
            client_id: client_id.clone(),
            client_secret: read(client_secret)?,
            scopes: scopes.clone(),
            audience: audience.clone(),
        },
        AuthConfig::TokenExchange { token_url, subject_audience, audience, scopes } => {
            HttpAuth::TokenExchange {
                token_url: token_url.clone(),
                subject_audience: subject_audience.clone(),
                audience: audience.clone(),
                scopes: scopes.clone(),
            }
        }
        AuthConfig::GoogleServiceAccount { key, scopes } => {
            HttpAuth::GoogleServiceAccount { key: read(key)?, scopes: scopes.clone() }
        }
        AuthConfig::WebIdentity { audience, form_parameter } => HttpAuth::WebIdentity {
            audience: audience.clone(),
            form_parameter: form_parameter.clone(),
        },
        AuthConfig::Mtls { certificate, key } => {
            let path = file.base().join(certificate);
            let certificate = std::fs::read(&path)
                .map_err(|error| file.problem(keys, format!("`{}`: {error}", path.display())))?;
            HttpAuth::Mtls { certificate, key: read(key)? }
        }
    })
}

fn client_address(
    file: &ConfigFile,
    keys: &[&str],
    text: Option<&str>,
) -> Result<ClientAddress, ConfigError> {
    let Some(text) = text else { return Ok(ClientAddress::default()) };
    let parsed = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)))
        .filter(|(host, _)| !host.is_empty());
    match parsed {
        Some((host, port)) => Ok(ClientAddress { host: Some(host), port: Some(port) }),
        None => Err(file.problem(&[keys, &["client_address"]].concat(), "write it as `host:port`")),
    }
}
