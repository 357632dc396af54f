//! Node to node: one HTTP/2 connection over mutual TLS from each node to each of its peers, for
//! the link of the Raft groups and for relayed calls.
//!
//! ```text
//!   Groups ──► PeerTransport ──┐                        ┌──► PeerServer.Link ───► LinkAcceptor (Groups)
//!   Relay  ────────────────────┼──► Connections ──TLS──►├──► PeerServer.Relay ──► MailboxService
//!   cluster init ──────────────┘    (one per peer)      └──► Describe, CreateReplica ──► Joining
//! ```
//!
//! Invariants: both ends have proven by certificate which node they are before a byte of ours is
//! sent; both belong to the same cluster, or the call is refused (a joiner belongs to none yet).

mod connections;
mod link;
mod server;
mod transport;

use std::time::Duration;

pub use connections::{ConnectError, Connection, Connections};
#[cfg(any(test, fuzzing))]
pub(crate) use server::placement;
pub use server::{Description, JoinError, Joining, PeerServer, Placement, Role};
pub use transport::{NoPeers, PeerTransport};

/// How long a connection to a peer may take, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A message between peers may have as many bytes. Frames of Raft are bounded far below.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The metadata in which a call to a peer names its cluster.
pub(crate) const CLUSTER_KEY: &str = "rossby-cluster";
