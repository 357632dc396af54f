//! What an operator orders of placement by way of the map: nodes that leave or stay, and new groups.
//!
//! ```text
//!   group add ─► the map: a group, its founders, its partitions ─► founders start their replicas ─► the first
//!                of them brings the group to life, last ─► its leader takes the partitions over
//! ```
//!
//! The founders are told once, by the order and not by the map: a node that lost its disk must not found the
//! group again (`api/src/placement/replicas.rs`). An order that broke off is given again, and goes on with the group that it
//! left: only while no founder has taken part in the group. So does the reconcile loop, if nobody gives it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rossby_api::admin::{NewGroup, OperatorError};
use rossby_api::peer::{Joining as _, Placement, Role};
use rossby_api::placement::Ground as _;
use rossby_domain::ids::{GroupId, MapVersion, NodeId, ReplicaId};
use rossby_domain::placement::{
    Change, ClusterMap, FoundingGroup, Load, NodeEntry, NodeState, PLACEMENT_GROUP, RegionName,
    VOTERS_AT_HOME, founders,
};
use rossby_proto::v1;
use tokio::time::{Instant, sleep};
use tracing::info;
use zeroize::Zeroizing;

use super::founding::home_first;
use super::init::{failed, place, unavailable};
use super::node::Node;

/// How long a new group may take to lead and to own its partitions.
const BORN_WITHIN: Duration = Duration::from_secs(20);
/// How long this node may take to hear of a map.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Node {
    /// Has a node leave its groups, or takes that back; the map from which on it holds, and whether it was
    /// otherwise before.
    pub(super) async fn drain_or_activate(
        &self,
        node: NodeId,
        draining: bool,
    ) -> Result<(MapVersion, bool), OperatorError> {
        let map = self.entered()?.map.newest();
        let known = map.nodes().get(&node);
        let known =
            known.ok_or_else(|| OperatorError::Invalid(format!("there is no node {node}")))?;
        let state = match draining {
            true => NodeState::Draining,
            false => NodeState::Active,
        };
        let changed = known.state != state;
        let entry = NodeEntry {
            state,
            ..known.clone()
        };
        let change = Change::PutNode { node, entry };
        let version = self.change_map_anywhere(change).await?;
        Ok((version, changed))
    }

    /// Makes a new group, or goes on with one that an order before left unborn.
    pub(super) async fn grow(
        &self,
        home: RegionName,
        partitions: Option<u16>,
    ) -> Result<NewGroup, OperatorError> {
        let map = self.entered()?.map.newest();
        let (known, silent) = self.known_groups().await?;
        let statuses: BTreeMap<GroupId, v1::GroupStatus> = known
            .into_iter()
            .filter_map(|known| known.status)
            .map(|status| (GroupId(status.group_id), status))
            .collect();
        let unborn = map.groups().iter().find(|(group, entry)| {
            let status = statuses.get(group);
            entry.home == home && status.is_none_or(|status| status.members.is_empty())
        });
        let group = match unborn {
            Some((group, _)) => *group,
            None => {
                let load = load(&statuses);
                let (group, change) = new_group(&map, &home, partitions, &load);
                refuse_silent(change_founders(&change), &silent)?;
                let version = self.change_map_anywhere(change).await?;
                self.hear_of(version).await?;
                group
            }
        };
        let map = self.entered()?.map.newest();
        let entry = map.groups().get(&group);
        let entry = entry.ok_or_else(|| unavailable(format!("group {group} is not in the map")))?;
        // What one of them holds of the group is known only if it answers.
        refuse_silent(entry.founders.values(), &silent)?;
        self.bring_to_life(group, &map, &entry.founders).await?;
        let partitions = map.partitions_of(group).count();
        self.wait_born(group, partitions).await?;
        info!(%group, %home, partitions, "a new group of boxes serves");
        Ok(NewGroup {
            group,
            founders: entry.founders.values().copied().collect(),
            partitions: u16::try_from(partitions).unwrap_or(u16::MAX),
        })
    }

    /// Waits until this node knows a version of the map.
    pub(super) async fn hear_of(&self, version: MapVersion) -> Result<(), OperatorError> {
        let deadline = Instant::now() + HEARD_WITHIN;
        while self.entered()?.map.newest().version() < version {
            if Instant::now() > deadline {
                return Err(OperatorError::Unknown(
                    "the map has changed, and this node does not hear of it".to_owned(),
                ));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Has the founders start their replicas; the first of them last, which brings the group to life.
    pub(super) async fn bring_to_life(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        founders: &BTreeMap<ReplicaId, NodeId>,
    ) -> Result<(), OperatorError> {
        let first = founders.keys().next();
        for (replica, node) in founders.iter().rev() {
            let initialise = first == Some(replica);
            self.found_replica(group, map, (*replica, *node), initialise)
                .await?;
        }
        Ok(())
    }

    async fn found_replica(
        &self,
        group: GroupId,
        map: &Arc<ClusterMap>,
        (replica, node): (ReplicaId, NodeId),
        initialise: bool,
    ) -> Result<(), OperatorError> {
        let cluster = &self.entered()?.cluster;
        let secrets = self.load_secrets().map_err(failed)?.encode();
        if node == self.id() {
            let placement = Placement {
                cluster: cluster.id,
                cluster_name: cluster.name.clone(),
                partitions: cluster.partitions,
                role: Role::Replica {
                    group,
                    replica,
                    map: Arc::clone(map),
                    initialise,
                },
                secrets: Zeroizing::new(secrets.to_string()),
            };
            return self.join(placement).await.map_err(failed);
        }
        let entry = map.nodes().get(&node);
        let entry = entry.ok_or_else(|| unavailable(format!("node {node} is not in the map")))?;
        let request = v1::CreateReplicaRequest {
            cluster_id: cluster.id.to_string(),
            cluster_name: cluster.name.clone(),
            partition_count: u32::from(cluster.partitions.get()),
            group_id: group.0,
            replica_id: replica.0,
            cluster_keys: secrets.as_bytes().to_vec().into(),
            map: serde_json::to_vec(&**map).map_err(failed)?.into(),
            initialise,
            ..Default::default()
        };
        place(self.peers()?, node, &entry.peer_address, request).await
    }

    /// Waits until a group leads and owns as many partitions.
    async fn wait_born(&self, group: GroupId, partitions: usize) -> Result<(), OperatorError> {
        let deadline = Instant::now() + BORN_WITHIN;
        let map = self.entered()?.map.newest();
        loop {
            let told = self.ask_all(&map).await;
            let mut reports = told.into_values().flatten().flatten();
            let owns = |owned: u16| usize::from(owned) >= partitions;
            if reports.any(|report| report.group == group && owns(report.owned)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(OperatorError::Unknown(format!(
                    "group {group} is there, and does not serve yet: `rossby placement show` says what of it \
                     is known"
                )));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// How many replicas of groups of boxes are on each node.
fn load(statuses: &BTreeMap<GroupId, v1::GroupStatus>) -> Load {
    let of_boxes = statuses
        .iter()
        .filter(|(group, _)| **group != PLACEMENT_GROUP);
    let mut load = Load::new();
    for member in of_boxes.flat_map(|(_, status)| &status.members) {
        *load.entry(NodeId(member.node_id)).or_default() += 1;
    }
    load
}

/// The next group, and the change that brings it.
fn new_group(
    map: &ClusterMap,
    home: &RegionName,
    partitions: Option<u16>,
    load: &Load,
) -> (GroupId, Change) {
    let last = map.groups().keys().next_back().copied();
    let group = GroupId(last.unwrap_or(PLACEMENT_GROUP).0.saturating_add(1));
    let voters = founders(map.nodes(), home, map.goal(), VOTERS_AT_HOME, load);
    let mut born = FoundingGroup {
        home: home.clone(),
        founders: (1..).map(ReplicaId).zip(voters).collect(),
    };
    home_first(&mut born, map.nodes());
    let half = map.spare().count().div_ceil(2).max(1);
    let change = Change::AddGroup {
        group,
        born,
        partitions: partitions.unwrap_or(u16::try_from(half).unwrap_or(u16::MAX)),
    };
    (group, change)
}

fn change_founders(change: &Change) -> impl Iterator<Item = &NodeId> {
    let born = match change {
        Change::AddGroup { born, .. } => Some(born),
        _ => None,
    };
    born.into_iter().flat_map(|born| born.founders.values())
}

/// A group is not founded on nodes that do not answer.
fn refuse_silent<'a>(
    founders: impl Iterator<Item = &'a NodeId>,
    silent: &[NodeId],
) -> Result<(), OperatorError> {
    let mut founders = founders;
    match founders.find(|node| silent.contains(node)) {
        None => Ok(()),
        Some(node) => Err(unavailable(format!(
            "node {node}, which is to hold a first replica, does not answer"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::{ClusterId, PartitionCount};

    use super::super::founding::Founding;
    use super::*;

    fn map(regions: &[&str]) -> ClusterMap {
        let entry = |(id, region): (u64, &&str)| {
            let entry = NodeEntry {
                region: RegionName::new(region).unwrap(),
                peer_address: format!("10.0.0.{id}:7472"),
                client_address: format!("10.0.0.{id}:7470"),
                state: NodeState::Active,
            };
            (NodeId(id), entry)
        };
        let nodes = (1..).zip(regions).map(entry).collect();
        let cluster = ClusterId::from_random([7; 16]);
        let count = PartitionCount::DEFAULT;
        let plan = Founding::new(cluster, "test".to_owned(), count, None, nodes);
        plan.unwrap().map().unwrap()
    }

    #[test]
    fn a_new_group_is_founded_at_home_first_and_gets_half_of_what_is_spare() {
        let map = map(&["asia", "asia", "eu", "us"]);
        let home = RegionName::new("eu").unwrap();
        // Node 1 holds more than node 2 does.
        let load = Load::from([(NodeId(1), 3), (NodeId(2), 1)]);
        let (group, change) = new_group(&map, &home, None, &load);
        assert_eq!(group, GroupId(4));
        let Change::AddGroup {
            ref born,
            partitions,
            ..
        } = change
        else {
            panic!("{change:?}");
        };
        let nodes: Vec<u64> = born.founders.values().map(|node| node.0).collect();
        assert_eq!((nodes, partitions), (vec![3, 2, 4], 16));
        let next = map.after(&change).unwrap();
        assert_eq!(next.spare().count(), 16);
        assert!(refuse_silent(change_founders(&change), &[NodeId(1)]).is_ok());
        assert!(refuse_silent(change_founders(&change), &[NodeId(4)]).is_err());
    }
}
