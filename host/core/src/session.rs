//! One run of one role by one principal for one requester, and the token that proves it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::decide::SessionPermit;
use crate::ids::SessionId;
use crate::name::{Authorization, RoleName};
use crate::policy::SnapshotDigest;
use crate::principal::{Principal, Requester};
use crate::prompt::{AuthorizationLimits, PromptDigest};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A session that was permitted and recorded. Everything issued belongs to one and dies with it.
#[derive(Clone, Debug)]
pub struct Session {
    id: SessionId,
    role: RoleName,
    prompt_digest: PromptDigest,
    authorizations: BTreeMap<Authorization, AuthorizationLimits>,
    principal: Principal,
    requester: Requester,
    opened_at: Timestamp,
    ends_at: Timestamp,
}

/// A session as the journal keeps it.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Its id.
    pub id: SessionId,
    /// Its role.
    pub role: RoleName,
    /// The digest of the prompt file when the session began.
    pub prompt_digest: PromptDigest,
    /// What the prompt file declared when the session began.
    pub authorizations: BTreeMap<Authorization, AuthorizationLimits>,
    /// Who runs it.
    pub principal: Principal,
    /// For whom.
    pub requester: Requester,
    /// When it began.
    pub opened_at: Timestamp,
    /// When it ends at the latest.
    pub ends_at: Timestamp,
}

impl Session {
    /// The session that `permit` allows, beginning now.
    pub fn begin(permit: SessionPermit, id: SessionId, now: Timestamp) -> Self {
        let ends_at = now.after(permit.life());
        let (role, principal, requester) = permit.into_parts();
        Self {
            id,
            role: role.name,
            prompt_digest: role.digest,
            authorizations: role.authorizations,
            principal,
            requester,
            opened_at: now,
            ends_at,
        }
    }

    /// A session that the journal recorded earlier.
    pub fn from_record(record: SessionRecord) -> Self {
        let SessionRecord {
            id,
            role,
            prompt_digest,
            authorizations,
            principal,
            requester,
            opened_at,
            ends_at,
        } = record;
        Self { id, role, prompt_digest, authorizations, principal, requester, opened_at, ends_at }
    }

    /// Its id.
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// Its role.
    pub const fn role(&self) -> &RoleName {
        &self.role
    }

    /// The digest of the prompt file when the session began.
    pub const fn prompt_digest(&self) -> &PromptDigest {
        &self.prompt_digest
    }

    /// What the prompt file declared when the session began. A later prompt file can only take
    /// away from it: the agent still runs with the prompt it began with.
    pub const fn authorizations(&self) -> &BTreeMap<Authorization, AuthorizationLimits> {
        &self.authorizations
    }

    /// Who runs it.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// For whom.
    pub const fn requester(&self) -> &Requester {
        &self.requester
    }

    /// When it began.
    pub const fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    /// When it ends at the latest.
    pub const fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Whether its maximum life has not passed.
    pub fn is_live_at(&self, now: Timestamp) -> bool {
        now < self.ends_at
    }
}

/// A new 256-bit session token and the hash by which the broker will know it.
pub fn mint_token(random: &[u8; 32]) -> (Secret, TokenHash) {
    let bare = Zeroizing::new(data_encoding::BASE64URL_NOPAD.encode(random));
    let token = Zeroizing::new([TOKEN_PREFIX, bare.as_str()].concat());
    let hash = TokenHash::of(&token);
    (Secret::new(token), hash)
}

/// SHA-256 of a session token: all that the broker keeps of it. A fast hash is enough, because
/// the token has 256 random bits; looking a session up by the hash tells an attacker who times
/// the look-up nothing about the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token as the client sent it.
    pub fn of(unverified_token: &str) -> Self {
        Self(Sha256::digest(unverified_token.as_bytes()).into())
    }

    /// A hash that the journal recorded earlier.
    pub const fn from_record(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Why a session was allowed to begin, for its first entry.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The ids of the policies that permitted it.
    pub policies: Vec<String>,
    /// The snapshot that decided.
    pub snapshot: SnapshotDigest,
    /// What the caller said it was for.
    pub claimed_reason: Option<String>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndCause {
    /// The agent closed it.
    Closed,
    /// Its maximum life has passed.
    LifeReached,
    /// Nothing was heard of it for longer than the heartbeat grace.
    HeartbeatLost,
    /// An operator ended it.
    Operator,
    /// The issuer no longer publishes the key that proved who runs it or for whom, or the
    /// configuration no longer names the issuer.
    KeyWithdrawn,
    /// What is in force now no longer permits it.
    NoLongerPermitted,
}

impl EndCause {
    /// As messages, metrics and the journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::LifeReached => "life-reached",
            Self::HeartbeatLost => "heartbeat-lost",
            Self::Operator => "operator",
            Self::KeyWithdrawn => "key-withdrawn",
            Self::NoLongerPermitted => "no-longer-permitted",
        }
    }
}

/// Lets secret scanners find a leaked token.
const TOKEN_PREFIX: &str = "clvs_";

/// The longest session. Longer runs are begun again under a new decision; the value equals the
/// longest credential life, since nothing may outlive its session.
pub const SESSION_LIFE_MAX: Duration = Duration::from_hours(12);
