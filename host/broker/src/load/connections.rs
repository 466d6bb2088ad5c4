//! From a connection's configuration to what the plugin host is told, with the secrets read.

use crate::config::{AuthConfig, ConfigError, ConnectionConfig, SecretRef, WithStored};
use crate::egress::http::HttpAuth;
use crate::plugin::{ClientAddress, ConnectionSpec, HttpSpec, JwtSpec, SqlSpec};

/// The connection that `config`, which stands at `keys`, describes.
pub fn spec(
    file: WithStored<'_>,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<ConnectionSpec, ConfigError> {
    let scheme = config.address.as_deref().and_then(|address| address.split_once("://"));
    match scheme.map(|(scheme, _)| scheme) {
        None => jwt_spec(file, keys, config).map(ConnectionSpec::Jwt),
        Some("http" | "https") => http_spec(file, keys, config).map(ConnectionSpec::Http),
        Some(_) => sql_spec(file, keys, config).map(ConnectionSpec::Sql),
    }
}

/// No address means that the broker itself is at the other end.
fn jwt_spec(
    file: WithStored<'_>,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<JwtSpec, ConfigError> {
    let others = [
        ("auth", config.auth.is_some()),
        ("ca", config.ca.is_some()),
        ("client_address", config.client_address.is_some()),
        ("methods", !config.methods.is_empty()),
        ("paths", !config.paths.is_empty()),
        ("reads", !config.reads.is_empty()),
        ("reach", !config.reach.is_empty()),
    ];
    match others.iter().find(|(_, given)| *given) {
        Some((key, _)) => {
            let problem = "a connection without an address is to the broker as an issuer of tokens and takes `audiences` alone: add `address`, or remove this";
            Err(file.problem(&[keys, &[*key]].concat(), problem))
        }
        None => Ok(JwtSpec { audiences: config.audiences.clone() }),
    }
}

fn sql_spec(
    file: WithStored<'_>,
    keys: &[&str],
    config: &ConnectionConfig,
) -> Result<SqlSpec, ConfigError> {
    let Some(AuthConfig::Password { user, password }) = &config.auth else {
        let problem = "a database is logged in to with a password: write `auth = { password = { user = \"…\", password = \"file:…\" } }`";
        return Err(file.problem(&[keys, &["auth"]].concat(), problem));
    };
    let next_password = file.next_secret(password);
    let password =
        file.secret(password).map_err(|error| file.problem(&[keys, &["auth"]].concat(), error))?;
    Ok(SqlSpec {
        address: config.address.clone().unwrap_or_default(),
        user: user.clone(),
        password,
        next_password,
        ca_file: config.ca.as_ref().map(|path| file.base().join(path)),
        client: client_address(file, keys, config.client_address.as_deref())?,
        connections_max: None,
    })
}

