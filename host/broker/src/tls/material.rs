//! What one TLS listener works with: read from the files that the configuration names, checked as
//! a whole, and made into a configuration of the TLS library. Puts nothing in force.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use claviger_core::time::Timestamp;
use data_encoding::HEXLOWER;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use sha2::{Digest, Sha256};

use super::identity::{self, OwnIdentity};
use super::spiffe::{OwnSvid, SpiffeView};
use super::trust::{Authorities, ClientTrust, TrustDomains};
use crate::config::{ClientCertificates, ConfigError, ConfigFile, SecretRef, TlsConfig};
use crate::egress;

/// A listener as it stands in the configuration.
#[derive(Clone, Copy)]
pub struct Described<'a> {
    /// The configuration.
    pub file: &'a ConfigFile,
    /// The name of the section within `[listen]`.
    pub section: &'static str,
    /// What stands there.
    pub tls: &'a TlsConfig,
}

/// A certificate with its key, and whom to trust.
#[derive(Clone)]
pub struct Material {
    identity: OwnIdentity,
    trust: ClientTrust,
}

/// What was read of a listener. Each part counts by itself: a certificate that cannot be used must
/// not keep an authority in force that was removed.
pub struct Reading {
    identity: Result<OwnIdentity, ConfigError>,
    trust: Result<ClientTrust, ConfigError>,
}

impl Reading {
    /// Both parts, or the problem with one of them.
    pub fn complete(self) -> Result<Material, ConfigError> {
        Ok(Material { identity: self.identity?, trust: self.trust? })
    }

    /// What is usable of it, with the `earlier` in place of what is not; and every problem.
    pub fn or_earlier(self, earlier: &Material) -> (Material, Vec<ConfigError>) {
        let mut problems = Vec::new();
        let mut keep = |problem| problems.push(problem);
        let identity = self.identity.map_err(&mut keep);
        let trust = self.trust.map_err(&mut keep);
        let material = Material {
            identity: identity.unwrap_or_else(|()| earlier.identity.clone()),
            trust: trust.unwrap_or_else(|()| earlier.trust.clone()),
        };
        (material, problems)
    }
}

