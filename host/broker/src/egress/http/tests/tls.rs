//! Whom the door trusts.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::*;

/// An authority, with its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    fn certificate(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A server with a certificate for `name`, which asks clients for one if it is told to.
    fn server(&self, name: &str, clients: Option<Arc<dyn ClientCertVerifier>>) -> Server {
        let (certificate, key) = self.certificate(name);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = builder.with_single_cert(chain, key).unwrap();
        let answer = server::json("{}");
        Server::on("127.0.0.1:0", Some(config), move |_, wire| {
            drop(wire.write_all(answer.as_bytes()));
        })
    }

    fn client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
    }

    fn setup(&self, server: &Server, name: &str) -> Setup {
        Setup {
            ca_file: Some(self.file.path().to_path_buf()),
            resolver: Scripted::new(&["127.0.0.1"]),
            ..Setup::to(format!("https://{name}:{}", server.port()))
        }
    }
}

#[tokio::test]
async fn a_server_must_be_the_one_that_it_was_asked_for() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = ours.server("api.test", None);
    let check = async |setup: Setup, sentence: &str| {
        let sent = send(&setup.door(), &get()).await;
        match sent {
            Ok(response) => assert!(sentence.is_empty(), "{}", response.status()),
            Err(failure) => {
                let told = !sentence.is_empty() && failure.message.contains(sentence);
                assert!(told, "{} / {sentence}", failure.message);
                let seen = (failure.kind, failure.request_sent);
                assert_eq!(seen, (FailureKind::Unavailable, false));
            }
        }
    };
    check(ours.setup(&server, "api.test"), "").await;
    check(other.setup(&server, "api.test"), "invalid peer certificate").await;
    check(ours.setup(&server, "other.test"), "not valid for name").await;
    check(ours.setup(&server, "127.0.0.1"), "not valid for name").await;
    check(Setup { ca_file: None, ..ours.setup(&server, "api.test") }, "UnknownIssuer").await;
    assert_eq!(server.seen().len(), 1, "a server that was not trusted got a request");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_servers_that_ask() {
    let authority = Authority::new();
    let server = authority.server("api.test", Some(authority.client_verifier()));
    let (certificate, key) = authority.certificate("broker");
    let auth = HttpAuth::Mtls { certificate: certificate.into_bytes(), key: Zeroizing::new(key) };
    let known = Setup { auth, ..authority.setup(&server, "api.test") }.door();
    assert_eq!(send(&known, &get()).await.unwrap().status(), 200);
    let unknown = authority.setup(&server, "api.test").door();
    assert!(send(&unknown, &get()).await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_client_key_that_is_none_is_refused_without_quoting_it() {
    let authority = Authority::new();
    let identity = crate::egress::tls::ClientIdentity {
        certificate: authority.certificate("broker").0.into_bytes(),
        key: secret("-----BEGIN PRIVATE KEY-----\nhunter2hunter2\n-----END PRIVATE KEY-----\n"),
    };
    let error = crate::egress::tls::client(None, Some(&identity)).err().unwrap().to_string();
    assert!(error.contains("client certificate") && !error.contains("hunter2"), "{error}");
}
