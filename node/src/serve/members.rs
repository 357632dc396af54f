//! Orders about the members: they find the leader from any node, and there they are carried on, one
//! step at a time, until nothing more can be done at once.
//!
//! ```text
//!   any node ──► the leader ──► Group::advance ─┬─ Ask ────► Describe, at the newcomer
//!                                  ▲            ├─ Invite ─► CreateReplica: cluster, secrets, replica
//!                                  └────────────┤
//!                                               └─ catching up, handed over, done ──► the operator
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rossby_api::admin::{
    MembersOrder, MembersProgress, OperatorError, members_answer, members_request,
};
use rossby_api::peer::Connections;
use rossby_api::placement::{By, OrderGuard};
use rossby_domain::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use rossby_domain::placement::{
    ClusterMap, NodeEntry, NodeState, PLACEMENT_GROUP, PlacementRefusal, RegionName,
};
use rossby_proto::v1;
use rossby_raft::{
    Advance, ChangeError, Group, Leadership, Member, Newcomer, Newcomers, Order, Refused,
};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::init::{describe, entry_of, failed, place, refused, unavailable};
use super::node::{Missed, Node};
use super::placement::of_peer;

/// How long one call may carry an order on, at the leader and as the node that hands it on waits.
pub(super) const AT_THE_LEADER: Duration = Duration::from_secs(20);
pub(super) const ANYWHERE: Duration = Duration::from_secs(25);
/// Between two looks whether a step of the plan is over.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A node that a cluster calls for longer than this, without an invitation, is missed by it.
const INVITED_WITHIN: Duration = Duration::from_secs(3);

