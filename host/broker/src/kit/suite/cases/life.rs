//! How long credentials live: never longer than asked, at least as short as promised.

use std::time::{Duration, SystemTime};

use claviger_core::ports::{PluginError, PluginErrorKind};
use claviger_core::time::Timestamp;
use tokio::time::{Instant, sleep};

use super::{DIRECT, LOOK_EVERY, Minted, Suite, intent, now_secs, ok, skipped};
use crate::kit::suite::report::Verdict;
use crate::plugin::{Ask, Enforcer};

/// A credential that was asked for with a life of so many seconds.
struct Lived {
    secs: u64,
    ask: Ask,
    minted: Minted,
    /// How long `issue` took.
    took: Duration,
}

impl Suite {
    /// The shortest life that the manifest promises, and the longest that a broker asks for.
    pub(super) async fn life_asked_for(&mut self) -> Verdict {
        let least = self.manifest.ttl.min_secs;
        let mut given = Vec::new();
        for life in [least, self.life_max_secs.max(least)] {
            let Lived { secs, ask, minted, .. } = self.issued_for(life).await?;
            self.end(&ask, minted.handle.as_ref()).await?;
            if minted.expires_at_secs > ask.expires_at_secs {
                return Err(format!("a credential asked for {secs} s says that it lives longer"));
            }
            given.push(format!("{secs} s"));
        }
        ok(format!("lives of {} are given and not exceeded", given.join(" and ")))
    }

    /// A credential that nobody revokes, as if the broker were gone.
    pub(super) async fn expires_by_itself(&mut self) -> Verdict {
        if self.manifest.ttl.enforced_by == Enforcer::Broker {
            return skipped(
                "the manifest says that the upstream does not know when a credential ends: only \
                 the broker ends it, and while it is down the credential lives on",
            );
        }
        let life = self.manifest.ttl.min_secs.max(LIFE_SECS_MIN);
        if life > LIFE_SECS_WAITED {
            return skipped(format!(
                "the shortest life is {life} s: the suite does not wait for it"
            ));
        }
        let lived = self.issued_for(life).await?;
        let outlived = self.outlives_its_end(&lived).await;
        self.end(&lived.ask, lived.minted.handle.as_ref()).await?;
        match outlived? {
            false => ok(format!("a credential of {} s stopped working by itself", lived.secs)),
            true => Err(format!(
                "a credential of {} s still works after that: a broker that is down could not end \
                 it; if the upstream does not know its end, say `\"enforced-by\": \"broker\"` under \
                 `ttl`",
                lived.secs
            )),
        }
    }

    /// Whether it works after the end that `issue` told. An upstream that is told a length instead
    /// of an end counts from when it hears it, so it may add as long as the call took.
    async fn outlives_its_end(&self, lived: &Lived) -> Result<bool, String> {
        while now_secs() <= lived.minted.expires_at_secs {
            sleep(LOOK_EVERY).await;
        }
        let deadline = Instant::now() + lived.took;
        loop {
            let last = Instant::now() >= deadline;
            let works = self.upstream.works(&lived.minted.fields).await?;
            if last || !works {
                return Ok(works);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Issues with a life of `life`. If it was over before the call was, which is the machine's
    /// fault and not the plugin's, asks again for a little more.
    async fn issued_for(&mut self, life: u64) -> Result<Lived, String> {
        let mut secs = life;
        loop {
            let now = next_second().await;
            let ask = Ask { intent: intent(), now_secs: now, expires_at_secs: now + secs };
            let began = Instant::now();
            match self.issue(DIRECT, &ask).await {
                Ok(minted) => return Ok(Lived { secs, ask, minted, took: began.elapsed() }),
                Err(_) if now_secs() >= ask.expires_at_secs && secs < life + LIFE_SECS_MORE => {
                    self.end(&ask, None).await?;
                    secs += 1;
                }
                Err(error) => {
                    return Err(format!("with a life of {secs} s, `issue` fails: {error}"));
                }
            }
        }
    }

    /// A broker whose clock is an hour fast or slow.
    pub(super) async fn clock_skew(&mut self) -> Verdict {
        let now = now_secs();
        let life = self.life_secs();
        for told in [now + SKEW_SECS, now - SKEW_SECS] {
            let ask = Ask { intent: intent(), now_secs: told, expires_at_secs: told + life };
            let issued = self.issue(DIRECT, &ask).await;
            let handle = issued.as_ref().ok().and_then(|minted| minted.handle.as_ref());
            self.end(&ask, handle).await?;
            match issued {
                Ok(minted) if minted.expires_at_secs > ask.expires_at_secs => {
                    return Err("a credential outlives what a skewed clock asked for".to_owned());
                }
                Ok(_) => {}
                // The slow clock asks for an end that is past: an upstream may refuse that.
                Err(error) if told < now && !broken(&error) => {}
                Err(error) => return Err(format!("with a clock an hour fast, `issue`: {error}")),
            }
        }
        ok("a clock that is an hour fast or slow breaks nothing")
    }
}

fn broken(error: &PluginError) -> bool {
    error.kind == PluginErrorKind::Sandbox
}

/// Waits for the beginning of a second, so that the shortest life is a whole one.
async fn next_second() -> u64 {
    let next = now_secs() + 1;
    let now = Timestamp::from(SystemTime::now()).unix_millis();
    sleep(Duration::from_millis((next * 1000).saturating_sub(now))).await;
    now_secs()
}

/// No call takes longer, so that a plugin which fails with this much more fails for its own reasons.
const LIFE_SECS_MORE: u64 = 5;

/// Upstreams count in whole seconds.
const LIFE_SECS_MIN: u64 = 2;

/// Longer than this, nobody runs the suite.
const LIFE_SECS_WAITED: u64 = 5;

/// More than any clock that is still believed.
const SKEW_SECS: u64 = 3600;