fn http_spec(
    file: WithStored<'_>,
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
fn http_auth(
    file: WithStored<'_>,
    keys: &[&str],
    auth: &AuthConfig,
) -> Result<HttpAuth, ConfigError> {
    let read = |secret: &SecretRef| file.secret(secret).map_err(|error| file.problem(keys, error));
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
        AuthConfig::WebIdentity { audience, form_parameter, claims } => HttpAuth::WebIdentity {
            audience: audience.clone(),
            form_parameter: form_parameter.clone(),
            claims: claims.clone(),
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
    file: WithStored<'_>,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
    use super::*;
    use crate::app::Mode;
    use crate::config::{ConfigFile, Stored};
    use crate::load::{issuer, issuer_page};

    const REST: &str = "[listen]\nsocket = \"a\"\nadmin_socket = \"b\"\n\
        [journal]\npath = \"j\"\nsealing_key = \"file:key\"\n\
        [policies]\npath = \"p\"\n[prompts]\npath = \"p\"\n";

    /// A folder with the files that the stanzas refer to, and a configuration with `stanza`.
    fn file(stanza: &str) -> (tempfile::TempDir, Result<ConfigFile, ConfigError>) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["secret", "id", "chain.pem"] {
            std::fs::write(folder.path().join(name), format!("the-{name}\n")).unwrap();
        }
        let file = ConfigFile::parse(&folder.path().join("c.toml"), format!("{REST}{stanza}"));
        (folder, file)
    }

    fn without_store(file: &ConfigFile) -> WithStored<'_> {
        WithStored::new(file, &Stored::Unknown)
    }

    fn read(auth: &str) -> Result<HttpAuth, ConfigError> {
        let stanza = format!(
            "[backends.b]\nplugin = \"p\"\n[backends.b.connections.api]\n\
             address = \"https://api.internal\"\nauth = {auth}\n"
        );
        let (_folder, file) = file(&stanza);
        let file = file?;
        let config = file.config().backends.values().next().unwrap();
        let connection = config.connections.values().next().unwrap();
        match spec(without_store(&file), &["backends", "b", "connections", "api"], connection)? {
            ConnectionSpec::Http(spec) => Ok(spec.auth),
            _ => panic!("another kind"),
        }
    }

    /// What a scheme was read as, its secrets included.
    fn shown(auth: HttpAuth) -> String {
        match auth {
            HttpAuth::None => "none".to_owned(),
            HttpAuth::Bearer { token } => token.to_string(),
            HttpAuth::Basic { user, password } => format!("{user} {}", *password),
            HttpAuth::Header { name, value } => format!("{name} {}", *value),
            HttpAuth::Sigv4 {
                access_key_id,
                secret_access_key,
                session_token,
                region,
                service,
            } => {
                let token = session_token.map(|token| token.to_string());
                let keys = (access_key_id.to_string(), secret_access_key.to_string());
                format!("{keys:?} {token:?} {region} {service}")
            }
            HttpAuth::OAuth2ClientCredentials {
                token_url,
                client_id,
                client_secret,
                scopes,
                audience,
            } => format!("{token_url} {client_id} {} {scopes:?} {audience:?}", *client_secret),
            HttpAuth::TokenExchange { token_url, subject_audience, audience, scopes } => {
                format!("{token_url} {subject_audience} {audience:?} {scopes:?}")
            }
            HttpAuth::GoogleServiceAccount { key, scopes } => format!("{} {scopes:?}", *key),
            HttpAuth::WebIdentity { audience, form_parameter, claims } => {
                format!("{audience} {form_parameter:?} {claims:?}")
            }
            HttpAuth::Mtls { certificate, key } => {
                format!("{} {}", String::from_utf8(certificate).unwrap().trim(), *key)
            }
        }
    }

    #[test]
    fn reads_every_way_of_authenticating() {
        let cases = [
            ("{ none = {} }", "none"),
            ("{ bearer = { token = \"file:secret\" } }", "the-secret"),
            ("{ basic = { user = \"u\", password = \"file:secret\" } }", "u the-secret"),
            ("{ header = { name = \"x-k\", value = \"file:secret\" } }", "x-k the-secret"),
            (
                "{ sigv4 = { access_key_id = \"file:id\", secret_access_key = \"file:secret\", session_token = \"file:secret\", region = \"r\", service = \"s\" } }",
                "(\"the-id\", \"the-secret\") Some(\"the-secret\") r s",
            ),
            (
                "{ sigv4 = { access_key_id = \"file:id\", secret_access_key = \"file:secret\", region = \"r\", service = \"s\" } }",
                "(\"the-id\", \"the-secret\") None r s",
            ),
            (
                "{ oauth2-client-credentials = { token_url = \"https://t\", client_id = \"c\", client_secret = \"file:secret\", scopes = [\"a\"], audience = \"d\" } }",
                "https://t c the-secret [\"a\"] Some(\"d\")",
            ),
            (
                "{ token-exchange = { token_url = \"https://t\", subject_audience = \"s\" } }",
                "https://t s None []",
            ),
            (
                "{ google-service-account = { key = \"file:secret\", scopes = [\"a\"] } }",
                "the-secret [\"a\"]",
            ),
            (
                "{ web-identity = { audience = \"a\", form_parameter = \"WebIdentityToken\", claims = [\"team\"] } }",
                "a Some(\"WebIdentityToken\") [\"team\"]",
            ),
            (
                "{ mtls = { certificate = \"chain.pem\", key = \"file:secret\" } }",
                "the-chain.pem the-secret",
            ),
        ];
        for (auth, expect) in cases {
            match read(auth) {
                Ok(auth) => assert_eq!(shown(auth), expect),
                Err(error) => panic!("{auth}: {error}"),
            }
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_way_of_authenticating() {
        let cases = [
            ("{ bearer = { token = \"hunter2\" } }", "not a reference to a secret"),
            ("{ bearer = { token = \"file:missing\" } }", "secret `file:missing`"),
            ("{ bearer = { tokens = \"file:secret\" } }", "unexpected keys in table: tokens"),
            ("{ digest = {} }", "unknown variant `digest`"),
            ("{ password = { user = \"u\", password = \"file:secret\" } }", "write `basic`"),
            (
                "{ sigv4 = { access_key_id = \"file:id\", region = \"r\" } }",
                "missing field `secret_access_key`",
            ),
            ("{ mtls = { certificate = \"no.pem\", key = \"file:secret\" } }", "no.pem"),
        ];
        for (auth, sentence) in cases {
            let error = read(auth).err().unwrap().to_string();
            assert!(error.contains(sentence), "{auth}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn where_the_broker_signs_it_must_be_an_issuer() {
        let connections = [
            "audiences = [\"a\"]",
            "address = \"https://a\"\nauth = { web-identity = { audience = \"a\" } }",
            "address = \"https://a\"\nauth = { token-exchange = { token_url = \"https://t\", subject_audience = \"s\" } }",
        ];
        let issuer = "[issuer]\nurl = \"https://b.example\"\naddress = \"127.0.0.1:1\"\n";
        for connection in connections {
            let backend =
                format!("[backends.b]\nplugin = \"p\"\n[backends.b.connections.c]\n{connection}\n");
            let (_folder, without) = file(&backend);
            let errors = crate::load::backend_specs(without_store(&without.unwrap()));
            let error = errors.into_iter().next().unwrap().err().unwrap().to_string();
            assert!(error.contains("`backends.b.connections.c`"), "{error}");
            assert!(error.contains("[issuer]\nurl = "), "{error}");
            let (_folder, with) = file(&format!("{issuer}{backend}"));
            assert!(
                crate::load::backend_specs(without_store(&with.unwrap())).iter().all(Result::is_ok)
            );
        }
    }

    #[test]
    fn an_issuer_is_reached_over_tls_except_in_dev() {
        let with = |url: &str, more: &str| {
            let stanza = format!("[issuer]\nurl = \"{url}\"\naddress = \"127.0.0.1:1\"\n{more}");
            let (_folder, file) = file(&stanza);
            let file = file.unwrap();
            let loaded = |mode| issuer(&file, mode).map(drop).and(issuer_page(&file).map(drop));
            [Mode::Serve, Mode::Dev].map(|mode| loaded(mode).map_err(|error| error.to_string()))
        };
        assert_eq!(with("https://b.example", ""), [Ok(()), Ok(())]);
        let [serve, dev] = with("http://127.0.0.1:8480", "");
        assert!(serve.unwrap_err().contains("`issuer.url`: write `https://"), "in production");
        assert_eq!(dev, Ok(()));
        for (url, more, sentence) in [
            ("http://b.example", "", "`issuer.url`"),
            ("https://b.example", "rotate_every = \"1h\"", "`issuer.rotate_every`"),
            ("https://b.example", "certificate = \"chain.pem\"", "go together"),
            ("https://b.example", "key = \"file:secret\"", "go together"),
            (
                "https://b.example",
                "certificate = \"chain.pem\"\nkey = \"file:secret\"",
                "`issuer.certificate`: ",
            ),
        ] {
            let [_, dev] = with(url, more);
            let error = dev.unwrap_err();
            assert!(error.contains(sentence), "{error}");
        }
        assert!(issuer(&file("").1.unwrap(), Mode::Serve).unwrap().is_none());
    }

    #[test]
    fn the_brokers_own_tokens_take_no_address_and_nothing_that_belongs_to_one() {
        let stanza = "[backends.b]\nplugin = \"p\"\n[backends.b.connections.c]\n\
            audiences = [\"a\"]\nmethods = [\"GET\"]\n";
        let (_folder, file) = file(stanza);
        let file = file.unwrap();
        let config = file.config().backends.values().next().unwrap();
        let connection = config.connections.values().next().unwrap();
        let error = spec(without_store(&file), &["backends", "b", "connections", "c"], connection)
            .err()
            .unwrap();
        assert!(error.to_string().contains("takes `audiences` alone"), "{error}");
    }
}
