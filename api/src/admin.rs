//! What an operator may say to a node, over a Unix socket that only the node's user can open.

mod backup;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rossby_domain::ids::{ClusterId, GroupId, NodeId, PartitionCount, PartitionId};
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
}

pub use self::backup::BackupSource;

/// The cluster that `cluster init` is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitPlan {
    /// Its name.
    pub name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// Its nodes and where they reach each other.
    pub nodes: Vec<(NodeId, String)>,
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
    async fn init_cluster(&self, plan: InitPlan) -> Result<ClusterId, OperatorError>;

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
    /// the last one that there is.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    async fn backup(&self, group: GroupId, as_it_is: bool) -> Result<BackupSource, OperatorError>;
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
        let status = self.0.status();
        let (cluster_id, cluster_name) = status
            .cluster
            .map(|(id, name)| (id.to_string(), name))
            .unwrap_or_default();
        Ok(Response::new(v1::StatusResponse {
            node_id: status.node.0,
            version: status.version,
            cluster_id,
            cluster_name,
            groups: status.groups.into_iter().map(group_status).collect(),
        }))
    }

    async fn init_cluster(
        &self,
        request: Request<v1::InitClusterRequest>,
    ) -> Result<Response<v1::InitClusterResponse>, Status> {
        let cluster = self.0.init_cluster(plan(request.into_inner())?).await?;
        Ok(Response::new(v1::InitClusterResponse {
            cluster_id: cluster.to_string(),
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
            jump: jump.map(clock_jump),
        }))
    }

    type BackupStream = backup::Parts;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let request = request.into_inner();
        let held = backup::held(&request.held)?;
        let source = self
            .0
            .backup(GroupId(request.group_id), request.as_it_is)
            .await?;
        Ok(Response::new(backup::send(source, held)))
    }
}

fn plan(request: v1::InitClusterRequest) -> Result<InitPlan, OperatorError> {
    let partitions = u16::try_from(request.partition_count)
        .ok()
        .and_then(|count| PartitionCount::new(count).ok())
        .ok_or_else(|| {
            OperatorError::Invalid("partitions must be a power of two from 1 to 4096".to_owned())
        })?;
    let nodes: Vec<_> = request
        .nodes
        .into_iter()
        .map(|node| (NodeId(node.node_id), node.peer_address))
        .collect();
    Ok(InitPlan {
        name: request.cluster_name,
        partitions,
        nodes,
    })
}

fn clock_jump(jump: ClockJump) -> v1::ClockJump {
    v1::ClockJump {
        last_ms: jump.last.as_millis(),
        now_ms: jump.now.as_millis(),
    }
}

fn group_status(status: GroupStatus) -> v1::GroupStatus {
    let (leader_replica_id, leader_node_id) = status
        .leader
        .map(|(replica, member)| (replica.0, member.node.0))
        .unwrap_or_default();
    v1::GroupStatus {
        group_id: status.group.0,
        replica_id: status.replica.0,
        role: status.role.to_owned(),
        term: status.term,
        leader_replica_id,
        leader_node_id,
        last_log_index: status.last_log_index.unwrap_or_default(),
        committed_index: status.committed_index.unwrap_or_default(),
        applied_index: status.applied_index.unwrap_or_default(),
        checkpoint_index: status.checkpoint_index.unwrap_or_default(),
        members: status
            .members
            .into_iter()
            .map(|(replica, member, voter, matched_index)| v1::Member {
                replica_id: replica.0,
                node_id: member.node.0,
                peer_address: member.peer_address,
                client_address: member.client_address,
                voter,
                matched_index,
            })
            .collect(),
        failure: status.failure.unwrap_or_default(),
        expiry_blocked: status.expiry_blocked.map(clock_jump),
    }
}
