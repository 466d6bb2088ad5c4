//! What operators may ask for and of what: the operator, the acts, the things acted on. Decides
//! nothing; [`crate::decide`] does.

use std::fmt;
use std::sync::Arc;

use crate::ids::SessionId;
use crate::name::{BackendName, PluginName, RoleName, ScopeName};
use crate::principal::Principal;
use crate::prompt::PromptDigest;
use crate::session::Session;

/// Who operates the broker: a proven principal, and what the broker itself knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    principal: Principal,
    standing: Standing,
}

impl Operator {
    /// `principal` came in over the operators' listener; the broker says how it stands.
    pub const fn proven(principal: Principal, standing: Standing) -> Self {
        Self { principal, standing }
    }

    /// Its id, such as `unix:1000`.
    pub fn id(&self) -> &str {
        self.principal.id()
    }

    /// Who it is.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// How it stands to the broker.
    pub const fn standing(&self) -> Standing {
        self.standing
    }
}

/// How an operator stands to the broker, whatever the policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The user that the broker runs as.
    Own,
    /// One of `operator_uids`.
    Listed,
    /// Anybody else whom the operators' listener let in.
    Unlisted,
}

impl Standing {
    /// As policies spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Listed => "listed",
            Self::Unlisted => "none",
        }
    }
}

/// What an operator may be permitted to do; each is an action of the Cedar schema, in the group
/// `Action::"admin"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminAction {
    /// To look: sessions, leases, the journal, policies, roles, plugins.
    Read,
    /// To end sessions and leases.
    Revoke,
    /// To load configuration, policies and prompt files again.
    Reload,
    /// To give a stuck lease another round of attempts.
    Lease,
    /// To lift a plugin's quarantine.
    Plugin,
    /// To write, list and delete stored secrets.
    Secret,
    /// To rotate keys and root credentials.
    Rotate,
    /// To grant or refuse what another operator asked for.
    Approve,
}

impl AdminAction {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Revoke,
        Self::Reload,
        Self::Lease,
        Self::Plugin,
        Self::Secret,
        Self::Rotate,
        Self::Approve,
    ];

    /// As policies and the journal spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "admin::read",
            Self::Revoke => "admin::revoke",
            Self::Reload => "admin::reload",
            Self::Lease => "admin::lease",
            Self::Plugin => "admin::plugin",
            Self::Secret => "admin::secret",
            Self::Rotate => "admin::rotate",
            Self::Approve => "admin::approve",
        }
    }
}

/// What an operator acts on, so that policies can tell one team's things from another's.
#[derive(Clone, Debug)]
pub enum AdminResource {
    /// The broker as a whole.
    Broker,
    /// A session; with what is known of it, also if it has ended.
    Session {
        /// Its id.
        id: SessionId,
        /// The session, unless there never was one of that id.
        known: Option<Arc<Session>>,
    },
    /// All sessions of a role.
    Role(RoleName),
    /// Everything done for a requester.
    Requester(String),
    /// Everything done by a workload.
    Workload(String),
    /// Everything on a backend.
    Backend(BackendName),
    /// A scope on a backend.
    Scope(ScopeName),
    /// A plugin.
    Plugin(PluginName),
}

/// As Cedar writes the entity.
impl fmt::Display for AdminResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str(r#"Broker::"this""#),
            Self::Session { id, .. } => write!(f, "Session::\"{id}\""),
            Self::Role(name) => write!(f, "Role::\"{name}\""),
            Self::Requester(id) => write!(f, "Requester::{id:?}"),
            Self::Workload(id) => write!(f, "Workload::{id:?}"),
            Self::Backend(name) => write!(f, "Backend::\"{name}\""),
            Self::Scope(name) => write!(f, "Scope::\"{name}\""),
            Self::Plugin(name) => write!(f, "Plugin::\"{name}\""),
        }
    }
}

/// What an operator wants, already proven and parsed.
#[derive(Clone, Debug)]
pub struct AdminAsk {
    /// Who asks.
    pub operator: Operator,
    /// To do what.
    pub action: AdminAction,
    /// With what.
    pub resource: AdminResource,
    /// What it comes to, as a phrase for the journal: `the leases of every session`.
    pub what: String,
    /// What the operator says it is for. Recorded, never decides.
    pub claimed_reason: Option<String>,
}

/// Which sessions, or which leases, an operator ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// One session.
    Session(SessionId),
    /// Every session of a role.
    Role(RoleName),
    /// Every session for a requester.
    Requester(String),
    /// Every session of a workload.
    Workload(String),
    /// Every session that began with this prompt file.
    Prompt(PromptDigest),
    /// The leases on a backend; their sessions go on.
    Backend(BackendName),
    /// Every session.
    Everything,
}

impl Selector {
    /// Whether it selects this session.
    pub fn selects(&self, session: &Session) -> bool {
        match self {
            Self::Session(id) => session.id() == *id,
            Self::Role(role) => session.role() == role,
            Self::Requester(id) => session.requester().id() == id,
            Self::Workload(id) => session.principal().id() == id,
            Self::Prompt(digest) => session.prompt_digest() == digest,
            Self::Backend(_) => false,
            Self::Everything => true,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session `{id}`"),
            Self::Role(name) => write!(f, "every session of role `{name}`"),
            Self::Requester(id) => write!(f, "every session for requester `{id}`"),
            Self::Workload(id) => write!(f, "every session of workload `{id}`"),
            Self::Prompt(digest) => write!(f, "every session with prompt file {digest}"),
            Self::Backend(name) => write!(f, "every lease on backend `{name}`"),
            Self::Everything => f.write_str("everything"),
        }
    }
}
