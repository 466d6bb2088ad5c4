//! What waits for a second operator. Held in memory: a restart drops it, and whoever asked asks
//! again. Who grants is somebody else, and may still do so when the grant is used; what else it
//! takes is not decided here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_core::admin::{AdminAction, AdminAsk, AdminResource, Operator};
use claviger_core::decide::decide_admin;
use claviger_core::ids::ApprovalId;
use claviger_core::policy::PolicySnapshot;
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
    pub approver: Option<Operator>,
}

/// Everything that waits.
#[derive(Default)]
pub struct Approvals(Mutex<Waiting>);

type Waiting = BTreeMap<ApprovalId, Approval>;

/// What an operator asks for.
pub struct Asked<'a> {
    /// Who asks.
    pub operator: &'a str,
    /// For what, in words.
    pub what: &'a str,
    /// For exactly what.
    pub request: RequestDigest,
}

/// When a grant is used: what decides then whether it counts.
#[derive(Clone, Copy)]
pub struct Present<'a> {
    /// The policies in force.
    pub policies: &'a PolicySnapshot,
    /// The time.
    pub now: Timestamp,
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
        let own = waiting.values().filter(|one| one.operator == asked.operator).count();
        if own >= WAITING_OF_ONE_MAX {
            return Err(ApprovalError::TooManyOfOne);
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
        approver: &Operator,
        now: Timestamp,
    ) -> Result<(), ApprovalError> {
        let mut waiting = self.waiting(now);
        let approval = waiting.get_mut(&id).ok_or(ApprovalError::Unknown { id })?;
        if approval.operator == approver.id() {
            return Err(ApprovalError::SamePerson { id });
        }
        if approval.approver.is_some() {
            return Err(ApprovalError::Granted { id });
        }
        approval.approver = Some(approver.clone());
        Ok(())
    }

    /// Somebody refuses, or the one who asked thinks better of it.
    pub fn refuse(&self, id: ApprovalId, now: Timestamp) -> Result<(), ApprovalError> {
        self.waiting(now).remove(&id).map(drop).ok_or(ApprovalError::Unknown { id })
    }

    /// Who granted exactly what is asked, to who asks. A grant that counts is not used up.
    pub fn check(
        &self,
        id: ApprovalId,
        asked: &Asked<'_>,
        present: Present<'_>,
    ) -> Result<String, ApprovalError> {
        granted(&mut self.waiting(present.now), id, asked, present)
    }

    /// Uses a granted approval up for exactly what was asked, by who asked; answers who granted it.
    pub fn take(
        &self,
        id: ApprovalId,
        asked: &Asked<'_>,
        present: Present<'_>,
    ) -> Result<String, ApprovalError> {
        let mut waiting = self.waiting(present.now);
        let approver = granted(&mut waiting, id, asked, present)?;
        waiting.remove(&id);
        Ok(approver)
    }

    /// What has not expired.
    fn waiting(&self, now: Timestamp) -> MutexGuard<'_, Waiting> {
        // Each change is one step; a panic elsewhere leaves the map whole.
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, approval| now < approval.expires_at);
        waiting
    }
}

/// INVARIANT (two-persons): a grant counts while who gave it may give it. One that does not goes, so
/// that whoever asked may ask again and somebody else agree.
fn granted(
    waiting: &mut Waiting,
    id: ApprovalId,
    asked: &Asked<'_>,
    present: Present<'_>,
) -> Result<String, ApprovalError> {
    let approval = waiting.get(&id).ok_or(ApprovalError::Unknown { id })?;
    if approval.operator != asked.operator || approval.request != asked.request {
        return Err(ApprovalError::Another { id });
    }
    let approver = approval.approver.clone().ok_or(ApprovalError::Waits { id })?;
    let name = approver.id().to_owned();
    if !may_approve(approver, present) {
        waiting.remove(&id);
        return Err(ApprovalError::NoLonger { id });
    }
    Ok(name)
}

fn may_approve(operator: Operator, present: Present<'_>) -> bool {
    let (action, resource) = (AdminAction::Approve, AdminResource::Broker);
    let what = "a grant that is about to be used".to_owned();
    let ask = AdminAsk { operator, action, resource, what, claimed_reason: None };
    decide_admin(present.policies, ask, present.now).is_ok()
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
    /// Who granted it may not any longer.
    #[error("approval `{id}` was granted by somebody who may not approve any longer")]
    NoLonger {
        /// The id.
        id: ApprovalId,
    },
    /// Too much waits that the same operator asked for.
    #[error(
        "{} of your requests wait for a second operator already: have some decided",
        WAITING_OF_ONE_MAX
    )]
    TooManyOfOne,
    /// Too much waits.
    #[error("{} requests wait for a second operator already: have some decided", WAITING_MAX)]
    TooMany,
}

/// Long enough to reach a colleague, short enough that what was meant is still what is done.
const LIFE: Duration = Duration::from_mins(15);

/// Operators are few; more is a mistake or a flood.
const WAITING_MAX: usize = 64;

