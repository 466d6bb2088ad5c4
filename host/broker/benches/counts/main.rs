//! Decides, or issues, as often as it is told: what `cargo xtask bench counts` has callgrind count
//! the instructions of. Measures nothing itself. As a test it does each twice, to keep it working.
//!
//! An issue here is the core's flow on a real journal, with a plugin that mints at once: the
//! sandbox translates code at run time, which callgrind does not follow.

#![allow(clippy::print_stderr, reason = "a bench talks to a person")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use claviger_core::binding::Binding;
use claviger_core::decide::decide;
use claviger_core::fixture;
use claviger_core::flow::issue::issue;
use claviger_core::intent::Intent;
use claviger_core::issued::{Credential, Field, FieldValue, Issued};
use claviger_core::journal::{Entry, Event};
use claviger_core::lease::DueLease;
use claviger_core::name::BackendName;
use claviger_core::policy::{PolicySnapshot, SnapshotDigest};
use claviger_core::ports::{Clock, Entropy, Journal, PluginError, Plugins, Policies, Ports};
use claviger_core::secret::Secret;
use claviger_core::session::{Begun, KnownToken, mint_token};
use claviger_core::time::Timestamp;
use clavigerd::journal::{JournalOptions, SealingKey, SqliteJournal};
use clavigerd::rates::Rates;
use zeroize::Zeroizing;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["decide", times] => number(times).and_then(decisions),
        ["issue", times] => number(times).and_then(issues),
        // As a test, unless another one is asked for.
        words if words.iter().all(|word| word.starts_with('-') || "counts".contains(word)) => {
            decisions(2).and_then(|()| issues(2))
        }
        _ => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> Result<usize> {
    word.parse().with_context(|| format!("`{word}` is no number"))
}

fn decisions(times: usize) -> Result<()> {
    let snapshot = fixture::snapshot();
    let (session, ask, now) = (fixture::session_in(&snapshot, 1), fixture::ask(), fixture::now());
    for _ in 0..times {
        if black_box(decide(black_box(&snapshot), &session, &ask, now)).is_err() {
            bail!("the fixture permits its own ask");
        }
    }
    Ok(())
}

fn issues(times: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let world = World::new()?;
        let mut loaded = Entry::new(world.now(), Event::PoliciesLoaded);
        loaded.snapshot = Some(world.snapshot.digest());
        world.journal.record(loaded).await?;
        let session = fixture::session_in(&world.snapshot, 1);
        let (_, hash) = mint_token(&[1; 32]);
        let token = KnownToken { hash, binding: Binding::Unix { uid: 1000 } };
        let begun =
            Begun { policies: Vec::new(), snapshot: world.snapshot.digest(), claimed_reason: None };
        world.journal.begin_session(&session, &token, &begun).await?;
        for _ in 0..times {
            issue(&world, &session, &fixture::ask()).await?;
        }
        world.journal.close().await;
        Ok(())
    })
}

/// Everything that an issue needs.
struct World {
    journal: SqliteJournal,
    snapshot: Arc<PolicySnapshot>,
    drawn: AtomicU64,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let options = JournalOptions {
            path: folder.path().join("journal.db"),
            sealing_key: SealingKey::take(&mut [7; 32]),
            intent_timeout: Duration::from_secs(30),
            queue_max: 16,
            commit_observer: None,
        };
        Ok(Self {
            journal: SqliteJournal::open(options)?.journal,
            snapshot: Arc::new(fixture::snapshot()),
            drawn: AtomicU64::new(0),
            _folder: folder,
        })
    }
}

impl Ports for World {
    type Clock = Self;
    type Entropy = Self;
    type Journal = SqliteJournal;
    type Plugins = Self;
    type Policies = Self;
    type Rates = Rates;

    fn clock(&self) -> &Self {
        self
    }
    fn entropy(&self) -> &Self {
        self
    }
    fn journal(&self) -> &SqliteJournal {
        &self.journal
    }
    fn plugins(&self) -> &Self {
        self
    }
    fn policies(&self) -> &Self {
        self
    }
    fn rates(&self) -> &Rates {
        self.journal.rates()
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        fixture::now()
    }
}

/// Counts, so that no two ids are the same and every run is.
impl Entropy for World {
    fn fill(&self, bytes: &mut [u8]) {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        for (byte, digit) in bytes.iter_mut().zip(drawn.iter().rev().cycle()) {
            *byte = *digit;
        }
    }
}

impl Policies for World {
    fn current(&self) -> Arc<PolicySnapshot> {
        Arc::clone(&self.snapshot)
    }

    /// There is only the one.
    async fn other_than(&self, _stale: SnapshotDigest) {}
}

impl Plugins for World {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        let password = Secret::new(Zeroizing::new("a password of a benchmark".to_owned()));
        let value = FieldValue::Secret(password);
        Ok(Issued {
            credential: Credential {
                kind: "postgres-login".to_owned(),
                fields: vec![Field { name: "password".to_owned(), env: None, value }],
                expires_at: intent.permit().expires_at(),
            },
            handle: None,
            join_keys: [("db_user".to_owned(), intent.id().bare())].into(),
        })
    }

    async fn revoke(&self, _lease: &DueLease) -> Result<(), PluginError> {
        Ok(())
    }

    fn revoked_at_once(&self, _backend: &BackendName) -> usize {
        1
    }

    async fn revoke_all(&self, _leases: &[DueLease]) -> Result<(), PluginError> {
        Ok(())
    }
}
