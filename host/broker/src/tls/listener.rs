//! TLS handshakes: each with the certificate in force when it begins, few at a time, and none
//! that waits for a peer who says nothing. Hands on only connections that proved what they must.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::peer::TlsPeer;
use crate::listen::{self, Accept, Bounded, Room};

/// A connection after its handshake.
pub type TlsConnection = Bounded<TlsStream<TcpStream>, TlsPeer>;

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Slots {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
}

impl Slots {
    /// Room for `most` connections, a quarter of them without a client certificate: who proves
    /// nothing cannot keep those out who prove something.
    pub fn new(most: usize) -> Self {
        let anonymous = most.div_ceil(ANONYMOUS_PART);
        Self { all: Arc::new(Semaphore::new(most)), anonymous: Arc::new(Semaphore::new(anonymous)) }
    }

    /// A place for `peer`, or `None` if there is none now.
    fn take(&self, peer: &TlsPeer) -> Option<Room> {
        let mut room = vec![Arc::clone(&self.all).try_acquire_owned().ok()?];
        if peer.certificate().is_none() {
            room.push(Arc::clone(&self.anonymous).try_acquire_owned().ok()?);
        }
        Some(room)
    }

    /// Returns when there is a place for somebody.
    async fn free(&self) {
        // An error means that it was closed, which nobody does.
        let _closed = self.all.acquire().await;
    }
}

/// The connections of `tcp` whose handshake succeeded under the configuration then in force.
/// Ends, and closes the listener, when the stream is dropped.
pub fn incoming(
    tcp: TcpListener,
    config: Arc<ArcSwap<ServerConfig>>,
    slots: Slots,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut handshakes = Handshakes::default();
        loop {
            slots.free().await;
            let accepted = tokio::select! {
                accepted = Accept::accept(&tcp) => accepted,
                () = sender.closed() => return,
            };
            let Some((io, _)) = listen::or_pause(accepted).await else { continue };
            let acceptor = TlsAcceptor::from(config.load_full());
            let (slots, sender) = (slots.clone(), sender.clone());
            handshakes.begin(async move {
                let Some(connection) = handshake(io, &acceptor, &slots).await else { return };
                // An error means that the listener has closed meanwhile.
                let _closed = sender.send(Ok(connection)).await;
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(io: TcpStream, acceptor: &TlsAcceptor, slots: &Slots) -> Option<TlsConnection> {
    let address = io.peer_addr().ok();
    let tls = match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(io)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::info!(?address, %error, "a TLS handshake failed");
            return None;
        }
        Err(_) => {
            tracing::info!(?address, "a TLS handshake took too long");
            return None;
        }
    };
    let (_, connection) = tls.get_ref();
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let Some(peer) = TlsPeer::of_handshake(leaf.map(AsRef::as_ref)) else {
        tracing::info!(?address, "a client certificate cannot be read: the connection is closed");
        return None;
    };
    let Some(room) = slots.take(&peer) else {
        tracing::warn!(?address, "too many connections: one is closed");
        return None;
    };
    Some(Bounded::new(tls, peer, room))
}

/// The handshakes that are under way. When there are too many, the oldest makes way: a handshake
/// takes milliseconds, and who has been silent for longest will hardly go on.
#[derive(Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    under_way: VecDeque<AbortHandle>,
}

impl Handshakes {
    fn begin(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.under_way.len() >= HANDSHAKES_MAX {
            self.under_way.retain(|handshake| !handshake.is_finished());
        }
        if self.under_way.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.abort();
        }
        let begun = self.tasks.spawn(handshake);
        self.under_way.push_back(begun);
    }
}

/// A quarter: at 4096 connections a thousand workloads that prove themselves by a token only.
const ANONYMOUS_PART: usize = 4;

/// Far more than are under way at once when a thousand agents start together, and few enough
/// that peers who say nothing hold no more than some hundred file descriptors.
const HANDSHAKES_MAX: usize = 256;

/// Three round trips and a signature; ten seconds are enough from anywhere.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_silent_handshake_makes_way_for_the_newest() {
        let mut handshakes = Handshakes::default();
        for _ in 0..HANDSHAKES_MAX {
            handshakes.begin(std::future::pending());
        }
        let first = handshakes.under_way.front().cloned();
        let (done, is_done) = tokio::sync::oneshot::channel();
        handshakes.begin(async move { done.send(()).expect("awaited") });
        is_done.await.expect("the newest ran");
        assert_eq!(handshakes.under_way.len(), HANDSHAKES_MAX);
        let first = first.expect("it was under way");
        let ended = handshakes.tasks.join_next().await.expect("one ended");
        let also = handshakes.tasks.join_next().await.expect("another ended");
        assert!(ended.is_err() != also.is_err(), "one was aborted, the newest ended by itself");
        assert!(first.is_finished());
    }

    #[tokio::test]
    async fn what_ended_makes_room_before_anything_is_aborted() {
        let mut handshakes = Handshakes::default();
        handshakes.begin(std::future::pending());
        for _ in 1..HANDSHAKES_MAX {
            handshakes.begin(std::future::ready(()));
        }
        while handshakes.tasks.len() > 1 {
            handshakes.tasks.join_next().await.expect("some are left").expect("not aborted");
        }
        handshakes.begin(std::future::ready(()));
        assert_eq!(handshakes.under_way.len(), 2);
        assert!(handshakes.under_way.iter().any(|handshake| !handshake.is_finished()));
    }

    #[test]
    fn who_proves_nothing_leaves_room_for_those_who_do() {
        let slots = Slots::new(8);
        let anonymous = TlsPeer::default();
        let held: Vec<_> = std::iter::from_fn(|| slots.take(&anonymous)).collect();
        assert_eq!(held.len(), 2);
        assert_eq!(slots.all.available_permits(), 6);
        drop(held);
        assert_eq!(slots.all.available_permits(), 8);
    }
}
