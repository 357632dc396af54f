//! One accepted connection, as the gRPC server sees it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// The other end must have sent the opening of HTTP/2 within this time. From then on the server's
/// own pings find out whether it is still there.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of that opening (RFC 9113, section 3.4).
const OPENING_BYTES: usize = 24;

/// Bytes in the clear or through TLS.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection, with what is known of who is at the other end. Holds its place among the
/// listener's connections until it is dropped.
#[derive(Debug)]
pub(super) struct Connection<I> {
    wire: Wire,
    info: I,
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
}

/// A connection that has not sent its opening yet.
#[derive(Debug)]
struct Opening {
    missing_bytes: usize,
    timeout: Pin<Box<Sleep>>,
}

impl<I> Connection<I> {
    pub(super) fn new(wire: Wire, info: I, place: OwnedSemaphorePermit) -> Self {
        let opening = Some(Opening {
            missing_bytes: OPENING_BYTES,
            timeout: Box::pin(tokio::time::sleep(OPENING_TIMEOUT)),
        });
        Self {
            wire,
            info,
            opening,
            _place: place,
        }
    }
}

impl<I: Clone + Send + Sync + 'static> Connected for Connection<I> {
    type ConnectInfo = I;

    fn connect_info(&self) -> I {
        self.info.clone()
    }
}

impl<I: Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if let Some(opening) = &mut self.opening {
            let bytes = buffer.filled().len().saturating_sub(before);
            opening.missing_bytes = opening.missing_bytes.saturating_sub(bytes);
            if opening.missing_bytes == 0 {
                self.opening = None;
            } else if read.is_pending() && opening.timeout.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<I: Unpin> AsyncWrite for Connection<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    async fn pair() -> (Connection<()>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        (Connection::new(Wire::Plain(near), (), place), far)
    }

    // Time stands still here but when everybody waits: then it jumps to the next timer.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_say_all_of_its_opening_is_given_up() {
        for said in [0, 1, OPENING_BYTES - 1] {
            let (mut near, mut far) = pair().await;
            far.write_all(&vec![b'P'; said]).await.unwrap();
            let error = near.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "after {said} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_said_its_opening_may_be_silent_for_long() {
        let (mut near, mut far) = pair().await;
        far.write_all(&[b'P'; OPENING_BYTES]).await.unwrap();
        near.read_exact(&mut [0; OPENING_BYTES]).await.unwrap();
        let silence = tokio::time::timeout(OPENING_TIMEOUT * 100, near.read_u8()).await;
        assert!(silence.is_err(), "the connection ended: {silence:?}");
    }
}
