//! The section `[identity]`: whose word is taken for who asks and for whom. Reaches nobody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use claviger_core::name::IssuerName;
use serde::Deserialize;

use super::{Reach, SecretRef, Span, SpiffeConfig};
use crate::identity::{Preset, SigningAlgorithm, Use};

/// Whose word is taken for who asks and for whom.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// The issuers of tokens.
    pub issuers: BTreeMap<IssuerName, TrustedIssuerConfig>,
    /// Whether AWS credentials prove workloads.
    pub aws: Option<AwsConfig>,
    /// SPIFFE: who is proven by X.509-SVIDs and JWT-SVIDs.
    pub spiffe: Option<SpiffeConfig>,
}

/// A Kubernetes API server that is asked about tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewConfig {
    /// Where it is: an origin, such as `https://kubernetes.default.svc`.
    pub url: String,
    /// The authority that signed its certificate, PEM; the system's roots otherwise.
    pub ca: Option<PathBuf>,
    /// The broker's own token there, which may create token reviews. Read anew for each.
    pub token: SecretRef,
}

/// The AWS STS that tells whose signature a request bears.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    /// Where it is, such as `https://sts.eu-central-1.amazonaws.com`.
    pub sts_url: String,
    /// What workloads must sign as the header `X-Claviger-Server-ID`: a name of this broker that no
    /// other server has.
    pub server_id: String,
    /// The authority that signed its certificate, PEM; the system's roots otherwise.
    pub ca: Option<PathBuf>,
    /// What its address may resolve to besides public addresses.
    #[serde(default)]
    pub reach: Vec<Reach>,
}

/// An issuer whose tokens prove workloads, requesters or both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuerConfig {
    /// Which claims become tags.
    pub preset: Preset,
    /// What its tokens prove.
    #[serde(rename = "use")]
    pub uses: Vec<Use>,
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// The audience that its tokens must name: this broker's.
    pub audience: String,
    /// Where its keys are, if not where its discovery document says.
    pub jwks_url: Option<String>,
    /// The API server that is asked about each token, instead of its keys.
    pub review: Option<ReviewConfig>,
    /// The authority that signed its certificate, PEM; the system's roots otherwise.
    pub ca: Option<PathBuf>,
    /// What its addresses may resolve to besides public addresses.
    #[serde(default)]
    pub reach: Vec<Reach>,
    /// The signatures that it may use [default: all asymmetric ones].
    pub algorithms: Option<Vec<SigningAlgorithm>>,
    /// The claims that become tags of the workload [default: the preset's].
    pub claims: Option<Vec<String>>,
    /// The claim that lists the requester's groups.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// How old a token may be, whatever its `exp` says.
    #[serde(default = "default_max_age")]
    pub max_age: Span,
    /// How often its keys are fetched anew.
    #[serde(default = "default_refresh")]
    pub refresh: Span,
}

fn default_groups_claim() -> String {
    "groups".to_owned()
}

const fn default_max_age() -> Span {
    Span(MAX_AGE)
}

const fn default_refresh() -> Span {
    Span(REFRESH)
}

/// A projected service account token is renewed within a day; what is older was kept somewhere.
const MAX_AGE: Duration = Duration::from_hours(24);

/// A key that leaked is refused within five minutes of its withdrawal, and an issuer that serves a
/// thousand brokers answers three requests a second.
const REFRESH: Duration = Duration::from_mins(5);
