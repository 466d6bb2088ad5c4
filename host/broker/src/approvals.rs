//! What waits for a second operator. Held in memory: a restart drops it, and whoever asked asks
//! again. Decides nothing about who may approve but that it is somebody else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_core::ids::ApprovalId;
use claviger_core::time::Timestamp;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// SHA-256 over exactly what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestDigest([u8; 32]);

impl RequestDigest {
    /// Of a request of this kind; no two kinds can have the same digest.
    pub fn of(kind: &str, request: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [b"claviger approval 1".as_slice(), kind.as_bytes(), request] {
            // A usize has at most 64 bits on every platform that Rust supports.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Something that an operator asked for and that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// Who asked, by their id.
    pub operator: String,
    /// For what, in words.
    pub what: String,
    /// For exactly what.
    pub request: RequestDigest,
    /// Until when it can be granted and used.
    pub expires_at: Timestamp,
    /// Who granted it, if somebody has.
    pub approver: Option<String>,
}

/// Everything that waits.
#[derive(Default)]
pub struct Approvals(Mutex<BTreeMap<ApprovalId, Approval>>);

/// What an operator asks for.
pub struct Asked<'a> {
    /// Who asks.
    pub operator: &'a str,
    /// For what, in words.
    pub what: &'a str,
    /// For exactly what.
    pub request: RequestDigest,
}

impl Approvals {
    /// Remembers what is asked for, under `id` unless the same already waits.
    pub fn ask(
        &self,
        asked: &Asked<'_>,
        id: ApprovalId,
        now: Timestamp,
    ) -> Result<Approval, ApprovalError> {
        let mut waiting = self.waiting(now);
        let same = |one: &&Approval| one.operator == asked.operator && one.request == asked.request;
        if let Some(one) = waiting.values().find(same) {
            return Ok(one.clone());
        }
        if waiting.len() >= WAITING_MAX {
            return Err(ApprovalError::TooMany);
        }
        let approval = Approval {
            id,
            operator: asked.operator.to_owned(),
            what: asked.what.to_owned(),
            request: asked.request,
            expires_at: now.after(LIFE),
            approver: None,
        };
        waiting.insert(id, approval.clone());
        Ok(approval)
    }

    /// All that waits, oldest first.
    pub fn list(&self, now: Timestamp) -> Vec<Approval> {
        self.waiting(now).values().cloned().collect()
    }

    /// The one of that id.
    pub fn find(&self, id: ApprovalId, now: Timestamp) -> Result<Approval, ApprovalError> {
        self.waiting(now).get(&id).cloned().ok_or(ApprovalError::Unknown { id })
    }

    /// `approver` agrees. INVARIANT (two-persons): never the one who asked.
    pub fn grant(
        &self,
        id: ApprovalId,
        approver: &str,
        now: Timestamp,
    ) -> Result<(), ApprovalError> {
        let mut waiting = self.waiting(now);
        let approval = waiting.get_mut(&id).ok_or(ApprovalError::Unknown { id })?;
        if approval.operator == approver {
            return Err(ApprovalError::SamePerson { id });
        }
        if approval.approver.is_some() {
            return Err(ApprovalError::Granted { id });
        }
        approval.approver = Some(approver.to_owned());
        Ok(())
    }

    /// Somebody refuses, or the one who asked thinks better of it.
    pub fn refuse(&self, id: ApprovalId, now: Timestamp) -> Result<(), ApprovalError> {
        self.waiting(now).remove(&id).map(drop).ok_or(ApprovalError::Unknown { id })
    }

