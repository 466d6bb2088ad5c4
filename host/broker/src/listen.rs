//! Sockets: opened with the right owner and mode, connections counted and bounded, and the peer
//! of a unix socket taken from the kernel.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::greeting::Greeting;

/// The process at the other end of a unix socket when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// A connection that counts against the bound until it is dropped, and what it proves of its peer.
/// It fails unless the peer greets in time.
pub struct Bounded<T, P> {
    io: T,
    peer: P,
    greeting: Greeting,
    _room: Room,
}

/// The bounds that a connection counts against.
pub type Room = Vec<OwnedSemaphorePermit>;

impl<T, P> Bounded<T, P> {
    /// The connection `io` to `peer`, of which nothing has been heard yet.
    pub fn new(io: T, peer: P, room: Room) -> Self {
        Self { io, peer, greeting: Greeting::owed(), _room: room }
    }
}

/// A unix listener whose socket file is removed when it is dropped.
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixSocket {
    /// Listens at `path`. A socket file that nobody listens on is replaced; a live one, or a
    /// file of another kind, is refused.
    pub fn bind(path: &Path, mode: u32) -> anyhow::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder
            && !folder.exists()
        {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot create folder `{}`", folder.display()))?;
        }
        remove_stale(path)?;
        let listener =
            bind_private(path).with_context(|| format!("cannot listen on `{}`", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Gone already, or taken over by a newer broker that found it stale: either is fine.
        let _ignored = std::fs::remove_file(&self.path);
    }
}

/// What accepts connections.
pub trait Accept: Send + 'static {
    /// The connection.
    type Io: Send;

    /// What is known of the other end.
    type Peer: Send;

    /// The next connection and its peer.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;
}

impl Accept for UnixSocket {
    type Io = UnixStream;
    type Peer = Option<UnixPeer>;

    async fn accept(&self) -> io::Result<(UnixStream, Option<UnixPeer>)> {
        let (io, _) = self.listener.accept().await?;
        let cred = io.peer_cred()?;
        Ok((io, Some(UnixPeer { uid: cred.uid(), gid: cred.gid() })))
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;
    type Peer = TcpConnectInfo;

    async fn accept(&self) -> io::Result<(TcpStream, TcpConnectInfo)> {
        let (io, _) = Self::accept(self).await?;
        // Small answers must not wait for more to send; without it they are merely slower.
        let _ignored = io.set_nodelay(true);
        let peer = io.connect_info();
        Ok((io, peer))
    }
}

/// The connections of `listener`, at most `most` at a time: further ones wait in the kernel's
/// queue. Ends, and closes the listener, when the stream is dropped.
pub fn incoming<A: Accept + Sync>(
    listener: A,
    most: usize,
) -> impl Stream<Item = io::Result<Bounded<A::Io, A::Peer>>> {
    let slots = Arc::new(Semaphore::new(most));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while let Ok(permit) = Arc::clone(&slots).acquire_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let Some((io, peer)) = or_pause(accepted).await else { continue };
            if sender.send(Ok(Bounded::new(io, peer, vec![permit]))).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// A failed accept (out of file descriptors, a peer that left) must not end the listener, nor
/// make it spin.
pub async fn or_pause<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(io) => Some(io),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    anyhow::ensure!(
        metadata.file_type().is_socket(),
        "`{}` exists and is not a socket: move it away or configure another path",
        path.display()
    );
    anyhow::ensure!(
        std::os::unix::net::UnixStream::connect(path).is_err(),
        "another process listens on `{}`: stop it or configure another path",
        path.display()
    );
    std::fs::remove_file(path)
        .with_context(|| format!("cannot remove the stale socket `{}`", path.display()))
}

/// Binds with a umask that keeps others out until the mode is set.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

impl<T, P: Clone + Send + Sync + 'static> Connected for Bounded<T, P> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<T: AsyncRead + Unpin, P: Unpin> AsyncRead for Bounded<T, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let heard = buffer.filled().len().saturating_sub(before);
        match self.greeting.poll(heard, context) {
            Poll::Ready(late) => Poll::Ready(Err(late)),
            Poll::Pending => read,
        }
    }
}

impl<T: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Bounded<T, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Gives the system a moment to free what was missing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
