//! Why a proof does not count. A sentence each, for whoever sent it; never a part of the proof.

use thiserror::Error;

use super::aws::AwsError;
use super::claims::ClaimError;
use super::keys::SignatureError;
use super::token::FormError;

/// Why nobody is proven.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Not who runs the agent.
    #[error("the workload's token is refused: {0}")]
    Workload(TokenError),
    /// Not who runs the agent, by its AWS credentials.
    #[error("the AWS identity is refused: {0}")]
    Aws(AwsError),
    /// Not for whom it runs.
    #[error("the requester's token is refused: {0}")]
    Requester(TokenError),
    /// Several proofs of one thing.
    #[error("send `workload_token` or `aws_identity`, not both: one workload runs a session")]
    TwoProofs,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no token that could be verified.
    #[error(transparent)]
    Form(#[from] FormError),
    /// Nobody takes its issuer's word for this.
    #[error(
        "its issuer is not trusted for this: the platform team would have to add it under `[identity.issuers]`"
    )]
    UnknownIssuer,
    /// The issuer's keys are not known.
    #[error("the keys of issuer `{0}` cannot be fetched: try again in a moment")]
    Unavailable(String),
    /// It is not signed by its issuer.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// What it says does not count here and now.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The API server does not stand by it.
    #[error("the Kubernetes API server does not stand by it: it may have ended with its pod")]
    NotReviewed,
    /// It was given to another workload.
    #[error("it lets another workload act (`act`), not the one that sends it")]
    OtherActor,
    /// What it says of who acts cannot be read.
    #[error("what it says of who acts (`act`) is malformed, or passed on more than {0} times")]
    Act(usize),
}
