//! The broker's parts in one place: the real adapters of the core's six ports.

use std::ops::Deref;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use claviger_core::ids::ApprovalId;
use claviger_core::ports::{Clock, Entropy, Ports};
use claviger_core::time::Timestamp;

use crate::approvals::Approvals;
use crate::configuration::Configuration;
use crate::identity::Identities;
use crate::journal::SqliteJournal;
use crate::metrics::Metrics;
use crate::plugin::PluginStore;
use crate::policies::PolicyStore;
use crate::rates::Rates;
use crate::rotation::Rotations;
use crate::sessions::Sessions;
use crate::tls::Certificates;

/// Everything that the services and the workers share.
pub struct Broker {
    parts: Parts,
    approvals: Approvals,
    clock: SystemClock,
    entropy: SystemEntropy,
}

/// The parts that are built at start.
pub struct Parts {
    /// The durable store and audit log.
    pub journal: Arc<SqliteJournal>,
    /// The sandbox.
    pub plugins: PluginStore,
    /// What decides.
    pub policies: PolicyStore,
    /// Whose word is taken for who asks and for whom.
    pub identities: Identities,
    /// Who is alive.
    pub sessions: Sessions,
    /// What the configuration says, and when it is read again.
    pub configuration: Configuration,
    /// What the TLS listeners work with.
    pub certificates: Certificates,
    /// What replaces root credentials.
    pub rotations: Rotations,
    /// What Prometheus sees.
    pub metrics: Arc<Metrics>,
}

impl Broker {
    /// What waits for a second operator.
    pub const fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// An id for what is about to wait.
    pub fn mint_approval(&self) -> ApprovalId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        ApprovalId::mint(self.clock.now(), &random)
    }

    /// The journal, if nobody else holds it, for an orderly end.
    pub fn into_journal(self) -> Option<SqliteJournal> {
        Arc::into_inner(self.parts.journal)
    }
}

impl Deref for Broker {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Broker {
    /// The broker of these parts.
    pub fn new(parts: Parts) -> Self {
        let (clock, entropy) = (SystemClock, SystemEntropy(SystemRandom::new()));
        Self { parts, approvals: Approvals::default(), clock, entropy }
    }
}

impl Ports for Broker {
    type Clock = SystemClock;
    type Entropy = SystemEntropy;
    type Journal = SqliteJournal;
    type Plugins = PluginStore;
    type Policies = PolicyStore;
    type Rates = Rates;

    fn clock(&self) -> &SystemClock {
        &self.clock
    }

    fn entropy(&self) -> &SystemEntropy {
        &self.entropy
    }

    fn journal(&self) -> &SqliteJournal {
        &self.parts.journal
    }

    fn plugins(&self) -> &PluginStore {
        &self.parts.plugins
    }

    fn policies(&self) -> &PolicyStore {
        &self.parts.policies
    }

    fn rates(&self) -> &Rates {
        self.parts.journal.rates()
    }
}

/// The system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// Now, by the system's clock: for what happens before there is a broker.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// The operating system's generator, through AWS-LC.
pub struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    #[expect(clippy::expect_used, reason = "without randomness no token is safe: stop at once")]
    fn fill(&self, bytes: &mut [u8]) {
        self.0.fill(bytes).expect("the system's random generator works");
    }
}
