//! The cases of the suite: what every plugin must do, whatever its backend. Each case is one
//! question to a plugin, with an intent of its own, and leaves nothing upstream.

mod faults;
mod life;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use claviger_core::catalog::RevocationClass;
use claviger_core::ids::IntentId;
use claviger_core::issued::{Handle, Issued};
use claviger_core::name::BackendName;
use claviger_core::ports::PluginError;
use claviger_core::time::Timestamp;
use tokio::time::{Instant, sleep};

use super::leaks::Seen;
use super::proxy::Faults;
use super::report::{Passed, Report, Verdict};
use super::upstream::Upstream;
use crate::plugin::{Ask, Manifest, Trial};
use crate::rpc::reply::{OpenField, open_fields};

/// The suite, ready to run.
pub struct Suite {
    /// The plugin with its backends.
    pub trial: Trial,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The backend as agents see it.
    pub upstream: Upstream,
    /// What the proxies do.
    pub faults: Arc<Faults>,
    /// Why no fault can be put in, if none can.
    pub skip: Option<String>,
    /// The longest life that is asked for.
    pub life_max_secs: u64,
    /// What was said so far.
    pub seen: Seen,
}

/// A credential as the agent gets it.
struct Minted {
    fields: Vec<OpenField>,
    handle: Option<Handle>,
    expires_at_secs: u64,
}

impl Suite {
    /// Runs every case.
    pub async fn run(mut self) -> Report {
        let mut report = Report {
            plugin: self.manifest.id.clone(),
            version: self.manifest.version.clone(),
            cases: Vec::new(),
        };
        report.add("issue-then-use", self.issue_then_use().await);
        report.add("revoke-then-use", self.revoke_then_use().await);
        report.add("revoke-twice", self.revoke_twice().await);
        report.add("revoke-by-intent-alone", self.revoke_by_intent_alone().await);
        report.add("revoke-of-nothing", self.revoke_of_nothing().await);
        if self.trial.revoked_at_once(&backend_name(DIRECT)) > 1 {
            report.add("revoke-all", self.revoke_all().await);
        }
        report.add("issue-twice", self.issue_twice().await);
        report.add("lost-issue-revoked", self.lost_issue_revoked().await);
        report.add("lost-issue-repeated", self.lost_issue_repeated().await);
        report.add("lost-revoke-repeated", self.lost_revoke_repeated().await);
        report.add("backend-down", self.backend_down().await);
        report.add("backend-silent", self.backend_silent().await);
        report.add("wrong-answers", self.wrong_answers().await);
        report.add("life-asked-for", self.life_asked_for().await);
        report.add("expires-by-itself", self.expires_by_itself().await);
        report.add("clock-skew", self.clock_skew().await);
        report.add("no-secret-outside", self.no_secret_outside());
        report
    }

    async fn issue_then_use(&mut self) -> Verdict {
        let ask = self.ask();
        let minted = self.issued(DIRECT, &ask).await?;
        let works = self.upstream.works(&minted.fields).await?;
        self.end(&ask, minted.handle.as_ref()).await?;
        match works {
            true => ok("a credential was issued and works"),
            false => Err("a credential was issued, but the command of `[use]` failed".to_owned()),
        }
    }

    async fn revoke_then_use(&mut self) -> Verdict {
        let ask = self.ask();
        let minted = self.issued(DIRECT, &ask).await?;
        self.end(&ask, minted.handle.as_ref()).await?;
        self.dead(&minted).await
    }

    async fn revoke_twice(&mut self) -> Verdict {
        let ask = self.ask();
        let minted = self.issued(DIRECT, &ask).await?;
        self.end(&ask, minted.handle.as_ref()).await?;
        let again = self.end(&ask, minted.handle.as_ref()).await;
        again
            .map_err(|error| format!("a second `revoke` of the same credential fails: {error}"))?;
        ok("a second `revoke` finds nothing to do and says `ok`")
    }

    async fn revoke_by_intent_alone(&mut self) -> Verdict {
        let ask = self.ask();
        let minted = self.issued(DIRECT, &ask).await?;
        let ended = self.end(&ask, None).await;
        if self.manifest.orphan_ttl_secs_max.is_some() {
            self.end(&ask, minted.handle.as_ref()).await?;
            return skipped("the manifest caps the life of what cannot be found by its intent");
        }
        ended.map_err(|error| format!("`revoke` without the handle fails: {error}"))?;
        self.dead(&minted).await
    }

    async fn revoke_of_nothing(&mut self) -> Verdict {
        let ask = self.ask();
        self.end(&ask, None)
            .await
            .map_err(|error| format!("`revoke` of an intent that never minted fails: {error}"))?;
        ok("`revoke` of an intent that never minted says `ok`")
    }

    /// For plugins that can end several credentials in one call.
    async fn revoke_all(&mut self) -> Verdict {
        let mut asks = vec![self.ask(), self.ask(), self.ask()];
        let mut minted = Vec::new();
        for ask in &asks {
            minted.push(self.issued(DIRECT, ask).await?);
        }
        asks.insert(1, self.ask());
        for what in ["`revoke-all`", "a second `revoke-all`"] {
            if let Err(error) = self.trial.revoke_all(&backend_name(DIRECT), &asks).await {
                self.seen.said("an error of `revoke-all`", &error.to_string());
                return Err(format!("{what}, with one that never was among them, fails: {error}"));
            }
        }
        for minted in &minted {
            self.dead(minted).await?;
        }
        ok("`revoke-all` ends several credentials, one that never was among them")
    }

