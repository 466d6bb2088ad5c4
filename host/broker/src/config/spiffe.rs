//! SPIFFE in the configuration: the section `[identity.spiffe]`.

use std::path::PathBuf;

use serde::Deserialize;

/// Where X.509-SVIDs and trust bundles come from, and whose ids are accepted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpiffeConfig {
    /// The Workload API, such as `unix:///run/spire/agent.sock` [default:
    /// `SPIFFE_ENDPOINT_SOCKET` of the environment, unless there is a bundle in a file].
    pub workload_api: Option<String>,
    /// The trust domains that are accepted besides the broker's own, each by its own bundle.
    pub trust_domains: Vec<String>,
    /// Without a Workload API: the bundle of `trust_domain`, PEM.
    pub x509_bundle: Option<PathBuf>,
    /// The trust domain of bundles in files, and of JWT-SVIDs, such as `example.org`.
    pub trust_domain: Option<String>,
    /// The file of the bundle for JWT-SVIDs: a JWK set, read again when it changes [default: the
    /// Workload API's].
    pub jwt_bundle: Option<PathBuf>,
    /// The audience that JWT-SVIDs must name: this broker's. With it JWT-SVIDs of `trust_domain`
    /// prove workloads.
    pub audience: Option<String>,
}
