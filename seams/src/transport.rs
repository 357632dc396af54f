//! Frames from node to node.
//!
//! A transport makes one thing: a [`Link`], a pair of ordered byte-frame streams between two
//! nodes. Whatever needs requests, replies or streams multiplexes them over the link (crate
//! `raft`), so that the production and the simulated network differ only below this line.

mod memory;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_domain::ids::NodeId;
use tokio::sync::mpsc;

pub use memory::{Conditions, Cut, MemoryNetwork};

/// How many frames wait on each side of a link before the sender must wait.
pub const LINK_CAPACITY_FRAMES: usize = 1024;

/// Why no link could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// The peer did not answer at its address: down, cut off, or the wrong address.
    #[error("node {node} at {address} is unreachable: {reason}")]
    Unreachable {
        /// The peer.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The peer answered but is not who it should be, or refused us.
    #[error("node {node} at {address} refused the link: {reason}")]
    Refused {
        /// The peer.
        node: NodeId,
        /// Where it was looked for.
        address: String,
        /// Why, as far as is known.
        reason: String,
    },
}

/// One open connection to a peer. Frames arrive in the order they were sent, each whole, or the
/// link breaks: then `incoming` ends and `outgoing` fails. A frame handed to a link that breaks
/// may or may not have arrived.
#[derive(Debug)]
pub struct Link {
    /// The node at the other end, as proven by the transport.
    pub peer: NodeId,
    /// Frames to the peer. Dropping it closes the link.
    pub outgoing: mpsc::Sender<Bytes>,
    /// Frames from the peer.
    pub incoming: mpsc::Receiver<Bytes>,
}

/// Takes in the links that peers open to this node.
pub trait LinkAcceptor: Send + Sync + 'static {
    /// Takes over a link that `link.peer` opened.
    fn accept(&self, link: Link);
}

/// Opens links to peers.
#[async_trait]
pub trait Transport: Send + Sync + Debug + 'static {
    /// Opens a link to a node.
    ///
    /// # Errors
    /// [`TransportError`] if the peer can't be reached, or is not the node that it should be.
    async fn connect(&self, node: NodeId, address: &str) -> Result<Link, TransportError>;
}

/// A transport shared by the groups of a node.
pub type SharedTransport = Arc<dyn Transport>;