    async fn issue_twice(&mut self) -> Verdict {
        let ask = self.ask();
        let first = self.issued(DIRECT, &ask).await?;
        let second = self.issued(DIRECT, &ask).await;
        let second = second.map_err(|error| {
            format!("a second `issue` of the same intent fails, as after a lost answer: {error}")
        })?;
        let works = self.upstream.works(&second.fields).await?;
        let left = self.upstream.left(&ask.intent.bare()).await?;
        self.end(&ask, second.handle.as_ref()).await?;
        if !works {
            return Err("the credential of a repeated `issue` does not work".to_owned());
        }
        if left.is_some_and(|left| left != 1) {
            return Err(format!(
                "a repeated `issue` left {} credentials",
                left.unwrap_or_default()
            ));
        }
        self.dead(&first).await?;
        self.dead(&second).await?;
        ok("a repeated `issue` leaves one credential, and one `revoke` ends all of it")
    }

    fn no_secret_outside(&self) -> Verdict {
        match self.seen.leak() {
            Some(leak) => Err(leak),
            None => ok(format!("looked for {}", self.seen.extent())),
        }
    }

    /// Whether a revoked credential is dead, and nothing of it is left.
    async fn dead(&self, minted: &Minted) -> Verdict {
        let revocation = &self.manifest.revocation;
        if revocation.class == RevocationClass::ExpireOnly {
            return skipped("the manifest says that nothing ends a credential before its expiry");
        }
        let residual = Duration::from_secs(revocation.residual_exposure_secs);
        if residual > WAIT_MAX {
            return skipped(format!("the manifest allows {residual:?} until a credential is dead"));
        }
        let deadline = Instant::now() + residual;
        while self.upstream.works(&minted.fields).await? {
            if Instant::now() >= deadline {
                return Err(format!("a revoked credential still works after {residual:?}"));
            }
            sleep(LOOK_EVERY).await;
        }
        ok("a revoked credential no longer works")
    }

    /// Fails unless so many credentials of the intent are upstream, as far as that can be told.
    async fn expect_left(&self, ask: &Ask, expect: usize, when: &str) -> Result<(), String> {
        match self.upstream.left(&ask.intent.bare()).await? {
            Some(left) if left != expect => {
                Err(format!("{when}, {left} credentials of the intent are left, not {expect}"))
            }
            _ => Ok(()),
        }
    }

    fn ask(&self) -> Ask {
        let now = now_secs();
        Ask { intent: intent(), now_secs: now, expires_at_secs: now + self.life_secs() }
    }

    fn life_secs(&self) -> u64 {
        self.manifest.ttl.min_secs.max(LIFE_SECS.min(self.life_max_secs))
    }

    /// Issues, and keeps what was said.
    async fn issue(&mut self, backend: &str, ask: &Ask) -> Result<Minted, PluginError> {
        match self.trial.issue(&backend_name(backend), ask).await {
            Ok(issued) => Ok(self.opened(issued)),
            Err(error) => {
                self.seen.said("an error of `issue`", &error.to_string());
                Err(error)
            }
        }
    }

    /// Issues where it must succeed.
    async fn issued(&mut self, backend: &str, ask: &Ask) -> Result<Minted, String> {
        self.issue(backend, ask).await.map_err(|error| format!("`issue` fails: {error}"))
    }

    async fn revoke(
        &mut self,
        backend: &str,
        ask: &Ask,
        handle: Option<&Handle>,
    ) -> Result<(), PluginError> {
        let ended = self.trial.revoke(&backend_name(backend), ask, handle).await;
        if let Err(error) = &ended {
            self.seen.said("an error of `revoke`", &error.to_string());
        }
        ended
    }

    /// Revokes where it must succeed.
    async fn end(&mut self, ask: &Ask, handle: Option<&Handle>) -> Result<(), String> {
        let ended = self.revoke(DIRECT, ask, handle).await;
        ended.map_err(|error| format!("`revoke` fails: {error}"))
    }

    fn opened(&mut self, issued: Issued) -> Minted {
        let Issued { credential, handle, join_keys } = issued;
        let expires_at_secs = credential.expires_at.unix_secs();
        let fields = open_fields(credential);
        for field in &fields {
            match field.secret {
                true => self.seen.secret(&field.value),
                false => self.seen.said(format!("the plain field `{}`", field.name), &field.value),
            }
        }
        for (name, value) in &join_keys {
            self.seen.said(format!("the join key `{name}`"), value);
        }
        if let Some(handle) = &handle {
            self.seen.handle(handle);
        }
        Minted { fields, handle, expires_at_secs }
    }
}

fn ok(sentence: impl Into<String>) -> Verdict {
    Ok(Passed::Ok(sentence.into()))
}

fn skipped(why: impl Into<String>) -> Verdict {
    Ok(Passed::Skipped(why.into()))
}

fn intent() -> IntentId {
    let mut random = [0; 10];
    // An id that repeats would fail a case; the generator does not fail once it has started.
    let _seeded = rand::fill(&mut random);
    IntentId::mint(Timestamp::from(SystemTime::now()), &random)
}

fn now_secs() -> u64 {
    Timestamp::from(SystemTime::now()).unix_secs()
}

fn backend_name(name: &str) -> BackendName {
    #[expect(clippy::expect_used, reason = "the three names are constants of this file")]
    name.parse().expect("a name")
}

/// The backend as configured.
pub const DIRECT: &str = "direct";

/// The backend behind a proxy.
pub const PROXIED: &str = "proxied";

/// The backend where nobody listens.
pub const DOWN: &str = "down";

/// Long enough for every case, short enough that a failed suite leaves nothing for long.
const LIFE_SECS: u64 = 600;

/// Longer declared delays are believed: a suite that takes minutes is not run.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Each look runs a command.
const LOOK_EVERY: Duration = Duration::from_millis(200);