/// Nobody does more at once with a colleague; one operator must not take the places of all, who may
/// need one to end everything.
const WAITING_OF_ONE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use claviger_core::admin::Standing;
    use claviger_core::policy::{PolicyFile, PolicySources};
    use claviger_core::principal::Principal;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(1_795_000_000_000);

    fn id(number: u8) -> ApprovalId {
        ApprovalId::mint(NOW, &[number; 10])
    }

    fn asked<'a>(operator: &'a str, request: &str) -> Asked<'a> {
        let request = RequestDigest::of("revoke", request.as_bytes());
        Asked { operator, what: "everything", request }
    }

    /// The operator `unix:<uid>`.
    fn operator(uid: u32) -> Operator {
        Operator::proven(Principal::from_unix_peer(uid, uid), Standing::Listed)
    }

    fn policies(text: &str) -> PolicySnapshot {
        let file = PolicyFile { path: "operators.cedar".into(), text: text.to_owned() };
        let sources = PolicySources { policies: vec![file], ..PolicySources::default() };
        PolicySnapshot::load(sources).unwrap()
    }

    /// An approval of what `unix:1` asked for, granted by `unix:2`.
    fn granted() -> Approvals {
        let approvals = Approvals::default();
        approvals.ask(&asked("unix:1", "all"), id(1), NOW).unwrap();
        approvals.grant(id(1), &operator(2), NOW).unwrap();
        approvals
    }

    fn take(
        approvals: &Approvals,
        asked: &Asked<'_>,
        now: Timestamp,
    ) -> Result<String, ApprovalError> {
        approvals.take(id(1), asked, Present { policies: &policies(""), now })
    }

    #[test]
    fn a_grant_counts_once_for_what_was_asked_by_who_asked() {
        let approvals = granted();
        let others = [asked("unix:2", "all"), asked("unix:1", "all, and more"), asked("c", "all")];
        for other in others {
            let refused = take(&approvals, &other, NOW);
            assert_eq!(refused, Err(ApprovalError::Another { id: id(1) }));
        }
        let open = policies("");
        let present = Present { policies: &open, now: NOW };
        for _ in 0..2 {
            let found = approvals.check(id(1), &asked("unix:1", "all"), present);
            assert_eq!(found, Ok("unix:2".to_owned()), "to look uses nothing up");
        }
        assert_eq!(take(&approvals, &asked("unix:1", "all"), NOW), Ok("unix:2".to_owned()));
        let again = take(&approvals, &asked("unix:1", "all"), NOW);
        assert_eq!(again, Err(ApprovalError::Unknown { id: id(1) }), "a replay");
    }

    #[test]
    fn nobody_approves_what_they_asked_for() {
        let approvals = Approvals::default();
        approvals.ask(&asked("unix:1", "all"), id(1), NOW).unwrap();
        let own = approvals.grant(id(1), &operator(1), NOW);
        assert_eq!(own, Err(ApprovalError::SamePerson { id: id(1) }));
        let early = take(&approvals, &asked("unix:1", "all"), NOW);
        assert_eq!(early, Err(ApprovalError::Waits { id: id(1) }));
    }

    #[test]
    fn it_expires_and_can_be_refused() {
        let approvals = granted();
        let late = NOW.after(LIFE);
        let expired = take(&approvals, &asked("unix:1", "all"), late);
        assert_eq!(expired, Err(ApprovalError::Unknown { id: id(1) }));
        let approvals = granted();
        approvals.refuse(id(1), NOW).unwrap();
        assert!(approvals.list(NOW).is_empty());
    }

    #[test]
    fn a_grant_counts_no_longer_than_its_approver_may_approve() {
        let forbidden = policies(
            r#"forbid (principal == Operator::"unix:2", action == Action::"admin::approve", resource);"#,
        );
        let present = Present { policies: &forbidden, now: NOW };
        let asked = asked("unix:1", "all");
        for use_of in [Approvals::check, Approvals::take] {
            let approvals = granted();
            let refused = use_of(&approvals, id(1), &asked, present);
            assert_eq!(refused, Err(ApprovalError::NoLonger { id: id(1) }));
            // It is out of the way of another.
            let anew = approvals.ask(&asked, id(2), NOW).unwrap();
            assert_eq!((anew.id, anew.approver), (id(2), None));
            approvals.grant(id(2), &operator(3), NOW).unwrap();
            assert_eq!(approvals.take(id(2), &asked, present), Ok("unix:3".to_owned()));
        }
    }

    #[test]
    fn the_same_question_waits_once_and_a_flood_is_refused() {
        let approvals = Approvals::default();
        let first = approvals.ask(&asked("a", "all"), id(1), NOW).unwrap();
        assert_eq!(approvals.ask(&asked("a", "all"), id(2), NOW), Ok(first));
        for number in 2..=64 {
            approvals.ask(&asked(&format!("unix:{number}"), "all"), id(number), NOW).unwrap();
        }
        let refused = approvals.ask(&asked("b", "all"), id(99), NOW);
        assert_eq!(refused, Err(ApprovalError::TooMany));
    }

    #[test]
    fn one_operator_leaves_room_for_the_others() {
        let approvals = Approvals::default();
        for number in 1..=4 {
            approvals.ask(&asked("a", &number.to_string()), id(number), NOW).unwrap();
        }
        let refused = approvals.ask(&asked("a", "more"), id(5), NOW);
        assert_eq!(refused, Err(ApprovalError::TooManyOfOne));
        approvals.ask(&asked("a", "1"), id(5), NOW).unwrap();
        approvals.ask(&asked("b", "more"), id(5), NOW).unwrap();
    }
}
