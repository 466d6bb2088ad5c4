//! The first word of a peer: who connects and says nothing must not keep the place of others. Of
//! HTTP/2 it knows only how long a greeting is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// A connection that fails unless its peer greets in time. From then on the pings of HTTP/2 find
/// out whether the peer is there.
pub struct Greeted<T> {
    io: T,
    owed: Option<Greeting>,
}

struct Greeting {
    bytes: usize,
    until: Pin<Box<Sleep>>,
}

impl<T> Greeted<T> {
    /// The connection `io`, of whose peer nothing has been heard.
    pub fn new(io: T) -> Self {
        let until = Box::pin(tokio::time::sleep(GREETING_MAX));
        Self { io, owed: Some(Greeting { bytes: GREETING_BYTES, until }) }
    }
}

/// The same connections, each of which must greet.
pub fn greeted<T>(
    connections: impl Stream<Item = io::Result<T>>,
) -> impl Stream<Item = io::Result<Greeted<T>>> {
    connections.map(|accepted| accepted.map(Greeted::new))
}

impl<T: Connected> Connected for Greeted<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeted<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        let Some(owed) = &mut this.owed else { return read };
        let heard = buffer.filled().len().saturating_sub(before);
        owed.bytes = owed.bytes.saturating_sub(heard);
        if owed.bytes == 0 {
            this.owed = None;
            return read;
        }
        match owed.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => read,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeted<T> {
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

/// The preface (24 bytes) and the head of the settings that must follow it (9): RFC 9113, 3.4.
const GREETING_BYTES: usize = 33;

/// Clients greet as they connect. Ten seconds outlast a machine that is busy; who lets them pass,
/// again and again, still takes a place for no longer than that.
const GREETING_MAX: Duration = Duration::from_secs(10);
