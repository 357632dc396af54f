//! What an operator may say to a node, over a Unix socket that only the node's user can open.

pub(crate) mod backup;
mod boxes;
mod placement;
mod token;
mod wire;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use rossby_domain::ids::{
    BoxId, ClusterId, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::placement::{RegionName, SurvivalGoal, TokenWanted};
use rossby_domain::query::{BoxView, ReportedBox};
use rossby_proto::v1;
use rossby_proto::v1::admin_server::{Admin, AdminServer};
use rossby_raft::{ClockJump, GroupStatus};
use tokio::net::{UnixListener, UnixSocket};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// A node as its operator sees it.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its release.
    pub version: String,
    /// Its cluster and the cluster's name, if it belongs to one.
    pub cluster: Option<(ClusterId, String)>,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
    /// What it is to its cluster.
    pub standing: Standing,
    /// What that means and what to do, if there is something to do.
    pub advice: Option<String>,
    /// Where it is.
    pub region: RegionName,
    /// The newest cluster map that it knows; 0 for none.
    pub map_version: MapVersion,
    /// How many groups of boxes that map names.
    pub data_groups: usize,
    /// If it leads the placement group: the steps that are under way.
    pub steps: Vec<v1::StepUnderWay>,
}

/// What a node is to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does not know yet: it is starting.
    Starting,
    /// It waits for one.
    Waiting,
    /// A member.
    Member,
    /// Its directory is empty, but a cluster takes it for a member.
    Missed,
    /// It was removed.
    Removed,
}

impl Standing {
    /// As it is shown and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Member => "member",
            Self::Missed => "missed",
            Self::Removed => "removed",
        }
    }
}

/// What an operator wants a group's members to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembersOrder {
    /// The node at this peer address becomes a member with a vote.
    Add(NodeId, String),
    /// The node is no longer a member.
    Remove {
        /// The node.
        node: NodeId,
        /// Only what an order that was not finished left half done is taken back.
        half_added_only: bool,
    },
    /// A node takes the place of another, or its own with an empty directory.
    Replace {
        /// The node that leaves.
        old: NodeId,
        /// The node that comes.
        new: NodeId,
        /// Where its peers reach it.
        peer_address: String,
    },
}

/// How far an order about the members has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersProgress {
    /// The new replica is catching up.
    CatchingUp {
        /// The new replica.
        replica: ReplicaId,
        /// How many entries it lacks; not known before it has answered.
        behind: Option<u64>,
        /// Bytes of checkpoints that the leader has shipped so far, to whomever.
        shipped_bytes: u64,
    },
    /// The node that is to leave led: another one leads now.
    HandedOver {
        /// Who leads.
        leader: NodeId,
    },
    /// The members are as ordered.
    Done {
        /// The replica that the order was about, if it is a member.
        replica: Option<ReplicaId>,
        /// How many members have a vote.
        voters: usize,
    },
}

pub use self::backup::BackupSource;
pub use self::boxes::{box_view, reported, suspend};
pub use self::placement::{NewGroup, PlacementView};
pub use self::token::{IssuedToken, KnownToken};
pub use self::wire::{group_status, members_answer, members_request};
pub(crate) use self::wire::{members_order, members_progress, plan, status};
#[cfg(any(test, fuzzing))]
pub(crate) use self::{
    placement::{goal, group_wanted},
    token::wanted as token_wanted,
};

/// The cluster that `cluster init` is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitPlan {
    /// Its name.
    pub name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// Its nodes and where they reach each other.
    pub nodes: Vec<(NodeId, String)>,
    /// What it is to survive; `None` for what the number of regions allows.
    pub survive: Option<SurvivalGoal>,
}

/// A cluster that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeCluster {
    /// Its id.
    pub cluster: ClusterId,
    /// Nodes of the plan that got no place, and where they are: their data directories are not those that it was
    /// planned for.
    pub left_out: Vec<(NodeId, String)>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The order makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// It does not fit the state of the node or the cluster.
    #[error("{0}")]
    Refused(String),
    /// Somebody who is needed can't be reached, or there is no leader: try again.
    #[error("{0}")]
    Unavailable(String),
    /// It was begun, and whether it came to an end is not known: try again.
    #[error("{0}")]
    Unknown(String),
    /// The node is at fault.
    #[error("{0}")]
    Failed(String),
}