    /// Uses a granted approval up for exactly what was asked, by who asked; answers who granted it.
    pub fn take(
        &self,
        id: ApprovalId,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<String, ApprovalError> {
        let mut waiting = self.waiting(now);
        let approval = waiting.get(&id).ok_or(ApprovalError::Unknown { id })?;
        if approval.operator != asked.operator || approval.request != asked.request {
            return Err(ApprovalError::Another { id });
        }
        let approver = approval.approver.clone().ok_or(ApprovalError::Waits { id })?;
        waiting.remove(&id);
        Ok(approver)
    }

    /// What has not expired.
    fn waiting(&self, now: Timestamp) -> MutexGuard<'_, BTreeMap<ApprovalId, Approval>> {
        // Each change is one step; a panic elsewhere leaves the map whole.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, approval| now < approval.expires_at);
        waiting
    }
}

/// Why an approval is not given or does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ApprovalError {
    /// There is none of that id, or no longer.
    #[error("no approval `{id}` waits: it expired, was used, was refused, or the broker restarted")]
    Unknown {
        /// The id.
        id: ApprovalId,
    },
    /// Who asked cannot approve.
    #[error("approval `{id}` needs another operator than the one who asked")]
    SamePerson {
        /// The id.
        id: ApprovalId,
    },
    /// It is granted already.
    #[error("approval `{id}` was granted already")]
    Granted {
        /// The id.
        id: ApprovalId,
    },
    /// It was given for something else, or to somebody else.
    #[error("approval `{id}` was given for another request or to another operator")]
    Another {
        /// The id.
        id: ApprovalId,
    },
    /// Nobody has granted it yet.
    #[error("approval `{id}` waits for a second operator")]
    Waits {
        /// The id.
        id: ApprovalId,
    },
    /// Too much waits.
    #[error("{} requests wait for a second operator already: have some decided", WAITING_MAX)]
    TooMany,
}

/// Long enough to reach a colleague, short enough that what was meant is still what is done.
const LIFE: Duration = Duration::from_mins(15);

/// Operators are few; more is a mistake or a flood.
const WAITING_MAX: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_000_000_000);

    fn id(number: u8) -> ApprovalId {
        ApprovalId::mint(NOW, &[number; 10])
    }

    fn asked<'a>(operator: &'a str, request: &str) -> Asked<'a> {
        let request = RequestDigest::of("revoke", request.as_bytes());
        Asked { operator, what: "everything", request }
    }

    /// An approval of what `a` asked for, granted by `b`.
    fn granted() -> Approvals {
        let approvals = Approvals::default();
        approvals.ask(&asked("a", "all"), id(1), NOW).unwrap();
        approvals.grant(id(1), "b", NOW).unwrap();
        approvals
    }

    #[test]
    fn a_grant_counts_once_for_what_was_asked_by_who_asked() {
        let approvals = granted();
        for other in [asked("b", "all"), asked("a", "all, and more"), asked("c", "all")] {
            let refused = approvals.take(id(1), &other, NOW);
            assert_eq!(refused, Err(ApprovalError::Another { id: id(1) }));
        }
        assert_eq!(approvals.take(id(1), &asked("a", "all"), NOW), Ok("b".to_owned()));
        let again = approvals.take(id(1), &asked("a", "all"), NOW);
        assert_eq!(again, Err(ApprovalError::Unknown { id: id(1) }), "a replay");
    }

    #[test]
    fn nobody_approves_what_they_asked_for() {
        let approvals = Approvals::default();
        approvals.ask(&asked("a", "all"), id(1), NOW).unwrap();
        let own = approvals.grant(id(1), "a", NOW);
        assert_eq!(own, Err(ApprovalError::SamePerson { id: id(1) }));
        let early = approvals.take(id(1), &asked("a", "all"), NOW);
        assert_eq!(early, Err(ApprovalError::Waits { id: id(1) }));
    }

    #[test]
    fn it_expires_and_can_be_refused() {
        let approvals = granted();
        let late = NOW.after(LIFE);
        let expired = approvals.take(id(1), &asked("a", "all"), late);
        assert_eq!(expired, Err(ApprovalError::Unknown { id: id(1) }));
        let approvals = granted();
        approvals.refuse(id(1), NOW).unwrap();
        assert!(approvals.list(NOW).is_empty());
    }

    #[test]
    fn the_same_question_waits_once_and_a_flood_is_refused() {
        let approvals = Approvals::default();
        let first = approvals.ask(&asked("a", "all"), id(1), NOW).unwrap();
        assert_eq!(approvals.ask(&asked("a", "all"), id(2), NOW), Ok(first));
        for number in 3..=65 {
            approvals.ask(&asked("a", &number.to_string()), id(number), NOW).unwrap();
        }
        let refused = approvals.ask(&asked("a", "more"), id(99), NOW);
        assert_eq!(refused, Err(ApprovalError::TooMany));
    }
}
