//! Links over the connections: the production side of the Transport seam.

use std::sync::Arc;

use async_trait::async_trait;
use rossby_domain::ids::NodeId;
use rossby_seams::transport::{Link, Transport, TransportError};

use super::connections::{ConnectError, Connections};
use super::{CONNECT_TIMEOUT, link};

/// Opens links to peers as `Peer.Link` calls.
#[derive(Debug, Clone)]
pub struct PeerTransport {
    connections: Arc<Connections>,
}

impl PeerTransport {
    /// A transport over these connections.
    #[must_use]
    pub fn new(connections: Arc<Connections>) -> Self {
        Self { connections }
    }
}

#[async_trait]
impl Transport for PeerTransport {
    async fn connect(&self, node: NodeId, address: &str) -> Result<Link, TransportError> {
        let connection = self
            .connections
            .get(node, address)
            .await
            .map_err(link_error)?;
        let (link, frames, pump) = link::ends(node).split();
        let mut client = connection.client();
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, client.link(frames)).await;
        let refused = |reason: String| TransportError::Refused {
            node,
            address: address.to_owned(),
            reason,
        };
        let incoming = match opened {
            Err(_) => {
                return Err(TransportError::Unreachable {
                    node,
                    address: address.to_owned(),
                    reason: "the link did not open in time".to_owned(),
                });
            }
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable => {
                return Err(TransportError::Unreachable {
                    node,
                    address: address.to_owned(),
                    reason: status.message().to_owned(),
                });
            }
            Ok(Err(status)) => return Err(refused(status.message().to_owned())),
            Ok(Ok(response)) => response.into_inner(),
        };
        tokio::spawn(pump.run(incoming));
        Ok(link)
    }
}

fn link_error(error: ConnectError) -> TransportError {
    match error {
        ConnectError::Unreachable {
            node,
            address,
            reason,
        } => TransportError::Unreachable {
            node,
            address,
            reason,
        },
        ConnectError::Untrusted {
            node,
            address,
            reason,
        } => TransportError::Refused {
            node,
            address,
            reason,
        },
    }
}

/// A node without peers: nobody can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

#[async_trait]
impl Transport for NoPeers {
    async fn connect(&self, node: NodeId, address: &str) -> Result<Link, TransportError> {
        Err(TransportError::Unreachable {
            node,
            address: address.to_owned(),
            reason: "this node has no peer listener".to_owned(),
        })
    }
}
