//! What the agent wants, parsed. Decides nothing.

use std::time::Duration;

use thiserror::Error;

use crate::name::{IdempotencyKey, NameError, ScopeName};

/// One parsed request for a credential.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The scope asked for.
    pub scope: ScopeName,
    /// How long the credential should live; `None` takes the default.
    pub ttl: Option<Duration>,
    /// At most one credential is minted for one key in one session.
    pub idempotency_key: Option<IdempotencyKey>,
    /// What the agent says it wants this for. Recorded, never decides.
    pub claimed_reason: Option<String>,
}

/// The fields of a request as they came over the wire.
#[derive(Clone, Debug, Default)]
pub struct UnverifiedAsk<'a> {
    /// `backend/scope`.
    pub scope: &'a str,
    /// Seconds; zero takes the default.
    pub ttl_secs: u64,
    /// Empty means none.
    pub idempotency_key: &'a str,
    /// Empty means none.
    pub claimed_reason: &'a str,
}

/// A request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// The scope is not of the form `backend/scope`.
    #[error("field `scope`: {0}")]
    Scope(NameError),
    /// The idempotency key has other characters or is too long.
    #[error("field `idempotency_key`: {0}")]
    IdempotencyKey(NameError),
    /// More text than a reason needs.
    #[error("field `claimed_reason` has {bytes} bytes: at most {REASON_BYTES_MAX} are recorded")]
    ClaimedReason {
        /// Its length.
        bytes: usize,
    },
}

impl Ask {
    /// Parses one request.
    pub fn parse(unverified: &UnverifiedAsk<'_>) -> Result<Self, AskError> {
        let bytes = unverified.claimed_reason.len();
        if bytes > REASON_BYTES_MAX {
            return Err(AskError::ClaimedReason { bytes });
        }
        Ok(Self {
            scope: unverified.scope.parse().map_err(AskError::Scope)?,
            ttl: (unverified.ttl_secs > 0).then(|| Duration::from_secs(unverified.ttl_secs)),
            idempotency_key: optional(unverified.idempotency_key)
                .map(str::parse)
                .transpose()
                .map_err(AskError::IdempotencyKey)?,
            claimed_reason: optional(unverified.claimed_reason).map(str::to_owned),
        })
    }
}

fn optional(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Enough for a ticket number and two sentences; more would let an agent fill the journal.
pub const REASON_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_mean_none() {
        let ask = Ask::parse(&UnverifiedAsk { scope: "a/b", ..Default::default() });
        assert!(matches!(
            ask,
            Ok(Ask { ttl: None, idempotency_key: None, claimed_reason: None, .. })
        ));
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        let cases = [
            (UnverifiedAsk { scope: "nope", ..Default::default() }, "`scope`"),
            (
                UnverifiedAsk { scope: "a/b", idempotency_key: " ", ..Default::default() },
                "`idempotency_key`",
            ),
            (
                UnverifiedAsk { scope: "a/b", claimed_reason: &long, ..Default::default() },
                "`claimed_reason`",
            ),
        ];
        for (unverified, field) in cases {
            let error = Ask::parse(&unverified).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains(field), "{error}");
        }
    }
}
