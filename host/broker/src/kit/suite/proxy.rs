//! A TCP proxy that loses answers. Knows no protocol: an answer is what the server sends at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What happens to the traffic of all proxies of a suite.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Fault>);

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// None: everything passes.
    #[default]
    None,
    /// So many answers pass; the next one is lost, and its connection ends.
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
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Ends the fault; tells what had become of it.
    pub fn clear(&self) -> Fault {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn current(&self) -> Fault {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one answer; whether it passes.
    fn passes(&self) -> bool {
        let mut fault = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *fault {
            Fault::LoseAfter(0) => {
                *fault = Fault::Lost;
                false
            }
            Fault::LoseAfter(left) => {
                *left -= 1;
                true
            }
            Fault::None | Fault::Lost => true,
            Fault::Silence | Fault::Garbage(_) => false,
        }
    }
}

/// An address where nobody listens.
pub async fn closed_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port")?;
    Ok(listener.local_addr()?)
}

async fn serve(client: TcpStream, target: String, faults: Arc<Faults>) {
    let Ok(server) = TcpStream::connect(&target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    // Whichever side ends, the other one is dropped with it: the connection is cut.
    tokio::select! {
        () = requests(from_client, to_server, Arc::clone(&to_client), &faults) => {}
        () = answers(from_server, &to_client, &faults) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    back: Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
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

async fn answers(
    mut from: OwnedReadHalf,
    to: &tokio::sync::Mutex<OwnedWriteHalf>,
    faults: &Faults,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let (Some(bytes), true) = (buffer.get(..read), faults.passes()) else { return };
        if to.lock().await.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// More than any answer of a control connection.
const BUFFER_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_answer_is_lost() {
        let faults = Faults::default();
        assert!(faults.passes());
        faults.set(Fault::LoseAfter(1));
        assert_eq!([faults.passes(), faults.passes(), faults.passes()], [true, false, true]);
        assert_eq!(faults.clear(), Fault::Lost);
        assert_eq!(faults.clear(), Fault::None);
    }
}