impl OperatorError {
    /// What another node answered to an order that was handed on to it.
    #[must_use]
    pub fn of_peer(status: &Status) -> Self {
        let text = status.message().to_owned();
        match status.code() {
            tonic::Code::InvalidArgument => Self::Invalid(text),
            tonic::Code::FailedPrecondition => Self::Refused(text),
            tonic::Code::Unavailable => Self::Unavailable(text),
            tonic::Code::Internal => Self::Failed(text),
            _ => Self::Unknown(text),
        }
    }
}

impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Invalid(text) => Self::invalid_argument(text),
            OperatorError::Refused(text) => Self::failed_precondition(text),
            OperatorError::Unavailable(text) => Self::unavailable(text),
            OperatorError::Unknown(text) => Self::deadline_exceeded(text),
            OperatorError::Failed(text) => Self::internal(text),
        }
    }
}

/// What an operator can have done. Implemented where the node is put together.
#[async_trait]
pub trait Operator: Send + Sync + 'static {
    /// The node and its groups.
    fn status(&self) -> NodeStatus;

    /// Makes a cluster. Every step can be done again, so a second call finishes a first that broke off.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn init_cluster(&self, plan: InitPlan) -> Result<MadeCluster, OperatorError>;

    /// Moves the leadership of a group; who leads then.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn transfer_leader(
        &self,
        group: GroupId,
        to: Option<NodeId>,
    ) -> Result<NodeId, OperatorError>;

    /// The digests of a group's partitions here, and the index of the entry that they are at.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn digests(
        &self,
        group: GroupId,
    ) -> Result<(u64, Vec<(PartitionId, [u8; 32])>), OperatorError>;

    /// Carries an order about the members on by as much as can be done at once, here or at the node
    /// that leads. It is given again until it is done.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError>;

    /// Refuses if there are several groups of boxes, so that an order must say which one it is about.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    fn check_one_group(&self) -> Result<(), OperatorError>;

    /// Writes a checkpoint of a group here; the index that it is at.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn checkpoint(&self, group: GroupId) -> Result<u64, OperatorError>;

    /// Takes this node's clock for right, so that mail expires by it again; the jump that was in
    /// doubt, if any. Once it returns this holds for later leaders too.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn confirm_time(&self, group: GroupId) -> Result<Option<ClockJump>, OperatorError>;

    /// A checkpoint of a group here that holds everything acknowledged before the call; or, `as_it_is`,
    /// what this node has applied.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn backup(&self, group: GroupId, as_it_is: bool) -> Result<BackupSource, OperatorError>;

    /// The parts of a backup from a node that has a replica of the group; `None` if this one has.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn backup_elsewhere(
        &self,
        request: &v1::BackupRequest,
    ) -> Result<Option<tonic::Streaming<v1::BackupPart>>, OperatorError>;

    /// The newest map that this node knows, and what the members of its groups tell.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn placement(&self) -> Result<PlacementView, OperatorError>;

    /// What changed in the map, version by version, as JSON.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn placement_history(&self) -> Result<Bytes, OperatorError>;

    /// Another survival goal, through the leader of the placement group; the map from which on it holds.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn set_survive(&self, goal: SurvivalGoal) -> Result<MapVersion, OperatorError>;

    /// Takes a node that is in no group any more out of the map; whether it is out.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn settle_node(&self, node: NodeId) -> Result<bool, OperatorError>;

    /// Has a node leave its groups, or takes that back; the map from which on it holds, and whether it was
    /// otherwise before.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn set_draining(
        &self,
        node: NodeId,
        draining: bool,
    ) -> Result<(MapVersion, bool), OperatorError>;

    /// A new group of boxes at home in a region, with so many of the spare partitions (half of them if not
    /// said). Returns once it leads and owns them.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn add_group(
        &self,
        home: RegionName,
        partitions: Option<u16>,
    ) -> Result<NewGroup, OperatorError>;

    /// Issues a token by which one node can join.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn issue_token(&self, wanted: TokenWanted) -> Result<IssuedToken, OperatorError>;

    /// The tokens that have not expired.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn tokens(&self) -> Result<Vec<KnownToken>, OperatorError>;

    /// Takes the token back that is for this node.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn revoke_token(&self, node: NodeId) -> Result<(), OperatorError>;

    /// Suspends a box, or lets it send again; whether it was otherwise before.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn suspend_box(&self, box_id: BoxId, suspended: bool) -> Result<bool, OperatorError>;

    /// What an operator may know of a box.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn show_box(&self, box_id: BoxId) -> Result<BoxView, OperatorError>;

    /// The boxes that at least so many others have reported, those with most reports first.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn reported_boxes(&self, at_least: u32) -> Result<Vec<ReportedBox>, OperatorError>;
}

