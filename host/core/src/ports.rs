//! The six ports: what the core needs from the world. Each has a real adapter in the broker and
//! a simulated one in the simulation. Nothing else in the core is a trait.

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;

use crate::binding::Binding;
use crate::budget::{IssueLimit, LeaseLimit, Spent};
use crate::decide::{Confirmed, Denial, Permit};
use crate::ids::{DenialId, IntentId, SessionId};
use crate::intent::Intent;
use crate::issued::Issued;
use crate::journal::{Entry, JournalSeq};
use crate::lease::{DueLease, HeldLease, Lease, LeaseState, RevokeOutcome};
use crate::name::BackendName;
use crate::policy::{PolicySnapshot, SnapshotDigest};
use crate::session::{Begun, DESCENDANTS_MAX, EndCause, KnownToken, Session};
use crate::time::Timestamp;

/// All six ports together; the flows take one of these.
pub trait Ports: Send + Sync {
    /// Tells the time.
    type Clock: Clock;
    /// Gives random bytes.
    type Entropy: Entropy;
    /// Remembers.
    type Journal: Journal;
    /// Mints and revokes.
    type Plugins: Plugins;
    /// Holds the current policy snapshot.
    type Policies: Policies;
    /// Counts by the minute.
    type Rates: Rates;

    /// The clock.
    fn clock(&self) -> &Self::Clock;
    /// The source of random bytes.
    fn entropy(&self) -> &Self::Entropy;
    /// The journal.
    fn journal(&self) -> &Self::Journal;
    /// The plugins.
    fn plugins(&self) -> &Self::Plugins;
    /// The policies.
    fn policies(&self) -> &Self::Policies;
    /// The rates.
    fn rates(&self) -> &Self::Rates;
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now, UTC.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes from a cryptographically secure source.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// Holds the current policy snapshot.
pub trait Policies: Send + Sync {
    /// The snapshot that decides now.
    fn current(&self) -> Arc<PolicySnapshot>;

    /// Waits, but not for ever, until another snapshot than `stale` decides. The journal knows of
    /// a snapshot a moment before it decides.
    fn other_than(&self, stale: SnapshotDigest) -> impl Future<Output = ()> + Send;
}

/// Counts what is issued by the minute, and knows which refusals were recorded lately. What it
/// keeps may be lost with the process: it bounds a flood, and a start is none.
pub trait Rates: Send + Sync {
    /// Takes one issue from each limit of a session's `own`, or says which one is used up. Says so,
    /// too, of one among those that it has `shared` with others, where that is known; from these it
    /// takes nothing: [`Journal::open_intent`] does.
    fn take(&self, own: &[IssueLimit], shared: &[IssueLimit]) -> Result<(), Spent>;

    /// Whether a refusal of `session` with this code was recorded so lately that another like it
    /// needs no entry of its own; counts it if so.
    fn repeated(&self, session: SessionId, code: &'static str) -> Repeated;

    /// Refusal `id` of `session` with this code has just been recorded.
    fn recorded(&self, session: SessionId, code: &'static str, id: DenialId);
}

/// Whether a refusal has an entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// It gets one, which tells how many before it got none.
    First {
        /// How many.
        repeats: u64,
    },
    /// It belongs to this one.
    Again(DenialId),
}

/// Mints and revokes credentials, sandboxed.
pub trait Plugins: Send + Sync {
    /// Mints what `intent` permits, tagged upstream with the intent's id. Idempotent on that id.
    fn issue(&self, intent: &Intent) -> impl Future<Output = Result<Issued, PluginError>> + Send;

    /// Ends what was minted for `lease`, from its handle or from the intent id alone. Succeeds
    /// if there is nothing (left) to end.
    fn revoke(&self, lease: &DueLease) -> impl Future<Output = Result<(), PluginError>> + Send;

    /// How many leases of `backend` [`revoke_all`](Self::revoke_all) ends at once; 1 where each is
    /// ended alone.
    fn revoked_at_once(&self, backend: &BackendName) -> usize;

    /// Ends what was minted for each of these leases, all of one backend. After an error any of
    /// them may or may not be gone.
    fn revoke_all(
        &self,
        leases: &[DueLease],
    ) -> impl Future<Output = Result<(), PluginError>> + Send;
}

/// The durable store and the audit log in one. Every method that changes something is durable,
/// with its entry, when it returns `Ok`; on `Err` nothing has changed.
pub trait Journal: Send + Sync {
    /// Records that a session began. In the same transaction, for one below another, it checks that
    /// the one above is live and that there are not too many below the top one.
    /// Of every session it checks again that the snapshot which permitted it is still current.
    fn begin_session(
        &self,
        session: &Session,
        token: &KnownToken,
        begun: &Begun,
    ) -> impl Future<Output = Result<JournalSeq, BeginError>> + Send;

