//! The address of an HTTP connection, as operators write it: an origin and nothing else.

use std::net::{IpAddr, Ipv6Addr};

use thiserror::Error;
use url::{Host, Url};

use super::exchange::{Reach, Route};

/// An address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OriginError {
    /// It is no origin.
    #[error(
        "`{0}` is no address of a service: write it as `https://api.internal:8443`, without a path"
    )]
    Malformed(String),
    /// Plain HTTP to elsewhere.
    #[error(
        "`{0}` would send credentials over plain HTTP: only this machine is reached so, use `https`"
    )]
    Plain(String),
    /// It is this machine, which must be granted.
    #[error("`{0}` is this machine: grant it with `reach = [\"loopback\"]`")]
    Loopback(String),
}

impl Route {
    /// Reads an address, strictly: what the parser would have to mend is refused.
    pub fn parse(text: &str, reach: &[Reach]) -> Result<Self, OriginError> {
        let malformed = || OriginError::Malformed(shown(text));
        let url = Url::parse(text).map_err(|_| malformed())?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(malformed()),
        };
        let host = host(&url).ok_or_else(malformed)?;
        let port = url.port_or_known_default().filter(|port| *port > 0).ok_or_else(malformed)?;
        let route = Self { tls, host, port, reach: reach.to_vec() };
        let explicit = format!("{}:{port}", route.origin());
        if text != route.origin() && text != explicit {
            return Err(malformed());
        }
        if is_loopback(&route.host) {
            let granted = reach.contains(&Reach::Loopback);
            return if granted { Ok(route) } else { Err(OriginError::Loopback(shown(text))) };
        }
        if tls { Ok(route) } else { Err(OriginError::Plain(shown(text))) }
    }
}

fn host(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain(name) => Some(name.to_owned()),
        Host::Ipv4(address) => Some(address.to_string()),
        Host::Ipv6(address) => Some(address.to_string()),
    }
}

fn is_loopback(host: &str) -> bool {
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback());
    host == "localhost"
        || host.parse().is_ok_and(|address| match address {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback() || mapped(address),
        })
}

/// The address without what stands before an `@`, which may be a password.
fn shown(text: &str) -> String {
    let after = text.rsplit_once('@').map_or(text, |(_, after)| after);
    let mut shown = after.split(['?', '#']).next().unwrap_or_default().to_owned();
    crate::egress::redact::clip(&mut shown, 256);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_origin() {
        for (text, host, port, origin) in [
            ("https://api.internal", "api.internal", 443, "https://api.internal"),
            ("https://api.internal:443", "api.internal", 443, "https://api.internal"),
            ("https://api.internal:8443", "api.internal", 8443, "https://api.internal:8443"),
            ("http://localhost:8080", "localhost", 8080, "http://localhost:8080"),
            ("http://127.0.0.1", "127.0.0.1", 80, "http://127.0.0.1"),
            ("http://[::1]:8080", "::1", 8080, "http://[::1]:8080"),
            ("https://10.0.0.1", "10.0.0.1", 443, "https://10.0.0.1"),
        ] {
            let route = Route::parse(text, &[Reach::Loopback]);
            let seen = route.map(|r| (r.host.clone(), r.port, r.origin()));
            assert_eq!(seen, Ok((host.to_owned(), port, origin.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        for text in [
            "",
            "api.internal",
            "https://",
            "https:///",
            "ftp://a",
            "https://a/",
            "https://a/v1",
            "https://a?x",
            "https://a#x",
            "https://u:secret@a",
            "https://a:0",
            "https://a:99999",
            "https://A",
            "HTTPS://a",
            "https://a b",
            "https:a",
            "https:\\\\a",
            "https://2130706433",
            "https://0x7f.1",
            "https://127.1",
            "https://a%2eb",
            " https://a",
            "https://a\n",
            "https://[::0001]",
            "https://ä",
            "unix:/x",
        ] {
            let error = Route::parse(text, &[Reach::Loopback]).err();
            assert!(matches!(error, Some(OriginError::Malformed(_))), "{text}");
            assert!(!error.is_some_and(|error| error.to_string().contains("secret")), "{text}");
        }
        let plain = Route::parse("http://api.internal", &[Reach::Loopback, Reach::Private]);
        assert!(matches!(plain, Err(OriginError::Plain(_))));
        for text in ["http://localhost", "https://127.0.0.1", "https://[::1]"] {
            assert!(matches!(Route::parse(text, &[]), Err(OriginError::Loopback(_))), "{text}");
        }
    }
}
