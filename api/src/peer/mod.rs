//! Node to node: one HTTP/2 connection over mutual TLS from each node to each of its peers, for
//! the link of the Raft groups and for relayed calls.
//!
//! ```text
//!   Groups ──► PeerTransport ──┐                        ┌──► PeerServer.Link ─────► LinkAcceptor (Groups)
//!   Relay  ────────────────────┼──► Connections ──TLS──►├──► PeerServer.Relay ────► PeerDoor (MailboxService)
//!   Router ──► PeerExecutors ──┤    (one per peer)      ├──► PeerServer.Execute ──► PeerDoor (its Router)
//!   cluster init ──────────────┘                        └──► Describe, CreateReplica ──► Joining
//! ```
//!
//! Invariants: both ends have proven by certificate which node they are before a byte of ours is
//! sent; both belong to the same cluster, or the call is refused (a joiner belongs to none yet).

mod connections;
mod execute;
mod link;
mod ports;
mod server;
mod transport;

use std::time::Duration;

use tokio::time::Instant;

pub use connections::{ConnectError, Connection, Connections, MeetError, meet};
pub use execute::PeerExecutors;
#[cfg(any(test, fuzzing))]
pub(crate) use execute::executed;
pub(crate) use execute::member;
pub use ports::{
    Description, GroupReport, JoinError, Joining, Newcomer, PeerDoor, Placement, PlannedStep, Role,
    Welcome,
};
pub use server::PeerServer;
#[cfg(any(test, fuzzing))]
pub(crate) use server::{newcomer, placement};
pub use transport::{NoPeers, PeerTransport};

/// How long a connection to a peer may take, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A message between peers may have as many bytes. Frames of Raft are bounded far below.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The metadata in which a call to a peer names its cluster.
pub(crate) const CLUSTER_KEY: &str = "rossby-cluster";

/// The way to a peer and back may take this long, in which its answer has to arrive.
const ANSWER_WAY_MAX: Duration = Duration::from_millis(400);

/// How long a peer may take for what is given up here at a deadline, in milliseconds: so much less that its
/// typed answer is here before that, over wide areas too.
pub(crate) fn left_for_peer_ms(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    let way = (left / 4).min(ANSWER_WAY_MAX);
    u64::try_from((left - way).as_millis()).unwrap_or(u64::MAX)
}

/// How long to try for a connection before somebody else is asked: a peer that is cut off must not use up
/// the time for all others.
pub(crate) fn connect_by(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 3
}

/// Whether the peer's own server said no before it looked at a call, as its status tells. A broken
/// connection is "unavailable" too, but carries none of our details.
pub(crate) fn refused_by_peer(status: &tonic::Status) -> bool {
    use tonic::Code as Grpc;
    match status.code() {
        Grpc::PermissionDenied | Grpc::Unauthenticated | Grpc::Unimplemented => true,
        Grpc::Unavailable => !status.details().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::{ApiError, Code};

    #[test]
    fn a_broken_connection_is_told_from_a_peer_that_refused() {
        assert!(refused_by_peer(&ApiError::from(Code::NotInCluster).into()));
        assert!(refused_by_peer(&Status::permission_denied(
            "another cluster"
        )));
        assert!(!refused_by_peer(&Status::unavailable("connection reset")));
        assert!(!refused_by_peer(&Status::unknown("h2 protocol error")));
    }
}
