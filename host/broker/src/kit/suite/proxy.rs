//! A TCP proxy that loses answers. Knows no protocol: an answer is what the server sends at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// What happens to the traffic of all proxies of a suite.
#[derive(Debug, Default)]
pub struct Faults {
    fault: Mutex<Fault>,
    /// How many servers may still be at work on what they were sent before an answer was lost.
    at_work: watch::Sender<usize>,
}

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None: everything passes.
    #[default]
    None,
    /// So many answers pass; the next one is lost, and all that follow it on its connection.
    LoseAfter(u32),
    /// The answer was lost.
    Lost,
    /// Nothing is sent on and nothing is answered.
    Silence,
    /// Every request is answered with these bytes, and the connection ends.
    Garbage(&'static [u8]),
}

/// A proxy before one address.
pub struct Proxy;

impl Proxy {
    /// Listens on a loopback address for as long as the runtime lives.
    pub async fn start(target: String, faults: Arc<Faults>) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no proxy")?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, target.clone(), Arc::clone(&faults)));
            }
        });
        Ok(address)
    }
}

impl Faults {
    /// Sets what happens from now on, also on open connections.
    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Ends the fault; tells what had become of it.
    pub fn clear(&self) -> Fault {
        std::mem::take(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until no server is at work any more on a connection that lost an answer.
    pub async fn at_rest(&self) {
        // The sender is part of `self`, so the wait cannot fail.
        let mut at_work = self.at_work.subscribe();
        let _rested = at_work.wait_for(|servers| *servers == 0).await.is_ok();
    }

    fn current(&self) -> Fault {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one answer; what becomes of it. `Lost` is said of one answer alone.
    fn meets(&self) -> Fault {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *fault {
            Fault::LoseAfter(0) => {
                *fault = Fault::Lost;
                self.at_work.send_modify(|servers| *servers += 1);
                Fault::Lost
            }
            Fault::LoseAfter(left) => {
                *left -= 1;
                Fault::None
            }
            Fault::None | Fault::Lost => Fault::None,
            Fault::Silence | Fault::Garbage(_) => fault.clone(),
        }
    }
}

/// A server that may still be at work, until this is dropped.
struct AtWork<'a>(&'a Faults);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.send_modify(|servers| *servers = servers.saturating_sub(1));
    }
}

/// An address where nobody listens.
pub async fn closed_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port")?;
    Ok(listener.local_addr()?)
}

async fn serve(client: TcpStream, target: String, faults: Arc<Faults>) {
    let Ok(server) = TcpStream::connect(&target).await else { return };
    let (mut from_client, to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let to_client = tokio::sync::Mutex::new(to_client);
    let mut at_work = None;
    // Whichever side ends, the other one ends with it: the connection is cut.
    tokio::select! {
        () = requests(&mut from_client, &mut to_server, &to_client, &faults) => {}
        () = answers(&mut from_server, &to_client, (&faults, &mut at_work)) => {}
    }
    drop((from_client, to_client));
    if at_work.is_some() {
        // A server that loses its client in the middle may give up what it is at. One that reads
        // the end of its requests does all of them first, and then ends the connection itself.
        let _gone = to_server.shutdown().await;
        let _bounded = timeout(AT_WORK_MAX, swallow(&mut from_server)).await;
    }
}

async fn requests(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    back: &tokio::sync::Mutex<OwnedWriteHalf>,
    faults: &Faults,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        match faults.current() {
            Fault::Silence => {}
            Fault::Garbage(bytes) => {
                let _gone = back.lock().await.write_all(bytes).await;
                return;
            }
            Fault::None | Fault::LoseAfter(_) | Fault::Lost => {
                let Some(bytes) = buffer.get(..read) else { return };
                if to.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn answers<'f>(
    from: &mut OwnedReadHalf,
    to: &tokio::sync::Mutex<OwnedWriteHalf>,
    (faults, at_work): (&'f Faults, &mut Option<AtWork<'f>>),
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        match faults.meets() {
            Fault::None | Fault::LoseAfter(_) => {
                let Some(bytes) = buffer.get(..read) else { return };
                if to.lock().await.write_all(bytes).await.is_err() {
                    return;
                }
            }
            // A server that speaks first, as those of MySQL do, is silent only if its greeting is
            // kept from the client.
            Fault::Silence => {}
            Fault::Garbage(bytes) => {
                let _gone = to.lock().await.write_all(bytes).await;
                return;
            }
            Fault::Lost => {
                *at_work = Some(AtWork(faults));
                // A client that sends several requests before it reads may be at it still: what is
                // lost is the answer, and not half of the request.
                while let Ok(Ok(1..)) = timeout(QUIET, from.read(&mut buffer)).await {}
                return;
            }
        }
    }
}

/// Reads to the end.
async fn swallow(from: &mut OwnedReadHalf) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(1..) = from.read(&mut buffer).await {}
}

/// More than any answer of a control connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// How long a server must have said nothing before its client is taken to have asked for all that
/// it wants. The client is a task of this process and wrote its requests together.
const QUIET: Duration = Duration::from_millis(500);

/// Longer than a call, whose deadline servers are told where they can be. A connection that a
/// server keeps open after its requests have ended must not stop the suite.
const AT_WORK_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn exactly_one_answer_is_lost() {
        let faults = Faults::default();
        assert_eq!(faults.meets(), Fault::None);
        faults.set(Fault::LoseAfter(1));
        assert_eq!(
            [faults.meets(), faults.meets(), faults.meets()],
            [Fault::None, Fault::Lost, Fault::None]
        );
        assert_eq!(faults.clear(), Fault::Lost);
        assert_eq!(faults.clear(), Fault::None);
    }

    /// A server that answers each byte, and tells at the end how many it got.
    async fn server() -> (SocketAddr, tokio::task::JoinHandle<usize>, watch::Receiver<usize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, heard) = watch::channel(0);
        let ended = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut requests = 0;
            while client.read_u8().await.is_ok() {
                requests += 1;
                // As a database does, it stops at a client that is gone.
                if client.write_u8(b'a').await.is_err() {
                    break;
                }
                told.send_replace(requests);
            }
            requests
        });
        (address, ended, heard)
    }

    #[tokio::test]
    async fn what_follows_a_lost_answer_still_reaches_the_server_and_is_not_answered() {
        let (address, ended, mut heard) = server().await;
        let faults = Arc::new(Faults::default());
        let proxy = Proxy::start(address.to_string(), Arc::clone(&faults)).await.unwrap();
        faults.set(Fault::LoseAfter(1));
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client.write_u8(b'1').await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'a');
        client.write_u8(b'2').await.unwrap();
        heard.wait_for(|requests| *requests == 2).await.unwrap();
        client.write_u8(b'3').await.unwrap();
        assert!(client.read_u8().await.is_err(), "an answer came after the one that was lost");
        faults.at_rest().await;
        assert!(ended.is_finished(), "the server is still at work");
        assert_eq!(ended.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_server_that_speaks_first_is_silent_too() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults = Arc::new(Faults::default());
        let proxy = Proxy::start(address.to_string(), Arc::clone(&faults)).await.unwrap();
        for (fault, expect) in [(Fault::Silence, &b""[..]), (Fault::Garbage(b"?"), &b"?"[..])] {
            faults.set(fault);
            let mut client = TcpStream::connect(proxy).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(b"greeting").await.unwrap();
            server.shutdown().await.unwrap();
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, expect);
        }
    }
}
