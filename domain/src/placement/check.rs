//! What holds for every map, so that one from a peer or a file can be told from none.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::PLACEMENT_GROUP;
use super::change::{FIRST_EPOCH, LEAST_REGIONS, MAX_NODES, has_founders};
use super::map::{ClusterMap, GroupEntry, NodeEntry, Owner, Successor, SurvivalGoal};
use crate::ids::{GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId};

/// Why something is no cluster map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMap {
    /// A map without a version that is not empty, or one that no change could follow.
    #[error("version {0} of the cluster map can't be")]
    Version(MapVersion),
    /// Too few or too many.
    #[error("a cluster map without nodes, without groups or with too many nodes")]
    Size,
    /// A node without a number or address of its own.
    #[error("node {0} of the cluster map can't be")]
    Node(NodeId),
    /// A group without a number, founders, partitions or an active node at home.
    #[error("group {0} of the cluster map can't be")]
    Group(GroupId),
    /// A partition that there is not, or whose owner there is not.
    #[error("partition {0} of the cluster map has an owner that can't be")]
    Owner(PartitionId),
    /// A partition of the directory without an owner.
    #[error("partition {0} of the directory has no owner in the cluster map")]
    Directory(PartitionId),
    /// A goal that these nodes can't meet.
    #[error("the cluster map has fewer regions than its goal needs")]
    Goal,
}

/// A map as it is decoded.
#[derive(Deserialize)]
pub(super) struct Unchecked {
    version: MapVersion,
    goal: SurvivalGoal,
    partitions: PartitionCount,
    nodes: BTreeMap<NodeId, NodeEntry>,
    groups: BTreeMap<GroupId, GroupEntry>,
    owners: BTreeMap<PartitionId, Owner>,
    /// Not in what builds wrote that could not recover a group.
    #[serde(default)]
    successors: BTreeMap<GroupId, Successor>,
}

impl TryFrom<Unchecked> for ClusterMap {
    type Error = InvalidMap;
    fn try_from(unchecked: Unchecked) -> Result<Self, InvalidMap> {
        let map = Self {
            version: unchecked.version,
            goal: unchecked.goal,
            partitions: unchecked.partitions,
            nodes: unchecked.nodes,
            groups: unchecked.groups,
            owners: unchecked.owners,
            successors: unchecked.successors,
        };
        map.check()?;
        Ok(map)
    }
}

impl ClusterMap {
    /// Checks all that [`ClusterMap::after`] keeps.
    ///
    /// # Errors
    /// [`InvalidMap`]: the first thing that does not hold.
    pub fn check(&self) -> Result<(), InvalidMap> {
        match self.version {
            MapVersion(0) if *self == Self::default() => return Ok(()),
            version @ MapVersion(0 | u64::MAX) => return Err(InvalidMap::Version(version)),
            _ => {}
        }
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES || self.groups.is_empty() {
            return Err(InvalidMap::Size);
        }
        self.check_nodes()?;
        self.check_groups()?;
        self.check_owners()?;
        self.check_successors()?;
        if self.goal == SurvivalGoal::Region && self.active_regions().len() < LEAST_REGIONS {
            return Err(InvalidMap::Goal);
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), InvalidMap> {
        let alone = self.nodes.len() == 1;
        let (mut peers, mut clients) = (BTreeSet::new(), BTreeSet::new());
        for (node, entry) in &self.nodes {
            let is_alone = peers.insert(&entry.peer_address)
                && (entry.client_address.is_empty() || clients.insert(&entry.client_address));
            if *node == NodeId(0) || !entry.has_addresses(alone) || !is_alone {
                return Err(InvalidMap::Node(*node));
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), InvalidMap> {
        let active = self.active_regions();
        let owners: BTreeSet<GroupId> = self.owners.values().map(|owner| owner.group).collect();
        for (group, entry) in &self.groups {
            let is_numbered = *group != GroupId(0) && !entry.founders.contains_key(&ReplicaId(0));
            let is_placed = active.contains(&entry.home) && has_founders(&entry.founders);
            if !is_numbered || !is_placed || !owners.contains(group) {
                return Err(InvalidMap::Group(*group));
            }
        }
        Ok(())
    }

    fn check_successors(&self) -> Result<(), InvalidMap> {
        for (group, successor) in &self.successors {
            let is_gone = !self.groups.contains_key(group);
            let is_other = (successor.group == *group) == (*group == PLACEMENT_GROUP)
                && (successor.group == PLACEMENT_GROUP) == (*group == PLACEMENT_GROUP);
            if !is_gone || !is_other || successor.replica == ReplicaId(0) {
                return Err(InvalidMap::Group(*group));
            }
        }
        Ok(())
    }

    pub(super) fn check_owners(&self) -> Result<(), InvalidMap> {
        for (partition, owner) in &self.owners {
            let is_there = partition.number() < self.partitions.get();
            let is_owner = self.groups.contains_key(&owner.group) && owner.epoch >= FIRST_EPOCH;
            if !is_there || !is_owner {
                return Err(InvalidMap::Owner(*partition));
            }
        }
        let mut directory = self.partitions.directory();
        match directory.find(|partition| !self.owners.contains_key(partition)) {
            Some(partition) => Err(InvalidMap::Directory(partition)),
            None => Ok(()),
        }
    }
}
