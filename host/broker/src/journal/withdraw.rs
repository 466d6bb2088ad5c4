//! Ends what a snapshot no longer permits: sessions and single leases, a few in one transaction.
//! Decides nothing; each withdrawal brings the refusal that is its reason.

use claviger_core::ids::IntentId;
use claviger_core::journal::Entry;
use claviger_core::lease::{DueCause, LeaseEvent, LeaseState};
use claviger_core::ports::{Held, WithdrawError, Withdrawal, Withdrawn};
use claviger_core::session::EndCause;
use claviger_core::time::Timestamp;

use super::fault::Fault;
use super::ledger::Ledger;
use super::news::Why;
use super::port::{By, Ending, end_session};

/// All of `withdrawals` or, if another snapshot than theirs is current, none.
pub(super) fn withdraw(
    ledger: &mut Ledger<'_>,
    withdrawals: &[Withdrawal],
    now: Timestamp,
) -> Result<Result<Withdrawn, WithdrawError>, Fault> {
    let current = ledger.tip().snapshot;
    if withdrawals.iter().any(|withdrawal| current != Some(withdrawal.denial.snapshot)) {
        return Ok(Err(WithdrawError::SnapshotStale));
    }
    let mut withdrawn = Withdrawn::default();
    for withdrawal in withdrawals {
        match withdrawal.of {
            Held::Session(id) => {
                let by = By::Refusal(&withdrawal.denial);
                let ending = Ending { cause: EndCause::NoLongerPermitted, by, now };
                if let Some(ended) = end_session(ledger, id, &ending)? {
                    withdrawn.sessions.push(id);
                    withdrawn.leases_due += ended.leases_due;
                }
            }
            Held::Lease(id) => {
                withdrawn.leases_due += withdraw_lease(ledger, id, (withdrawal, now))?;
            }
        }
    }
    Ok(Ok(withdrawn))
}

/// One lease falls due; says whether it had not before.
fn withdraw_lease(
    ledger: &mut Ledger<'_>,
    id: IntentId,
    (withdrawal, now): (&Withdrawal, Timestamp),
) -> Result<u64, Fault> {
    let Withdrawal { denial, unless_within, .. } = withdrawal;
    // Counted a while ago: what was given back meanwhile has made room.
    if !unless_within.is_empty() && ledger.holdings(now)?.is_within(unless_within) {
        return Ok(0);
    }
    let Some(mut lease) = ledger.lease(id)? else { return Ok(0) };
    let before = lease.state;
    let act_at = match before {
        LeaseState::Active => now,
        // INVARIANT (revocation-comes-last): the plugin is still minting; see `release_lease`.
        LeaseState::Open => lease.act_at.unwrap_or(now),
        _ => return Ok(0),
    };
    lease.fall_due(LeaseEvent::FellDue, DueCause::NoLongerPermitted, act_at)?;
    ledger.update_lease_for(before, &lease, Some(Why::of(denial)))?;
    ledger.append(&Entry::lease_withdrawn(&lease.as_due(), denial, now))?;
    Ok(1)
}
