//! The upstream and the plugin in front of it: mints, fails before or after acting, answers late,
//! hangs. What was sent happens even if nobody waits for it any longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use claviger_core::ids::{IntentId, SessionId};
use claviger_core::intent::Intent;
use claviger_core::issued::{Credential, Handle, Issued};
use claviger_core::lease::DueLease;
use claviger_core::name::{BackendName, IdempotencyKey};
use claviger_core::ports::{PluginError, PluginErrorKind, Plugins};
use claviger_core::time::Timestamp;
use rand::Rng;
use zeroize::Zeroizing;

use super::world::{Sim, World};

/// What exists upstream; survives every crash.
#[derive(Default)]
pub struct Upstream {
    pub live: BTreeMap<IntentId, Live>,
    /// Requests that were sent and will be acted on.
    under_way: Vec<(Timestamp, IntentId, Live)>,
    /// How often a revocation was attempted in vain.
    pub revocations_failed: BTreeMap<IntentId, u32>,
    /// Every intent for which the plugin was called.
    pub called: BTreeSet<IntentId>,
}

/// A credential that works.
#[derive(Clone, Debug)]
pub struct Live {
    pub session: SessionId,
    pub key: Option<IdempotencyKey>,
    pub expires_at: Timestamp,
}

impl Upstream {
    /// Acts on what was under way and ends what has expired; says how much was acted on.
    pub fn catch_up(&mut self, now: Timestamp) -> u64 {
        let mut acted = 0;
        self.under_way.retain(|(at, id, live)| {
            if *at > now {
                return true;
            }
            self.live.insert(*id, live.clone());
            acted += 1;
            false
        });
        self.live.retain(|_, live| live.expires_at > now);
        acted
    }
}

/// How one call of the plugin goes.
enum Course {
    Prompt,
    FailsBeforeActing,
    FailsAfterActing,
    /// The connection is lost at once; the upstream acts after this time.
    LosesConnection(Duration),
    /// Acts and answers after this time, unless the host's patience ends first.
    Slow(Duration),
    /// May act after this time; never answers.
    Hangs(Option<Duration>),
}

impl Course {
    fn draw(world: &mut World) -> Self {
        if !world.chance(world.faults.plugin_percent) {
            return Self::Prompt;
        }
        let delay = world.rng.random_range(Duration::ZERO..UPSTREAM_BOUND);
        match world.rng.random_range(0..7_u8) {
            0 => Self::FailsBeforeActing,
            1 => Self::FailsAfterActing,
            2 => Self::LosesConnection(delay),
            3 | 4 => Self::Slow(delay),
            5 => Self::Hangs(Some(delay)),
            _ => Self::Hangs(None),
        }
    }
}

impl Plugins for Sim {
    async fn issue(&self, intent: &Intent) -> Result<Issued, PluginError> {
        let (course, started) = self.world().called(intent);
        self.dawdle().await;
        match course {
            Course::Prompt => {
                self.world().act(intent, started)?;
                self.dawdle().await;
            }
            Course::FailsBeforeActing => return Err(error(PluginErrorKind::Unavailable, false)),
            Course::FailsAfterActing => {
                self.world().act(intent, started)?;
                self.dawdle().await;
                return Err(error(PluginErrorKind::Other, true));
            }
            Course::LosesConnection(_) => return Err(error(PluginErrorKind::Unavailable, true)),
            Course::Slow(delay) if delay < HOST_PATIENCE => {
                self.until(started.after(delay)).await;
            }
            Course::Slow(_) => {
                self.until(started.after(HOST_PATIENCE)).await;
                return Err(error(PluginErrorKind::Timeout, true));
            }
            Course::Hangs(_) => std::future::pending().await,
        }
        Ok(issued(intent))
    }