/// The admin socket, bound.
#[derive(Debug)]
pub struct AdminListener {
    socket: UnixListener,
    path: PathBuf,
}

impl AdminListener {
    /// Binds the socket, in place of one that a dead process left. The caller holds the data
    /// directory's lock, so no live node can own it.
    ///
    /// # Errors
    /// The system's error.
    pub fn bind(path: &Path) -> io::Result<Self> {
        remove_socket(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Nobody can connect before `listen`: the socket is never open to others.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            socket: socket.listen(BACKLOG)?,
            path: path.to_owned(),
        })
    }

    /// Serves until `stop`, then removes the socket.
    ///
    /// # Errors
    /// If the server fails as a whole.
    pub async fn serve(
        self,
        operator: Arc<dyn Operator>,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        let served = tonic::transport::Server::builder()
            .add_service(AdminServer::new(AdminDoor(operator)))
            .serve_with_incoming_shutdown(
                UnixListenerStream::new(self.socket),
                stop.cancelled_owned(),
            )
            .await;
        if let Err(error) = remove_socket(&self.path) {
            tracing::warn!(%error, "could not remove the admin socket");
        }
        served
    }
}

/// Removes a socket; anything else under that name stays, and is an error.
fn remove_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else than a socket under that name",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

struct AdminDoor(Arc<dyn Operator>);

