//! Whom the doors trust and who they are in TLS: certificates read, never a connection made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use zeroize::Zeroizing;

/// A client certificate, for services that ask for one.
pub struct ClientIdentity {
    /// The chain, PEM.
    pub certificate: Vec<u8>,
    /// Its private key, PEM.
    pub key: Zeroizing<String>,
}

/// Why TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificates to trust cannot be read.
    #[error("cannot read the certificates in `{}`: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine has no certificates to trust.
    #[error("this machine has no trusted certificates: install them, or name one with `ca`")]
    NoCertificates,
    /// The client certificate or its key is wrong.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// The TLS library refused.
    #[error("TLS cannot be set up: {0}")]
    Library(String),
}

/// A client that trusts the authorities in `ca_file`, or the system's without one.
pub fn client(
    ca_file: Option<&Path>,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Library(error.to_string()))?
        .with_root_certificates(roots(ca_file)?);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let unusable = |reason: &dyn std::fmt::Display| TlsError::Identity(reason.to_string());
    let chain = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(&error))?;
    // The reader's own words could quote the key.
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|_| unusable(&"its key is no private key in PEM"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities(ca_file)?);
    Ok(roots)
}

/// The certificates to trust, from `ca_file` or the system: each can be used, and there is at
/// least one.
pub fn authorities(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let usable =
        |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone());
    let Some(path) = ca_file else {
        let mut system = rustls_native_certs::load_native_certs().certs;
        system.retain(|certificate| usable(certificate).is_ok());
        return if system.is_empty() { Err(TlsError::NoCertificates) } else { Ok(system) };
    };
    let unreadable = |reason: String| TlsError::Certificates { path: path.to_path_buf(), reason };
    let mut certificates = Vec::new();
    let file =
        CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    for certificate in file {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        usable(&certificate).map_err(|error| unreadable(error.to_string()))?;
        certificates.push(certificate);
    }
    if certificates.is_empty() {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}
