//! Opens intents: what must hold in the transaction that records one, and what it takes. Decides
//! nothing; what is asked for was permitted.

use std::sync::Arc;

use claviger_core::budget::{IssueLimit, LeaseLimit};
use claviger_core::journal::{Entry, JournalSeq};
use claviger_core::policy::SnapshotDigest;
use claviger_core::ports::OpenError;

use super::fault::Fault;
use super::leases::NewLease;
use super::ledger::Ledger;
use crate::rates::Rates;

/// An intent to be.
pub(super) struct Opening {
    pub(super) entry: Entry,
    pub(super) lease: NewLease,
    pub(super) snapshot: SnapshotDigest,
    /// How many leases there may be at once.
    pub(super) leases: Vec<LeaseLimit>,
    /// How many issues a minute, by the limits that the session shares with others.
    pub(super) issues: Vec<IssueLimit>,
    pub(super) rates: Arc<Rates>,
}

/// INVARIANT (no-plugin-without-intent): session, snapshot and key are checked in the very
/// transaction that records the intent; between a check and a record made apart, a session could
/// end and still be issued a credential.
pub(super) fn open_intent(
    ledger: &mut Ledger<'_>,
    opening: &Opening,
) -> Result<Result<JournalSeq, OpenError>, Fault> {
    let lease = &opening.lease;
    if !ledger.is_live(lease.session, lease.opened_at)? {
        return Ok(Err(OpenError::SessionEnded));
    }
    if ledger.tip().snapshot != Some(opening.snapshot) {
        return Ok(Err(OpenError::SnapshotStale));
    }
    if let Some(key) = &lease.idempotency_key
        && let Some((lease, state)) = ledger.key_used(lease.session, key)?
    {
        return Ok(Err(OpenError::KeyUsed { lease, state }));
    }
    if let Some(full) = full(ledger, opening)? {
        return Ok(Err(full));
    }
    // INVARIANT (refused-takes-nothing-shared): after every other check. An agent that is refused in
    // a loop, and needs no credential for it, would use up what everybody else may be issued.
    if let Err(spent) = opening.rates.take_each(&opening.issues) {
        return Ok(Err(OpenError::TooManyIssues(Box::new(spent))));
    }
    ledger.insert_lease(lease)?;
    Ok(Ok(ledger.append(&opening.entry)?))
}

/// INVARIANT (room-is-counted-where-it-is-taken): of two asks for the last place the second finds
/// what the first has recorded.
fn full(ledger: &mut Ledger<'_>, opening: &Opening) -> Result<Option<OpenError>, Fault> {
    if opening.leases.is_empty() {
        return Ok(None);
    }
    let holdings = ledger.holdings(opening.lease.opened_at)?;
    Ok(holdings.full(&opening.leases).map(|limit| OpenError::TooManyLeases {
        limit: Box::new(limit.clone()),
        frees_at: holdings.frees_at(&limit.of),
    }))
}
