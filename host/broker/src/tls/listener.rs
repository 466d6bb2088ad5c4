//! TLS handshakes: each with the certificate in force when it begins, few at a time, and none
//! that waits for a peer who says nothing. Hands on only connections that proved what they must.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use claviger_core::ports::Clock;
use claviger_core::time::Timestamp;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::identity;
use super::peer::TlsPeer;
use crate::broker::SystemClock;
use crate::listen::{self, Accept, Bounded, Room};

/// A connection after its handshake.
pub type TlsConnection = Bounded<TlsStream<TcpStream>, TlsPeer>;

/// What handshakes work with.
pub struct InForce {
    /// For the TLS library.
    pub config: Arc<ServerConfig>,
    /// When the broker's own certificate ends. From then on nobody who looks at it connects, and
    /// whom it trusted may be out of date: so nobody does.
    pub until: Timestamp,
}

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Slots {
    all: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    shares: Option<Arc<Shares>>,
}

/// The places of each name.
#[derive(Debug)]
struct Shares {
    each: usize,
    named: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

impl Slots {
    /// Room for `most` connections, whoever they are of.
    pub fn new(most: usize) -> Self {
        let anonymous = Arc::new(Semaphore::new(most));
        Self { all: Arc::new(Semaphore::new(most)), anonymous, shares: None }
    }

    /// The same, at most `most` of them without a client certificate: who proves nothing cannot
    /// keep those out who prove something.
    #[must_use]
    pub fn anonymous(self, most: usize) -> Self {
        Self { anonymous: Arc::new(Semaphore::new(most)), ..self }
    }

    /// The same, at most `each` of them of one name: nobody keeps all others out.
    #[must_use]
    pub fn each(self, each: usize) -> Self {
        let shares = Shares { each, named: Mutex::default() };
        Self { shares: Some(Arc::new(shares)), ..self }
    }

    /// A place for `peer`, or `None` if there is none now.
    fn take(&self, peer: &TlsPeer) -> Option<Room> {
        let mut room = vec![Arc::clone(&self.all).try_acquire_owned().ok()?];
        let Some(certificate) = peer.certificate() else {
            room.push(Arc::clone(&self.anonymous).try_acquire_owned().ok()?);
            return Some(room);
        };
        if let Some(shares) = &self.shares {
            room.push(shares.take(certificate.name().unwrap_or_default())?);
        }
        Some(room)
    }

    /// Returns when there is a place for somebody.
    async fn free(&self) {
        // An error means that it was closed, which nobody does.
        let _closed = self.all.acquire().await;
    }
}

impl Shares {
    /// A place of `name`. Names without a connection are forgotten, so that there are no more of
    /// them than connections.
    fn take(&self, name: &str) -> Option<OwnedSemaphorePermit> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|_, places| places.available_permits() < self.each);
        let places = named.entry(name.to_owned());
        let places = places.or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        // Under the lock: otherwise another name's look could forget this one in between.
        Arc::clone(places).try_acquire_owned().ok()
    }
}

/// The connections of `tcp` whose handshake succeeded under the configuration then in force.
/// Ends, and closes the listener, when the stream is dropped.
pub fn incoming(
    tcp: TcpListener,
    in_force: Arc<ArcSwap<InForce>>,
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
            let in_force = in_force.load_full();
            if identity::is_over(in_force.until, SystemClock.now()) {
                tracing::debug!("refused: the broker's own certificate has expired");
                continue;
            }
            let acceptor = TlsAcceptor::from(Arc::clone(&in_force.config));
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
        let slots = Slots::new(8).anonymous(2);
        let anonymous = TlsPeer::default();
        let held: Vec<_> = std::iter::from_fn(|| slots.take(&anonymous)).collect();
        assert_eq!(held.len(), 2);
        assert_eq!(slots.all.available_permits(), 6);
        drop(held);
        assert_eq!(slots.all.available_permits(), 8);
    }

    #[test]
    fn one_name_leaves_room_for_others_and_gets_its_places_back() {
        let slots = Slots::new(8).each(3);
        let (one, other) = (peer("one.example"), peer("other.example"));
        let held: Vec<_> = std::iter::from_fn(|| slots.take(&one)).collect();
        assert_eq!(held.len(), 3);
        let others: Vec<_> = std::iter::from_fn(|| slots.take(&other)).collect();
        assert_eq!(others.len(), 3);
        assert_eq!(slots.all.available_permits(), 2, "a refusal keeps no place");
        drop(held);
        let again = slots.take(&one).expect("its places are free");
        drop((again, others));
        assert!(slots.take(&other).is_some());
        let shares = slots.shares.as_ref().expect("it has shares");
        assert_eq!(shares.named.lock().expect("not poisoned").len(), 1, "names are forgotten");
    }

    fn peer(name: &str) -> TlsPeer {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        TlsPeer::of_handshake(Some(certificate.der())).expect("it can be read")
    }
}
