//! The first word of a peer: who connects and says nothing must not keep the place of others. Of
//! HTTP/2 it knows only how long a greeting is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What a peer still has to say, and until when. From then on the pings of HTTP/2 find out whether
/// the peer is there.
pub struct Greeting {
    owed: Option<Owed>,
}

struct Owed {
    bytes: usize,
    until: Pin<Box<Sleep>>,
}

impl Greeting {
    /// Of a peer of whom nothing has been heard.
    pub fn owed() -> Self {
        Self::owed_until(Instant::now() + GREETING_MAX)
    }

    fn owed_until(at: Instant) -> Self {
        let until = Box::pin(tokio::time::sleep_until(at));
        Self { owed: Some(Owed { bytes: GREETING_BYTES, until }) }
    }

    /// So many bytes were `heard` in this look at the connection. Ready, with what the connection
    /// fails with, once the peer is too late; otherwise `context` is woken then.
    pub fn poll(&mut self, heard: usize, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(owed) = &mut self.owed else { return Poll::Pending };
        owed.bytes = owed.bytes.saturating_sub(heard);
        if owed.bytes == 0 {
            self.owed = None;
            return Poll::Pending;
        }
        owed.until.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }
}

/// The preface (24 bytes) and the head of the settings that must follow it (9): RFC 9113, 3.4.
const GREETING_BYTES: usize = 33;

/// Clients greet as they connect. Ten seconds outlast a machine that is busy; who lets them pass,
/// again and again, still takes a place for no longer than that.
const GREETING_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    fn is_pending(greeting: &mut Greeting, heard: usize) -> bool {
        greeting.poll(heard, &mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn half_a_greeting_is_too_late_and_a_whole_one_is_good_for_ever() {
        let now = Instant::now();
        let (mut half, mut whole) = (Greeting::owed(), Greeting::owed_until(now));
        assert!(is_pending(&mut half, GREETING_BYTES - 1), "there is time left");
        assert!(is_pending(&mut whole, GREETING_BYTES), "heard whole, late or not");
        let mut late = Greeting::owed_until(now);
        let failed = poll_fn(|context| late.poll(0, context)).await;
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(is_pending(&mut whole, 0));
    }
}
