//! The `Peer` service: what a node does for its peers, by way of the ports (`ports.rs`).

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use parking_lot::RwLock;
use rossby_domain::ids::{ClusterId, GroupId, MapVersion, NodeId, PartitionCount, ReplicaId};
use rossby_domain::placement::{JoinAttempt, NodeEntry, NodeState, RegionName};
use rossby_proto::v1;
use rossby_proto::v1::peer_server::Peer;
use rossby_seams::transport::LinkAcceptor;
use serde::Serialize;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::ports::{Joining, Newcomer, PeerDoor, Placement, Role};
use super::{CLUSTER_KEY, PEER_MESSAGE_BYTES_MAX, execute, link};
use crate::admin::{self, members_order, members_progress};
use crate::call::{Call, CallError, CallStream, RpcPath};
use crate::listener::PeerConnectInfo;
use crate::{ApiError, Code};

/// A relayed call is given up after this long even if its caller would wait longer.
const RELAY_DEADLINE_MAX: Duration = Duration::from_secs(60);

/// What peers need once the node belongs to a cluster.
struct Member {
    cluster: ClusterId,
    links: Arc<dyn LinkAcceptor>,
    door: Arc<dyn PeerDoor>,
}

struct Inner {
    joining: OnceLock<Arc<dyn Joining>>,
    member: RwLock<Option<Member>>,
}

/// The `Peer` service of a node. Clones are the same service.
#[derive(Clone)]
pub struct PeerServer(Arc<Inner>);

impl PeerServer {
    /// A node that belongs to no cluster yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            joining: OnceLock::new(),
            member: RwLock::new(None),
        }))
    }

    /// Says how this node comes to belong to a cluster. Once.
    pub fn set_joining(&self, joining: Arc<dyn Joining>) {
        // A second call would change nothing: the first stays.
        let _ = self.0.joining.set(joining);
    }

    /// From now on the node serves links, relayed calls and work of its cluster.
    pub fn open(&self, cluster: ClusterId, links: Arc<dyn LinkAcceptor>, door: Arc<dyn PeerDoor>) {
        *self.0.member.write() = Some(Member {
            cluster,
            links,
            door,
        });
    }

    /// The service for a tonic server.
    #[must_use]
    pub fn into_service(self) -> v1::peer_server::PeerServer<Self> {
        v1::peer_server::PeerServer::new(self)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    fn joining(&self) -> Result<&Arc<dyn Joining>, Status> {
        self.0
            .joining
            .get()
            .ok_or_else(|| Status::unavailable("this node is starting"))
    }

    /// Why there is no link to a node that has not entered its cluster: if it has none, its directory
    /// is empty, and it is told that a cluster counts on it.
    fn no_link<T>(&self, by: NodeId, request: &Request<T>) -> Option<Status> {
        if self.0.member.read().is_some() {
            return None;
        }
        let joining = self.0.joining.get()?;
        let missed = joining.missed(by, named_cluster(request)?);
        missed.then(|| {
            Status::failed_precondition("it belongs to no cluster: its directory is empty")
        })
    }

    /// What a request of the same cluster may use.
    fn member<T, R>(
        &self,
        request: &Request<T>,
        choose: impl FnOnce(&Member) -> R,
    ) -> Result<R, Status> {
        let member = self.0.member.read();
        let Some(member) = member.as_ref() else {
            return Err(Status::from(ApiError::from(Code::NotInCluster)));
        };
        if named_cluster(request) != Some(member.cluster) {
            return Err(Status::permission_denied(
                "this node belongs to another cluster",
            ));
        }
        Ok(choose(member))
    }
}

/// The cluster that a request is for.
fn named_cluster<T>(request: &Request<T>) -> Option<ClusterId> {
    let named = request.metadata().get(CLUSTER_KEY)?.to_str().ok()?;
    named.parse().ok()
}

impl Default for PeerServer {
    fn default() -> Self {
        Self::new()
    }
}

/// The node at the other end, as its certificate proves.
fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    request
        .extensions()
        .get::<PeerConnectInfo>()
        .map(|info| info.node)
        .ok_or_else(|| Status::unauthenticated("peers must show a node's certificate"))
}

