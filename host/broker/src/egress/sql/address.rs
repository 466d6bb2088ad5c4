//! The address of a database as the configuration writes it. Parses, connects nowhere.

use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use super::dialect::Dialect;

/// A parsed address, such as `postgres://db.internal:5432/orders?sslmode=verify-full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Which dialect the server speaks.
    pub dialect: Dialect,
    /// Where the server listens.
    pub endpoint: Endpoint,
    /// The server's port; for a unix socket, the number in its name.
    pub port: u16,
    /// The database.
    pub database: String,
    /// How the connection is protected.
    pub transport: Transport,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or an IP address.
    Tcp(String),
    /// A unix socket: PostgreSQL's folder of it, MySQL's file.
    Unix(PathBuf),
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TLS; the certificate must be valid and name the host (`sslmode=verify-full`).
    VerifiedTls,
    /// Nothing on the way: a unix socket or the loopback interface (`sslmode=disable`).
    Plain,
}

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not of the form.
    #[error(
        "`{0}` is not a database address: write `postgres://host:5432/database?sslmode=verify-full` or `mysql://host:3306/database?sslmode=verify-full`"
    )]
    Malformed(String),
    /// Credentials inside the address.
    #[error(
        "the address holds a user or password: write them under `auth`, where a password is a reference"
    )]
    Credentials,
    /// A parameter that the broker does not pass on.
    #[error(
        "the address has the parameter `{0}`: only `sslmode` and, for a unix socket, `host` (PostgreSQL: its folder) or `socket` (MySQL: the file) are known"
    )]
    Parameter(String),
    /// A way of protection that does not protect.
    #[error("`sslmode={0}` does not prove which server answers: write `sslmode=verify-full`")]
    SslMode(String),
    /// No `sslmode`.
    #[error("the address does not say how the connection is protected: add `?sslmode=verify-full`")]
    NoSslMode,
    /// Plain text to another machine.
    #[error(
        "`sslmode=disable` would send the password unprotected to `{0}`: it is allowed for unix sockets and loopback addresses only, so write `sslmode=verify-full`"
    )]
    PlainToNetwork(String),
}

impl Address {
    /// Parses an address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(without_credentials(text));
        let (dialect, rest) = Dialect::of_address(text).ok_or_else(malformed)?;
        let (rest, query) = split(rest, '?');
        let (authority, database) = rest.split_once('/').ok_or_else(malformed)?;
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        // Percent-encoding has no use here, and what is decoded in one place only can be read two ways.
        if database.is_empty() || text.contains(['%', '#', '\0']) || database.contains('/') {
            return Err(malformed());
        }
        let parameters = Parameters::parse(query, dialect)?;
        let (host, port) = host_and_port(authority).ok_or_else(malformed)?;
        let port = port.unwrap_or_else(|| dialect.port());
        let endpoint = match (host, parameters.socket) {
            ("", Some(path)) if path.starts_with('/') => Endpoint::Unix(path.into()),
            (host, None) if !host.is_empty() => Endpoint::Tcp(host.to_owned()),
            _ => return Err(malformed()),
        };
        let transport = transport(parameters.sslmode, &endpoint)?;
        Ok(Self { dialect, endpoint, port, database: database.to_owned(), transport })
    }
}

#[derive(Default)]
struct Parameters<'a> {
    sslmode: Option<&'a str>,
    /// The unix socket, under the name that the dialect's own clients use.
    socket: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    fn parse(query: &'a str, dialect: Dialect) -> Result<Self, AddressError> {
        let mut parameters = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = split(pair, '=');
            let slot = match (key, dialect) {
                ("sslmode", _) => &mut parameters.sslmode,
                ("host", Dialect::Postgres) | ("socket", Dialect::Mysql) => &mut parameters.socket,
                _ => return Err(AddressError::Parameter(key.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(AddressError::Parameter(format!("{key}` twice, `{key}")));
            }
        }
        Ok(parameters)
    }
}

