//! `cluster init`: many nodes become one cluster.
//!
//! The node that the operator speaks to is the founder. It writes its plan down, gives each node
//! its place, takes its own, and initialises the group. Each step may be done twice, so an init that
//! broke off anywhere is finished by the same command, or, past the founder's own step, by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use rossby_api::ClusterSecrets;
use rossby_api::admin::{InitPlan, MembersOrder, MembersProgress, OperatorError};
use rossby_api::peer::{ConnectError, Connections, Description, JoinError, Joining, Placement};
use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_proto::v1;
use rossby_raft::{Leadership, Member};
use rossby_storage::datadir::{ClusterIdentity, HeldReplica};
use tracing::info;

use super::founding::{FIRST_GROUP, Founding, Place};
use super::node::{Node, NodeError};

/// How long one node may take to answer, or to take its place.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a new cluster may take to elect a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// More replicas than this make every write slower and nothing safer.
const NODES_MAX: usize = rossby_raft::MAX_VOTERS;

impl Node {
    /// Makes a cluster, or finishes making it.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    pub(super) async fn init(&self, plan: InitPlan) -> Result<ClusterId, OperatorError> {
        let mut data = self.data.lock().await;
        let peers = self.parts.peers.as_ref().ok_or_else(|| {
            refused("this node has no peer listener and is a cluster by itself; start it with --peer-listen")
        })?;
        check(&plan, self.id())?;
        let belongs = data
            .identity()
            .and_then(|identity| identity.cluster.as_ref());
        let founding = match (Founding::read(&data).map_err(failed)?, belongs) {
            (Some(founding), _) if founding.is_of(&plan) => founding,
            (Some(founding), _) => {
                let nodes: Vec<_> = founding
                    .members
                    .values()
                    .map(|member| member.node.to_string())
                    .collect();
                return Err(refused(format!(
                    "this node founds cluster \"{}\" of nodes {} with {} partitions; give the same again",
                    founding.name,
                    nodes.join(", "),
                    founding.partitions.get()
                )));
            }
            (None, None) if let Some(advice) = self.advice_if_missed() => {
                return Err(refused(advice));
            }
            (None, Some(cluster)) => {
                return Err(refused(format!(
                    "this node belongs to cluster {} already",
                    cluster.id
                )));
            }
            (None, None) => {
                let members = self.members(peers, &plan).await?;
                self.plan(&data, plan.name, plan.partitions, members)
                    .map_err(failed)?
            }
        };
        self.place_others(peers, &founding).await?;
        let founder = self.founder(&founding).map_err(failed)?;
        self.enter(&mut data, founder).await.map_err(failed)?;
        self.await_leader().await?;
        Ok(founding.cluster)
    }

    /// Asks every node who it is. All of them must be free.
    async fn members(
        &self,
        peers: &Connections,
        plan: &InitPlan,
    ) -> Result<Vec<Member>, OperatorError> {
        let mut members = Vec::new();
        for (node, address) in &plan.nodes {
            let client_address = if *node == self.id() {
                self.parts.advertised.clients.clone()
            } else {
                let found = describe(peers, *node, address).await?;
                if !found.cluster_id.is_empty() {
                    return Err(refused(format!(
                        "node {node} belongs to cluster {} already",
                        found.cluster_id
                    )));
                }
                found.client_address
            };
            let peer_address = address.clone();
            members.push(Member {
                node: *node,
                peer_address,
                client_address,
            });
        }
        Ok(members)
    }

    /// Gives every other node its place and the secrets.
    async fn place_others(
        &self,
        peers: &Connections,
        founding: &Founding,
    ) -> Result<(), OperatorError> {
        let secrets = self.load_secrets().map_err(failed)?.encode();
        for (replica, member) in &founding.members {
            if member.node == self.id() {
                continue;
            }
            let request = v1::CreateReplicaRequest {
                cluster_id: founding.cluster.to_string(),
                cluster_name: founding.name.clone(),
                partition_count: u32::from(founding.partitions.get()),
                group_id: FIRST_GROUP.0,
                replica_id: replica.0,
                cluster_keys: secrets.as_bytes().to_vec().into(),
            };
            place(peers, member, *replica, request).await?;
        }
        Ok(())
    }

    async fn await_leader(&self) -> Result<(), OperatorError> {
        let membership = self
            .membership()
            .ok_or_else(|| failed("the group is not running"))?;
        let mut leadership = membership.group.watch_leadership();
        let elected = leadership.wait_for(|leader| *leader != Leadership::Unknown);
        match tokio::time::timeout(LEADER_TIMEOUT, elected).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(failed(
                "the group has stopped; the log of this node says why",
            )),
            Err(_) => Err(OperatorError::Unknown(
                "the cluster is made but has no leader yet: check that all nodes run and reach \
                 each other, then give the same command again"
                    .to_owned(),
            )),
        }
    }
}

pub(super) async fn describe(
    peers: &Connections,
    node: NodeId,
    address: &str,
) -> Result<v1::DescribeResponse, OperatorError> {
    let connection = peers.get(node, address).await.map_err(of_connect)?;
    let mut client = connection.client();
    let described =
        tokio::time::timeout(STEP_TIMEOUT, client.describe(v1::DescribeRequest {})).await;
    match described {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(unavailable(format!("node {node}: {}", status.message()))),
        Err(_) => Err(unavailable(format!("node {node} does not answer"))),
    }
}