#[async_trait]
impl Peer for PeerServer {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<v1::Frame, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<tonic::Streaming<v1::Frame>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let peer = caller(&request)?;
        if let Some(status) = self.no_link(peer, &request) {
            return Err(status);
        }
        let links = self.member(&request, |member| Arc::clone(&member.links))?;
        let (link, frames, pump) = link::ends(peer).split();
        tokio::spawn(pump.run(request.into_inner()));
        links.accept(link);
        Ok(Response::new(Box::pin(frames.map(Ok))))
    }

    async fn relay(
        &self,
        request: Request<v1::RelayRequest>,
    ) -> Result<Response<v1::RelayResponse>, Status> {
        caller(&request)?;
        let door = self.member(&request, |member| Arc::clone(&member.door))?;
        let call = relayed(request.into_inner())?;
        let response = match door.call(call).await {
            Ok(reply) => v1::RelayResponse {
                message: reply.message,
                server_authorization: reply.server_authorization.unwrap_or_default(),
                ..Default::default()
            },
            Err(error) => not_done(error),
        };
        Ok(Response::new(response))
    }

    async fn execute(
        &self,
        request: Request<v1::ExecuteRequest>,
    ) -> Result<Response<v1::ExecuteResponse>, Status> {
        caller(&request)?;
        let door = self.member(&request, |member| Arc::clone(&member.door))?;
        let (work, deadline) = execute::from_wire(request.into_inner())?;
        let result = door.execute(work, deadline).await;
        Ok(Response::new(execute::response(result)))
    }

    type RelayStreamStream = RelayStream;

    async fn relay_stream(
        &self,
        request: Request<tonic::Streaming<v1::RelayStreamRequest>>,
    ) -> Result<Response<RelayStream>, Status> {
        caller(&request)?;
        let door = self.member(&request, |member| Arc::clone(&member.door))?;
        let mut asks = request.into_inner();
        let first = asks.message().await?.and_then(|first| first.open);
        let call = relayed(first.ok_or_else(|| Status::invalid_argument("no call"))?)?;
        // A refusal is told as the first message.
        let (messages, first): (CallStream, _) = match door.subscribe(call).await {
            Ok(messages) => (messages, None),
            Err(error) => (
                Box::pin(futures_util::stream::empty()),
                Some(not_done(error)),
            ),
        };
        let replies = futures_util::stream::iter(first).chain(messages.map(reply));
        Ok(Response::new(as_asked(asks, Box::pin(replies))))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        caller(&request)?;
        let group = GroupId(request.into_inner().group_id);
        let own = self.joining()?.describe(group)?;
        Ok(Response::new(v1::DescribeResponse {
            node_id: own.node.0,
            cluster_id: own
                .cluster
                .map(|cluster| cluster.to_string())
                .unwrap_or_default(),
            client_address: own.client_address,
            peer_address: own.peer_address,
            version: own.version,
            replica_id: own.replica.unwrap_or_default().0,
            removed_replica_id: own.removed.unwrap_or_default().0,
            region: own.region.to_string(),
            directory_mark: own.mark.unwrap_or_default(),
        }))
    }

    async fn change_members(
        &self,
        request: Request<v1::ChangeMembersRequest>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        let (group, order) = members_order(request.into_inner())?;
        let progress = self.joining()?.change_members(group, order).await?;
        Ok(Response::new(members_progress(progress)))
    }

    async fn create_replica(
        &self,
        request: Request<v1::CreateReplicaRequest>,
    ) -> Result<Response<v1::CreateReplicaResponse>, Status> {
        caller(&request)?;
        let joining = Arc::clone(self.joining()?);
        let placement = placement(request.into_inner())?;
        // On its own task: who gives up waiting must not leave it half-way.
        let joined = tokio::spawn(async move { joining.join(placement).await });
        joined
            .await
            .map_err(|_| Status::internal("joining broke off"))??;
        Ok(Response::new(v1::CreateReplicaResponse {}))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let node = caller(&request)?;
        self.member(&request, |_| ())?;
        let newcomer = newcomer(node, request.into_inner())?;
        let welcome = self.joining()?.admit(newcomer).await?;
        Ok(Response::new(v1::JoinResponse {
            cluster_id: welcome.cluster.to_string(),
            cluster_name: welcome.cluster_name,
            partition_count: u32::from(welcome.partitions.get()),
            cluster_keys: welcome.secrets.as_bytes().to_vec().into(),
            map: to_json(&welcome.map)?,
        }))
    }

    async fn get_map(
        &self,
        request: Request<v1::NewerMapRequest>,
    ) -> Result<Response<v1::NewerMapResponse>, Status> {
        let by = caller(&request)?;
        self.member(&request, |_| ())?;
        let request = request.into_inner();
        let known = MapVersion(request.known_version);
        let newer = self.joining()?.map(known, by, request.peer_address);
        let map = newer.map(|map| to_json(&map)).transpose()?;
        let map = map.unwrap_or_default();
        Ok(Response::new(v1::NewerMapResponse { map }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        Ok(Response::new(admin::status(self.joining()?.node_status())))
    }

    async fn change_map(
        &self,
        request: Request<v1::ChangeMapRequest>,
    ) -> Result<Response<v1::ChangeMapResponse>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        let change = serde_json::from_slice(&request.into_inner().change)
            .map_err(|_| Status::invalid_argument("not a change of the map"))?;
        let version = self.joining()?.change_map(change).await?;
        Ok(Response::new(v1::ChangeMapResponse {
            map_version: version.0,
        }))
    }

    async fn reports(
        &self,
        request: Request<v1::ReportsRequest>,
    ) -> Result<Response<v1::ReportsResponse>, Status> {
        let by = caller(&request)?;
        self.member(&request, |_| ())?;
        let request = request.into_inner();
        let joining = self.joining()?;
        // Whoever plans did not ask for a newer map: this only notes that there is one to ask for.
        joining.map(MapVersion(request.map_version), by, request.peer_address);
        let reports = to_json(&joining.reports())?;
        Ok(Response::new(v1::ReportsResponse { reports }))
    }

    async fn take_step(
        &self,
        request: Request<v1::TakeStepRequest>,
    ) -> Result<Response<v1::TakeStepResponse>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        let request = request.into_inner();
        let planned = serde_json::from_slice(&request.step)
            .map_err(|_| Status::invalid_argument("not a step"))?;
        let group = GroupId(request.group_id);
        self.joining()?.take_step(group, planned).await?;
        Ok(Response::new(v1::TakeStepResponse {}))
    }

    type BackupStream = admin::backup::Parts;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        let request = request.into_inner();
        let held = admin::backup::held(&request.held)?;
        let group = GroupId(request.group_id);
        let source = self
            .joining()?
            .checkpoint_of(group, request.as_it_is)
            .await?;
        Ok(Response::new(admin::backup::send(source, held)))
    }

    async fn map_history(
        &self,
        request: Request<v1::PlacementHistoryRequest>,
    ) -> Result<Response<v1::PlacementHistoryResponse>, Status> {
        caller(&request)?;
        self.member(&request, |_| ())?;
        let history = self.joining()?.map_changes().await?;
        Ok(Response::new(v1::PlacementHistoryResponse { history }))
    }
}

