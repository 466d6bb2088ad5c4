//! Whose client certificates are accepted: an operator's authority for DNS names and, with
//! SPIFFE, each trust domain's own bundle for its ids. Reads no files.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use spiffe::{SpiffeId, TrustDomain};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::identity;
use crate::config::ClientCertificates;

/// The certificates of authorities.
pub type Authorities = Vec<CertificateDer<'static>>;

/// The bundle of each accepted trust domain.
pub type TrustDomains = BTreeMap<TrustDomain, Authorities>;

/// Whom a listener trusts.
#[derive(Clone, Debug)]
pub struct ClientTrust {
    /// Whether clients must have a certificate.
    pub demand: ClientCertificates,
    /// The operator's own authority.
    pub authority: Authorities,
    /// With SPIFFE: the trust domains that are accepted, each with its bundle. A SPIFFE id is
    /// proven by the bundle of its trust domain and by nothing else.
    pub domains: Option<TrustDomains>,
}

impl ClientTrust {
    /// What checks certificates in handshakes; `None` if none are asked for.
    pub fn verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, TrustError> {
        let mandatory = match self.demand {
            ClientCertificates::None => return Ok(None),
            ClientCertificates::Optional => false,
            ClientCertificates::Required => true,
        };
        let operator = chains_to(&self.authority)?;
        let mut domains = BTreeMap::new();
        for (domain, bundle) in self.domains.iter().flatten() {
            if let Some(verifier) = chains_to(bundle)? {
                domains.insert(domain.clone(), verifier);
            }
        }
        if operator.is_none() && domains.is_empty() {
            return Err(TrustError::Nobody);
        }
        let spiffe = self.domains.as_ref().map(|_| domains);
        let algorithms = identity::provider().signature_verification_algorithms;
        Ok(Some(Arc::new(Verifier { operator, spiffe, mandatory, algorithms })))
    }
}

/// Checks chains that end in one of `authorities`, if there are any.
fn chains_to(authorities: &Authorities) -> Result<Option<Arc<dyn ClientCertVerifier>>, TrustError> {
    if authorities.is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| TrustError::Authority(error.to_string()))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), identity::provider()).build();
    verifier.map(Some).map_err(|error| TrustError::Authority(error.to_string()))
}

/// Chooses the authority by what the certificate names, and then lets webpki check the chain.
#[derive(Debug)]
struct Verifier {
    operator: Option<Arc<dyn ClientCertVerifier>>,
    /// `None` without SPIFFE: then the operator's authority vouches for ids too.
    spiffe: Option<BTreeMap<TrustDomain, Arc<dyn ClientCertVerifier>>>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// INVARIANT (own-bundle-only): with SPIFFE, a certificate with a URI never reaches the
    /// operator's authority, nor the bundle of another trust domain. Otherwise a partner could
    /// mint the ids of this trust domain.
    fn chosen(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<&Arc<dyn ClientCertVerifier>, TrustError> {
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| TrustError::Unreadable)?;
        let uris = uris(&certificate)?;
        match &self.spiffe {
            Some(domains) if !uris.is_empty() => {
                let domain = svid_domain(&certificate, &uris)?;
                for signing in intermediates {
                    is_signing(signing)?;
                }
                domains.get(&domain).ok_or_else(|| TrustError::Domain(domain.to_string()))
            }
            _ => self.operator.as_ref().ok_or(TrustError::NoAuthority),
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None are named: which authorities the broker trusts is nobody's business, and a client
    /// has one certificate for it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chosen = self.chosen(end_entity, intermediates).map_err(|error| {
            let error = CertificateError::Other(OtherError(Arc::new(error)));
            rustls::Error::InvalidCertificate(error)
        })?;
        chosen.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, TrustError> {
    let names = certificate.subject_alternative_name().map_err(|_| TrustError::Unreadable)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect())
}

/// The trust domain of an X.509-SVID, with the specification's demands on a leaf: one URI, an id
/// with a path, no authority, made for signatures only.
fn svid_domain(leaf: &X509Certificate<'_>, uris: &[&str]) -> Result<TrustDomain, TrustError> {
    let [uri] = uris else { return Err(TrustError::Svid("it has more than one URI")) };
    let id = SpiffeId::new(uri).map_err(|_| TrustError::Svid("its URI is no SPIFFE id"))?;
    // The parser lowers the trust domain's letters, and the name that policies compare is the
    // text: one workload must not have two names.
    if id.to_string() != **uri {
        return Err(TrustError::Svid("its SPIFFE id is not written in lower case"));
    }
    if id.path().is_empty() {
        return Err(TrustError::Svid("its SPIFFE id is that of a trust domain"));
    }
    let basic = leaf.basic_constraints().map_err(|_| TrustError::Unreadable)?;
    if basic.is_some_and(|basic| basic.value.ca) {
        return Err(TrustError::Svid("it is an authority"));
    }
    let usage = leaf.key_usage().map_err(|_| TrustError::Unreadable)?;
    let usage = usage.ok_or(TrustError::Svid("it has no key usage"))?.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(TrustError::Svid("its key usage is not that of a workload"));
    }
    Ok(id.trust_domain().clone())
}

fn is_signing(certificate: &CertificateDer<'_>) -> Result<(), TrustError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| TrustError::Unreadable)?;
    let basic = certificate.basic_constraints().map_err(|_| TrustError::Unreadable)?;
    let usage = certificate.key_usage().map_err(|_| TrustError::Unreadable)?;
    let signs = basic.is_some_and(|basic| basic.value.ca)
        && usage.is_some_and(|usage| usage.value.key_cert_sign());
    if signs { Ok(()) } else { Err(TrustError::Svid("its chain holds what may not sign")) }
}

/// Why a client certificate, or an authority, is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrustError {
    /// An authority cannot be used.
    #[error("an authority cannot be used: {0}")]
    Authority(String),
    /// There is no authority at all.
    #[error("nobody's client certificates would be accepted: name an authority with `client_ca`")]
    Nobody,
    /// The certificate cannot be read.
    #[error("the client certificate is malformed")]
    Unreadable,
    /// The certificate carries no SPIFFE id, and nothing else is accepted.
    #[error("the client certificate has no SPIFFE id, and no `client_ca` is configured")]
    NoAuthority,
    /// The certificate is of a trust domain that is not accepted.
    #[error("trust domain `{0}` is not accepted, or has no bundle: name it in `trust_domains`")]
    Domain(String),
    /// The certificate is no X.509-SVID.
    #[error("the client certificate is no X.509-SVID: {0}")]
    Svid(&'static str),
}

#[cfg(test)]
#[path = "trust/tests.rs"]
mod tests;
