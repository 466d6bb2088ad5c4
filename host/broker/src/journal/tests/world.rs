//! What the tests stand on: a journal in a folder of its own, the fixture's policies, a clock
//! that is set by hand, and a plugin that mints at once or does what a test tells it meanwhile.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger_core::ask::Ask;
use claviger_core::binding::Binding;
use claviger_core::fixture;
use claviger_core::flow::issue::{IssueError, issue};
use claviger_core::ids::IntentId;
use claviger_core::intent::Intent;
use claviger_core::issued::{Credential, Field, FieldValue, Handle, Issued};
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::{DueLease, Lease};
use claviger_core::name::BackendName;
use claviger_core::policy::{PolicyFile, PolicySnapshot, PolicySources, SnapshotDigest};
use claviger_core::ports::{
    BeginError, Clock, Entropy, Journal, PluginError, PluginErrorKind, Plugins, Policies, Ports,
};
use claviger_core::secret::Secret;
use claviger_core::session::{Begun, KnownToken, Session, TokenHash, mint_token};
use claviger_core::time::Timestamp;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::journal::{JournalOptions, OpenJournalError, Opened, SealingKey, SqliteJournal};
use crate::rates::Rates;

/// Everything that the core's flows need.
pub(crate) struct World {
    pub(crate) journal: SqliteJournal,
    pub(crate) policies: TestPolicies,
    pub(crate) clock: TestClock,
    pub(crate) plugins: TestPlugins,
    entropy: TestEntropy,
    sessions: AtomicU64,
    _folder: Option<TempDir>,
    path: PathBuf,
}

impl World {
    /// A new journal with the fixture's policies in force.
    pub(crate) async fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        Self::open(path, Some(folder)).await
    }

    /// The same at a given place.
    pub(crate) async fn at(path: PathBuf) -> Arc<Self> {
        Self::open(path, None).await
    }

    async fn open(path: PathBuf, folder: Option<TempDir>) -> Arc<Self> {
        let journal = open(&path).unwrap().journal;
        let world = Arc::new(Self {
            journal,
            policies: TestPolicies(Arc::new(fixture::snapshot()), Mutex::default()),
            clock: TestClock(AtomicU64::new(fixture::now().unix_millis())),
            plugins: TestPlugins::default(),
            entropy: TestEntropy(AtomicU64::new(1)),
            sessions: AtomicU64::new(0),
            _folder: folder,
            path,
        });
        world.load_policies(&world.policies.0).await;
        world
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the journal; the folder stays until the returned guard is dropped.
    pub(crate) async fn close(self: Arc<Self>) -> (PathBuf, Option<TempDir>) {
        let world = Arc::into_inner(self).expect("nobody else holds the world");
        world.journal.close().await;
        (world.path, world._folder)
    }

    /// Records that `snapshot` was loaded, which puts it in force for `open_intent`.
    pub(crate) async fn load_policies(&self, snapshot: &PolicySnapshot) {
        let mut entry = Entry::new(self.clock.now(), Event::PoliciesLoaded);
        entry.snapshot = Some(snapshot.digest());
        self.journal.record(entry).await.unwrap();
    }

    /// Puts the fixture's policies with `more` beside them in force, as a reload does.
    pub(crate) async fn put_in_force(&self, more: &str) -> SnapshotDigest {
        let mut sources = fixture::sources();
        let file = PolicyFile { path: "more.cedar".to_owned(), text: more.to_owned() };
        sources.policies.push(file);
        self.put_sources_in_force(sources).await
    }

    /// A snapshot of `sources` is in force from here on.
    pub(crate) async fn put_sources_in_force(&self, sources: PolicySources) -> SnapshotDigest {
        let snapshot = Arc::new(PolicySnapshot::load(sources).unwrap());
        self.load_policies(&snapshot).await;
        let digest = snapshot.digest();
        *self.policies.1.lock().unwrap() = Some(snapshot);
        digest
    }

    /// A session that has begun.
    pub(crate) async fn session(&self) -> Arc<Session> {
        let number = u8::try_from(self.sessions.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
        let session = fixture::session_in(&self.policies.0, number);
        self.journal.begin_session(&session, &token(number), &self.begun()).await.unwrap();
        session
    }

    /// A session below `parent`.
    pub(crate) async fn child(&self, parent: &Arc<Session>) -> Result<Arc<Session>, BeginError> {
        let number = u8::try_from(self.sessions.fetch_add(1, Ordering::Relaxed) + 1).unwrap();
        let session = fixture::child_in(&self.policies.0, parent, number);
        self.journal.begin_session(&session, &token(number), &self.begun()).await?;
        Ok(session)
    }

    pub(crate) fn begun(&self) -> Begun {
        let policies = vec!["fixture.open".to_owned()];
        Begun { policies, snapshot: self.policies.0.digest(), claimed_reason: None }
    }

    /// Issues the fixture's scope to `session`, by the core's flow.
    pub(crate) async fn issue(&self, session: &Arc<Session>) -> Result<Lease, IssueError> {
        self.issue_for(session, &fixture::ask()).await
    }

    pub(crate) async fn issue_for(
        &self,
        session: &Arc<Session>,
        ask: &Ask,
    ) -> Result<Lease, IssueError> {
        issue(self, session, ask).await.map(|delivery| delivery.lease)
    }

    /// What the worker would take now.
    pub(crate) async fn take_due(&self) -> Vec<DueLease> {
        self.journal.take_due(&backend(), self.clock.now(), 100).await.unwrap()
    }
}

/// What the journal is to keep of the token of the session with this number.
pub(crate) fn token(number: u8) -> KnownToken {
    let (_, hash) = mint_token(&[number; 32]);
    KnownToken { hash, binding: Binding::Unix { uid: 1000 } }
}

/// The token of the session with this number, counted from 1, as its agent would send it.
pub(crate) fn token_text(number: u8) -> String {
    let text = format!("clvs_{}", data_encoding::BASE64URL_NOPAD.encode(&[number; 32]));
    assert_eq!(TokenHash::of(&text), mint_token(&[number; 32]).1, "the form of tokens changed");
    text
}

/// Opens the journal at `path` with the key of the tests.
pub(crate) fn open(path: &Path) -> Result<Opened, OpenJournalError> {
    SqliteJournal::open(options(path))
}

pub(crate) fn options(path: &Path) -> JournalOptions {
    JournalOptions {
        path: path.to_owned(),
        sealing_key: SealingKey::take(&mut [7; 32]),
        intent_timeout: INTENT_TIMEOUT,
        queue_max: 1024,
        commit_observer: None,
    }
}

/// A connection of somebody else to the journal's file.
pub(crate) fn stranger(path: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(5)).unwrap();
    conn
}

