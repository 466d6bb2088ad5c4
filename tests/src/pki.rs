//! A certificate authority for one test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest, Sha256};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, PEM.
#[derive(Clone)]
pub struct Certified {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// SHA-256, in hex, of the certificate's DER form.
    pub sha256: String,
}

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server on 127.0.0.1.
    pub fn server(&self) -> Certified {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        self.issue(vec![address], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client certificate with these URIs as subject alternative names.
    pub fn client(&self, uris: &[&str]) -> Certified {
        let names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ascii"))).collect();
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose) -> Certified {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let sha256 = Sha256::digest(certificate.der());
        Certified {
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Connects to `port` of 127.0.0.1, trusting the authority with the certificate `ca`.
pub async fn connect(
    port: u16,
    ca: &str,
    client: Option<&Certified>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some(client) = client {
        tls = tls.identity(Identity::from_pem(&client.certificate, &client.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?;
    endpoint.tls_config(tls)?.connect().await
}
