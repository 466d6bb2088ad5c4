//! The broker's own certificate with its key, checked before anybody is shown it.

use std::sync::Arc;

use claviger_core::time::Timestamp;
use data_encoding::HEXLOWER;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate chain and the key of its first certificate: they belong together.
#[derive(Clone, Debug)]
pub struct OwnIdentity {
    /// What TLS works with.
    pub certified: CertifiedKey,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl OwnIdentity {
    /// The pair in PEM, valid `now`.
    pub fn from_pem(chain: &[u8], key: &str, now: Timestamp) -> Result<Self, OwnIdentityError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| OwnIdentityError::Chain(error.to_string()))?;
        // The reader's own words could quote the key.
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| OwnIdentityError::UnreadableKey)?;
        Self::from_der(chain, key, now)
    }

    /// The pair in DER, valid `now`.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        now: Timestamp,
    ) -> Result<Self, OwnIdentityError> {
        let leaf = chain.first().ok_or(OwnIdentityError::NoCertificate)?;
        let (not_before, not_after) = validity(leaf)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(of_library)?;
        if is_over(not_after, now) {
            return Err(OwnIdentityError::Expired(not_after));
        }
        if now < not_before {
            return Err(OwnIdentityError::NotYetValid(not_before));
        }
        Ok(Self { certified, not_before, not_after })
    }

    /// The SHA-256 of the first certificate in hex.
    pub fn thumbprint(&self) -> String {
        let leaf = self.certified.cert.first().map(AsRef::as_ref);
        HEXLOWER.encode(&Sha256::digest(leaf.unwrap_or_default()))
    }
}

/// Whether a certificate that ends then has ended, the broker's own or a client's. X.509 counts whole
/// seconds, and the last one in (RFC 5280, 4.1.2.5).
pub fn is_over(not_after: Timestamp, now: Timestamp) -> bool {
    now.whole_second() > not_after
}

/// The cryptography of every TLS listener.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), OwnIdentityError> {
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|error| OwnIdentityError::Chain(error.to_string()))?;
    // A moment before 1970 is as good as 1970.
    let at = |secs: i64| {
        Timestamp::from_unix_millis(u64::try_from(secs).unwrap_or_default().saturating_mul(1000))
    };
    let validity = certificate.validity();
    Ok((at(validity.not_before.timestamp()), at(validity.not_after.timestamp())))
}

fn of_library(error: Error) -> OwnIdentityError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => OwnIdentityError::Mismatch,
        error => OwnIdentityError::Unusable(error.to_string()),
    }
}

/// Why a certificate cannot be the broker's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OwnIdentityError {
    /// There is none.
    #[error("it holds no certificate: write the chain in PEM, the broker's own certificate first")]
    NoCertificate,
    /// It cannot be read.
    #[error("it cannot be read as certificates: {0}")]
    Chain(String),
    /// Its key cannot be read.
    #[error("its key is no private key in PEM")]
    UnreadableKey,
    /// Its key belongs to another certificate.
    #[error("key and certificate do not belong together: replace both")]
    Mismatch,
    /// It is over.
    #[error("it expired at {0}: put a new one in its place")]
    Expired(Timestamp),
    /// It has not begun.
    #[error("it is not valid before {0}: look at the clock, or wait until then")]
    NotYetValid(Timestamp),
    /// The TLS library refuses it.
    #[error("it cannot be used: {0}")]
    Unusable(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]
    use super::*;

    /// A self-signed certificate valid for 2030, and its key, PEM.
    fn pair() -> (String, String) {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn year(year: i32) -> Timestamp {
        let at = rcgen::date_time_ymd(year, 7, 1).unix_timestamp();
        Timestamp::from_unix_millis(u64::try_from(at).expect("after 1970") * 1000)
    }

    fn check(chain: &str, key: &str, now: Timestamp) -> Result<String, OwnIdentityError> {
        OwnIdentity::from_pem(chain.as_bytes(), key, now).map(|identity| identity.thumbprint())
    }

    #[test]
    fn takes_a_pair_that_belongs_together_while_it_is_valid() {
        let (chain, key) = pair();
        assert_eq!(check(&chain, &key, year(2030)).expect("a pair").len(), 64);
        let (other, _) = pair();
        assert_eq!(check(&other, &key, year(2030)), Err(OwnIdentityError::Mismatch));
        let early = check(&chain, &key, year(2029)).expect_err("too early");
        assert!(matches!(early, OwnIdentityError::NotYetValid(_)), "{early}");
        let late = check(&chain, &key, year(2031)).expect_err("too late");
        assert!(matches!(late, OwnIdentityError::Expired(_)), "{late}");
    }

    #[test]
    fn refuses_what_is_no_pair_without_repeating_the_key() {
        let (chain, key) = pair();
        assert_eq!(check("", &key, year(2030)), Err(OwnIdentityError::NoCertificate));
        let cut = key.get(..key.len() / 2).expect("ascii");
        let error = check(&chain, cut, year(2030)).expect_err("half a key");
        assert_eq!(error, OwnIdentityError::UnreadableKey);
        let half = chain.get(..chain.len() / 2).expect("ascii");
        assert!(check(half, &key, year(2030)).is_err(), "half a certificate");
    }
}