fn to_json(what: &impl Serialize) -> Result<Bytes, Status> {
    let bytes = serde_json::to_vec(what).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.into())
}

/// What the leader answers to a relayed stream.
type RelayStream = Pin<Box<dyn Stream<Item = Result<v1::RelayResponse, Status>> + Send>>;
type Replies = Pin<Box<dyn Stream<Item = v1::RelayResponse> + Send>>;

/// One reply for each that is asked for.
fn as_asked(asks: tonic::Streaming<v1::RelayStreamRequest>, replies: Replies) -> RelayStream {
    let next = |(mut asks, mut replies): (tonic::Streaming<_>, Replies)| async {
        let Ok(Some(_)) = asks.message().await else {
            return None;
        };
        let reply = replies.next().await?;
        Some((Ok(reply), (asks, replies)))
    };
    Box::pin(futures_util::stream::unfold((asks, replies), next))
}

fn reply(message: Result<bytes::Bytes, Status>) -> v1::RelayResponse {
    match message {
        Ok(message) => v1::RelayResponse {
            message,
            ..Default::default()
        },
        Err(status) => refusal(&status),
    }
}

/// A call that was not done here: refused, or for another node.
fn not_done(error: CallError) -> v1::RelayResponse {
    match error {
        CallError::Refused(error) => refusal(&error.into()),
        CallError::Elsewhere { leader, .. } => v1::RelayResponse {
            not_here: true,
            leader: leader.as_ref().map(execute::likely_leader),
            ..Default::default()
        },
    }
}

