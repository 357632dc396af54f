//! The connection as lettre takes it in.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::courier::dial::Wire;

/// A relay does not greet again after STARTTLS, but lettre waits for a greeting.
const GREETED: &[u8] = b"220 greeted before STARTTLS\r\n";

/// A wire, with what is still to be read before it.
#[derive(Debug)]
pub(super) struct Channel {
    before: &'static [u8],
    wire: Wire,
}

impl Channel {
    pub(super) fn new(wire: Wire) -> Self {
        Self { before: &[], wire }
    }

    /// A wire on which the greeting came already.
    pub(super) fn greeted(wire: Wire) -> Self {
        Self {
            before: GREETED,
            wire,
        }
    }
}

impl AsyncTokioStream for Channel {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.wire.peer_addr()
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.wire).poll_read(context, buffer);
        }
        let (now, later) = self
            .before
            .split_at(self.before.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.before = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
