//! The listeners of a node for gRPC.
//!
//! ```text
//!   TCP ──► accept (nodelay, limit, TLS handshake, who is it?) ──► HTTP/2 ──► services
//!             clients: anyone; TLS, or plain text on loopback  hyper    Mailbox, Health, Reflection
//!             peers:   nodes with a certificate of the cluster  tonic    Peer
//! ```
//!
//! Invariants: a peer's request carries the node that the certificate proves
//! ([`PeerConnectInfo`]), not one that it claims; plain text is never bound beyond loopback; bytes
//! that are no TLS or no HTTP/2 cost one connection, and end it.

mod accept;
mod clients;
mod connection;
mod shed;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

pub use accept::PeerConnectInfo;
use accept::{Anyone, NodesOnly};
pub use clients::ClientServices;
pub use shed::Shed;

/// How long an idle connection goes without a sign of life before it is asked for one, and how
/// long the answer may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at a time on a client's connection.
const CLIENT_STREAMS: u32 = 256;
/// Bytes of headers of a request; ours are well below 4 KiB.
const HEADER_BYTES: u32 = 16 * 1024;
/// Flow control between peers: wide, since a link carries the traffic of all groups.
const PEER_STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const PEER_CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
/// Calls at a time on a peer's connection: it may relay as many subscriptions as it has clients.
const PEER_STREAMS: u32 = 1 << 20;
/// Connections to the peer listener: a few per node, and some for strangers who fail to prove
/// themselves.
const PEER_CONNECTIONS: usize = 1024;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can't be had.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Plain text beyond loopback.
    #[error("{0} is beyond loopback, and is only opened with TLS")]
    PlainBeyondLoopback(SocketAddr),
}

/// A bound socket that serves nobody yet: its address is known before anything starts.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Binds the listener for clients.
    ///
    /// # Errors
    /// [`ListenError`] if the address can't be had, or would carry plain text beyond loopback.
    pub async fn clients(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(ListenError::PlainBeyondLoopback(address));
        }
        Self::bind(address, tls).await
    }

    /// Binds the listener for peers.
    ///
    /// # Errors
    /// [`ListenError`] if the address can't be had.
    pub async fn peers(address: SocketAddr, tls: Arc<ServerConfig>) -> Result<Self, ListenError> {
        Self::bind(address, Some(tls)).await
    }

    async fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, ListenError> {
        let bind = async {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            io::Result::Ok(Self {
                socket,
                address,
                tls,
            })
        };
        bind.await
            .map_err(|source| ListenError::Bind { address, source })
    }

    /// The address, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until `stop`, then finishes the calls in flight.
    pub async fn serve_clients(
        self,
        services: ClientServices,
        max_connections: usize,
        stop: CancellationToken,
    ) {
        let connections =
            accept::accept::<Anyone>(self.socket, self.tls, max_connections, stop.clone());
        clients::serve(connections, services, stop).await;
    }

    /// Serves peers until `stop`, then finishes the calls in flight.
    ///
    /// # Errors
    /// If the server fails as a whole; a single connection can't make it.
    pub async fn serve_peers(
        self,
        routes: Routes,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let connections =
            accept::accept::<NodesOnly>(self.socket, self.tls, PEER_CONNECTIONS, stop.clone());
        Server::builder()
            .max_concurrent_streams(PEER_STREAMS)
            .initial_stream_window_size(PEER_STREAM_WINDOW)
            .initial_connection_window_size(PEER_CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADER_BYTES)
            .serve_with_incoming_shutdown(routes.prepare(), connections, stop.cancelled_owned())
            .await
    }
}
