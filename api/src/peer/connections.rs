//! The connections of this node to its peers.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rossby_domain::ids::{ClusterId, NodeId};
use rossby_proto::v1::peer_client::PeerClient;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::{CLUSTER_KEY, CONNECT_TIMEOUT, PEER_MESSAGE_BYTES_MAX};
use crate::listener::tls;

/// An idle peer is asked for a sign of life this often, and given up when it gives none for so long:
/// a peer that lost its power sends no goodbye.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The name that a connection is opened by to a node whose own is not known.
const SEED_NAME: &str = "seed.rossby.internal";
/// Flow control, as on the listener.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// Why there is no connection. Nothing was sent to the peer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("node {node} at {address} is unreachable: {reason}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// Somebody answers, but is not that node, or does not take us for a node.
    #[error("node {node} at {address} can't be trusted: {reason}")]
    Untrusted {
        /// The peer.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// What TLS said.
        reason: String,
    },
}

/// The connections of this node to its peers: at most one to each, opened when first needed.
#[derive(Debug)]
pub struct Connections {
    tls: Arc<ClientConfig>,
    cluster: Mutex<Option<ClusterId>>,
    open: Mutex<HashMap<NodeId, Connection>>,
}

impl Connections {
    /// No connections yet. `cluster` is the cluster of this node, if it belongs to one.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>, cluster: Option<ClusterId>) -> Arc<Self> {
        Arc::new(Self {
            tls,
            cluster: Mutex::new(cluster),
            open: Mutex::default(),
        })
    }

    /// Names the cluster that this node belongs to from now on.
    pub fn join(&self, cluster: ClusterId) {
        let mut open = self.open.lock();
        *self.cluster.lock() = Some(cluster);
        open.clear();
    }

    /// Closes the connections to all but these nodes, once the calls in flight on them have ended.
    pub fn keep(&self, nodes: &[NodeId]) {
        self.open.lock().retain(|node, _| nodes.contains(node));
    }

    /// The connection to a node, opened if there is none.
    ///
    /// # Errors
    /// [`ConnectError`] if the node can't be reached or does not prove that it is the one.
    pub async fn get(&self, node: NodeId, address: &str) -> Result<Connection, ConnectError> {
        let kept = self.open.lock().get(&node).cloned();
        if let Some(connection) = kept
            && connection.is_open()
            && *connection.address == *address
        {
            return Ok(connection);
        }
        loop {
            let cluster = *self.cluster.lock();
            // Two callers may both open one here; the one that is not kept closes with its last call.
            let connection = self.connect(node, address, cluster).await?;
            let mut open = self.open.lock();
            // If this node has joined a cluster meanwhile, calls that do not name it would be refused for ever.
            if *self.cluster.lock() == cluster {
                open.insert(node, connection.clone());
                return Ok(connection);
            }
        }
    }

    async fn connect(
        &self,
        node: NodeId,
        address: &str,
        cluster: Option<ClusterId>,
    ) -> Result<Connection, ConnectError> {
        let unreachable = |reason: String| ConnectError::Unreachable {
            node,
            address: address.to_owned(),
            reason,
        };
        let open = open_tls(Arc::clone(&self.tls), tls::node_name(node), address);
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
            Err(_) => return Err(unreachable("no answer in time".to_owned())),
            Ok(Err(OpenError::Tcp(error))) => return Err(unreachable(error.to_string())),
            Ok(Err(OpenError::Tls(error))) => {
                let reason = error.to_string();
                return Err(ConnectError::Untrusted {
                    node,
                    address: address.to_owned(),
                    reason,
                });
            }
            Ok(Ok(stream)) => stream,
        };
        let connection = Connection::over(stream, address, cluster).await;
        connection.map_err(|error| unreachable(error.to_string()))
    }
}

/// An open connection to a peer, cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    address: Arc<str>,
    channel: Channel,
    cluster: Stamp,
    closed: Arc<AtomicBool>,
}

impl Connection {
    async fn over(
        stream: TlsStream<TcpStream>,
        address: &str,
        cluster: Option<ClusterId>,
    ) -> Result<Self, tonic::transport::Error> {
        let closed = Arc::new(AtomicBool::new(false));
        let wire = Wire {
            stream,
            closed: Arc::clone(&closed),
        };
        Ok(Self {
            address: address.into(),
            channel: channel(wire).await?,
            cluster: Stamp::new(cluster),
            closed,
        })
    }

