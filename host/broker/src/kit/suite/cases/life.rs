//! How long credentials live: never longer than asked, at least as short as promised.

use std::time::Duration;

use tokio::time::sleep;

use super::{DIRECT, Suite, intent, now_secs, ok, skipped};
use crate::kit::suite::report::Verdict;
use crate::plugin::Ask;

impl Suite {
    /// The shortest life that the manifest promises, and the longest that a broker asks for.
    pub(super) async fn life_asked_for(&mut self) -> Verdict {
        let least = self.manifest.ttl.min_secs;
        for life in [least, LIFE_SECS_MAX.max(least)] {
            let now = now_secs();
            let ask = Ask { intent: intent(), now_secs: now, expires_at_secs: now + life };
            let minted = self.issued(DIRECT, &ask).await;
            let minted = minted.map_err(|error| format!("with a life of {life} s, {error}"))?;
            self.end(&ask, minted.handle.as_ref()).await?;
            if minted.expires_at_secs > ask.expires_at_secs {
                return Err(format!("a credential asked for {life} s says that it lives longer"));
            }
        }
        ok(format!("lives of {least} s and {} h are given and not exceeded", LIFE_SECS_MAX / 3600))
    }

    /// A credential that nobody revokes, as if the broker were gone.
    pub(super) async fn expires_by_itself(&mut self) -> Verdict {
        let life = self.manifest.ttl.min_secs.max(LIFE_SECS_MIN);
        if life > LIFE_SECS_WAITED {
            return skipped(format!(
                "the shortest life is {life} s: the suite does not wait for it"
            ));
        }
        let now = now_secs();
        let ask = Ask { intent: intent(), now_secs: now, expires_at_secs: now + life };
        let minted = self.issued(DIRECT, &ask).await?;
        while now_secs() <= minted.expires_at_secs {
            sleep(Duration::from_millis(200)).await;
        }
        let works = self.upstream.works(&minted.fields).await?;
        self.end(&ask, minted.handle.as_ref()).await?;
        match works {
            false => ok(format!("a credential of {life} s stopped working by itself")),
            true => Err(format!(
                "a credential of {life} s still works after that: a broker that is down could not \
                 end it"
            )),
        }
    }

    /// A broker whose clock is an hour fast or slow.
    pub(super) async fn clock_skew(&mut self) -> Verdict {
        let now = now_secs();
        let life = self.manifest.ttl.min_secs.max(super::LIFE_SECS);
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

fn broken(error: &claviger_core::ports::PluginError) -> bool {
    error.kind == claviger_core::ports::PluginErrorKind::Sandbox
}

/// The longest life that a broker asks for: that of a session.
const LIFE_SECS_MAX: u64 = 12 * 60 * 60;

/// Upstreams count in whole seconds.
const LIFE_SECS_MIN: u64 = 2;

/// Longer than this, nobody runs the suite.
const LIFE_SECS_WAITED: u64 = 5;

/// More than any clock that is still believed.
const SKEW_SECS: u64 = 3600;
