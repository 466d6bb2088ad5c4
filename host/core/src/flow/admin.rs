//! How an operator's act begins: decided and recorded, before anything is done. And whether one that
//! lasts may go on.

use thiserror::Error;

use super::random;
use crate::admin::AdminAsk;
use crate::decide::{AdminPermit, Denial, decide_admin};
use crate::ids::DenialId;
use crate::journal::Entry;
use crate::policy::SnapshotDigest;
use crate::ports::{Clock, Journal, JournalError, Policies, Ports};

/// Decides on `ask` and makes the decision durable, whichever it is.
pub async fn admit<P: Ports>(ports: &P, ask: AdminAsk) -> Result<AdminPermit, AdmitError> {
    let now = ports.clock().now();
    match decide_admin(&ports.policies().current(), ask, now) {
        Ok(permit) => match ports.journal().record(Entry::operator_act(&permit)).await {
            Ok(_) => Ok(permit),
            Err(error) => Err(AdmitError::Unrecorded { permit: Box::new(permit), error }),
        },
        Err(denial) => Err(deny(ports, denial).await),
    }
}

/// Decides again on an act that was admitted and lasts, and tells by which policies. That it may go
/// on is no entry, that it may not is one.
pub async fn again<P: Ports>(ports: &P, ask: AdminAsk) -> Result<SnapshotDigest, AdmitError> {
    let now = ports.clock().now();
    match decide_admin(&ports.policies().current(), ask, now) {
        Ok(permit) => Ok(permit.snapshot()),
        Err(denial) => Err(deny(ports, denial).await),
    }
}

async fn deny<P: Ports>(ports: &P, denial: Denial) -> AdmitError {
    let id = DenialId::mint(denial.at, &random(ports.entropy()));
    match ports.journal().record_denial(id, &denial).await {
        Ok(_) => AdmitError::Denied { id, denial: Box::new(denial) },
        Err(error) => AdmitError::Journal(error),
    }
}

/// Why an operator's act did not begin.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// Refused by policy.
    #[error("{}", denial.reason)]
    Denied {
        /// The recorded refusal.
        id: DenialId,
        /// What was refused and why.
        denial: Box<Denial>,
    },
    /// Permitted, but the journal could not record it.
    #[error("{error}")]
    Unrecorded {
        /// What was permitted.
        permit: Box<AdminPermit>,
        /// Why it could not be recorded.
        error: JournalError,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(JournalError),
}