    /// Whether it was still open a moment ago.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// The peer's service.
    #[must_use]
    pub fn client(&self) -> PeerClient<InterceptedService<Channel, Stamp>> {
        PeerClient::with_interceptor(self.channel.clone(), self.cluster.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }
}

/// Puts the cluster's id on each call.
#[derive(Debug, Clone)]
pub struct Stamp(Option<MetadataValue<Ascii>>);

impl Stamp {
    fn new(cluster: Option<ClusterId>) -> Self {
        Self(cluster.and_then(|cluster| MetadataValue::try_from(cluster.to_string()).ok()))
    }
}

impl Interceptor for Stamp {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(cluster) = &self.0 {
            request.metadata_mut().insert(CLUSTER_KEY, cluster.clone());
        }
        Ok(request)
    }
}

/// Why nobody could be met at an address. Nothing was sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MeetError {
    /// Nobody answers there.
    #[error("nobody answers at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// Whoever answers is no node of the authority, or does not take us for one.
    #[error("who answers at {address} can't be trusted: {reason}")]
    Untrusted {
        /// The address.
        address: String,
        /// What TLS said.
        reason: String,
    },
}

/// Opens a connection to whichever node is at an address, with the settings for seeds. Calls are for this
/// cluster.
///
/// # Errors
/// [`MeetError`] if nobody is there, or no node of the authority.
pub async fn meet(
    seed: Arc<ClientConfig>,
    address: &str,
    cluster: ClusterId,
) -> Result<(NodeId, Connection), MeetError> {
    let unreachable = |reason: String| MeetError::Unreachable {
        address: address.to_owned(),
        reason,
    };
    let untrusted = |reason: String| MeetError::Untrusted {
        address: address.to_owned(),
        reason,
    };
    // Whose name this is is in the certificate, and verified by it.
    let open = open_tls(seed, SEED_NAME.to_owned(), address);
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, open).await {
        Err(_) => return Err(unreachable("no answer in time".to_owned())),
        Ok(Err(OpenError::Tcp(error))) => return Err(unreachable(error.to_string())),
        Ok(Err(OpenError::Tls(error))) => return Err(untrusted(error.to_string())),
        Ok(Ok(stream)) => stream,
    };
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| untrusted("it shows no certificate".to_owned()))?;
    let node = tls::node_of(shown).map_err(|error| untrusted(error.to_string()))?;
    let connection = Connection::over(stream, address, Some(cluster)).await;
    let connection = connection.map_err(|error| unreachable(error.to_string()))?;
    Ok((node, connection))
}

enum OpenError {
    Tcp(io::Error),
    Tls(io::Error),
}

async fn open_tls(
    tls: Arc<ClientConfig>,
    name: String,
    address: &str,
) -> Result<TlsStream<TcpStream>, OpenError> {
    let socket = TcpStream::connect(address).await.map_err(OpenError::Tcp)?;
    socket.set_nodelay(true).map_err(OpenError::Tcp)?;
    // The name makes TLS verify that the certificate is for this very node.
    let name =
        ServerName::try_from(name).map_err(|error| OpenError::Tls(io::Error::other(error)))?;
    TlsConnector::from(tls)
        .connect(name, socket)
        .await
        .map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => OpenError::Tls(error),
            _ => OpenError::Tcp(error),
        })
}

/// Starts HTTP/2 on an open connection. The channel never opens another one by itself: a new
/// connection is a new channel, so that who is called knows when the old one broke.
async fn channel(wire: Wire) -> Result<Channel, tonic::transport::Error> {
    let mut once = Some(TokioIo::new(wire));
    let connector = tower::service_fn(move |_: http::Uri| {
        let wire = once
            .take()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(wire)
    });
    Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector(connector)
        .await
}

/// The bytes of a connection. HTTP/2 drops it when the connection ends for whatever reason, which
/// is how everybody learns of it.
struct Wire {
    stream: TlsStream<TcpStream>,
    closed: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