fn transport(sslmode: Option<&str>, endpoint: &Endpoint) -> Result<Transport, AddressError> {
    match (sslmode, endpoint) {
        (None | Some("disable"), Endpoint::Unix(_)) => Ok(Transport::Plain),
        (None, Endpoint::Tcp(_)) => Err(AddressError::NoSslMode),
        (Some("verify-full"), Endpoint::Tcp(_)) => Ok(Transport::VerifiedTls),
        (Some("disable"), Endpoint::Tcp(host)) if is_loopback(host) => Ok(Transport::Plain),
        (Some("disable"), Endpoint::Tcp(host)) => Err(AddressError::PlainToNetwork(host.clone())),
        (Some(other), _) => Err(AddressError::SslMode(other.to_owned())),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => split(authority, ':'),
    };
    if port.is_empty() && !authority.ends_with(':') {
        return Some((host, None));
    }
    Some((host, Some(port.parse().ok()?)))
}

fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

/// An address that does not parse may hold a password in any place before its last `@`.
fn without_credentials(text: &str) -> String {
    text.rsplit_once('@').map_or(text, |(_, rest)| rest).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn check(text: &str, endpoint: Endpoint, port: u16, transport: Transport) {
        let dialect = if text.starts_with("postgres") { Dialect::Postgres } else { Dialect::Mysql };
        let expected = Address { dialect, endpoint, port, database: "db".to_owned(), transport };
        assert_eq!(Address::parse(text), Ok(expected), "{text}");
    }

    #[test]
    fn reads_addresses_as_people_write_them() {
        let tcp = |host: &str| Endpoint::Tcp(host.to_owned());
        let unix = || Endpoint::Unix("/run/postgresql".into());
        let tls = Transport::VerifiedTls;
        check("postgres://db.internal/db?sslmode=verify-full", tcp("db.internal"), 5432, tls);
        check("postgresql://10.0.0.1:6432/db?sslmode=verify-full", tcp("10.0.0.1"), 6432, tls);
        check("postgres://[::1]:1/db?sslmode=disable", tcp("::1"), 1, Transport::Plain);
        check("postgres://127.1.2.3/db?sslmode=disable", tcp("127.1.2.3"), 5432, Transport::Plain);
        check("postgres:///db?host=/run/postgresql", unix(), 5432, Transport::Plain);
        check("postgres://:6/db?host=/run/postgresql", unix(), 6, Transport::Plain);
        let socket = Endpoint::Unix("/run/mysqld/mysqld.sock".into());
        check("mysql://db.internal/db?sslmode=verify-full", tcp("db.internal"), 3306, tls);
        check("mariadb://[::1]:1/db?sslmode=disable", tcp("::1"), 1, Transport::Plain);
        check("mysql:///db?socket=/run/mysqld/mysqld.sock", socket, 3306, Transport::Plain);
    }

    #[test]
    fn refuses_what_would_not_be_safe_and_says_why() {
        let cases = [
            ("postgres://db/x", "add `?sslmode=verify-full`"),
            ("postgres://db/x?sslmode=require", "which server answers"),
            ("postgres://db/x?sslmode=disable", "unix sockets and loopback"),
            ("postgres://u:p@db/x?sslmode=verify-full", "under `auth`"),
            ("postgres://db/x?sslmode=verify-full&options=-c", "`options`"),
            ("postgres://db/x?sslmode=verify-full&sslmode=disable", "twice"),
            ("postgres:///x?host=relative", "not a database address"),
            ("postgres://db?sslmode=verify-full", "not a database address"),
            ("postgres://db:99999/x?sslmode=verify-full", "not a database address"),
            ("postgres://d%62/x?sslmode=verify-full", "not a database address"),
            ("mysql://db/x", "add `?sslmode=verify-full`"),
            ("mysql://db/x?sslmode=disable", "unix sockets and loopback"),
            ("mysql:///x?host=/run/mysqld", "`host`"),
            ("postgres:///x?socket=/run/postgresql", "`socket`"),
            ("oracle://db/x?sslmode=verify-full", "not a database address"),
        ];
        for (text, sentence) in cases {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
    }

    #[test]
    fn does_not_repeat_a_password() {
        let error = Address::parse("oracle://u:hunter2@db/x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