    async fn revoke(&self, lease: &DueLease) -> Result<(), PluginError> {
        self.dawdle().await;
        let course = {
            let world = &mut *self.world();
            let troubled =
                world.faults.revoke_down || world.chance(world.faults.plugin_percent / 2);
            troubled.then(|| world.rng.random_range(0..3_u8))
        };
        if course == Some(0) {
            std::future::pending::<()>().await;
        }
        if course != Some(1) && !self.world().faults.revoke_down {
            self.world().upstream.live.remove(&lease.id);
        }
        self.dawdle().await;
        if course.is_none() {
            return Ok(());
        }
        *self.world().upstream.revocations_failed.entry(lease.id).or_default() += 1;
        Err(error(PluginErrorKind::Unavailable, true))
    }

    fn revoked_at_once(&self, _backend: &BackendName) -> usize {
        self.world().faults.revoked_at_once.max(1)
    }

    async fn revoke_all(&self, leases: &[DueLease]) -> Result<(), PluginError> {
        for (index, lease) in leases.iter().enumerate() {
            let Err(failure) = self.revoke(lease).await else { continue };
            let world = &mut *self.world();
            // Half of the time as if only this lease were in the way.
            if world.chance(50) {
                return Err(PluginError { kind: PluginErrorKind::Conflict, ..failure });
            }
            for other in leases.iter().enumerate().filter(|(at, _)| *at != index) {
                *world.upstream.revocations_failed.entry(other.1.id).or_default() += 1;
            }
            world.coverage.revocations_failed_together += 1;
            return Err(failure);
        }
        self.world().coverage.revoked_together += 1;
        Ok(())
    }
}

impl World {
    /// INVARIANT (no-plugin-without-intent): watched here, where the plugin is called.
    fn called(&mut self, intent: &Intent) -> (Course, Timestamp) {
        if !self.ledger.has_opened(intent.id()) {
            self.violations.push(format!("plugin called without a durable intent {}", intent.id()));
        }
        if !self.upstream.called.insert(intent.id()) {
            self.violations.push(format!("plugin called twice for intent {}", intent.id()));
        }
        let course = Course::draw(self);
        if let Course::LosesConnection(delay) | Course::Slow(delay) | Course::Hangs(Some(delay)) =
            course
        {
            let at = self.now.after(delay);
            self.upstream.under_way.push((at, intent.id(), live(intent)));
        }
        (course, self.now)
    }

    /// Mints, unless the host has given the call up meanwhile.
    fn act(&mut self, intent: &Intent, started: Timestamp) -> Result<(), PluginError> {
        if self.now > started.after(HOST_PATIENCE) {
            return Err(error(PluginErrorKind::Timeout, false));
        }
        let live = live(intent);
        if live.expires_at > self.now {
            self.upstream.live.insert(intent.id(), live);
        }
        Ok(())
    }
}

fn live(intent: &Intent) -> Live {
    let permit = intent.permit();
    Live {
        session: permit.session().id(),
        key: permit.idempotency_key().cloned(),
        expires_at: permit.expires_at(),
    }
}

fn issued(intent: &Intent) -> Issued {
    Issued {
        credential: Credential {
            kind: "simulated".to_owned(),
            fields: Vec::new(),
            expires_at: intent.permit().expires_at(),
        },
        handle: Some(Handle::new(Zeroizing::new(intent.id().bare()))),
        join_keys: BTreeMap::new(),
    }
}

fn error(kind: PluginErrorKind, request_sent: bool) -> PluginError {
    PluginError {
        plugin: "simulated".to_owned(),
        kind,
        code: None,
        message: "simulated fault".to_owned(),
        request_sent,
        retry_after: None,
    }
}

/// After this the host gives a plugin up, as the broker does by default.
const HOST_PATIENCE: Duration = Duration::from_secs(5);

/// The upstream acts on what was sent within this time or never: half of the intent timeout, the
/// longest that the broker lets any call last. `START_WITHIN_MAX` fits into the other half.
const UPSTREAM_BOUND: Duration = Duration::from_secs(15);
