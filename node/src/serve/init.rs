//! `cluster init`: many nodes become one cluster.
//!
//! ```text
//!   Describe, all ─► plan, durably ─► CreateReplica, all: the plan ─► own place ─► wait for the leaders
//! ```
//!
//! The node that the operator speaks to is the founder. Each step may be done twice, so an init that
//! broke off anywhere is finished by the same command; and past its own step every node goes on by itself:
//! the plan tells it which replicas it holds and which groups it brings to life. The first map is written to
//! the placement group's log by whoever leads that group (`placement.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use rossby_api::admin::{InitPlan, MadeCluster, OperatorError};
use rossby_api::peer::{ConnectError, Connections};
use rossby_domain::ids::{GroupId, MapVersion, NodeId};
use rossby_domain::placement::{NodeEntry, NodeState, PLACEMENT_GROUP, RegionName};
use rossby_proto::v1;
use rossby_storage::datadir::DataDirectory;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::founding::Founding;
use super::node::{Node, NodeError};

/// How long one node may take to answer, or to take its place.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node that is starting is waited for.
const STARTING: Duration = Duration::from_secs(10);
/// How long the groups of a new cluster may take to elect a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Node {
    /// Makes a cluster, or finishes making it.
    ///
    /// # Errors
    /// [`OperatorError`], saying what is to be done.
    pub(super) async fn init(&self, plan: InitPlan) -> Result<MadeCluster, OperatorError> {
        let mut data = self.data.lock().await;
        let peers = self.parts.peers.as_ref().ok_or_else(|| {
            refused("this node has no peer listener and is a cluster by itself; start it with --peer-listen")
        })?;
        check(&plan, self.id())?;
        let mut founding = match self.planned(&data, &plan)? {
            Some(founding) => founding,
            None => {
                let (nodes, marks) = self.founders(peers, &plan).await?;
                let (name, partitions) = (plan.name, plan.partitions);
                self.plan(&data, name, partitions, plan.survive, nodes, marks)
                    .map_err(of_plan)?
            }
        };
        let left_out = match founding.placed {
            true => self.without_place(peers, &founding).await,
            false => {
                let left_out = self.place_others(peers, &founding).await?;
                founding.placed = true;
                founding.write(&data).map_err(failed)?;
                left_out
            }
        };
        let cluster = founding.cluster;
        let groups: Vec<GroupId> = founding.groups.keys().copied().collect();
        let founder = self.founder(founding).map_err(failed)?;
        self.enter(&mut data, founder).await.map_err(failed)?;
        drop(data);
        self.await_leaders(groups).await?;
        Ok(MadeCluster { cluster, left_out })
    }

    /// The plan that this node founds a cluster by, if it is the operator's; refuses any other, and a
    /// node that is taken.
    fn planned(
        &self,
        data: &DataDirectory,
        plan: &InitPlan,
    ) -> Result<Option<Founding>, OperatorError> {
        let belongs = data
            .identity()
            .and_then(|identity| identity.cluster.as_ref());
        match (Founding::read(data).map_err(failed)?, belongs) {
            (Some(founding), _) if founding.is_of(plan) => Ok(Some(founding)),
            (Some(founding), _) => {
                let nodes: Vec<_> = founding.nodes.keys().map(ToString::to_string).collect();
                Err(refused(format!(
                    "this node founds cluster \"{}\" of nodes {} with {} partitions, to survive the loss of a \
                     {}; give the same again",
                    founding.name,
                    nodes.join(", "),
                    founding.partitions.get(),
                    founding.goal
                )))
            }
            (None, None) => match self.advice_if_missed() {
                Some(advice) => Err(refused(advice)),
                None => Ok(None),
            },
            (None, Some(cluster)) => Err(refused(format!(
                "this node belongs to cluster {} already",
                cluster.id
            ))),
        }
    }

    /// Asks every node who and where it is, and for the mark of its directory. All of them must be free.
    async fn founders(
        &self,
        peers: &Connections,
        plan: &InitPlan,
    ) -> Result<(BTreeMap<NodeId, NodeEntry>, BTreeMap<NodeId, String>), OperatorError> {
        let (mut nodes, mut marks) = (BTreeMap::new(), BTreeMap::new());
        for (node, address) in &plan.nodes {
            let mut entry = self.own_entry();
            if *node != self.id() {
                let found = describe(peers, *node, address, PLACEMENT_GROUP).await?;
                if !found.cluster_id.is_empty() {
                    return Err(refused(format!(
                        "node {node} belongs to cluster {} already",
                        found.cluster_id
                    )));
                }
                if !found.directory_mark.is_empty() {
                    marks.insert(*node, found.directory_mark.clone());
                }
                entry = entry_of(*node, address, found)?;
            }
            entry.peer_address.clone_from(address);
            nodes.insert(*node, entry);
        }
        Ok((nodes, marks))
    }

    /// Those of the plan, places being given already, that answer and belong to no cluster.
    async fn without_place(
        &self,
        peers: &Connections,
        founding: &Founding,
    ) -> Vec<(NodeId, String)> {
        let others = founding
            .nodes
            .iter()
            .filter(|(node, _)| **node != self.id());
        let asked = others.map(|(node, entry)| async move {
            let address = entry.peer_address.clone();
            let found = describe(peers, *node, &address, PLACEMENT_GROUP).await;
            let is_free = found.is_ok_and(|found| found.cluster_id.is_empty());
            is_free.then_some((*node, address))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Gives every other node the plan and the secrets; not to one whose disk was lost since the plan was
    /// made. Those are returned.
    async fn place_others(
        &self,
        peers: &Connections,
        founding: &Founding,
    ) -> Result<Vec<(NodeId, String)>, OperatorError> {
        let mut left_out = Vec::new();
        let secrets = self.load_secrets().map_err(failed)?.encode();
        // Only the founder gives places: it knows which were taken.
        let theirs = Founding {
            placed: true,
            ..founding.clone()
        };
        let plan = serde_json::to_vec(&theirs).map_err(failed)?;
        for (node, entry) in &founding.nodes {
            if *node == self.id() {
                continue;
            }
            let found = describe(peers, *node, &entry.peer_address, PLACEMENT_GROUP).await?;
            if found.cluster_id.is_empty() && !founding.knows(*node, &found.directory_mark) {
                warn!(
                    %node,
                    "its data directory is not the one that it had when this cluster was planned, so it gets no \
                     place by that plan. If its disk was lost, have it taken in with `rossby cluster \
                     replace-node` once the cluster is made"
                );
                left_out.push((*node, entry.peer_address.clone()));
                continue;
            }
            let request = v1::CreateReplicaRequest {
                cluster_id: founding.cluster.to_string(),
                cluster_name: founding.name.clone(),
                partition_count: u32::from(founding.partitions.get()),
                cluster_keys: secrets.as_bytes().to_vec().into(),
                founding: plan.clone().into(),
                ..Default::default()
            };
            place(peers, *node, &entry.peer_address, request).await?;
        }
        Ok(left_out)
    }

    /// Waits until every group has a leader and the placement group has the map.
    async fn await_leaders(&self, groups: Vec<GroupId>) -> Result<(), OperatorError> {
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            let (known, silent) = self.known_groups().await?;
            let leads = |group: &GroupId| {
                let mut of_group = known.iter().filter_map(|known| known.status.as_ref());
                of_group.any(|status| status.group_id == group.0 && status.leader_node_id != 0)
            };
            let mut missing: Vec<String> = std::iter::once(&PLACEMENT_GROUP)
                .chain(&groups)
                .filter(|group| !leads(group))
                .map(|group| named(*group))
                .collect();
            if missing.is_empty() && self.founded_version() == Some(MapVersion(0)) {
                missing.push("the cluster map".to_owned());
            }
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(not_yet(&missing, &silent));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn not_yet(missing: &[String], silent: &[NodeId]) -> OperatorError {
    let silent: Vec<_> = silent.iter().map(|node| format!("node {node}")).collect();
    let silent = match silent.is_empty() {
        true => String::new(),
        false => format!(" Not answering: {}.", silent.join(", ")),
    };
    OperatorError::Unknown(format!(
        "the cluster is made but not all of it works yet: no leader for {}.{silent} Check that all nodes run and \
         reach each other, then give the same command again",
        missing.join(", ")
    ))
}

/// A group in words.
pub(super) fn named(group: GroupId) -> String {
    match group {
        PLACEMENT_GROUP => "the placement group".to_owned(),
        group => format!("group {group}"),
    }
}

/// A node as it described itself, reached at this address.
pub(super) fn entry_of(
    node: NodeId,
    address: &str,
    found: v1::DescribeResponse,
) -> Result<NodeEntry, OperatorError> {
    let region = RegionName::new(&found.region);
    Ok(NodeEntry {
        region: region.map_err(|error| failed(format!("node {node}: {error}")))?,
        peer_address: address.to_owned(),
        client_address: found.client_address,
        state: NodeState::Active,
    })
}

/// Asks who runs at an address, and what it has of a group. One that is starting is waited for.
pub(super) async fn describe(
    peers: &Connections,
    node: NodeId,
    address: &str,
    group: GroupId,
) -> Result<v1::DescribeResponse, OperatorError> {
    let connection = peers.get(node, address).await.map_err(of_connect)?;
    let mut client = connection.client();
    let request = v1::DescribeRequest { group_id: group.0 };
    let began = Instant::now();
    loop {
        let described = tokio::time::timeout(STEP_TIMEOUT, client.describe(request)).await;
        match described {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status))
                if status.code() == tonic::Code::Unavailable && began.elapsed() < STARTING =>
            {
                sleep(LOOK_AGAIN).await;
            }
            Ok(Err(status)) => {
                return Err(unavailable(format!("node {node}: {}", status.message())));
            }
            Err(_) => return Err(unavailable(format!("node {node} does not answer"))),
        }
    }
}

/// Gives a node its place.
pub(super) async fn place(
    peers: &Connections,
    node: NodeId,
    address: &str,
    request: v1::CreateReplicaRequest,
) -> Result<(), OperatorError> {
    let connection = peers.get(node, address).await.map_err(of_connect)?;
    let mut client = connection.client();
    match tokio::time::timeout(STEP_TIMEOUT, client.create_replica(request)).await {
        Ok(Ok(_)) => {
            info!(%node, "a node took its place");
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

/// What the nodes are together does not change by asking again.
fn of_plan(error: NodeError) -> OperatorError {
    match error {
        NodeError::Founding(_) => refused(error),
        other => failed(other),
    }
}

/// Who is not the node that was named will not be it later.
pub(super) fn of_connect(error: ConnectError) -> OperatorError {
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