pub(super) async fn place(
    peers: &Connections,
    member: &Member,
    replica: ReplicaId,
    request: v1::CreateReplicaRequest,
) -> Result<(), OperatorError> {
    let node = member.node;
    let connection = peers
        .get(node, &member.peer_address)
        .await
        .map_err(of_connect)?;
    let mut client = connection.client();
    match tokio::time::timeout(STEP_TIMEOUT, client.create_replica(request)).await {
        Ok(Ok(_)) => {
            info!(%node, %replica, "a node took its place");
            Ok(())
        }
        Ok(Err(status)) => {
            let text = format!("node {node}: {}", status.message());
            Err(match status.code() {
                tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => refused(text),
                tonic::Code::Internal => failed(text),
                _ => OperatorError::Unknown(text),
            })
        }
        Err(_) => Err(OperatorError::Unknown(format!(
            "node {node} does not answer"
        ))),
    }
}

fn check(plan: &InitPlan, own: NodeId) -> Result<(), OperatorError> {
    let invalid = |text: String| Err(OperatorError::Invalid(text));
    if let Err(problem) = crate::config::check_cluster_name(&plan.name) {
        return invalid(format!("the cluster's name: {problem}"));
    }
    if plan.nodes.len() > NODES_MAX {
        return invalid(format!("a group has at most {NODES_MAX} replicas"));
    }
    let nodes: BTreeSet<_> = plan.nodes.iter().map(|(node, _)| node).collect();
    let addresses: BTreeSet<_> = plan.nodes.iter().map(|(_, address)| address).collect();
    if nodes.len() != plan.nodes.len() || addresses.len() != plan.nodes.len() {
        return invalid("each node and each address can be named once only".to_owned());
    }
    if !nodes.contains(&own) {
        return invalid(format!(
            "node {own}, which you are speaking to, must be one of the nodes"
        ));
    }
    Ok(())
}

#[async_trait]
impl Joining for Node {
    fn describe(&self) -> Result<Description, JoinError> {
        if !self.has_begun() {
            return Err(JoinError::Starting);
        }
        let removed = self.removed.get();
        let place = self.membership().map(|membership| &membership.place);
        let cluster = place.map(|place| place.cluster.id);
        Ok(Description {
            node: self.id(),
            cluster: cluster.or(removed.map(|(cluster, _)| *cluster)),
            client_address: self.parts.advertised.clients.clone(),
            peer_address: self.parts.advertised.peers.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            replica: place
                .filter(|_| removed.is_none())
                .map(|place| place.held.replica),
            removed: removed.map(|(_, replica)| *replica),
        })
    }

    async fn change_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        self.lead_members(group, order).await
    }

    fn missed(&self, by: NodeId, cluster: ClusterId) -> bool {
        self.note_missed(by, cluster)
    }

    async fn join(&self, placement: Placement) -> Result<(), JoinError> {
        let mut data = self.data.lock().await;
        let failed = |error: NodeError| JoinError::Failed(error.to_string());
        let secrets = ClusterSecrets::decode(&placement.secrets)
            .map_err(|error| JoinError::Invalid(error.to_string()))?;
        let given = Place {
            cluster: ClusterIdentity {
                id: placement.cluster,
                name: placement.cluster_name,
                partitions: placement.partitions,
                secrets_check: Some(self.secrets_check(&secrets).map_err(failed)?),
            },
            held: HeldReplica {
                group: placement.group,
                replica: placement.replica,
                initialise: false,
            },
        };
        match Place::of(data.identity()) {
            Some(own) if own == given => return self.enter(&mut data, own).await.map_err(failed),
            Some(own) => {
                return Err(JoinError::Taken(format!(
                    "it belongs to cluster {} already, as replica {}",
                    own.cluster.id, own.held.replica
                )));
            }
            None => {}
        }
        if let Some(removed) = self.removed() {
            return Err(JoinError::Taken(removed));
        }
        if let Some(founding) = Founding::read(&data).map_err(|error| failed(error.into()))? {
            let text = format!("it founds cluster {} itself", founding.cluster);
            return Err(JoinError::Taken(text));
        }
        if placement.group != FIRST_GROUP || placement.replica == ReplicaId(0) {
            return Err(JoinError::Invalid("no such group or replica".to_owned()));
        }
        self.take_secrets(&secrets)?;
        self.enter(&mut data, given).await.map_err(failed)
    }
}

impl Node {
    /// Keeps the cluster's secrets. Those of another cluster are never overwritten.
    fn take_secrets(&self, secrets: &ClusterSecrets) -> Result<(), JoinError> {
        let failed = |error: NodeError| JoinError::Failed(error.to_string());
        let path = &self.parts.config.secrets;
        if path.exists() {
            let kept = self.load_secrets().map_err(failed)?;
            if *kept.encode() == *secrets.encode() {
                return Ok(());
            }
            return Err(JoinError::Taken(format!(
                "its file {} holds the secrets of another cluster; move it away first",
                path.display()
            )));
        }
        self.save_secrets(secrets).map_err(failed)
    }
}

/// Who is not the node that was named will not be it later.
fn of_connect(error: ConnectError) -> OperatorError {
    match error {
        ConnectError::Unreachable { .. } => unavailable(error),
        ConnectError::Untrusted { .. } => refused(format!(
            "{error}. Check that number and address belong together, that the address is that of its \
             --peer-listen, and that its certificate comes from this cluster's authority"
        )),
    }
}

pub(super) fn refused(text: impl ToString) -> OperatorError {
    OperatorError::Refused(text.to_string())
}

pub(super) fn unavailable(text: impl ToString) -> OperatorError {
    OperatorError::Unavailable(text.to_string())
}

pub(super) fn failed(text: impl ToString) -> OperatorError {
    OperatorError::Failed(text.to_string())
}
