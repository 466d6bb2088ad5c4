//! Where X.509-SVIDs and trust bundles come from: the stream of a Workload API, or a file. Decides
//! which trust domains count; verifies nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::transport::Endpoint;
use spiffe::x509_source::{MetricsErrorKind, MetricsRecorder};
use spiffe::{TrustDomain, X509Source, X509SourceUpdates};

use super::trust::{Authorities, TrustDomains};
use crate::config::{ConfigError, ConfigFile, SpiffeConfig};
use crate::egress;

/// Where it comes from.
#[derive(Clone)]
pub enum Spiffe {
    /// The Workload API, which is listened to for as long as this lives.
    Api(Arc<X509Source>),
    /// A file with the bundle of one trust domain.
    File {
        /// The trust domain.
        domain: TrustDomain,
        /// Its bundle, PEM.
        path: PathBuf,
    },
}

/// What is known at one moment.
pub struct SpiffeView {
    /// The broker's own X.509-SVID, if a Workload API gave it one.
    pub own: Option<OwnSvid>,
    /// The accepted trust domains, each with its bundle.
    pub domains: TrustDomains,
}

/// A certificate chain and its key.
pub struct OwnSvid {
    /// The chain, the broker's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// What can be said of a configuration without reaching a Workload API.
pub enum Checked {
    /// A Workload API says the rest.
    Api,
    /// This is all there is.
    Complete(Option<Spiffe>),
}

/// What the configuration says, checked without reaching anything.
enum Said {
    Api(String),
    File { domain: TrustDomain, path: PathBuf },
}

impl Spiffe {
    /// What the configuration names, if a TLS listener needs it. Waits for the Workload API's
    /// first answer, but not for ever: a supervisor that starts the broker again waits better.
    pub async fn start(file: &ConfigFile) -> Result<Option<Self>, ConfigError> {
        let Some(said) = said(file)? else { return Ok(None) };
        let uri = match said {
            Said::File { domain, path } => return Ok(Some(Self::File { domain, path })),
            Said::Api(uri) => uri,
        };
        tracing::info!(workload_api = uri, "waiting for the broker's X.509-SVID");
        let source = X509Source::builder()
            .endpoint(&uri)
            .reconnect_backoff(RECONNECT_MIN, RECONNECT_MAX)
            .initial_sync_timeout(FIRST_ANSWER_MAX)
            .metrics(Arc::new(Outages))
            .build()
            .await;
        let source = source.map_err(|error| {
            let secs = FIRST_ANSWER_MAX.as_secs();
            let problem = format!(
                "the Workload API at `{uri}` gave the broker no X.509-SVID within {secs} s \
                 ({error}): is the agent running, and is this process registered with it?"
            );
            file.problem(&["identity", "spiffe", "workload_api"], problem)
        })?;
        Ok(Some(Self::Api(Arc::new(source))))
    }

    /// Checks what the configuration says, and reaches nothing.
    pub fn check(file: &ConfigFile) -> Result<Checked, ConfigError> {
        Ok(match said(file)? {
            Some(Said::Api(_)) => Checked::Api,
            Some(Said::File { domain, path }) => {
                Checked::Complete(Some(Self::File { domain, path }))
            }
            None => Checked::Complete(None),
        })
    }

    /// Tells when the Workload API has said something new.
    pub fn updates(&self) -> Option<X509SourceUpdates> {
        match self {
            Self::Api(source) => Some(source.updated()),
            Self::File { .. } => None,
        }
    }

    /// What is known now.
    pub fn view(&self, file: &ConfigFile) -> Result<SpiffeView, ConfigError> {
        match self {
            Self::Api(source) => of_api(source, file),
            Self::File { domain, path } => {
                let bundle = egress::tls::authorities(Some(path))
                    .map_err(|error| file.problem(&["identity", "spiffe", "x509_bundle"], error))?;
                let domains = BTreeMap::from([(domain.clone(), bundle)]);
                Ok(SpiffeView { own: None, domains })
            }
        }
    }
}

/// The files of which it consists, for those who watch them.
pub fn files(file: &ConfigFile) -> Option<PathBuf> {
    let bundle = file.config().identity.spiffe.as_ref()?.x509_bundle.as_ref()?;
    Some(file.base().join(bundle))
}

fn of_api(source: &X509Source, file: &ConfigFile) -> Result<SpiffeView, ConfigError> {
    let state = source.state();
    let problem = |error: &dyn std::fmt::Display| {
        let problem = format!("the Workload API gives the broker no X.509-SVID any more: {error}");
        file.problem(&["identity", "spiffe", "workload_api"], problem)
    };
    let context = state.context().map_err(|error| problem(&error))?;
    let svid = state.svid().map_err(|error| problem(&error))?;
    let own = svid.spiffe_id().trust_domain();
    let mut domains = BTreeMap::new();
    for domain in [own.clone()].into_iter().chain(listed(file)?) {
        let bundle = context.bundle_set().get(&domain);
        let authorities: Authorities = bundle
            .iter()
            .flat_map(|bundle| bundle.authorities())
            .map(|authority| CertificateDer::from(authority.as_bytes().to_vec()))
            .collect();
        if authorities.is_empty() {
            tracing::warn!(%domain, "the Workload API gives no bundle of this trust domain: its workloads are refused");
        }
        domains.insert(domain, authorities);
    }
    let chain = svid.cert_chain().iter();
    let chain = chain.map(|link| CertificateDer::from(link.as_bytes().to_vec())).collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()).into();
    Ok(SpiffeView { own: Some(OwnSvid { chain, key }), domains })
}