/// A client's call that a peer relays.
fn relayed(request: v1::RelayRequest) -> Result<Call, Status> {
    let patience = Duration::from_millis(request.deadline_ms).min(RELAY_DEADLINE_MAX);
    let path: RpcPath = request
        .path
        .parse()
        .map_err(|_| Status::unimplemented("no such method"))?;
    Ok(Call {
        path,
        authorization: (!request.authorization.is_empty()).then_some(request.authorization),
        message: request.message,
        deadline: Instant::now() + patience,
        remote: request.remote_address.parse().ok(),
        relayed: true,
    })
}

/// A refused call, to be refused the same way by the node that relayed it.
fn refusal(status: &Status) -> v1::RelayResponse {
    v1::RelayResponse {
        code: i32::from(status.code()),
        status_message: status.message().to_owned(),
        status_details: status.details().to_vec().into(),
        ..Default::default()
    }
}

/// A node that asks to be taken in.
pub(crate) fn newcomer(node: NodeId, request: v1::JoinRequest) -> Result<Newcomer, Status> {
    let invalid = |what: &str| Status::invalid_argument(format!("{what} is not valid"));
    let secret = Zeroizing::new(request.secret.to_vec());
    let secret = <[u8; 32]>::try_from(secret.as_slice()).map_err(|_| invalid("secret"))?;
    let attempt = <[u8; 16]>::try_from(request.attempt.as_ref());
    Ok(Newcomer {
        node,
        secret: Zeroizing::new(secret),
        attempt: JoinAttempt(attempt.map_err(|_| invalid("attempt"))?),
        entry: NodeEntry {
            region: RegionName::new(&request.region).map_err(|_| invalid("region"))?,
            peer_address: request.peer_address,
            client_address: request.client_address,
            state: NodeState::Active,
        },
        secrets_check: (!request.secrets_check.is_empty()).then_some(request.secrets_check),
    })
}

pub(crate) fn placement(request: v1::CreateReplicaRequest) -> Result<Placement, Status> {
    let invalid = |what: &str| Status::invalid_argument(format!("{what} is not valid"));
    let secrets = Zeroizing::new(request.cluster_keys.to_vec());
    let secrets = std::str::from_utf8(&secrets).map_err(|_| invalid("cluster_keys"))?;
    Ok(Placement {
        cluster: request
            .cluster_id
            .parse()
            .map_err(|_| invalid("cluster_id"))?,
        cluster_name: request.cluster_name,
        partitions: u16::try_from(request.partition_count)
            .ok()
            .and_then(|count| PartitionCount::new(count).ok())
            .ok_or_else(|| invalid("partition_count"))?,
        role: role(
            request.founding,
            request.group_id,
            request.replica_id,
            &request.map,
            request.initialise,
        )?,
        secrets: Zeroizing::new(secrets.to_owned()),
    })
}

fn role(
    founding: Bytes,
    group: u32,
    replica: u64,
    map: &[u8],
    initialise: bool,
) -> Result<Role, Status> {
    if !founding.is_empty() {
        return Ok(Role::Founder(founding));
    }
    let replica = ReplicaId(replica);
    if replica == ReplicaId(0) {
        return Err(Status::invalid_argument("no such replica"));
    }
    let map = serde_json::from_slice(map).map_err(|_| Status::invalid_argument("no map"))?;
    Ok(Role::Replica {
        group: GroupId(group),
        replica,
        map: Arc::new(map),
        initialise,
    })
}
