//! One line of the journal. Never holds a secret.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::admin::AdminAsk;
use crate::binding::Binding;
use crate::catalog::Scope;
use crate::decide::{AdminPermit, Denial, Permit, Refused};
use crate::ids::{DenialId, IntentId, SessionId};
use crate::intent::Intent;
use crate::lease::{DueCause, DueLease, LeaseState, RevokeOutcome};
use crate::name::{RoleName, ScopeName};
use crate::policy::SnapshotDigest;
use crate::ports::{Minted, PluginError, Standing};
use crate::prompt::PromptDigest;
use crate::session::{Ancestor, Begun, EndCause, KnownToken, Session};
use crate::time::Timestamp;

/// One thing that happened. Absent fields do not apply. The JSON form, with its fields in this
/// order, is what the chain hashes: a new field may be added (skipped when absent), none may be
/// renamed or reordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
    /// The role concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// The digest of its prompt file when the session began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_digest: Option<PromptDigest>,
    /// The session concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The workload that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The engineer or system for whom it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// What the user database or the token calls the requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester_name: Option<String>,
    /// Who acts for the requester, as its token says (RFC 8693, `act`): the current actor first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub act: Vec<String>,
    /// The groups that the requester's token names, where a session begins or is refused.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub requester_groups: BTreeSet<String>,
    /// The scope concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Verdict>,
    /// The stable code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The ids of the policies that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// The policy snapshot that decided, or that was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotDigest>,
    /// The refusal's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<DenialId>,
    /// The intent's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<IntentId>,
    /// The lease's id (the same as its intent's), once there is a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<IntentId>,
    /// The state of the lease after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LeaseState>,
    /// Why it came to this: `released`, `session-ended`, `heartbeat-lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When the credential or the session ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What the consuming system logs for uses of the credential.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub join_keys: BTreeMap<String, String>,
    /// What the agent said it wanted this for. Only claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_reason: Option<String>,
    /// A sentence for people: an error, a list of what was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where the session's token is good from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The sessions above the session concerned, the top one first and its parent last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
    /// The operator who acted, or at whose word it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// What the operator did: `admin::revoke`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What the operator acted on, as Cedar writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The second operator, who approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// How many refusals like this one came before it and have no entry of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The broker started on this journal.
    BrokerStarted,
    /// The broker stopped in good order.
    BrokerStopped,
    /// A configuration was loaded.
    ConfigurationLoaded,
    /// A configuration was refused; the earlier one stays in force.
    ConfigurationRefused,
    /// A TLS listener's certificate, or whom it trusts, was put in force.
    CertificatesLoaded,
    /// Certificates were refused; the earlier ones stay in force.
    CertificatesRefused,
    /// A plugin broke the sandbox too often and is kept from work for a while.
    PluginQuarantined,
    /// A policy snapshot (policies, roles, catalog) was loaded and decides from here on.
    PoliciesLoaded,
    /// A policy snapshot was refused; the earlier one goes on deciding.
    PoliciesRefused,
    /// A session began.
    SessionBegun,
    /// A session ended.
    SessionEnded,
    /// The certificate to which a session's token is bound changed, or the next one was named.
    SessionRebound,
    /// A request was refused.
    Denied,
    /// A permission became durable; the plugin may now mint.
    IntentOpened,
    /// The credential was minted; there is a lease.
    LeaseIssued,
    /// Minting failed, or the answer came too late.
    IssueFailed,
    /// A lease fell due for revocation.
    LeaseDue,
    /// A lease is gone upstream.
    LeaseRevoked,
    /// A lease cannot be ended early and waits for its expiry.
    LeaseLapsing,
    /// A lease ran out.
    LeaseExpired,
    /// An attempt to revoke failed.
    RevocationFailed,
    /// Every attempt to revoke failed; an operator must look.
    LeaseStuck,
    /// An operator asked for something.
    OperatorAct,
    /// A new key of the broker as an issuer of tokens was made; it is published before it signs.
    IssuerKeyMade,
    /// A secret was put into the broker's keeping, or put anew.
    SecretPut,
    /// A secret that the broker kept was deleted.
    SecretDeleted,
    /// The journal was put under another sealing key.
    JournalRekeyed,
    /// A root credential is to be replaced: the new one is in the broker's keeping.
    RotationStarted,
    /// A root credential was replaced: the backend accepts the new one.
    RotationDone,
    /// A root credential was not replaced: the backend accepts the one before.
    RotationFailed,
    /// A key that was replaced, or was never put in force, was deleted at its backend.
    RotationRetired,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Permitted.
    Permit,
    /// Refused.
    Deny,
}

