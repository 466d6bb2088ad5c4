//! What a TLS connection proves of its client: worked out once, when the connection begins.
//! Verifies nothing; that was done in the handshake.

use std::sync::Arc;

use claviger_core::binding::Thumbprint;
use claviger_core::time::Timestamp;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::is_over;

/// The other end of a TLS connection, as every call on it finds it among its extensions.
#[derive(Clone, Debug, Default)]
pub struct TlsPeer {
    certificate: Option<Arc<ClientCertificate>>,
}

/// A client certificate that the handshake verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    name: Option<String>,
    thumbprint: Thumbprint,
    not_after: Timestamp,
}

impl TlsPeer {
    /// The client of a finished handshake that presented `leaf`, or nothing. `None` if the leaf
    /// cannot be read here: whoever cannot be named may not connect either.
    pub fn of_handshake(leaf: Option<&[u8]>) -> Option<Self> {
        let Some(der) = leaf else { return Some(Self::default()) };
        Some(Self { certificate: Some(Arc::new(ClientCertificate::read(der)?)) })
    }

    /// Its certificate, if it has one.
    pub fn certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_deref()
    }
}

impl ClientCertificate {
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let name = names.and_then(|names| principal_name(&names.value.general_names));
        let not_after_secs = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        Some(Self {
            name,
            thumbprint: Thumbprint::of_der(der),
            not_after: Timestamp::from_unix_millis(not_after_secs.saturating_mul(1000)),
        })
    }

    /// The one workload that it names: a SPIFFE id, or `dns:` and a name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The SHA-256 of the certificate: what RFC 8705 binds tokens to.
    pub const fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    /// The last moment at which it proves anything.
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether it proves nothing any more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        is_over(self.not_after, now)
    }
}

/// The SPIFFE id if there is one (exactly one, as the X.509-SVID specification demands),
/// otherwise the first DNS name.
fn principal_name(names: &[GeneralName<'_>]) -> Option<String> {
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    if let Some(uri) = uris.next() {
        let plain = uri.bytes().all(|byte| byte.is_ascii_graphic()) && uri.len() <= NAME_BYTES_MAX;
        let only = uris.next().is_none();
        return (only && plain && uri.starts_with("spiffe://")).then(|| uri.to_owned());
    }
    names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) if dns.len() <= NAME_BYTES_MAX && !dns.contains('*') => {
            Some(format!("dns:{}", dns.to_ascii_lowercase()))
        }
        _ => None,
    })
}

/// SPIFFE ids have at most 2048 bytes, DNS names 253.
const NAME_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn names_a_certificate_by_its_only_spiffe_id() {
        let uri = GeneralName::URI;
        let dns = GeneralName::DNSName;
        let check = principal_name;
        assert_eq!(check(&[uri("spiffe://a/b"), dns("x.y")]), Some("spiffe://a/b".into()));
        assert_eq!(check(&[dns("X.y")]), Some("dns:x.y".into()));
        for refused in [
            vec![],
            vec![uri("https://a/b")],
            vec![uri("spiffe://a/b"), uri("spiffe://a/c")],
            vec![uri("spiffe://a/b c")],
            vec![dns("*.y")],
        ] {
            assert_eq!(check(&refused), None, "{refused:?}");
        }
    }

    #[test]
    fn a_certificate_proves_nothing_after_its_last_second() {
        let certificate = ClientCertificate {
            name: None,
            thumbprint: Thumbprint::of_der(b""),
            not_after: Timestamp::from_unix_millis(5_000),
        };
        for (now, expired) in [(0, false), (5_000, false), (5_999, false), (6_000, true)] {
            let now = Timestamp::from_unix_millis(now);
            assert_eq!(certificate.has_expired(now), expired, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_peer_and_no_certificate_is_one_without_a_name() {
        assert!(TlsPeer::of_handshake(Some(b"no certificate")).is_none());
        let anonymous = TlsPeer::of_handshake(None).expect("a peer");
        assert_eq!(anonymous.certificate(), None);
    }
}