impl Node {
    /// Carries an order about the members on, here or at the leader.
    pub(super) async fn order_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        if let Some(removed) = self.removed() {
            let left = matches!(order, MembersOrder::Remove { node, .. } if node == self.id());
            return match left {
                true => Ok(MembersProgress::Done {
                    replica: None,
                    voters: 0,
                }),
                false => Err(refused(removed)),
            };
        }
        let leader = match self.find_leader(group).await? {
            Leadership::Here { .. } => return self.lead_members(group, order).await,
            Leadership::Elsewhere(leader) => leader,
            Leadership::Unknown => return Err(self.no_leader(group)),
        };
        let peers = self.peers()?;
        let connection = peers
            .get(leader.node, &leader.peer_address)
            .await
            .map_err(unavailable)?;
        let mut client = connection.client();
        let asking = client.change_members(members_request(group, &order));
        match tokio::time::timeout(ANYWHERE, asking).await {
            Ok(Ok(response)) => Ok(members_answer(&response.into_inner())),
            Ok(Err(status)) => Err(of_peer(&leader, &status)),
            Err(_) => Err(OperatorError::Unknown(
                "the leader does not answer".to_owned(),
            )),
        }
    }

    /// Carries an order about the members on, if this node leads.
    pub(super) async fn lead_members(
        &self,
        group: GroupId,
        order: MembersOrder,
    ) -> Result<MembersProgress, OperatorError> {
        let group = self.replica_of(group)?;
        let deadline = Instant::now() + AT_THE_LEADER;
        let running = self.begin_order(group.id(), deadline).await?;
        if !matches!(order, MembersOrder::Remove { .. })
            && let Err(error) = self.publish_own_address(&group, deadline).await
        {
            running.forget();
            return Err(error);
        }
        let carried = self.carry_on(&group, plain(order), By::Operator, deadline);
        let progress = match carried.await {
            Err(CarryError::Change(ChangeError::Refused(refused))) => {
                running.forget();
                return Err(self.of_refusal(group.id(), refused));
            }
            carried => carried?,
        };
        if matches!(progress, MembersProgress::Done { .. }) {
            running.done();
        }
        Ok(progress)
    }

    /// Carries an order about the members on by as much as can be done at once.
    pub(super) async fn carry_on(
        &self,
        group: &Arc<Group>,
        mut order: Order,
        by: By,
        deadline: Instant,
    ) -> Result<MembersProgress, CarryError> {
        let mut newcomers = Newcomers::new();
        let mut regions = BTreeMap::new();
        loop {
            let copies = self.copies_of(group.id(), by);
            let advanced = group.advance_beside(&order, &newcomers, &copies, deadline);
            match advanced.await? {
                Advance::Ask => {
                    for new in order.newcomers_mut() {
                        let (found, region) = self.ask(group.id(), new).await?;
                        newcomers.insert(new.node, found);
                        regions.insert(new.node, region);
                    }
                }
                Advance::Invite { replica, member } => {
                    let region = regions.get(&member.node).cloned();
                    self.invite(group, replica, &member, region, by).await?;
                    newcomers.remove(&member.node);
                }
                Advance::CatchingUp {
                    replica,
                    behind,
                    shipped_bytes,
                } => {
                    return Ok(MembersProgress::CatchingUp {
                        replica,
                        behind,
                        shipped_bytes,
                    });
                }
                Advance::HandedOver { leader } => {
                    let leader = leader.node;
                    return Ok(MembersProgress::HandedOver { leader });
                }
                Advance::Done { replica, voters } => {
                    if by == By::Operator {
                        self.correct_addresses(&order).await?;
                    }
                    return Ok(MembersProgress::Done { replica, voters });
                }
            }
        }
    }

    /// The nodes on which a member without a vote is no half-done order's: by the map it may stay so. The plan
    /// has looked at all of them, and takes those that nobody wants out one by one.
    fn copies_of(&self, group: GroupId, by: By) -> BTreeSet<NodeId> {
        let Some(membership) = self.membership() else {
            return BTreeSet::new();
        };
        let map = membership.map.newest();
        let nodes = map.nodes().keys().copied();
        let stays = |node: &NodeId| by == By::Plan || map.keeps_copy(group, *node);
        nodes.filter(stays).collect()
    }

    /// Begins an operator's order once no step of the plan is carried on in the group.
    async fn begin_order(
        &self,
        group: GroupId,
        deadline: Instant,
    ) -> Result<OrderGuard<'_>, OperatorError> {
        loop {
            if let Some(running) = self.orders.begin_order(group) {
                return Ok(running);
            }
            if Instant::now() > deadline {
                return Err(unavailable(format!(
                    "the members of group {group} are just changing, by the cluster's own plan"
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What the cluster does by itself comes to its end in a while.
    fn of_refusal(&self, group: GroupId, refusal: Refused) -> OperatorError {
        match refusal {
            Refused::Underway { node } if self.orders.is_planned(group) => unavailable(format!(
                "node {node} is just coming into group {group}, by the cluster's own plan"
            )),
            refusal => of_change(ChangeError::Refused(refusal)),
        }
    }

    pub(super) fn peers(&self) -> Result<&Connections, OperatorError> {
        self.parts.peers.as_deref().ok_or_else(|| {
            refused(
                "this node has no peer listener, so no other node can reach it: start it with \
                 --peer-listen HOST:PORT, --peer-cert, --peer-key and --peer-ca (see `rossby cert`), \
                 then give the order again",
            )
        })
    }

    fn no_leader(&self, group: GroupId) -> OperatorError {
        let map = self.membership().map(|membership| membership.map.newest());
        let is_none =
            |map: Arc<ClusterMap>| group != PLACEMENT_GROUP && !map.groups().contains_key(&group);
        match map.is_some_and(is_none) {
            true => OperatorError::Invalid(format!("there is no group {group}")),
            false => unavailable("the group has no leader now"),
        }
    }

    /// A node that was a cluster by itself was born without an address for peers.
    pub(super) async fn publish_own_address(
        &self,
        group: &Group,
        deadline: Instant,
    ) -> Result<(), OperatorError> {
        self.peers()?;
        let replica = group.replica();
        let known = group.status().members;
        let unknown = known
            .iter()
            .any(|(known, member, ..)| *known == replica && member.peer_address.is_empty());
        if unknown {
            let own = Order::Add(vec![self.own_member()]);
            let newcomer = [(self.id(), Newcomer::Holds(replica))].into();
            let copies = self.copies_of(group.id(), By::Operator);
            let advanced = group.advance_beside(&own, &newcomer, &copies, deadline);
            advanced.await.map_err(|error| match error {
                ChangeError::Refused(refusal) => self.of_refusal(group.id(), refusal),
                error => of_change(error),
            })?;
        }
        self.publish_own_entry().await
    }

    /// Asks who runs at the newcomer's address, and takes down where clients reach it; and where it is.
    async fn ask(
        &self,
        group: GroupId,
        new: &mut Member,
    ) -> Result<(Newcomer, RegionName), OperatorError> {
        let membership = self.entered()?;
        let found = describe(self.peers()?, new.node, &new.peer_address, group).await?;
        new.client_address.clone_from(&found.client_address);
        let (cluster, replica) = (found.cluster_id.clone(), found.replica_id);
        let removed = found.removed_replica_id;
        let entry = entry_of(new.node, &new.peer_address, found)?;
        let map = membership.map.newest();
        if let Some(known) = map.nodes().get(&new.node)
            && known.region != entry.region
        {
            return Err(refused(PlacementRefusal::OtherRegion(new.node)));
        }
        if cluster.is_empty() {
            return Ok((Newcomer::Free, entry.region));
        }
        if cluster != membership.cluster.id.to_string() {
            return Err(refused(format!(
                "node {} belongs to another cluster, {cluster}: start it with an empty directory",
                new.node
            )));
        }
        let newcomer = match (replica, removed) {
            // It has other groups only.
            (0, 0) => Newcomer::Free,
            (0, removed) => Newcomer::Holds(ReplicaId(removed)),
            (held, _) => Newcomer::Holds(ReplicaId(held)),
        };
        Ok((newcomer, entry.region))
    }

    /// Puts the newcomer in the map, then gives it its replica.
    async fn invite(
        &self,
        group: &Group,
        replica: ReplicaId,
        member: &Member,
        region: Option<RegionName>,
        by: By,
    ) -> Result<(), OperatorError> {
        let membership = self.entered()?;
        let known = membership.map.newest();
        let known = known.nodes().get(&member.node);
        let region = region.or_else(|| known.map(|known| known.region.clone()));
        let entry = NodeEntry {
            region: region.unwrap_or_else(|| self.parts.config.region.clone()),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            state: NodeState::Active,
        };
        // The plan is made by the map, and changes none of it: the node may have begun to leave meanwhile.
        if by == By::Operator {
            self.put_node(member.node, entry).await?;
        }
        let cluster = &membership.cluster;
        let secrets = self.load_secrets().map_err(failed)?.encode();
        let map = serde_json::to_vec(&*membership.map.newest()).map_err(failed)?;
        let request = v1::CreateReplicaRequest {
            cluster_id: cluster.id.to_string(),
            cluster_name: cluster.name.clone(),
            partition_count: u32::from(cluster.partitions.get()),
            group_id: group.id().0,
            replica_id: replica.0,
            cluster_keys: secrets.as_bytes().to_vec().into(),
            map: map.into(),
            ..Default::default()
        };
        place(self.peers()?, member.node, &member.peer_address, request).await
    }

    /// An order that adds a member corrects its addresses, in the map too; and it is not to leave any more.
    async fn correct_addresses(&self, order: &Order) -> Result<(), OperatorError> {
        for new in order.newcomers() {
            let map = self.entered()?.map.newest();
            let Some(known) = map.nodes().get(&new.node) else {
                continue;
            };
            let mut entry = known.clone();
            entry.state = NodeState::Active;
            entry.peer_address.clone_from(&new.peer_address);
            if !new.client_address.is_empty() {
                entry.client_address.clone_from(&new.client_address);
            }
            self.put_node(new.node, entry).await?;
        }
        Ok(())
    }

    /// Closes the connections to nodes that are neither in the map nor in a group.
    pub(super) fn close_unneeded(&self) {
        let Some((peers, membership)) = self.parts.peers.as_ref().zip(self.membership()) else {
            return;
        };
        let mut nodes: Vec<NodeId> = membership.replicas.nodes().into_iter().collect();
        nodes.extend(membership.map.newest().nodes().keys());
        if self.removed().is_some() || !nodes.is_empty() {
            peers.keep(&nodes);
        }
    }

    /// A cluster that this node, whose directory is empty, does not know counts on it.
    pub(super) fn note_missed(&self, by: NodeId, cluster: ClusterId) -> bool {
        if !self.waits() {
            return false;
        }
        let _ = self.missed.set(Missed {
            by,
            cluster,
            since: Instant::now(),
        });
        if let Some(advice) = self.advice_if_missed()
            && !self.told_missed.swap(true, Ordering::AcqRel)
        {
            warn!("{advice}");
        }
        true
    }

    /// What to do if a cluster counts on this node, whose directory is empty.
    pub(super) fn advice_if_missed(&self) -> Option<String> {
        let Missed { by, cluster, since } = self.missed.get()?;
        if !self.waits() || since.elapsed() < INVITED_WITHIN {
            return None;
        }
        let node = self.id();
        let address = &self.parts.advertised.peers;
        Some(format!(
            "node {by} of cluster {cluster} takes this node for a member, but its directory {} is empty. \
             If its disk was lost, run on a node of the cluster: rossby cluster replace-node {node} \
             {node}={address}. If not, stop this node and start it with its own directory",
            self.parts.config.data.display()
        ))
    }
}

/// The order, without what only the newcomer can tell.
fn plain(order: MembersOrder) -> Order {
    let member = |node: NodeId, peer_address: String| Member {
        node,
        peer_address,
        client_address: String::new(),
    };
    match order {
        MembersOrder::Add(node, address) => Order::Add(vec![member(node, address)]),
        MembersOrder::Remove {
            node,
            half_added_only,
        } => Order::Remove {
            nodes: [node].into(),
            half_added_only,
        },
        MembersOrder::Replace {
            old,
            new,
            peer_address,
        } => Order::Replace {
            old,
            new: member(new, peer_address),
        },
    }
}

/// Why an order went no further: in the group, or with one of the nodes that it is about.
pub(super) enum CarryError {
    Change(ChangeError),
    Node(OperatorError),
}

impl From<ChangeError> for CarryError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<OperatorError> for CarryError {
    fn from(error: OperatorError) -> Self {
        Self::Node(error)
    }
}

impl From<CarryError> for OperatorError {
    fn from(error: CarryError) -> Self {
        match error {
            CarryError::Change(error) => of_change(error),
            CarryError::Node(error) => error,
        }
    }
}

fn of_change(error: ChangeError) -> OperatorError {
    let text = error.to_string();
    debug!(%error, "an order about the members stopped");
    match error {
        ChangeError::Refused(_) => OperatorError::Refused(text),
        // It is given again, to whoever leads then.
        ChangeError::NotLeader { .. } | ChangeError::NoQuorum => OperatorError::Unavailable(text),
        ChangeError::Unknown => OperatorError::Unknown(text),
        ChangeError::Stopped => OperatorError::Failed(text),
    }
}
