//! Plain text to a server on this machine. A server that speaks something else shows it by its first
//! byte, and has understood nothing of what we sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// What the server on the newest connection began to speak.
#[derive(Debug, Clone, Default)]
pub(super) struct Accent(Arc<AtomicU8>);

/// Nothing yet, or HTTP/2: its first frame is a short one, so that its length begins with a zero.
const FINE: u8 = 0;
/// The type of a record of TLS that says what is wrong, RFC 8446 section 5.1.
const TLS_ALERT: u8 = 21;

impl Accent {
    /// What is wrong with the server, if it does not speak HTTP/2.
    pub(super) fn mismatch(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Acquire) {
            FINE => None,
            TLS_ALERT => Some("it speaks TLS: give https:// and the service's --ca file"),
            _ => Some("it is no server for devices"),
        }
    }
}

/// A channel that connects when it is needed, and what is heard on it.
pub(super) fn channel(endpoint: &Endpoint) -> (Channel, Accent) {
    let accent = Accent::default();
    let heard = accent.clone();
    let connector = tower::service_fn(move |uri: Uri| connect(uri, heard.clone()));
    (endpoint.connect_with_connector_lazy(connector), accent)
}

async fn connect(uri: Uri, accent: Accent) -> io::Result<TokioIo<Listening>> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
    stream.set_nodelay(true)?;
    accent.0.store(FINE, Ordering::Release);
    Ok(TokioIo::new(Listening {
        stream,
        accent: Some(accent),
    }))
}

/// A connection on which the first byte is noted.
struct Listening {
    stream: TcpStream,
    /// Until then.
    accent: Option<Accent>,
}

impl Listening {
    /// A server that did not understand us may be gone before we have heard what it said. What could not
    /// be written to it passes for written: the connection ends by being read to its end.
    fn or_heard<T>(&self, polled: Poll<io::Result<T>>, written: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(_)) if self.accent.is_some() => Poll::Ready(Ok(written)),
            polled => polled,
        }
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(first) = buffer.filled().get(before)
            && let Some(accent) = self.accent.take()
        {
            accent.0.store(*first, Ordering::Release);
        }
        polled
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.or_heard(polled, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.or_heard(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.or_heard(polled, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