fn said(file: &ConfigFile) -> Result<Option<Said>, ConfigError> {
    let config = file.config();
    let Some(spiffe) = &config.identity.spiffe else { return Ok(None) };
    let problem = |key: &str, problem: &dyn std::fmt::Display| {
        Err(file.problem(&["identity", "spiffe", key], problem))
    };
    let further = listed(file)?;
    if let Some(path) = &spiffe.x509_bundle {
        if spiffe.workload_api.is_some() {
            return problem(
                "x509_bundle",
                &"bundles come from the Workload API or from a file: write one of the two",
            );
        }
        if !further.is_empty() {
            return problem("trust_domains", &"a file holds the bundle of one trust domain only");
        }
        let Some(name) = &spiffe.trust_domain else {
            return problem("trust_domain", &"write whose bundle it is, such as `example.org`");
        };
        let domain = parsed(file, "trust_domain", name)?;
        return Ok(Some(Said::File { domain, path: file.base().join(path) }));
    }
    if spiffe.trust_domain.is_some() && spiffe.audience.is_none() {
        return problem(
            "trust_domain",
            &"it goes with `x509_bundle`, where the Workload API would say its own, or with \
              `audience`, whose JWT-SVIDs count",
        );
    }
    // Without a TLS listener there is nothing to prove with it; and who names a file for JWT-SVIDs
    // and no Workload API means to have none.
    let listens = config.listen.tls.is_some() || config.listen.admin_tls.is_some();
    if !listens || (spiffe.jwt_bundle.is_some() && spiffe.workload_api.is_none()) {
        return Ok(None);
    }
    workload_api(file, spiffe).map(|uri| Some(Said::Api(uri)))
}

/// Where the Workload API is, from the configuration or the environment.
pub fn workload_api(file: &ConfigFile, spiffe: &SpiffeConfig) -> Result<String, ConfigError> {
    let problem = |problem: &dyn std::fmt::Display| {
        file.problem(&["identity", "spiffe", "workload_api"], problem)
    };
    let from_environment = || std::env::var(ENDPOINT_SOCKET).ok().filter(|uri| !uri.is_empty());
    let Some(uri) = spiffe.workload_api.clone().or_else(from_environment) else {
        return Err(problem(
            &"write where the Workload API is, such as `unix:///run/spire/agent.sock`, or set SPIFFE_ENDPOINT_SOCKET; or write `x509_bundle`",
        ));
    };
    let endpoint = Endpoint::parse(&uri).map_err(|error| problem(&format!("`{uri}`: {error}")))?;
    match &endpoint {
        Endpoint::Tcp { host, .. } if !host.is_loopback() => Err(problem(
            &"the Workload API sends private keys in the clear: use a unix socket or a loopback address",
        )),
        _ => Ok(uri),
    }
}

fn listed(file: &ConfigFile) -> Result<Vec<TrustDomain>, ConfigError> {
    let spiffe = file.config().identity.spiffe.as_ref();
    let names = spiffe.map(|spiffe| spiffe.trust_domains.as_slice()).unwrap_or_default();
    names.iter().map(|name| parsed(file, "trust_domains", name)).collect()
}

fn parsed(file: &ConfigFile, key: &str, name: &str) -> Result<TrustDomain, ConfigError> {
    TrustDomain::new(name).map_err(|error| {
        let problem = format!("`{name}` is no trust domain ({error}): write it as `example.org`");
        file.problem(&["identity", "spiffe", key], problem)
    })
}

/// Says what happens on the stream after the first answer: the source itself says nothing.
struct Outages;

impl MetricsRecorder for Outages {
    fn record_update(&self) {
        tracing::info!("the Workload API told something new");
    }

    fn record_reconnect(&self) {}

    fn record_error(&self, kind: MetricsErrorKind) {
        tracing::warn!(
            problem = kind.as_str(),
            "the Workload API fails: its last certificate and bundles stay in force"
        );
    }
}

/// As the specification of the Workload API names it.
const ENDPOINT_SOCKET: &str = "SPIFFE_ENDPOINT_SOCKET";

/// An agent that starts together with the broker is there by then; a supervisor that gives a
/// service a minute to start has not lost patience.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(15);

/// An agent that was restarted is found again almost at once.
const RECONNECT_MIN: Duration = Duration::from_millis(200);

/// Twelve tries a minute do not hurt an agent that is ill, and each is a line in the log.
const RECONNECT_MAX: Duration = Duration::from_secs(5);
