//! What peers ask of a node: to say who it is, to take a place, to change members, and to do a group's work. The node
//! and its mailbox implement it; [`super::PeerServer`] serves it.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rossby_domain::ids::{ClusterId, GroupId, MapVersion, NodeId, PartitionCount, ReplicaId};
use rossby_domain::placement::{
    Change, ClusterMap, JoinAttempt, NodeEntry, RegionName, Report, Step,
};
use rossby_proto::v1;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status;
use zeroize::Zeroizing;

use crate::admin::{BackupSource, MembersOrder, MembersProgress, NodeStatus, OperatorError};
use crate::call::{Call, CallError, CallReply, CallStream};
use crate::router::{Execute, ExecuteError, Executed};

/// Who a node is, for those who want it as a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The node.
    pub node: NodeId,
    /// Its cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// Where clients reach it.
    pub client_address: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Its release.
    pub version: String,
    /// Where it is.
    pub region: RegionName,
    /// The replica of the group in question that it holds, if it holds one.
    pub replica: Option<ReplicaId>,
    /// A replica of that group that it held until it was removed from its cluster.
    pub removed: Option<ReplicaId>,
    /// What tells its data directory from one that takes its place, if it waits for a cluster.
    pub mark: Option<String>,
}

/// What a node is to do in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// What the founder's plan, as JSON, says of it.
    Founder(Bytes),
    /// To hold a new replica of a group.
    Replica {
        /// The group.
        group: GroupId,
        /// Its replica of it.
        replica: ReplicaId,
        /// The cluster map, as far as the inviter knows it.
        map: Arc<ClusterMap>,
        /// Whether it brings the group to life.
        initialise: bool,
    },
}

/// What the leader of a group tells whoever plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// The term it leads in.
    pub term: u64,
    /// How many partitions the group owns in its own log.
    pub owned: u16,
    /// What the planner goes by.
    pub report: Report,
}

/// A place in a cluster: which cluster, its secrets, and what to do there.
pub struct Placement {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// What the node is to do.
    pub role: Role,
    /// The content of `cluster.keys`.
    pub secrets: Zeroizing<String>,
}

/// A node that asks to be taken in by a join token.
pub struct Newcomer {
    /// The node, as its certificate proves.
    pub node: NodeId,
    /// The token's secret.
    pub secret: Zeroizing<[u8; 32]>,
    /// Its try.
    pub attempt: JoinAttempt,
    /// The node as it is to be in the map.
    pub entry: NodeEntry,
    /// Tells the cluster's secrets that it has already from others, if it has any.
    pub secrets_check: Option<String>,
}

/// What a node that is taken in needs to be a member.
pub struct Welcome {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// The content of `cluster.keys`.
    pub secrets: Zeroizing<String>,
    /// The cluster map, with the node in it.
    pub map: Arc<ClusterMap>,
}

impl TryFrom<v1::JoinResponse> for Welcome {
    type Error = &'static str;
    fn try_from(response: v1::JoinResponse) -> Result<Self, Self::Error> {
        let secrets = Zeroizing::new(response.cluster_keys.to_vec());
        let secrets = std::str::from_utf8(&secrets).map_err(|_| "the cluster's secrets")?;
        let partitions = u16::try_from(response.partition_count).ok();
        let map = serde_json::from_slice(&response.map).map_err(|_| "the cluster map")?;
        Ok(Self {
            cluster: response.cluster_id.parse().map_err(|_| "the cluster")?,
            cluster_name: response.cluster_name,
            partitions: partitions
                .and_then(|count| PartitionCount::new(count).ok())
                .ok_or("the number of partitions")?,
            secrets: Zeroizing::new(secrets.to_owned()),
            map: Arc::new(map),
        })
    }
}

/// Why a node did not take its place in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It belongs to another cluster, or has another place in this one.
    #[error("{0}")]
    Taken(String),
    /// What was sent can't be used.
    #[error("{0}")]
    Invalid(String),
    /// It could not be made durable, or the group did not start.
    #[error("{0}")]
    Failed(String),
    /// The node has not found out yet what it belongs to.
    #[error("this node is starting")]
    Starting,
}

impl From<JoinError> for Status {
    fn from(error: JoinError) -> Self {
        let text = error.to_string();
        match error {
            JoinError::Taken(_) => Self::failed_precondition(text),
            JoinError::Invalid(_) => Self::invalid_argument(text),
            JoinError::Failed(_) => Self::internal(text),
            JoinError::Starting => Self::unavailable(text),
        }
    }
}

/// A step of the plan, and what it was planned from: with other voters it might break what it should mend,
/// and is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The step.
    pub step: Step,
    /// Who voted when it was planned.
    pub voters: BTreeSet<NodeId>,
}

/// How a node comes to belong to a cluster, and what it tells its peers of the cluster. Implemented
/// where the node is put together.
#[async_trait]
pub trait Joining: Send + Sync + 'static {
    /// Who this node is, and what it has of a group.
    ///
    /// # Errors
    /// If it has just started and does not know yet.
    fn describe(&self, group: GroupId) -> Result<Description, JoinError>;

    /// Takes a place in a cluster. The same again is fine.
    ///
    /// # Errors
    /// [`JoinError`] if it can't, or belongs elsewhere.
    async fn join(&self, placement: Placement) -> Result<(), JoinError>;

    /// Takes a node into the cluster that this one is a member of, if its token is good.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn admit(&self, newcomer: Newcomer) -> Result<Welcome, OperatorError>;

    /// Carries an order about the members on, if this node leads.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError>;

    /// A node of a cluster takes this one for a member of it. Whether this one belongs to none, rather
    /// than that it has not entered its cluster yet.
    fn missed(&self, by: NodeId, cluster: ClusterId) -> bool;

    /// The newest map that this node knows, if it is newer than the one that a peer at this address
    /// knows.
    fn map(&self, known: MapVersion, by: NodeId, address: String) -> Option<Arc<ClusterMap>>;

    /// What this node knows of its groups.
    fn node_status(&self) -> NodeStatus;

    /// Proposes a change of the map, if this node leads the placement group; the map's version then.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn change_map(&self, change: Change) -> Result<MapVersion, OperatorError>;

    /// What the groups that this node leads tell.
    fn reports(&self) -> Vec<GroupReport>;

    /// Carries a step of the plan on, if this node leads the group.
    ///
    /// # Errors
    /// [`OperatorError`], saying what stands in the way.
    async fn take_step(&self, group: GroupId, planned: PlannedStep) -> Result<(), OperatorError>;

    /// A checkpoint of this node's replica of a group, to be backed up.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn checkpoint_of(
        &self,
        group: GroupId,
        as_it_is: bool,
    ) -> Result<BackupSource, OperatorError>;

    /// What changed in the map, as JSON, if this node has a replica of the placement group.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn map_changes(&self) -> Result<Bytes, OperatorError>;
}

/// What a node does for a peer, by itself or not at all.
#[async_trait]
pub trait PeerDoor: Send + Sync + 'static {
    /// Answers a relayed call.
    ///
    /// # Errors
    /// [`CallError::Elsewhere`] if this node does not lead the caller's group.
    async fn call(&self, call: Call) -> Result<CallReply, CallError>;

    /// Opens a relayed stream.
    ///
    /// # Errors
    /// As [`PeerDoor::call`].
    async fn subscribe(&self, call: Call) -> Result<CallStream, CallError>;

    /// Does work of a group.
    ///
    /// # Errors
    /// [`ExecuteError::NotLeading`] if this node does not lead the group.
    async fn execute(&self, request: Execute, deadline: Instant) -> Result<Executed, ExecuteError>;
}
