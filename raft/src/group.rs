//! One group, as this node's replica of it sees it.

use std::collections::BTreeMap;

use rossby_domain::ids::{Epoch, GroupId, NodeId, PartitionId, ReplicaId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Query, Reply, Routed};
use rossby_storage::store::Reader;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Member;

/// Who leads a group, as this replica believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This replica does.
    Here {
        /// In this term.
        term: u64,
    },
    /// Another replica does.
    Elsewhere(Member),
    /// Nobody that this replica knows of.
    Unknown,
}

/// Why a proposal has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads. Nothing was proposed.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// The leader can't reach a quorum. Nothing was proposed.
    #[error("the group has no quorum")]
    NoQuorum,
    /// The leader's clock is not in step with a quorum's. Nothing was proposed.
    #[error("this node's clock is not in step with its peers")]
    ClockUnsafe,
    /// Too much is waiting to be written. Nothing was proposed.
    #[error("the node is overloaded")]
    Overloaded,
    /// The disk is full. Nothing was proposed.
    #[error("the disk is full")]
    DiskFull,
    /// The deadline passed, or leadership was lost, before the outcome was known: the commands may
    /// or may not take effect.
    #[error("the outcome is not known")]
    Unknown,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads.
    #[error("this node does not lead the group")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// Leadership could not be confirmed by a quorum before the deadline.
    #[error("the group has no quorum")]
    NoQuorum,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// A group's figures, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This node's replica.
    pub replica: ReplicaId,
    /// leader, follower, candidate, learner or stopped.
    pub role: &'static str,
    /// The current term.
    pub term: u64,
    /// The replica that leads, if known.
    pub leader: Option<(ReplicaId, Member)>,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last committed entry.
    pub committed_index: Option<u64>,
    /// The last applied entry.
    pub applied_index: Option<u64>,
    /// The entry of the last checkpoint.
    pub checkpoint_index: Option<u64>,
    /// All members, and whether each is a voter, and on the leader how far its log matches.
    pub members: Vec<(ReplicaId, Member, bool, Option<u64>)>,
    /// Why the replica stopped, if it did.
    pub failure: Option<String>,
}

/// A running replica of a group.
pub struct Group {}

impl Group {
    /// Which group this is.
    pub fn id(&self) -> GroupId {
        todo!()
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        todo!()
    }

    /// Proposes commands; each partition's epoch is filled in from what this group owns. Replies in
    /// order. Commands of concurrent calls share log entries.
    pub async fn propose(
        &self,
        _commands: Vec<(PartitionId, Command)>,
        _deadline: Instant,
    ) -> Result<Vec<Reply>, ProposeError> {
        todo!()
    }

    /// Proposes commands under epochs that the caller chose (for taking ownership).
    pub async fn propose_routed(
        &self,
        _commands: Vec<Routed>,
        _deadline: Instant,
    ) -> Result<Vec<Reply>, ProposeError> {
        todo!()
    }

    /// Waits until this replica, the leader, has applied all that was committed before this call
    /// (Raft's ReadIndex, thesis section 6.4).
    pub async fn linearize(&self, _deadline: Instant) -> Result<(), ReadError> {
        todo!()
    }

    /// A linearizable read.
    pub async fn read(
        &self,
        _partition: PartitionId,
        _query: &Query,
        _deadline: Instant,
    ) -> Result<Answer, ReadError> {
        todo!()
    }

    /// A read of what this replica has applied, however old.
    pub fn read_local(&self, _partition: PartitionId, _query: &Query) -> Result<Answer, ReadError> {
        todo!()
    }

    /// Reads this replica's state directly.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// The epoch at which the group owns a partition, as applied here.
    pub fn epoch(&self, _partition: PartitionId) -> Option<Epoch> {
        todo!()
    }

    /// Who leads.
    pub fn leadership(&self) -> Leadership {
        todo!()
    }

    /// Changes of [`Self::leadership`].
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        todo!()
    }

    /// Whether this replica leads and heard from a quorum within the last election timeout, so that
    /// no other leader can have been elected meanwhile.
    pub fn leads_surely(&self) -> bool {
        todo!()
    }

    /// When this replica became leader in the present term, by the checked clock. A new leader refuses
    /// Hawk timestamps from before this, since it does not know the old leader's nonces.
    pub fn leader_since(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Brings the group to life with these members. Once, on one replica.
    pub async fn initialize(
        &self,
        _members: BTreeMap<ReplicaId, Member>,
    ) -> Result<(), ProposeError> {
        todo!()
    }

    /// Hands leadership to the replica on a node, or to the best one.
    pub async fn transfer_leader(
        &self,
        _to: Option<NodeId>,
        _deadline: Instant,
    ) -> Result<Member, ProposeError> {
        todo!()
    }

    /// Writes a checkpoint now; the index it is at.
    pub async fn checkpoint(&self) -> Result<u64, ProposeError> {
        todo!()
    }

    /// The group's figures.
    pub fn status(&self) -> GroupStatus {
        todo!()
    }
}