impl Described<'_> {
    /// Reads and checks everything, each part by itself.
    pub fn read(&self, spiffe: Option<SpiffeView>, now: Timestamp) -> Result<Reading, ConfigError> {
        if self.section == ADMIN && self.tls.client_certificates != ClientCertificates::Required {
            let problem = "operators prove themselves by a certificate: write `\"required\"`, or \
                           leave it out";
            return Err(self.problem("client_certificates", problem));
        }
        let (own, domains) = match spiffe {
            Some(view) => (view.own, Some(view.domains)),
            None => (None, None),
        };
        Ok(Reading { identity: self.identity(own, now), trust: self.trust(domains) })
    }

    /// Whom to trust, tried: what the TLS library refuses is found here.
    fn trust(&self, domains: Option<TrustDomains>) -> Result<ClientTrust, ConfigError> {
        let authority = self.authority(domains.as_ref())?;
        let trust = ClientTrust { demand: self.tls.client_certificates, authority, domains };
        match trust.verifier() {
            Ok(_) => Ok(trust),
            Err(error) => Err(self.problem("client_ca", error)),
        }
    }

    /// Checks what the files say, where a Workload API says the rest later.
    pub fn check_files(&self, now: Timestamp) -> Result<(), ConfigError> {
        if self.tls.certificate.is_some() || self.tls.key.is_some() {
            self.identity(None, now)?;
        }
        self.authority(Some(&BTreeMap::new())).map(drop)
    }

    /// A problem with what stands at `key` of this listener.
    pub fn problem(&self, key: &str, problem: impl std::fmt::Display) -> ConfigError {
        self.file.problem(&["listen", self.section, key], problem)
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let key = match &self.tls.key {
            Some(SecretRef::File(path)) => Some(path),
            _ => None,
        };
        let named = [self.tls.certificate.as_ref(), key, self.tls.client_ca.as_ref()];
        named.into_iter().flatten().map(|path| self.file.base().join(path)).collect()
    }

    fn identity(&self, own: Option<OwnSvid>, now: Timestamp) -> Result<OwnIdentity, ConfigError> {
        let (certificate, key) = match (&self.tls.certificate, &self.tls.key, own) {
            (Some(certificate), Some(key), _) => (certificate, key),
            (None, None, Some(svid)) => {
                let identity = OwnIdentity::from_der(svid.chain, svid.key, now);
                let unusable = |error| format!("the broker's X.509-SVID: {error}");
                return identity.map_err(|error| self.problem("certificate", unusable(error)));
            }
            _ => {
                let problem = "write `certificate` and `key`, or `workload_api` under \
                               `[identity.spiffe]` and neither of them";
                return Err(self.problem("certificate", problem));
            }
        };
        let path = self.file.base().join(certificate);
        let unusable = |error: &dyn std::fmt::Display| {
            self.problem("certificate", format!("`{}`: {error}", path.display()))
        };
        let chain = std::fs::read(&path).map_err(|error| unusable(&error))?;
        let key = key.read(self.file.base()).map_err(|error| self.problem("key", error))?;
        OwnIdentity::from_pem(&chain, &key, now).map_err(|error| unusable(&error))
    }

    fn authority(&self, spiffe: Option<&TrustDomains>) -> Result<Authorities, ConfigError> {
        let Some(path) = &self.tls.client_ca else {
            if spiffe.is_some() || self.tls.client_certificates == ClientCertificates::None {
                return Ok(Vec::new());
            }
            let problem = "write whose client certificates are accepted, or \
                           `client_certificates = \"none\"` if tokens alone prove who connects";
            return Err(self.problem("client_ca", problem));
        };
        let path = self.file.base().join(path);
        egress::tls::authorities(Some(&path)).map_err(|error| self.problem("client_ca", error))
    }
}

impl Material {
    /// For the TLS library: TLS 1.3 and HTTP/2 only.
    pub fn server_config(&self) -> Result<ServerConfig, String> {
        let builder = ServerConfig::builder_with_provider(identity::provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| error.to_string())?;
        let builder = match self.trust.verifier().map_err(|error| error.to_string())? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let own = SingleCertAndKey::from(self.identity.certified.clone());
        let mut config = builder.with_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // INVARIANT (every-handshake-proves): a resumed connection is not checked against the
        // authorities again, so that an authority that was removed would go on being trusted.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Equal for what is equal: certificates, authorities and trust domains.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update(u64::try_from(part.len()).unwrap_or_default().to_be_bytes());
            digest.update(part);
        };
        self.identity.certified.cert.iter().for_each(|certificate| add(certificate));
        add(b"authority");
        self.trust.authority.iter().for_each(|certificate| add(certificate));
        for (domain, bundle) in self.trust.domains.iter().flatten() {
            add(domain.as_str().as_bytes());
            bundle.iter().for_each(|certificate| add(certificate));
        }
        digest.finalize().into()
    }

    /// The broker's certificate begins and ends then.
    pub const fn validity(&self) -> (Timestamp, Timestamp) {
        (self.identity.not_before, self.identity.not_after)
    }

    /// A sentence for the journal: which certificate, until when, and whom it trusts.
    pub fn description(&self) -> String {
        let authority = self.trust.authority.iter().map(|certificate| thumbprint(certificate));
        let domains = self.trust.domains.iter().flatten().flat_map(|(domain, bundle)| {
            bundle.iter().map(move |certificate| format!("{domain} {}", thumbprint(certificate)))
        });
        let trusted: Vec<_> = authority.chain(domains).collect();
        let trusted = if trusted.is_empty() { "nobody".to_owned() } else { trusted.join(", ") };
        format!(
            "certificate sha256 {} until {}; clients of {trusted}",
            self.identity.thumbprint(),
            self.identity.not_after
        )
    }
}

/// The operators' section.
pub const ADMIN: &str = "admin_tls";

fn thumbprint(certificate: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}
