//! Where a session's token is good, and nowhere else. Proves nothing itself: what a connection
//! shows of its other end comes from the broker's authentication module.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::digest::digest;

/// The other end of a connection, as the transport proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this user, at the other end of a unix socket.
    Unix {
        /// Its user id, from the kernel.
        uid: u32,
    },
    /// The holder of a client certificate that TLS verified.
    Certified {
        /// The name of the workload in it: `spiffe://…` or `dns:…`.
        name: String,
        /// Which certificate it is.
        thumbprint: Thumbprint,
    },
    /// Somebody over TLS, without a certificate.
    Bearer,
}

/// What the token of a session is bound to. Presented by anybody else it is as unknown as one that
/// never was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Binding {
    /// To one user of this machine, over a unix socket.
    Unix {
        /// The user id.
        uid: u32,
    },
    /// To one client certificate (RFC 8705), and to the next one that its holder named.
    Certificate {
        /// The name of the workload. It never changes: the next certificate must bear it too.
        name: String,
        /// The certificate that counts.
        current: Thumbprint,
        /// The one that will: with its first use, the other counts no longer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Thumbprint>,
    },
    /// To TLS alone: there was no certificate to bind it to.
    Tls,
}

/// How a token came to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// From where it is bound to.
    AsBound,
    /// With the certificate that was named as the next one: from now on the binding is this. It
    /// must be recorded before the call goes on, or the older certificate would count again after
    /// a restart.
    Moved(Binding),
}

impl Binding {
    /// The binding of a session that `peer` opens.
    pub fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Unix { uid } => Self::Unix { uid: *uid },
            Peer::Certified { name, thumbprint } => {
                Self::Certificate { name: name.clone(), current: *thumbprint, next: None }
            }
            Peer::Bearer => Self::Tls,
        }
    }

    /// Whether `peer` may use the token.
    pub fn admit(&self, peer: &Peer) -> Option<Admission> {
        match (self, peer) {
            (Self::Unix { uid: bound }, Peer::Unix { uid }) => {
                (bound == uid).then_some(Admission::AsBound)
            }
            (
                Self::Certificate { name: bound, current, next },
                Peer::Certified { name, thumbprint },
            ) => {
                let same_name = bound == name;
                if same_name && current.is(thumbprint) {
                    return Some(Admission::AsBound);
                }
                let next = next.filter(|next| same_name && next.is(thumbprint))?;
                Some(Admission::Moved(Self::Certificate {
                    name: bound.clone(),
                    current: next,
                    next: None,
                }))
            }
            // A certificate besides takes nothing from a token that never had one.
            (Self::Tls, Peer::Bearer | Peer::Certified { .. }) => Some(Admission::AsBound),
            (Self::Unix { .. }, Peer::Certified { .. } | Peer::Bearer)
            | (Self::Certificate { .. }, Peer::Unix { .. } | Peer::Bearer)
            | (Self::Tls, Peer::Unix { .. }) => None,
        }
    }

    /// The same, with `next` as the certificate that counts after this one. Asked for over a
    /// connection that was admitted: the proof of the current key authorizes the next. At most two
    /// count at a time: a next one named earlier and not yet used is forgotten.
    pub fn expecting(&self, next: Thumbprint) -> Result<Self, NotCertified> {
        match self {
            Self::Certificate { name, current, .. } => Ok(Self::Certificate {
                name: name.clone(),
                current: *current,
                next: (next != *current).then_some(next),
            }),
            Self::Unix { .. } | Self::Tls => Err(NotCertified),
        }
    }
}

digest!(
    Thumbprint,
    "SHA-256 over the DER form of a certificate, as in `x5t#S256` of RFC 8705. It changes with \
     each renewal, even of the same key."
);

impl Thumbprint {
    /// The thumbprint of a certificate.
    pub fn of_der(der: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(der).into())
    }

    /// Whether both are the same, found in constant time.
    fn is(&self, other: &Self) -> bool {
        self.bytes().ct_eq(other.bytes()).into()
    }
}