pub(crate) fn backend() -> BackendName {
    "orders-db".parse().unwrap()
}

pub(crate) const INTENT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the plugin of the tests hands back as its handle, and as the credential's password.
pub(crate) const HANDLE: &str = "handle-for-revocation";
pub(crate) const PASSWORD: &str = "the-minted-password";

impl Ports for World {
    type Clock = TestClock;
    type Entropy = TestEntropy;
    type Journal = SqliteJournal;
    type Plugins = TestPlugins;
    type Policies = TestPolicies;
    type Rates = Rates;

    fn clock(&self) -> &TestClock {
        &self.clock
    }

    fn entropy(&self) -> &TestEntropy {
        &self.entropy
    }

    fn journal(&self) -> &SqliteJournal {
        &self.journal
    }

    fn plugins(&self) -> &TestPlugins {
        &self.plugins
    }

    fn policies(&self) -> &TestPolicies {
        &self.policies
    }

    fn rates(&self) -> &Rates {
        self.journal.rates()
    }
}

/// A clock that stands still until it is set.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) -> Timestamp {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
        self.now()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Counts, so that no two ids are the same.
pub(crate) struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (byte, digit) in bytes.iter_mut().zip(number.iter().cycle()) {
            *byte = *digit;
        }
    }
}

/// The fixture's snapshot, and another one in its place once a test has put one in force.
pub(crate) struct TestPolicies(
    pub(crate) Arc<PolicySnapshot>,
    pub(crate) Mutex<Option<Arc<PolicySnapshot>>>,
);

impl Policies for TestPolicies {
    fn current(&self) -> Arc<PolicySnapshot> {
        let other = self.1.lock().unwrap();
        Arc::clone(other.as_ref().unwrap_or(&self.0))
    }

    /// What is recorded is in force at once.
    async fn other_than(&self, _stale: SnapshotDigest) {}
}

type Meanwhile =
    Box<dyn FnOnce(IntentId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static>;

/// Mints at once, unless a test has something happen while it mints, or has it fail.
#[derive(Default)]
pub(crate) struct TestPlugins {
    meanwhile: Mutex<Option<Meanwhile>>,
    error: Mutex<Option<PluginError>>,
}

impl TestPlugins {
    /// The next time something is minted, `happens` first.
    pub(crate) fn meanwhile<F>(&self, happens: impl FnOnce(IntentId) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *self.meanwhile.lock().unwrap() = Some(Box::new(move |id| Box::pin(happens(id))));
    }

    /// The next time something is minted, it fails: before anything was sent to the upstream...
    pub(crate) fn fail_before_sending(&self) {
        self.fail();
        self.error.lock().unwrap().as_mut().unwrap().request_sent = false;
    }

    /// ... or after, so that the upstream may still act.
    pub(crate) fn fail(&self) {
        *self.error.lock().unwrap() = Some(PluginError {
            plugin: "postgres".to_owned(),
            kind: PluginErrorKind::Unavailable,
            code: None,
            message: "nobody answers".to_owned(),
            request_sent: true,
            retry_after: None,
        });
    }
}

impl Plugins for TestPlugins {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(happens) = meanwhile {
            happens(intent.id()).await;
        }
        if let Some(error) = self.error.lock().unwrap().take() {
            return Err(error);
        }
        let password = Secret::new(Zeroizing::new(PASSWORD.to_owned()));
        let field =
            Field { name: "password".to_owned(), env: None, value: FieldValue::Secret(password) };
        Ok(Issued {
            credential: Credential {
                kind: "postgres-login".to_owned(),
                fields: vec![field],
                expires_at: intent.permit().expires_at(),
            },
            handle: Some(Handle::new(Zeroizing::new(HANDLE.to_owned()))),
            join_keys: [("db_user".to_owned(), intent.id().bare())].into(),
        })
    }

    async fn revoke(&self, _lease: &DueLease) -> Result<(), PluginError> {
        Ok(())
    }

    fn revoked_at_once(&self, _backend: &BackendName) -> usize {
        3
    }

    async fn revoke_all(&self, _leases: &[DueLease]) -> Result<(), PluginError> {
        Ok(())
    }
}
