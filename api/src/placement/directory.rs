//! What the doors and the workers know of placement: the newest map, and this node's replicas.

use std::sync::Arc;

use rossby_domain::ids::{Epoch, GroupId, NodeId, PartitionId};
use rossby_domain::placement::{
    ClusterMap, GroupEntry, PLACEMENT_GROUP, PLACEMENT_PARTITION, RegionName,
};
use rossby_raft::{Group, Leadership, Member};
use rossby_seams::watch::Receiver;

use super::map::MapKeeper;
use super::replicas::Replicas;
use crate::router::Directory;

/// The epoch at which the placement group owns the partition of the map, for ever.
const PLACEMENT_EPOCH: Epoch = Epoch(1);

/// A node's directory.
pub struct NodeDirectory {
    /// This node.
    pub node: NodeId,
    /// Where it is.
    pub region: RegionName,
    /// The newest map.
    pub map: Arc<MapKeeper>,
    /// This node's replicas.
    pub replicas: Arc<Replicas>,
}

impl Directory for NodeDirectory {
    fn owner(&self, partition: PartitionId) -> Option<GroupId> {
        self.map.newest().owner(partition)
    }

    fn replica(&self, group: GroupId) -> Option<Arc<Group>> {
        self.replicas.get(group)
    }

    fn nodes(&self, group: GroupId) -> Vec<Member> {
        let mut members = match self.replicas.get(group) {
            Some(replica) => of_replica(&replica),
            None => of_map(&self.map.newest(), group),
        };
        members.retain(|member| member.node != self.node);
        members
    }

    fn births(&self) -> Vec<PartitionId> {
        let map = self.map.newest();
        // A box stays where it is born: not in a group that has not come to life yet, as far as can be told.
        let lives = |partition: &PartitionId| {
            let replica = map.owner(*partition).and_then(|group| self.replica(group));
            replica.is_none_or(|replica| replica.epoch(*partition).is_some())
        };
        let births = map.births(&self.region);
        let living: Vec<_> = births.iter().copied().filter(lives).collect();
        if living.is_empty() { births } else { living }
    }

    fn assigned(&self, group: GroupId) -> Vec<(PartitionId, Epoch)> {
        if group == PLACEMENT_GROUP {
            return vec![(PLACEMENT_PARTITION, PLACEMENT_EPOCH)];
        }
        self.map.newest().partitions_of(group).collect()
    }

    fn map(&self) -> Option<Arc<ClusterMap>> {
        Some(self.map.newest())
    }

    fn watch_map(&self) -> Option<Receiver<Arc<ClusterMap>>> {
        Some(self.map.watch())
    }
}

/// The voters as a replica knows them, the leader first.
fn of_replica(replica: &Group) -> Vec<Member> {
    let leader = match replica.leadership() {
        Leadership::Elsewhere(leader) => Some(leader),
        Leadership::Here { .. } | Leadership::Unknown => None,
    };
    let voters = replica.status().members.into_iter();
    let voters = voters.filter(|(_, _, voter, _)| *voter);
    let others = voters.map(|(_, member, ..)| member);
    let is_other = |member: &Member| Some(member.node) != leader.as_ref().map(|leader| leader.node);
    let others: Vec<Member> = others.filter(is_other).collect();
    leader.into_iter().chain(others).collect()
}

/// Those that may hold a replica by the map: founders first and those at home first, since members come
/// and go without the map.
fn of_map(map: &ClusterMap, group: GroupId) -> Vec<Member> {
    let entry = map.groups().get(&group);
    let is_founder = |node: NodeId| {
        let founds = |entry: &GroupEntry| entry.founders.values().any(|founder| *founder == node);
        entry.is_some_and(founds)
    };
    let mut nodes: Vec<_> = map.nodes().iter().collect();
    nodes.sort_by_key(|(node, at)| {
        let is_home = entry.is_some_and(|entry| entry.home == at.region);
        (!is_founder(**node), !is_home, **node)
    });
    nodes
        .into_iter()
        .filter(|(_, at)| !at.peer_address.is_empty())
        .map(|(node, at)| Member {
            node: *node,
            peer_address: at.peer_address.clone(),
            client_address: at.client_address.clone(),
        })
        .collect()
}