/// The session is bound to something else than a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the session is not bound to a certificate, so that no next one can be named: its token stays good where it is"
)]
pub struct NotCertified;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn thumbprint(seed: u8) -> Thumbprint {
        Thumbprint::of_der(&[seed])
    }

    fn certified(name: &str, seed: u8) -> Peer {
        Peer::Certified { name: name.into(), thumbprint: thumbprint(seed) }
    }

    fn admits(binding: &Binding, peer: &Peer) -> bool {
        binding.admit(peer) == Some(Admission::AsBound)
    }

    #[test]
    fn admits_whom_it_was_made_of_and_nobody_else() {
        let peers = [
            Peer::Unix { uid: 1000 },
            Peer::Unix { uid: 1001 },
            certified("spiffe://a/b", 1),
            certified("spiffe://a/b", 2),
            certified("spiffe://a/c", 1),
        ];
        for (at, opener) in peers.iter().enumerate() {
            for (other, peer) in peers.iter().enumerate() {
                let admitted = Binding::of(opener).admit(peer);
                let expect = (at == other).then_some(Admission::AsBound);
                assert_eq!(admitted, expect, "{opener:?} {peer:?}");
            }
            assert_eq!(Binding::of(opener).admit(&Peer::Bearer), None, "{opener:?}");
        }
    }

    #[test]
    fn without_a_certificate_only_the_transport_counts() {
        let bound = Binding::of(&Peer::Bearer);
        assert!(admits(&bound, &Peer::Bearer));
        assert!(admits(&bound, &certified("spiffe://a/b", 1)));
        assert!(!admits(&bound, &Peer::Unix { uid: 0 }));
    }

    #[test]
    fn moves_to_the_next_certificate_and_never_back() {
        let (old, new) = (certified("spiffe://a/b", 1), certified("spiffe://a/b", 2));
        let expecting = Binding::of(&old).expecting(thumbprint(2)).unwrap();
        assert!(admits(&expecting, &old), "until the next one is used");
        let Some(Admission::Moved(moved)) = expecting.admit(&new) else {
            unreachable!("the next certificate counts")
        };
        assert!(admits(&moved, &new));
        assert_eq!(moved.admit(&old), None);
    }

    #[test]
    fn never_moves_to_another_workload() {
        let expecting = Binding::of(&certified("spiffe://a/b", 1)).expecting(thumbprint(2));
        assert_eq!(expecting.unwrap().admit(&certified("spiffe://a/c", 2)), None);
    }

    #[test]
    fn at_most_two_certificates_count() {
        let peer = |seed| certified("spiffe://a/b", seed);
        let twice = Binding::of(&peer(1)).expecting(thumbprint(2)).unwrap();
        let twice = twice.expecting(thumbprint(3)).unwrap();
        assert!(admits(&twice, &peer(1)));
        assert_eq!(twice.admit(&peer(2)), None);
        assert!(matches!(twice.admit(&peer(3)), Some(Admission::Moved(_))));
        let none = twice.expecting(thumbprint(1)).unwrap();
        assert_eq!(none, Binding::of(&peer(1)), "the current one as the next takes it back");
    }

    #[test]
    fn only_a_certificate_has_a_next_one() {
        for peer in [Peer::Unix { uid: 1 }, Peer::Bearer] {
            assert_eq!(Binding::of(&peer).expecting(thumbprint(1)), Err(NotCertified));
        }
    }

    #[test]
    fn the_journal_reads_back_what_it_wrote() {
        for (binding, text) in [
            (Binding::Unix { uid: 7 }, r#"{"kind":"unix","uid":7}"#.to_owned()),
            (Binding::Tls, r#"{"kind":"tls"}"#.to_owned()),
            (
                Binding::of(&certified("dns:a", 1)),
                format!(r#"{{"kind":"certificate","name":"dns:a","current":"{}"}}"#, thumbprint(1)),
            ),
        ] {
            assert_eq!(serde_json::to_string(&binding).unwrap(), text);
            assert_eq!(serde_json::from_str::<Binding>(&text).unwrap(), binding);
        }
    }
}
