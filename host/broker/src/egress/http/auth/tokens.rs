//! Tokens that were obtained, until shortly before they end. One flight at a time for each: who
//! comes meanwhile waits for it and shares its outcome.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::egress::redact::SharedSecret;
use crate::egress::{Failure, FailureKind};
use crate::issuer::Attribution;

/// A token as its endpoint gave it.
pub(super) struct Obtained {
    /// The token.
    pub(super) token: SharedSecret,
    /// How long it lives from `asked_at`; `None` if the endpoint did not say.
    pub(super) life: Option<Duration>,
    /// When it was asked for.
    pub(super) asked_at: Instant,
}

/// The tokens of one connection, by the calls that they name.
#[derive(Default)]
pub(super) struct Tokens {
    slots: Mutex<HashMap<Option<Attribution>, Arc<Slot>>>,
}

type Slot = tokio::sync::Mutex<Kept>;

#[derive(Default)]
struct Kept {
    token: Option<SharedSecret>,
    fresh_until: Option<Instant>,
    /// The last flight, if it failed: it counts for those who waited for it.
    failed: Option<(Instant, Failure)>,
}

impl Tokens {
    /// The token for `key`, fetched if there is none that is fresh.
    pub(super) async fn get<F>(
        &self,
        key: Option<Attribution>,
        end: Instant,
        fetch: impl FnOnce() -> F,
    ) -> Result<SharedSecret, Failure>
    where
        F: Future<Output = Result<Obtained, Failure>>,
    {
        let arrived = Instant::now();
        let slot = self.slot(key, arrived);
        let mut kept = timeout_at(end, slot.lock()).await.map_err(|_| {
            let message = "no token came in time: another call is still waiting for one";
            Failure::unsent(FailureKind::Timeout, message)
        })?;
        if let Some(token) = kept.fresh(Instant::now()) {
            return Ok(token);
        }
        // Whose time was up was another call: this one may have more.
        let failed = kept.failed.as_ref().filter(|(_, f)| f.kind != FailureKind::Timeout);
        if let Some((_, failure)) = failed.filter(|(at, _)| *at >= arrived) {
            return Err(failure.clone());
        }
        match fetch().await {
            Ok(obtained) => Ok(kept.keep(&obtained)),
            Err(failure) => {
                kept.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Lets go of this token, if it is still kept. What a flight under way brings is newer.
    pub(super) fn reject(&self, token: &SharedSecret) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            if let Ok(mut kept) = slot.try_lock()
                && kept.token.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, token))
            {
                *kept = Kept::default();
            }
        }
    }

    fn slot(&self, key: Option<Attribution>, now: Instant) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= TOKENS_MAX && !slots.contains_key(&key) {
            slots.retain(|_, slot| is_wanted(slot, now));
            if slots.len() >= TOKENS_MAX {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

/// Whether somebody waits for it, or it holds a token that is fresh.
fn is_wanted(slot: &Slot, now: Instant) -> bool {
    slot.try_lock().map_or(true, |kept| kept.fresh(now).is_some())
}

impl Kept {
    fn fresh(&self, now: Instant) -> Option<SharedSecret> {
        self.token.clone().filter(|_| self.fresh_until.is_some_and(|until| now < until))
    }

    fn keep(&mut self, obtained: &Obtained) -> SharedSecret {
        let life = obtained.life.unwrap_or_default().min(LIFE_MAX);
        let margin = MARGIN_MAX.min(life / MARGIN_SHARE);
        self.fresh_until = obtained.asked_at.checked_add(life.saturating_sub(margin));
        self.token = Some(Arc::clone(&obtained.token));
        self.failed = None;
        Arc::clone(&obtained.token)
    }
}

/// Sessions that issue on one connection at the same time; beyond, all are fetched anew.
const TOKENS_MAX: usize = 256;

/// A token is let go of this long before it ends, so that it does not end under way ...
const MARGIN_MAX: Duration = Duration::from_secs(60);

/// ... or this part of its life, if that is shorter.
const MARGIN_SHARE: u32 = 10;

/// An endpoint that promises more is asked again all the same.
const LIFE_MAX: Duration = Duration::from_hours(12);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use zeroize::Zeroizing;

    use super::*;

    fn obtained(life_secs: u64) -> Obtained {
        Obtained {
            token: Arc::new(Zeroizing::new("t".to_owned())),
            life: Some(Duration::from_secs(life_secs)),
            asked_at: Instant::now(),
        }
    }

    fn end() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn a_token_is_let_go_of_before_it_ends() {
        for (life, fresh) in [(3600, 3540), (600, 540), (100, 90), (10_000_000, 43_140)] {
            let (mut kept, obtained) = (Kept::default(), obtained(life));
            kept.keep(&obtained);
            let until = obtained.asked_at + Duration::from_secs(fresh);
            assert!(kept.fresh(until).is_none(), "{life}");
            let before = until.checked_sub(Duration::from_millis(1)).unwrap();
            assert!(kept.fresh(before).is_some(), "{life}");
        }
        let (mut kept, obtained) = (Kept::default(), obtained(0));
        kept.keep(&obtained);
        assert!(kept.fresh(obtained.asked_at).is_none());
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_and_tried_again_by_those_who_come_later() {
        let (tokens, flights) = (Tokens::default(), AtomicUsize::new(0));
        let fetch = || async {
            flights.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err::<Obtained, _>(Failure::unsent(FailureKind::Unavailable, "down"))
        };
        let (first, second) =
            tokio::join!(tokens.get(None, end(), fetch), tokens.get(None, end(), fetch));
        assert_eq!(
            (first.unwrap_err().message, second.unwrap_err().message.as_str()),
            ("down".to_owned(), "down")
        );
        assert_eq!(flights.load(Ordering::Relaxed), 1);
        tokens.get(None, end(), fetch).await.unwrap_err();
        assert_eq!(flights.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_flight_that_is_given_up_does_not_strand_the_others() {
        let tokens = Tokens::default();
        let never = || std::future::pending::<Result<Obtained, Failure>>();
        let mut given_up = Box::pin(tokens.get(None, end(), never));
        assert!(polled_once(given_up.as_mut()).await.is_none());
        drop(given_up);
        let token = tokens.get(None, end(), || async { Ok(obtained(60)) }).await.unwrap();
        assert_eq!(token.as_str(), "t");
    }

    /// Polls once.
    async fn polled_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn many_sessions_do_not_fill_memory() {
        let tokens = Tokens::default();
        for number in 0..2 * TOKENS_MAX {
            let key = Attribution {
                session: number.to_string(),
                role: String::new(),
                requester: String::new(),
                scope: String::new(),
                prompt_sha256: String::new(),
            };
            tokens.get(Some(key), end(), || async { Ok(obtained(600)) }).await.unwrap();
            assert!(tokens.slots.lock().unwrap().len() <= TOKENS_MAX);
        }
    }
}
