//! Reaching a gateway: TCP, and TLS with a certificate that must be right.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{CourierError, Problem, SettingsError, Step};
use crate::listener::tls;

/// Where a gateway is and how long each step towards it may take.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) patience: Duration,
}

impl Peer {
    pub(super) async fn connect(&self) -> Result<TcpStream, CourierError> {
        let failed = |problem: Problem| CourierError::passing(Step::Connect, problem);
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(self.patience, connecting)
            .await
            .map_err(|_| failed(Problem::TimedOut))?
            .map_err(|error| failed(error.into()))?;
        // A pause is all that it costs if this is not possible.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    pub(super) async fn secure(
        &self,
        stream: TcpStream,
        tls: &Arc<ClientConfig>,
    ) -> Result<Wire, CourierError> {
        let failed = |problem: Problem| CourierError::passing(Step::Tls, problem);
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| failed(Problem::Unexpected("the host is not a name for TLS")))?;
        let shaking = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        let stream = timeout(self.patience, shaking)
            .await
            .map_err(|_| failed(Problem::TimedOut))?
            .map_err(|error| failed(error.into()))?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// Whether a host is this machine, whatever a name service says.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What a gateway's certificate must come from: these authorities, or else those of the web.
pub(super) fn client_config(
    key: &'static str,
    ca: Option<&Path>,
) -> Result<Arc<ClientConfig>, SettingsError> {
    let roots = match ca {
        Some(path) => tls::authorities(path).map_err(|error| SettingsError::Invalid {
            key,
            why: error.to_string(),
        })?,
        None => Arc::new(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        }),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SettingsError::Invalid {
            key,
            why: error.to_string(),
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A connection to a gateway.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
