//! The accept loop: from a TCP socket to connections that proved who they are.
//!
//! Handshakes run beside each other, each within a deadline, and a connection counts against the
//! listener's limit from the moment it is accepted, so neither a slow peer nor a crowd of them can
//! keep others out of the loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::NodeId;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpConnectInfo;
use tracing::{debug, warn};

use super::connection::{Connection, Wire};
use super::tls;

/// A TLS handshake must be done within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failure to accept (such as running out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be taken over by the server.
const READY_CAPACITY: usize = 64;

/// Who opened a connection to the peer listener, as its certificate proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerConnectInfo {
    /// The node.
    pub node: NodeId,
    /// Where it called from.
    pub remote: SocketAddr,
}

/// What is learnt of the other end from an accepted socket.
pub(super) trait Identify: Clone + Send + Sync + 'static {
    /// Handed to every request of the connection.
    type Info: Clone + Send + Sync + Unpin + 'static;

    /// Looks at the connection once it is open.
    fn identify(wire: &Wire, remote: SocketAddr) -> Result<Self::Info, tls::IdentityError>;
}

/// Anybody may connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anyone;

impl Identify for Anyone {
    type Info = TcpConnectInfo;

    fn identify(_: &Wire, remote: SocketAddr) -> Result<TcpConnectInfo, tls::IdentityError> {
        Ok(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some(remote),
        })
    }
}

/// Only nodes of the cluster may connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodesOnly;

impl Identify for NodesOnly {
    type Info = PeerConnectInfo;

    fn identify(wire: &Wire, remote: SocketAddr) -> Result<PeerConnectInfo, tls::IdentityError> {
        let Wire::Tls(stream) = wire else {
            return Err(tls::IdentityError::NoNode);
        };
        let (_, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or(tls::IdentityError::NoNode)?;
        Ok(PeerConnectInfo {
            node: tls::node_of(certificate)?,
            remote,
        })
    }
}

/// Runs the loop until `stop`; the connections come out of the returned stream. The listening
/// socket closes with the loop.
pub(super) fn accept<W: Identify>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    max_connections: usize,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection<W::Info>>> {
    let (ready, connections) = mpsc::channel(READY_CAPACITY);
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(max_connections));
    tokio::spawn(async move {
        let accepting = async {
            while let Some((socket, remote, place)) = next(&listener, &places).await {
                let (acceptor, ready) = (acceptor.clone(), ready.clone());
                tokio::spawn(async move {
                    match open::<W>(socket, remote, acceptor, place).await {
                        // The server has stopped if it takes no more: dropping closes the socket.
                        Ok(connection) => drop(ready.send(Ok(connection)).await),
                        Err(error) => debug!(%error, "refused a connection"),
                    }
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(connections)
}

/// The next socket, once there is a place for it. `None` only if the semaphore were closed.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((socket, remote)) => return Some((socket, remote, place)),
            Err(error) => {
                warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn open<W: Identify>(
    socket: TcpStream,
    remote: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection<W::Info>> {
    // On the accepted socket: without it, small replies wait for the peer's delayed ACK (40 ms).
    socket.set_nodelay(true)?;
    let wire = match acceptor {
        None => Wire::Plain(socket),
        Some(acceptor) => {
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await??;
            Wire::Tls(Box::new(stream))
        }
    };
    let info = W::identify(&wire, remote)
        .map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))?;
    Ok(Connection::new(wire, info, place))
}
