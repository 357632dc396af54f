//! What the router needs of other nodes.

use async_trait::async_trait;
use bytes::Bytes;
use rossby_domain::ids::GroupId;
use rossby_domain::time::Timestamp;
use rossby_raft::{Member, ProposeError, ReadError};
use tokio::time::Instant;

use crate::ApiError;

/// What another node is to do: the work of one group, encoded.
#[derive(Debug, Clone)]
pub struct Execute {
    /// The group.
    pub group: GroupId,
    /// Commands or a query, as the router encoded them.
    pub work: Bytes,
}

/// What another node did.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Replies or an answer, encoded.
    pub done: Bytes,
    /// The group's service time then.
    pub time: Timestamp,
}

/// Why there is no reply and no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The node was not reached: nothing was sent.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It was sent, and nothing is known of it.
    #[error("no answer: {0}")]
    Lost(String),
    /// That node does not lead the group. Nothing was done.
    #[error("that node does not lead the group")]
    NotLeading {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// The leader can't reach a quorum. Nothing was done.
    #[error("the group has no quorum")]
    NoQuorum,
    /// The leader's clock is not in step with a quorum's. Nothing was done.
    #[error("the leader's clock is not in step with its peers")]
    ClockUnsafe,
    /// Too much waits at the leader. Nothing was done.
    #[error("the leader is overloaded")]
    Overloaded,
    /// The leader's disk is full. Nothing was done.
    #[error("the leader's disk is full")]
    DiskFull,
    /// The commands may or may not take effect.
    #[error("the outcome is not known")]
    OutcomeUnknown,
    /// The group does not own the partition that was asked: it has no answer.
    #[error("the group does not own the partition")]
    NotOwner,
    /// The work can't be read, or not be written to a log. Nothing was done.
    #[error("the work is malformed")]
    Malformed,
}

impl From<ProposeError> for ExecuteError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { leader } => Self::NotLeading { leader },
            ProposeError::Stopped => Self::NotLeading { leader: None },
            ProposeError::NoQuorum => Self::NoQuorum,
            ProposeError::ClockUnsafe => Self::ClockUnsafe,
            ProposeError::Overloaded => Self::Overloaded,
            ProposeError::DiskFull => Self::DiskFull,
            ProposeError::Unknown => Self::OutcomeUnknown,
            ProposeError::Unencodable => Self::Malformed,
        }
    }
}

impl From<ReadError> for ExecuteError {
    fn from(error: ReadError) -> Self {
        ProposeError::from(error).into()
    }
}

impl From<ExecuteError> for ApiError {
    fn from(error: ExecuteError) -> Self {
        let as_here = match &error {
            ExecuteError::Unreachable(_)
            | ExecuteError::NotLeading { .. }
            | ExecuteError::NotOwner
            | ExecuteError::NoQuorum => ProposeError::NoQuorum,
            ExecuteError::ClockUnsafe => ProposeError::ClockUnsafe,
            ExecuteError::Overloaded => ProposeError::Overloaded,
            ExecuteError::DiskFull => ProposeError::DiskFull,
            ExecuteError::Lost(_) | ExecuteError::OutcomeUnknown => ProposeError::Unknown,
            ExecuteError::Malformed => ProposeError::Unencodable,
        };
        Self::from(as_here).with_log(error.to_string())
    }
}

/// The other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Has a node do something, if it leads the group.
    ///
    /// # Errors
    /// [`ExecuteError`], by the deadline at the latest.
    async fn execute(
        &self,
        member: &Member,
        request: Execute,
        deadline: Instant,
    ) -> Result<Executed, ExecuteError>;
}

/// A node without peers: nobody is reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

#[async_trait]
impl Peers for Alone {
    async fn execute(&self, _: &Member, _: Execute, _: Instant) -> Result<Executed, ExecuteError> {
        let reason = "this node has no peer listener".to_owned();
        Err(ExecuteError::Unreachable(reason))
    }
}