    /// Records where the session's token is good from now on. `Ok(None)` if it had ended already.
    fn bind_session(
        &self,
        session: &Session,
        binding: &Binding,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<JournalSeq>, JournalError>> + Send;

    /// Records that a session ended, and with it every session below it; their active leases fall due in the same transaction, and
    /// intents still open fall due when they close. `Ok(None)` if it had ended already.
    fn end_session(
        &self,
        session: SessionId,
        cause: EndCause,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<SessionEnded>, JournalError>> + Send;

    /// Records a refusal.
    fn record_denial(
        &self,
        id: DenialId,
        denial: &Denial,
    ) -> impl Future<Output = Result<JournalSeq, JournalError>> + Send;

    /// Records what is neither about a lease nor a session: configuration and policy loads.
    /// A recorded policy load makes its snapshot the current one for `open_intent`.
    fn record(&self, entry: Entry)
    -> impl Future<Output = Result<JournalSeq, JournalError>> + Send;

    /// Makes `permit` durable as intent `id`. In the same transaction it checks again that the
    /// session is live, that the permit's snapshot is still current, that the idempotency key is
    /// new, and that there is room under every limit on leases. Last, when nothing else refuses, it
    /// takes one issue from each limit that the session shares with others; should the record fail
    /// after that, it stays taken.
    fn open_intent(
        &self,
        id: IntentId,
        permit: &Permit,
        now: Timestamp,
    ) -> impl Future<Output = Result<JournalSeq, OpenError>> + Send;

    /// Closes `intent` with what was issued. In the same transaction it checks that the snapshot
    /// by which it stands is still current. If the session ended meanwhile, or the intent is no
    /// longer permitted, the lease falls due at once; if the intent timed out it stays due. All
    /// three are errors: the agent gets nothing.
    fn close_intent(
        &self,
        intent: &Intent,
        minted: Minted<'_>,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), CloseError>> + Send;

    /// Records that minting failed; the intent falls due, since the upstream may have acted: at
    /// once if no request was sent, else at its timeout. Until then the upstream may still be
    /// acting, and a revocation that comes first finds nothing and would be the last.
    fn fail_intent(
        &self,
        intent: &Intent,
        error: &PluginError,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The agent gives a lease of its session back; it falls due, but while its intent is open
    /// not before the plugin's answer or the intent's timeout, as for a failed one. `Ok(None)` if
    /// the session has no such lease; otherwise the state that it is in now.
    fn release_lease(
        &self,
        session: SessionId,
        lease: IntentId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<LeaseState>, JournalError>> + Send;

    /// The leases of a session that are not in a final state.
    fn leases(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<Vec<Lease>, JournalError>> + Send;

    /// Up to `limit` sessions that have not ended, in the order of their ids, from the one after
    /// `after` on.
    fn live_sessions_after(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Session>, JournalError>> + Send;

    /// Up to `limit` leases that are open or active, of sessions that have not ended, in the
    /// order of session and id, from the one after `after` on.
    fn held_leases_after(
        &self,
        after: Option<(SessionId, IntentId)>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<HeldLease>, JournalError>> + Send;

    /// Ends what a snapshot no longer permits, if that snapshot is still current: sessions as
    /// `end_session` does; active leases fall due at once, and open ones too, but not before the
    /// plugin's answer or the intent's timeout. Each with an entry that says who decided it, and
    /// what has ended already is left alone. Says which sessions it ended and how many leases.
    fn withdraw(
        &self,
        withdrawals: Vec<Withdrawal>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Withdrawn, WithdrawError>> + Send;

    /// Takes up to `limit` leases of `backend` that need the worker now: due attempts, stale
    /// intents and expired leases (both of which it moves to `Due`, with an entry), and lapsing
    /// leases that have expired. Oldest first. Asking again before the outcome is recorded
    /// returns the same leases.
    fn take_due(
        &self,
        backend: &BackendName,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<DueLease>, JournalError>> + Send;

    /// When `take_due` for `backend` will next have something to return.
    fn next_due_at(
        &self,
        backend: &BackendName,
    ) -> impl Future<Output = Result<Option<Timestamp>, JournalError>> + Send;

    /// Records what an attempt to revoke came to, and returns the state that follows.
    fn record_revocation(
        &self,
        lease: &DueLease,
        outcome: &RevokeOutcome,
        now: Timestamp,
    ) -> impl Future<Output = Result<LeaseState, JournalError>> + Send;

    /// Records that attempts to revoke these leases succeeded, all in one transaction.
    fn record_gone(
        &self,
        leases: &[DueLease],
        now: Timestamp,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// What the end of a session set in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnded {
    /// Leases that fell due, those of the sessions below it among them.
    pub leases_due: u64,
    /// How many sessions below it ended with it.
    pub below: u64,
}

/// What a plugin minted, and what is decided of it now.
#[derive(Clone, Copy)]
pub struct Minted<'a> {
    /// What it minted.
    pub issued: &'a Issued,
    /// Whether it may be handed out.
    pub standing: Standing<'a>,
}

/// Whether what was permitted is permitted still, after the plugin has minted it.
#[derive(Clone, Copy)]
pub enum Standing<'a> {
    /// The snapshot that permitted it is still in force.
    AsDecided,
    /// Another one is in force and permits it too.
    Confirmed(&'a Confirmed),
    /// Another one is in force and refuses it.
    Withdrawn(&'a Denial),
}

impl Standing<'_> {
    /// The snapshot by which a credential stands that `intent` permitted.
    pub fn snapshot(&self, intent: &Intent) -> SnapshotDigest {
        match self {
            Self::AsDecided => intent.permit().snapshot(),
            Self::Confirmed(confirmed) => confirmed.snapshot,
            Self::Withdrawn(denial) => denial.snapshot,
        }
    }
}

/// Something that is no longer permitted, and why.
#[derive(Clone, Debug)]
pub struct Withdrawal {
    /// What is withdrawn.
    pub of: Held,
    /// Who decided so.
    pub denial: Denial,
    /// A lease that was one too many stays after all if by now no more are held than each of these
    /// allows. Empty where that makes no difference.
    pub unless_within: Vec<LeaseLimit>,
}

/// What can be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A session, with everything that it holds.
    Session(SessionId),
    /// One lease.
    Lease(IntentId),
}

/// What a withdrawal set in motion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// The sessions that ended by it.
    pub sessions: Vec<SessionId>,
    /// How many leases fell due by it, with those of the sessions.
    pub leases_due: u64,
}

/// The journal could not do what was asked. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
    /// It cannot write now (disk full, read-only, gone). Nothing may be issued until it can.
    #[error("the journal cannot write: {0}")]
    Unwritable(String),
    /// More writes are queued than the bound allows.
    #[error("the journal's queue is full: try again in a moment")]
    Overloaded,
    /// What it read back makes no sense; never repaired silently.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
}

/// Why a session could not begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BeginError {
    /// The session above it ended between decision and record.
    #[error("the session that opens this one has ended")]
    ParentEnded,
    /// As many sessions live below the top one as may.
    #[error(
        "{DESCENDANTS_MAX} sessions live below the top session `{top}`, and no more may: close some"
    )]
    TooManyDescendants {
        /// The top one.
        top: SessionId,
    },
    /// The policies changed between decision and record: decide again.
    #[error("the policies changed while the session was being decided")]
    SnapshotStale,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why nothing was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WithdrawError {
    /// Another snapshot is current: what it permits must be decided by it.
    #[error("the policies changed while what they no longer permit was being decided")]
    SnapshotStale,
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a permit could not be made an intent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The session ended between decision and record.
    #[error("the session ended while the request was being decided")]
    SessionEnded,
    /// The policies changed between decision and record: decide again.
    #[error("the policies changed while the request was being decided")]
    SnapshotStale,
    /// The session has used this idempotency key before.
    #[error("the idempotency key was used before, for lease `{lease}`, which is {}", state.as_str())]
    KeyUsed {
        /// The lease of the earlier request.
        lease: IntentId,
        /// Where it stands.
        state: LeaseState,
    },
    /// As many leases are held as the limit allows.
    #[error("{} may hold {} leases at once, and does", limit.of, limit.most)]
    TooManyLeases {
        /// The limit.
        limit: Box<LeaseLimit>,
        /// When the next lease that counts ends by itself.
        frees_at: Option<Timestamp>,
    },
    /// As many were issued within the last minute as a shared limit allows.
    #[error("{} may be issued {} credentials a minute, and was", .0.limit.of, .0.limit.per_minute)]
    TooManyIssues(Box<Spent>),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why an intent could not be closed with a lease.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseError {
    /// The session ended while the credential was being minted. It is being revoked.
    #[error("the session ended while the credential was being minted")]
    SessionEnded,
    /// The policies changed while the credential was being minted: decide again. Nothing has
    /// changed yet.
    #[error("the policies changed while the credential was being minted")]
    SnapshotStale,
    /// What is in force now refuses it. It is being revoked.
    #[error("the credential is no longer permitted")]
    Withdrawn,
    /// The intent timed out first. The credential is being revoked.
    #[error("minting took longer than the intent timeout")]
    TimedOut,
    /// The journal failed. The intent will time out, and what was minted will be revoked.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A plugin call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("plugin `{plugin}`: {message}")]
pub struct PluginError {
    /// The plugin's name.
    pub plugin: String,
    /// What sort of failure.
    pub kind: PluginErrorKind,
    /// The upstream's own code (SQLSTATE, an AWS error code), if it gave one.
    pub code: Option<String>,
    /// A sentence for people; holds no secret.
    pub message: String,
    /// Whether the upstream may have acted. `false` means that a blind retry is safe.
    pub request_sent: bool,
    /// How long the upstream asked to wait.
    pub retry_after: Option<std::time::Duration>,
}

/// What sort of failure a plugin call met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginErrorKind {
    /// The configuration or the scope's parameters are wrong.
    InvalidConfig,
    /// The upstream refused the broker's own credential or its rights.
    Denied,
    /// The upstream object that the scope names does not exist.
    NotFound,
    /// The upstream is in another state than the plugin expects.
    Conflict,
    /// The upstream asked to slow down.
    RateLimited,
    /// The upstream cannot be reached.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// The plugin broke a limit of the sandbox, or trapped.
    Sandbox,
    /// The plugin is not loaded, or quarantined.
    NotLoaded,
    /// Anything else.
    Other,
}
