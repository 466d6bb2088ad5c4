//! Who runs the agent and for whom, as the environment proves it: tokens from variables and files,
//! a CI job's, a signed AWS request. Judges none of them; the broker does.
//!
//! There is no argument that takes a token: every local user can read the arguments of every process.

mod aws;
mod github;

use std::path::{Path, PathBuf};

use clap::Args;
use claviger_proto::v1::OpenSessionRequest;

use crate::exit::Failure;

/// How this workload and its requester prove themselves. Without any of these the broker goes by the
/// connection.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Proof of identity")]
pub struct ProofArgs {
    /// The file with this workload's token; or set CLAVIGER_WORKLOAD_TOKEN to the token itself
    #[arg(long, env = "CLAVIGER_WORKLOAD_TOKEN_FILE", value_name = "FILE")]
    workload_token_file: Option<PathBuf>,

    /// Ask GitHub Actions for this job's token (the job needs `id-token: write`)
    #[arg(long, requires = "audience", conflicts_with = "aws")]
    github_actions: bool,

    /// The audience of that token: what the broker's configuration calls `audience`
    #[arg(long, env = "CLAVIGER_AUDIENCE", value_name = "AUDIENCE")]
    audience: Option<String>,

    /// Sign with the AWS credentials of the environment (AWS_ACCESS_KEY_ID …)
    #[arg(long, requires = "aws_server_id")]
    aws: bool,

    /// The broker's `server_id`, which the signature covers
    #[arg(long, env = "CLAVIGER_AWS_SERVER_ID", value_name = "ID")]
    aws_server_id: Option<String>,

    /// The broker's `sts_url` [default: the STS of AWS_REGION, or the global one]
    #[arg(long, env = "CLAVIGER_AWS_STS_URL", value_name = "URL")]
    aws_sts_url: Option<String>,

    /// The file with the requester's token; or set CLAVIGER_REQUESTER_TOKEN to the token itself
    #[arg(long, env = "CLAVIGER_REQUESTER_TOKEN_FILE", value_name = "FILE")]
    requester_token_file: Option<PathBuf>,
}

impl ProofArgs {
    /// Puts the proofs into `request`. Files are read now: whoever renews a token replaces them.
    pub async fn prove(&self, request: &mut OpenSessionRequest) -> Result<(), Failure> {
        let own = token(WORKLOAD_TOKEN, self.workload_token_file.as_deref())?;
        if own.is_some() && (self.github_actions || self.aws) {
            return Err(Failure::usage(format!(
                "two proofs of one workload: take out {WORKLOAD_TOKEN} and --workload-token-file, or --github-actions and --aws"
            )));
        }
        request.workload_token = own.unwrap_or_default();
        if let (true, Some(audience)) = (self.github_actions, &self.audience) {
            request.workload_token = github::token(audience).await?;
        }
        if let (true, Some(server_id)) = (self.aws, &self.aws_server_id) {
            let sts_url = self.aws_sts_url.clone().unwrap_or_else(aws::default_sts_url);
            request.aws_identity = Some(aws::signed(&sts_url, server_id)?);
        }
        let requester = token(REQUESTER_TOKEN, self.requester_token_file.as_deref())?;
        request.requester_token = requester.unwrap_or_default();
        Ok(())
    }
}

/// The token of a file, or else of a variable.
fn token(variable: &str, file: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(file) = file else {
        return Ok(std::env::var(variable).ok().filter(|token| !token.is_empty()));
    };
    let shown = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::unreadable(&shown, &error))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::usage(format!("`{shown}` is empty: a token is wanted in it")));
    }
    Ok(Some(text.to_owned()))
}

/// Holds the workload's token.
const WORKLOAD_TOKEN: &str = "CLAVIGER_WORKLOAD_TOKEN";

/// Holds the requester's token.
const REQUESTER_TOKEN: &str = "CLAVIGER_REQUESTER_TOKEN";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_an_empty_one_is_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let args = ProofArgs { workload_token_file: Some(file.clone()), ..ProofArgs::default() };
        for text in ["first", "second\n"] {
            std::fs::write(&file, text).unwrap();
            let mut request = OpenSessionRequest::default();
            args.prove(&mut request).await.unwrap();
            assert_eq!(request.workload_token, text.trim());
        }
        std::fs::write(&file, "\n").unwrap();
        let failure = args.prove(&mut OpenSessionRequest::default()).await.unwrap_err();
        assert!(failure.sentence.contains("is empty"), "{}", failure.sentence);
        let both = ProofArgs { aws: true, ..args };
        std::fs::write(&file, "third").unwrap();
        let failure = both.prove(&mut OpenSessionRequest::default()).await.unwrap_err();
        assert!(failure.sentence.contains("two proofs"), "{}", failure.sentence);
    }
}