impl Entry {
    /// An entry about nothing in particular yet.
    pub const fn new(at: Timestamp, event: Event) -> Self {
        Self {
            at,
            event,
            role: None,
            prompt_digest: None,
            session: None,
            principal: None,
            requester: None,
            requester_name: None,
            act: Vec::new(),
            requester_groups: BTreeSet::new(),
            scope: None,
            decision: None,
            code: None,
            policies: Vec::new(),
            snapshot: None,
            denial: None,
            intent: None,
            lease: None,
            state: None,
            cause: None,
            expires_at: None,
            join_keys: BTreeMap::new(),
            claimed_reason: None,
            detail: None,
            binding: None,
            ancestors: Vec::new(),
            operator: None,
            action: None,
            resource: None,
            approver: None,
            repeats: None,
        }
    }

    fn of_session(at: Timestamp, event: Event, session: &Session) -> Self {
        Self {
            role: Some(session.role().clone()),
            prompt_digest: Some(*session.prompt_digest()),
            session: Some(session.id()),
            principal: Some(session.principal().id().to_owned()),
            requester: Some(session.requester().id().to_owned()),
            requester_name: session.requester().name().map(str::to_owned),
            act: session.requester().grounds().act.clone(),
            ancestors: session.ancestors().to_vec(),
            ..Self::new(at, event)
        }
    }

    /// A session began.
    pub fn session_begun(session: &Session, token: &KnownToken, begun: &Begun) -> Self {
        Self {
            decision: Some(Verdict::Permit),
            policies: begun.policies.clone(),
            snapshot: Some(begun.snapshot),
            expires_at: Some(session.ends_at()),
            claimed_reason: begun.claimed_reason.clone(),
            requester_groups: session.requester().grounds().groups.clone(),
            binding: Some(token.binding.clone()),
            ..Self::of_session(session.opened_at(), Event::SessionBegun, session)
        }
    }

    /// The token of a session is good elsewhere from now on.
    pub fn session_rebound(session: &Session, binding: &Binding, at: Timestamp) -> Self {
        Self {
            binding: Some(binding.clone()),
            ..Self::of_session(at, Event::SessionRebound, session)
        }
    }

    /// A session ended.
    pub fn session_ended(
        session: &Session,
        cause: EndCause,
        leases_due: u64,
        at: Timestamp,
    ) -> Self {
        Self {
            cause: Some(cause.as_str().to_owned()),
            detail: Some(format!("{leases_due} active leases fell due")),
            ..Self::of_session(at, Event::SessionEnded, session)
        }
    }

    /// A session ended because it is no longer permitted.
    pub fn session_withdrawn(
        session: &Session,
        denial: &Denial,
        leases_due: u64,
        at: Timestamp,
    ) -> Self {
        let ended = Self::session_ended(session, EndCause::NoLongerPermitted, leases_due, at);
        let detail = ended.detail.as_deref().unwrap_or_default();
        let detail = Some(format!("{}; {detail}", denial.reason));
        Self { detail, ..ended }.refused_by(denial)
    }

    /// A lease fell due because it is no longer permitted.
    pub fn lease_withdrawn(lease: &DueLease, denial: &Denial, at: Timestamp) -> Self {
        let detail = Some(denial.reason.to_string());
        Self { detail, ..Self::lease_due(lease, DueCause::NoLongerPermitted, at) }
            .refused_by(denial)
    }

    /// With who refused it.
    #[must_use]
    pub fn refused_by(self, denial: &Denial) -> Self {
        Self {
            decision: Some(Verdict::Deny),
            code: Some(denial.reason.code().to_owned()),
            policies: denial.policies.clone(),
            snapshot: Some(denial.snapshot),
            ..self
        }
    }

    /// A request was refused.
    pub fn denied(id: DenialId, denial: &Denial) -> Self {
        let mut entry = match &denial.refused {
            Refused::Session(ask) => Self {
                role: Some(ask.role.clone()),
                principal: Some(ask.principal.id().to_owned()),
                requester: Some(ask.requester.id().to_owned()),
                requester_name: ask.requester.name().map(str::to_owned),
                act: ask.requester.grounds().act.clone(),
                requester_groups: ask.requester.grounds().groups.clone(),
                claimed_reason: ask.claimed_reason.clone(),
                ancestors: ask.parent.as_deref().map(Session::lineage).unwrap_or_default(),
                ..Self::new(denial.at, Event::Denied)
            },
            Refused::Issue { session, ask } => Self {
                scope: Some(ask.scope.clone()),
                claimed_reason: ask.claimed_reason.clone(),
                ..Self::of_session(denial.at, Event::Denied, session)
            },
            Refused::Admin(ask) => Self::of_admin(denial.at, Event::Denied, ask),
        };
        entry.denial = Some(id);
        entry.repeats = (denial.repeats > 0).then_some(denial.repeats);
        entry.detail = Some(denial.reason.to_string());
        entry.refused_by(denial)
    }

    fn of_admin(at: Timestamp, event: Event, ask: &AdminAsk) -> Self {
        Self {
            claimed_reason: ask.claimed_reason.clone(),
            operator: Some(ask.operator.id().to_owned()),
            action: Some(ask.action.as_str().to_owned()),
            resource: Some(ask.resource.to_string()),
            ..Self::new(at, event)
        }
    }

