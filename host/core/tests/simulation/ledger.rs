//! What the simulated journal keeps: entries, sessions, leases. Decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use claviger_core::budget::Subject;
use claviger_core::catalog::RevocationClass;
use claviger_core::decide::Permit;
use claviger_core::ids::{IntentId, SessionId};
use claviger_core::issued::Handle;
use claviger_core::journal::{Entry, Event, JournalSeq};
use claviger_core::lease::{DueCause, DueLease, HeldLease, Lease, LeaseEvent, LeaseState, Parties};
use claviger_core::name::{IdempotencyKey, RoleName, ScopeName};
use claviger_core::policy::SnapshotDigest;
use claviger_core::prompt::PromptDigest;
use claviger_core::session::{Ancestor, Session};
use claviger_core::time::Timestamp;
use zeroize::Zeroizing;

/// What is durable.
#[derive(Clone, Default)]
pub struct Ledger {
    pub entries: Vec<(JournalSeq, Entry)>,
    pub sessions: BTreeMap<SessionId, SessionRow>,
    pub leases: BTreeMap<IntentId, Row>,
    pub snapshot: Option<SnapshotDigest>,
    /// Kept only for the flaw that loses the last write.
    pub before: Option<Box<Ledger>>,
}

#[derive(Clone)]
pub struct SessionRow {
    pub session: Session,
    pub ended: bool,
}

#[derive(Clone)]
pub struct Row {
    pub session: SessionId,
    pub key: Option<IdempotencyKey>,
    pub state: LeaseState,
    pub granted_at: Timestamp,
    pub expires_at: Timestamp,
    pub role: RoleName,
    pub prompt_digest: PromptDigest,
    pub parties: Parties,
    pub ancestors: Vec<Ancestor>,
    pub scope: ScopeName,
    pub cause: Option<DueCause>,
    pub attempts: u32,
    pub act_at: Option<Timestamp>,
    pub handle: Option<String>,
    pub revocation: RevocationClass,
}

impl Row {
    pub fn of(permit: &Permit, now: Timestamp) -> Self {
        let session = permit.session();
        Self {
            session: session.id(),
            key: permit.idempotency_key().cloned(),
            state: LeaseState::Open,
            granted_at: permit.decided_at(),
            expires_at: permit.expires_at(),
            role: session.role().clone(),
            prompt_digest: *session.prompt_digest(),
            parties: Parties::of(session),
            ancestors: session.ancestors().to_vec(),
            scope: permit.scope().name.clone(),
            cause: None,
            attempts: 0,
            act_at: Some(now.after(INTENT_TIMEOUT)),
            handle: None,
            revocation: permit.backend().revocation,
        }
    }

    pub fn fall_due(&mut self, event: LeaseEvent, cause: DueCause, act_at: Option<Timestamp>) {
        self.state = self.state.after(event).expect("the core allows it");
        self.cause = Some(cause);
        self.act_at = act_at;
    }

    pub fn due(&self, id: IntentId) -> DueLease {
        DueLease {
            id,
            session: self.session,
            role: self.role.clone(),
            prompt_digest: self.prompt_digest,
            parties: self.parties.clone(),
            ancestors: self.ancestors.clone(),
            scope: self.scope.clone(),
            state: self.state,
            cause: self.cause.unwrap_or(DueCause::IntentTimeout),
            attempts: self.attempts,
            due_at: self.act_at.unwrap_or(self.expires_at),
            expires_at: self.expires_at,
            handle: self.handle.clone().map(|handle| Handle::new(Zeroizing::new(handle))),
        }
    }

    pub fn held(&self, id: IntentId, session: Arc<Session>) -> HeldLease {
        HeldLease {
            id,
            session,
            scope: self.scope.clone(),
            granted_at: self.granted_at,
            expires_at: self.expires_at,
        }
    }

    pub fn lease(&self, id: IntentId) -> Lease {
        Lease {
            id,
            session: self.session,
            scope: self.scope.clone(),
            state: self.state,
            expires_at: self.expires_at,
            revocation: self.revocation,
            residual_exposure: Duration::ZERO,
        }
    }
}

impl Ledger {
    pub fn has_opened(&self, id: IntentId) -> bool {
        self.has(id, Event::IntentOpened)
    }

    pub fn has_issued(&self, id: IntentId) -> bool {
        self.has(id, Event::LeaseIssued)
    }

    fn has(&self, id: IntentId, event: Event) -> bool {
        self.entries.iter().any(|(_, entry)| entry.intent == Some(id) && entry.event == event)
    }

    /// A start of the broker records the policies that it loads.
    pub fn load_policies(&mut self, digest: SnapshotDigest, now: Timestamp) {
        let mut entry = Entry::new(now, Event::PoliciesLoaded);
        entry.snapshot = Some(digest);
        self.append(entry);
    }

    /// How many leases count for `of`: those that somebody holds; and until they expire those that
    /// nothing can end, or that an attempt to end has not ended.
    pub fn count(&self, of: &Subject, now: Timestamp) -> usize {
        let counts = |row: &&Row| match row.state {
            LeaseState::Open | LeaseState::Active => true,
            LeaseState::Due | LeaseState::Lapsing | LeaseState::Stuck => {
                let is_lasting = row.revocation == RevocationClass::ExpireOnly;
                (is_lasting || row.attempts > 0) && row.expires_at > now
            }
            LeaseState::Revoked | LeaseState::Expired => false,
        };
        let mine = |row: &&Row| match of {
            Subject::Session(_) => Subject::of_session(row.session, &row.ancestors) == *of,
            Subject::Role(role) => row.role == *role,
            Subject::Scope(role, scope) => row.role == *role && row.scope == *scope,
            Subject::Backend(name) => row.scope.backend() == name,
            Subject::Requester(id) => {
                self.sessions.get(&row.session).is_some_and(|of| of.session.requester().id() == id)
            }
        };
        self.leases.values().filter(counts).filter(mine).count()
    }

    pub fn forget_last_write(&mut self) {
        if let Some(before) = self.before.take() {
            *self = *before;
        }
    }

    pub fn append(&mut self, entry: Entry) -> JournalSeq {
        let seq = JournalSeq::durable(self.entries.len() as u64 + 1);
        if entry.event == Event::PoliciesLoaded {
            self.snapshot = entry.snapshot;
        }
        self.entries.push((seq, entry));
        seq
    }

    pub fn is_live(&self, id: SessionId, now: Timestamp) -> bool {
        self.sessions.get(&id).is_some_and(|row| !row.ended && row.session.is_live_at(now))
    }

    pub fn row(&mut self, id: IntentId) -> &mut Row {
        self.leases.get_mut(&id).expect("a recorded intent has a row")
    }
}

/// As the broker's default.
pub const INTENT_TIMEOUT: Duration = Duration::from_secs(30);