#[async_trait]
impl Admin for AdminDoor {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status(self.0.status())))
    }

    async fn change_members(
        &self,
        request: Request<v1::ChangeMembersRequest>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        let request = request.into_inner();
        if request.whole_node {
            self.0.check_one_group()?;
        }
        let (group, order) = members_order(request)?;
        let progress = self.0.change_members(group, order).await?;
        Ok(Response::new(members_progress(progress)))
    }

    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        let made = self.0.init_cluster(plan(request.into_inner())?).await?;
        let left_out = made.left_out.into_iter();
        let left_out = left_out.map(|(node, peer_address)| v1::InitNode {
            node_id: node.0,
            peer_address,
        });
        Ok(Response::new(v1::InitClusterResponse {
            cluster_id: made.cluster.to_string(),
            left_out: left_out.collect(),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let to = (request.to_node_id != 0).then_some(NodeId(request.to_node_id));
        let leader = self
            .0
            .transfer_leader(GroupId(request.group_id), to)
            .await?;
        Ok(Response::new(v1::TransferLeaderResponse {
            leader_node_id: leader.0,
        }))
    }

    async fn partition_digests(
        &self,
        request: Request<v1::PartitionDigestsRequest>,
    ) -> Result<Response<v1::PartitionDigestsResponse>, Status> {
        let (applied_index, digests) = self
            .0
            .digests(GroupId(request.into_inner().group_id))
            .await?;
        let digests = digests
            .into_iter()
            .map(|(partition, digest)| v1::PartitionDigest {
                partition: u32::from(partition.number()),
                digest: digest.to_vec().into(),
            })
            .collect();
        Ok(Response::new(v1::PartitionDigestsResponse {
            applied_index,
            digests,
        }))
    }

    async fn checkpoint(
        &self,
        request: Request<v1::CheckpointRequest>,
    ) -> Result<Response<v1::CheckpointResponse>, Status> {
        let checkpoint_index = self
            .0
            .checkpoint(GroupId(request.into_inner().group_id))
            .await?;
        Ok(Response::new(v1::CheckpointResponse { checkpoint_index }))
    }

    async fn confirm_time(
        &self,
        request: Request<v1::ConfirmTimeRequest>,
    ) -> Result<Response<v1::ConfirmTimeResponse>, Status> {
        let jump = self
            .0
            .confirm_time(GroupId(request.into_inner().group_id))
            .await?;
        Ok(Response::new(v1::ConfirmTimeResponse {
            jump: jump.map(wire::clock_jump),
        }))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupPart, Status>> + Send>>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let request = request.into_inner();
        let held = backup::held(&request.held)?;
        if let Some(parts) = self.0.backup_elsewhere(&request).await? {
            return Ok(Response::new(Box::pin(parts)));
        }
        let source = self
            .0
            .backup(GroupId(request.group_id), request.as_it_is)
            .await?;
        Ok(Response::new(Box::pin(backup::send(source, held))))
    }

    async fn placement(
        &self,
        _: Request<v1::PlacementRequest>,
    ) -> Result<Response<v1::PlacementResponse>, Status> {
        let view = self.0.placement().await?;
        Ok(Response::new(placement::response(view)?))
    }

    async fn placement_history(
        &self,
        _: Request<v1::PlacementHistoryRequest>,
    ) -> Result<Response<v1::PlacementHistoryResponse>, Status> {
        let history = self.0.placement_history().await?;
        Ok(Response::new(v1::PlacementHistoryResponse { history }))
    }

    async fn set_survive(
        &self,
        request: Request<v1::SetSurviveRequest>,
    ) -> Result<Response<v1::SetSurviveResponse>, Status> {
        let goal = placement::goal(&request.into_inner().survive)?
            .ok_or_else(|| OperatorError::Invalid("what is to be survived?".to_owned()))?;
        let version = self.0.set_survive(goal).await?;
        Ok(Response::new(v1::SetSurviveResponse {
            map_version: version.0,
        }))
    }

    async fn settle_node(
        &self,
        request: Request<v1::SettleNodeRequest>,
    ) -> Result<Response<v1::SettleNodeResponse>, Status> {
        let gone = self.0.settle_node(NodeId(request.into_inner().node_id));
        Ok(Response::new(v1::SettleNodeResponse { gone: gone.await? }))
    }

    async fn set_node_state(
        &self,
        request: Request<v1::SetNodeStateRequest>,
    ) -> Result<Response<v1::SetNodeStateResponse>, Status> {
        let request = request.into_inner();
        let set = self
            .0
            .set_draining(NodeId(request.node_id), request.draining);
        let (version, changed) = set.await?;
        Ok(Response::new(v1::SetNodeStateResponse {
            map_version: version.0,
            changed,
        }))
    }

    async fn add_group(
        &self,
        request: Request<v1::AddGroupRequest>,
    ) -> Result<Response<v1::AddGroupResponse>, Status> {
        let (home, partitions) = placement::group_wanted(&request.into_inner())?;
        let added = self.0.add_group(home, partitions).await?;
        Ok(Response::new(placement::group_added(&added)))
    }

    async fn issue_token(
        &self,
        request: Request<v1::IssueTokenRequest>,
    ) -> Result<Response<v1::IssueTokenResponse>, Status> {
        let issued = self
            .0
            .issue_token(token::wanted(request.into_inner())?)
            .await?;
        Ok(Response::new(token::response(&issued)))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        Ok(Response::new(token::list(self.0.tokens().await?)))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let node = NodeId(request.into_inner().node_id);
        self.0.revoke_token(node).await?;
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }

    async fn set_suspended(
        &self,
        request: Request<v1::SetSuspendedRequest>,
    ) -> Result<Response<v1::SetSuspendedResponse>, Status> {
        let request = request.into_inner();
        let box_id = boxes::named(&request.box_id)?;
        let changed = self.0.suspend_box(box_id, request.suspended).await?;
        Ok(Response::new(v1::SetSuspendedResponse { changed }))
    }

    async fn show_box(
        &self,
        request: Request<v1::ShowBoxRequest>,
    ) -> Result<Response<v1::ShowBoxResponse>, Status> {
        let box_id = boxes::named(&request.into_inner().box_id)?;
        let view = self.0.show_box(box_id).await?;
        Ok(Response::new(boxes::response(&view)))
    }

    async fn list_reported(
        &self,
        request: Request<v1::ListReportedRequest>,
    ) -> Result<Response<v1::ListReportedResponse>, Status> {
        let request = request.into_inner();
        let found = self.0.reported_boxes(request.at_least).await?;
        Ok(Response::new(boxes::listed(&found, request.limit)))
    }
}