    /// An operator was permitted to do something, and now does it.
    pub fn operator_act(permit: &AdminPermit) -> Self {
        Self {
            decision: Some(Verdict::Permit),
            policies: permit.policies().to_vec(),
            snapshot: Some(permit.snapshot()),
            detail: Some(permit.ask().what.clone()),
            ..Self::of_admin(permit.decided_at(), Event::OperatorAct, permit.ask())
        }
    }

    /// What an operator's act came to.
    pub fn operator_outcome(permit: &AdminPermit, what: String, at: Timestamp) -> Self {
        Self { detail: Some(what), ..Self::of_admin(at, Event::OperatorAct, permit.ask()) }
    }

    fn of_permit(at: Timestamp, event: Event, id: IntentId, permit: &Permit) -> Self {
        let scope: &Scope = permit.scope();
        Self {
            scope: Some(scope.name.clone()),
            policies: permit.policies().to_vec(),
            snapshot: Some(permit.snapshot()),
            intent: Some(id),
            ..Self::of_session(at, event, permit.session())
        }
    }

    /// A permission became durable.
    pub fn intent_opened(id: IntentId, permit: &Permit, at: Timestamp) -> Self {
        Self {
            decision: Some(Verdict::Permit),
            state: Some(LeaseState::Open),
            expires_at: Some(permit.expires_at()),
            claimed_reason: permit.claimed_reason().map(str::to_owned),
            ..Self::of_permit(at, Event::IntentOpened, id, permit)
        }
    }

    /// The credential was minted: for the agent or, if what is in force now refuses it, to be
    /// revoked at once.
    pub fn lease_issued(intent: &Intent, minted: &Minted<'_>, at: Timestamp) -> Self {
        let issued = minted.issued;
        let entry = Self {
            lease: Some(intent.id()),
            state: Some(LeaseState::Active),
            expires_at: Some(issued.credential.expires_at),
            join_keys: issued.join_keys.clone(),
            ..Self::of_permit(at, Event::LeaseIssued, intent.id(), intent.permit())
        };
        match minted.standing {
            Standing::AsDecided => entry,
            Standing::Confirmed(confirmed) => Self {
                policies: confirmed.policies.clone(),
                snapshot: Some(confirmed.snapshot),
                ..entry
            },
            Standing::Withdrawn(denial) => Self {
                state: Some(LeaseState::Due),
                cause: Some(DueCause::NoLongerPermitted.as_str().to_owned()),
                detail: Some(denial.reason.to_string()),
                ..entry
            }
            .refused_by(denial),
        }
    }

    /// Minting failed.
    pub fn issue_failed(intent: &Intent, error: &PluginError, at: Timestamp) -> Self {
        Self {
            state: Some(LeaseState::Due),
            detail: Some(error.to_string()),
            ..Self::of_permit(at, Event::IssueFailed, intent.id(), intent.permit())
        }
    }

    fn of_due(at: Timestamp, event: Event, lease: &DueLease) -> Self {
        Self {
            role: Some(lease.role.clone()),
            prompt_digest: Some(lease.prompt_digest),
            session: Some(lease.session),
            principal: Some(lease.parties.principal.clone()),
            requester: Some(lease.parties.requester.clone()),
            act: lease.parties.act.clone(),
            scope: Some(lease.scope.clone()),
            intent: Some(lease.id),
            lease: Some(lease.id),
            ancestors: lease.ancestors.clone(),
            ..Self::new(at, event)
        }
    }

    /// A lease fell due.
    pub fn lease_due(lease: &DueLease, cause: DueCause, at: Timestamp) -> Self {
        Self {
            state: Some(LeaseState::Due),
            cause: Some(cause.as_str().to_owned()),
            ..Self::of_due(at, Event::LeaseDue, lease)
        }
    }

    /// An attempt to revoke came to `outcome`.
    pub fn revocation(
        lease: &DueLease,
        outcome: &RevokeOutcome,
        state: LeaseState,
        at: Timestamp,
    ) -> Self {
        let (event, detail) = match outcome {
            RevokeOutcome::Gone => (Event::LeaseRevoked, None),
            RevokeOutcome::CannotRevoke => (Event::LeaseLapsing, None),
            RevokeOutcome::RanOut => (Event::LeaseExpired, None),
            RevokeOutcome::Failed { error, next_attempt_at: Some(next) } => {
                (Event::RevocationFailed, Some(format!("{error}; next attempt at {next}")))
            }
            RevokeOutcome::Failed { error, next_attempt_at: None } => {
                (Event::LeaseStuck, Some(error.clone()))
            }
        };
        Self {
            state: Some(state),
            cause: Some(lease.cause.as_str().to_owned()),
            detail,
            ..Self::of_due(at, event, lease)
        }
    }
}
