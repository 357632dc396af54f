//! The groups of a node.

use std::sync::Arc;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId, ReplicaId};
use rossby_seams::clock::Clock;
use rossby_seams::transport::{Link, LinkAcceptor, SharedTransport};
use rossby_storage::store::Store;
use rossby_storage::wal::Wal;

use crate::Group;

/// Raft's intervals. [`Timing::lan`] is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Shortest wait before an election.
    pub election_min: Duration,
    /// Longest wait before an election.
    pub election_max: Duration,
}

/// What the groups of a node share.
pub struct GroupsConfig {
    /// This node.
    pub node: NodeId,
    /// Raft's intervals.
    pub timing: Timing,
    /// The clock that stamps commands.
    pub clock: Arc<dyn Clock>,
    /// The way to other nodes.
    pub transport: SharedTransport,
    /// The node's log.
    pub wal: Wal,
    /// The node's state.
    pub store: Store,
    /// A checkpoint is written once a group pins this many bytes of log.
    pub checkpoint_log_bytes: u64,
    /// The leader sheds proposals above 70% of this many bytes of overlay.
    pub overlay_budget_bytes: u64,
}

/// Why a group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    // helper D defines the variants
}

/// The groups of a node. Also takes in the links that peers open.
pub struct Groups {}

impl Groups {
    /// No groups yet.
    pub fn new(_config: GroupsConfig) -> Arc<Self> {
        todo!()
    }

    /// Starts this node's replica of a group, recovered from log and checkpoint.
    pub async fn start(&self, _group: GroupId, _replica: ReplicaId) -> Result<Arc<Group>, StartError> {
        todo!()
    }

    /// A running group.
    pub fn get(&self, _group: GroupId) -> Option<Arc<Group>> {
        todo!()
    }

    /// Stops all groups: leadership is handed over where possible, then everything is synced.
    pub async fn shutdown(&self) {
        todo!()
    }
}

impl LinkAcceptor for Groups {
    fn accept(&self, _link: Link) {
        todo!()
    }
}
