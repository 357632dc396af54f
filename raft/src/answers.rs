//! What a group answers about itself, and why it does not answer.

use std::collections::BTreeMap;

use rossby_domain::ids::{GroupId, ReplicaId};

use crate::Member;
use crate::expiry::ClockJump;

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
    /// The replica has stopped; the reason is in the log. Nothing was proposed.
    #[error("the group has stopped on this node")]
    Stopped,
    /// The commands are not of a size or form that a log entry can carry. Nothing was proposed.
    #[error("the commands can not be written to the log")]
    Unencodable,
}

/// Why a group was not brought to life.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitializeError {
    /// It already has members: it was brought to life before, or by another replica.
    #[error("the group already has members")]
    AlreadyInitialized,
    /// This replica is not among the members.
    #[error("this replica is not among the members")]
    NotAMember,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// Why no checkpoint was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// There is no state yet.
    #[error("nothing was applied yet")]
    NothingApplied,
    /// The disk is full. The log is kept, and nothing is lost.
    #[error("the disk is full")]
    DiskFull,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

/// Why there is no checkpoint to be backed up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It could not be learnt in time what was acknowledged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No checkpoint was written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
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
    /// The node has as many files open as it may. The replica goes on, and the same may succeed soon.
    #[error("too many files are open on this node")]
    TooManyFiles,
    /// The replica has stopped; the reason is in the log.
    #[error("the group has stopped on this node")]
    Stopped,
}

impl From<ReadError> for ProposeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotLeader { leader } => Self::NotLeader { leader },
            ReadError::NoQuorum => Self::NoQuorum,
            ReadError::TooManyFiles => Self::Overloaded,
            ReadError::Stopped => Self::Stopped,
        }
    }
}

/// A group's figures, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This node's replica.
    pub replica: ReplicaId,
    /// leader, follower, candidate, learner, stopped or removed.
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
    /// The last entry that was purged from the log.
    pub purged_index: Option<u64>,
    /// All members, and whether each is a voter, and on the leader how far its log matches.
    pub members: Vec<(ReplicaId, Member, bool, Option<u64>)>,
    /// Whether the replica rests, since nothing is asked of the group.
    pub resting: bool,
    /// Whether a change of voters is half-way, so that the old and the new ones must agree.
    pub joint: bool,
    /// The members that this node has no link to, and why.
    pub trouble: BTreeMap<ReplicaId, String>,
    /// Whether the replica was removed from the group, and has stopped for good.
    pub removed: bool,
    /// Why the replica stopped, if it did.
    pub failure: Option<String>,
    /// On the leader: the jump of its clock for which no mail expires, until the clock is set right
    /// or the time confirmed ([`crate::Group::confirm_time`]).
    pub expiry_blocked: Option<ClockJump>,
    /// On the leader: how far the service's time is ahead of this node's clock, in milliseconds; zero
    /// if by no more than clocks may differ. Clocks were wrong when it was written to the log.
    pub time_ahead_ms: u64,
}
