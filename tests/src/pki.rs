//! A certificate authority for one test, and handshakes with what it certified.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
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

impl Certified {
    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        der.expect("a certificate").to_vec()
    }

    /// The key in DER, PKCS#8.
    pub fn key_der(&self) -> Vec<u8> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes());
        der.expect("a key").secret_pkcs8_der().to_vec()
    }
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

    /// Its certificate, DER.
    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// An X.509-SVID, good for both ends of a connection on 127.0.0.1.
    pub fn svid(&self, id: &str) -> Certified {
        let mut params = CertificateParams::default();
        params.subject_alt_names = named(&[id]);
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let sha256 = Sha256::digest(certificate.der());
        Certified {
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A certificate for a server on 127.0.0.1.
    pub fn server(&self) -> Certified {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        self.issue(vec![address], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A server's certificate that ended long ago.
    pub fn expired_server(&self) -> Certified {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        self.issue_until(
            vec![address],
            ExtendedKeyUsagePurpose::ServerAuth,
            Duration::from_hours(24),
        )
    }

    /// A client certificate with these URIs as subject alternative names.
    pub fn client(&self, uris: &[&str]) -> Certified {
        self.issue(named(uris), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The same, valid until `end`, counted from the beginning of 1970.
    pub fn client_until(&self, uris: &[&str], end: Duration) -> Certified {
        self.issue_until(named(uris), ExtendedKeyUsagePurpose::ClientAuth, end)
    }

    fn issue(&self, names: Vec<SanType>, purpose: ExtendedKeyUsagePurpose) -> Certified {
        self.issue_until(names, purpose, FAR)
    }

    fn issue_until(
        &self,
        names: Vec<SanType>,
        purpose: ExtendedKeyUsagePurpose,
        end: Duration,
    ) -> Certified {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![purpose];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1);
        params.not_after = params.not_before + end;
        self.sign(&params)
    }
}

fn named(uris: &[&str]) -> Vec<SanType> {
    uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ascii"))).collect()
}

/// The first certificate, in DER, that whoever listens on `port` of 127.0.0.1 presents in a
/// handshake of TLS 1.3, if there is one.
pub fn presented(port: u16, ca: &str) -> Option<Vec<u8>> {
    handshake(port, ca, &rustls::version::TLS13).ok()
}

/// The same in a version of TLS of the caller's choice, or why there is none.
pub fn handshake(
    port: u16,
    ca: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("an authority");
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address: IpAddr = [127, 0, 0, 1].into();
    let mut tls =
        rustls::ClientConnection::new(Arc::new(config), address.into()).expect("a client");
    let mut tcp = std::net::TcpStream::connect((address, port))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    let leaf = tls.peer_certificates().and_then(<[_]>::first).expect("a server's certificate");
    Ok(leaf.to_vec())
}

/// In the year 2100: beyond every test.
const FAR: Duration = Duration::from_hours(130 * 365 * 24);

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
