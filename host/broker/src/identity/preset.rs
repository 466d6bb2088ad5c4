//! What is known of common issuers: which of their claims become tags. Reads no token.

use jsonwebtoken::Algorithm;
use serde::Deserialize;

use super::token::ASYMMETRIC;

/// A kind of issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Jobs of GitHub Actions.
    GithubActions,
    /// Jobs of GitLab.
    Gitlab,
    /// Service accounts of a Kubernetes cluster, by projected tokens.
    Kubernetes,
    /// Any other: it has no tags but those that the configuration names.
    Generic,
}

/// What an issuer's tokens may prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// Who runs an agent.
    Workload,
    /// For whom it runs.
    Requester,
}

/// A signature that a configuration may name: an asymmetric one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SigningAlgorithm(pub Algorithm);

impl TryFrom<String> for SigningAlgorithm {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let known = name.parse().ok().filter(|algorithm| ASYMMETRIC.contains(algorithm));
        known.map(Self).ok_or_else(|| {
            let names: Vec<_> = ASYMMETRIC.iter().map(|one| format!("{one:?}")).collect();
            format!("`{name}` is no asymmetric signature: write some of {}", names.join(", "))
        })
    }
}

impl Preset {
    /// Each tag, and where its claim stands: names with spaces between, of objects within objects.
    /// The numeric ids come first, since names can be given away and ids cannot.
    pub const fn tags(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::GithubActions => &GITHUB_ACTIONS,
            Self::Gitlab => &GITLAB,
            Self::Kubernetes => &KUBERNETES,
            Self::Generic => &[],
        }
    }
}

const GITHUB_ACTIONS: [(&str, &str); 17] = [
    ("repository_id", "repository_id"),
    ("repository_owner_id", "repository_owner_id"),
    ("actor_id", "actor_id"),
    ("job_workflow_ref", "job_workflow_ref"),
    ("job_workflow_sha", "job_workflow_sha"),
    ("workflow_ref", "workflow_ref"),
    ("environment", "environment"),
    ("event_name", "event_name"),
    ("ref", "ref"),
    ("ref_type", "ref_type"),
    ("ref_protected", "ref_protected"),
    ("sha", "sha"),
    ("run_id", "run_id"),
    ("run_attempt", "run_attempt"),
    ("runner_environment", "runner_environment"),
    ("repository_visibility", "repository_visibility"),
    ("repository", "repository"),
];

const GITLAB: [(&str, &str); 15] = [
    ("project_id", "project_id"),
    ("namespace_id", "namespace_id"),
    ("user_id", "user_id"),
    ("ci_config_ref_uri", "ci_config_ref_uri"),
    ("ci_config_sha", "ci_config_sha"),
    ("environment", "environment"),
    ("environment_protected", "environment_protected"),
    ("pipeline_id", "pipeline_id"),
    ("pipeline_source", "pipeline_source"),
    ("job_id", "job_id"),
    ("ref", "ref"),
    ("ref_type", "ref_type"),
    ("ref_protected", "ref_protected"),
    ("runner_environment", "runner_environment"),
    ("project_path", "project_path"),
];

const KUBERNETES: [(&str, &str); 7] = [
    ("serviceaccount_uid", "kubernetes.io serviceaccount uid"),
    ("pod_uid", "kubernetes.io pod uid"),
    ("node_uid", "kubernetes.io node uid"),
    ("namespace", "kubernetes.io namespace"),
    ("serviceaccount", "kubernetes.io serviceaccount name"),
    ("pod", "kubernetes.io pod name"),
    ("node", "kubernetes.io node name"),
];
