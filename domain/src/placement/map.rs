//! The cluster map: what placement knows at one version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::check::Unchecked;
use super::recover::BEYOND;
use super::{PLACEMENT_GROUP, RegionName};
use crate::ids::{Epoch, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId};

/// What the loss of must cost no acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SurvivalGoal {
    /// Any minority of a group's nodes. Its voters are in its home region: no write waits for another. Other
    /// regions have copies without a vote, which follow.
    #[default]
    Node,
    /// Any one region. No region holds a majority of any group: each write crosses to another one.
    Region,
}

impl fmt::Display for SurvivalGoal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Region => "region",
        })
    }
}

/// A text that names no survival goal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a survival goal: it is \"node\" or \"region\"")]
pub struct SurvivalGoalError;

impl FromStr for SurvivalGoal {
    type Err = SurvivalGoalError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "node" => Ok(Self::Node),
            "region" => Ok(Self::Region),
            _ => Err(SurvivalGoalError),
        }
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It carries replicas.
    #[default]
    Active,
    /// Its replicas are to leave it, and none comes.
    Draining,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Where it is.
    pub region: RegionName,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// What it is for.
    pub state: NodeState,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The region where its leader prefers to be, and where boxes in its partitions are born.
    pub home: RegionName,
    /// The replicas that it is born with. The first of them initialises it, once; all others wait.
    pub founders: BTreeMap<ReplicaId, NodeId>,
}

impl GroupEntry {
    /// The replica that initialises the group.
    #[must_use]
    pub fn initialiser(&self) -> Option<ReplicaId> {
        self.founders.keys().next().copied()
    }
}

/// Who owns a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The group.
    pub group: GroupId,
    /// Since which epoch.
    pub epoch: Epoch,
}

/// What goes on with the partitions of a group whose quorum was lost for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The group. The placement group keeps its number.
    pub group: GroupId,
    /// The one replica that it began with. In the placement group all with a lower id are void.
    pub replica: ReplicaId,
}

/// What placement knows at one version. Changes only by [`ClusterMap::after`]; whatever it is decoded
/// from, it has passed [`ClusterMap::check`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct ClusterMap {
    pub(super) version: MapVersion,
    pub(super) goal: SurvivalGoal,
    pub(super) partitions: PartitionCount,
    pub(super) nodes: BTreeMap<NodeId, NodeEntry>,
    pub(super) groups: BTreeMap<GroupId, GroupEntry>,
    pub(super) owners: BTreeMap<PartitionId, Owner>,
    pub(super) successors: BTreeMap<GroupId, Successor>,
}

impl ClusterMap {
    /// Which map. 0 before the cluster was founded.
    #[must_use]
    pub fn version(&self) -> MapVersion {
        self.version
    }

    /// What must be survived.
    #[must_use]
    pub fn goal(&self) -> SurvivalGoal {
        self.goal
    }

    /// Into how many partitions the key space is cut.
    #[must_use]
    pub fn partitions(&self) -> PartitionCount {
        self.partitions
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeEntry> {
        &self.nodes
    }

    /// All data groups. The placement group itself is not among them.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<GroupId, GroupEntry> {
        &self.groups
    }

    /// The partitions that have an owner.
    #[must_use]
    pub fn owners(&self) -> &BTreeMap<PartitionId, Owner> {
        &self.owners
    }

    /// The groups that were recovered with loss of data, and what goes on in their place.
    #[must_use]
    pub fn successors(&self) -> &BTreeMap<GroupId, Successor> {
        &self.successors
    }

    /// What took the place of a replica's group, if that was recovered without it: the replica must not run
    /// any more.
    #[must_use]
    pub fn supersedes(&self, group: GroupId, replica: ReplicaId) -> Option<Successor> {
        let successor = self.successors.get(&group).copied()?;
        let goes_on = successor.group == group && replica >= successor.replica;
        (!goes_on).then_some(successor)
    }

    /// The number that a group gets if it is recovered: one that no group ever had. Groups that are recovered
    /// one after the other, by whoever knows the same map, get different ones.
    #[must_use]
    pub fn number_after(&self, group: GroupId) -> GroupId {
        if group == PLACEMENT_GROUP {
            return PLACEMENT_GROUP;
        }
        let later = self.successors.values().map(|successor| successor.group);
        let highest = self.groups.keys().copied().chain(later).max();
        let place = self.groups.range(..group).count();
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        let above = highest.unwrap_or_default().0.saturating_add(BEYOND);
        GroupId(above.saturating_add(place))
    }

    /// Whether a node is there and carries replicas.
    #[must_use]
    pub fn is_active(&self, node: NodeId) -> bool {
        let entry = self.nodes.get(&node);
        entry.is_some_and(|entry| entry.state == NodeState::Active)
    }

    /// The regions that active nodes are in.
    #[must_use]
    pub fn active_regions(&self) -> BTreeSet<&RegionName> {
        let active = |node: &&NodeEntry| node.state == NodeState::Active;
        let active = self.nodes.values().filter(active);
        active.map(|node| &node.region).collect()
    }

    /// Whether a member of a group that has no vote and is on this node may be a copy that stays so, rather
    /// than one on its way to a vote.
    #[must_use]
    pub fn keeps_copy(&self, group: GroupId, node: NodeId) -> bool {
        let home = self.groups.get(&group).map(|entry| &entry.home);
        let region = self.nodes.get(&node).map(|entry| &entry.region);
        let is_away = home.zip(region).is_some_and(|(home, at)| home != at);
        self.goal == SurvivalGoal::Node && is_away
    }

    /// Whether two nodes may fail together.
    pub(super) fn share_region(&self, a: NodeId, b: NodeId) -> bool {
        match (self.nodes.get(&a), self.nodes.get(&b)) {
            (Some(a), Some(b)) => a.region == b.region,
            _ => false,
        }
    }

    /// The first home of a group in which no node is active.
    pub(super) fn deserted_home(&self) -> Option<&RegionName> {
        let active = self.active_regions();
        let mut homes = self.groups.values().map(|group| &group.home);
        homes.find(|home| !active.contains(home))
    }

    /// The regions that nodes are in.
    #[must_use]
    pub fn regions(&self) -> BTreeSet<&RegionName> {
        self.nodes.values().map(|node| &node.region).collect()
    }

    /// The group that owns a partition; `None` for a spare one.
    #[must_use]
    pub fn owner(&self, partition: PartitionId) -> Option<GroupId> {
        self.owners.get(&partition).map(|owner| owner.group)
    }

    /// The partitions of a group.
    pub fn partitions_of(&self, group: GroupId) -> impl Iterator<Item = (PartitionId, Epoch)> {
        self.owners
            .iter()
            .filter(move |(_, owner)| owner.group == group)
            .map(|(partition, owner)| (*partition, owner.epoch))
    }

    /// The partitions that nobody owns yet.
    pub fn spare(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions
            .all()
            .filter(|partition| !self.owners.contains_key(partition))
    }

    /// The partitions in which boxes of a region are born: those of the groups at home there, or, if
    /// none is, all that have an owner.
    #[must_use]
    pub fn births(&self, region: &RegionName) -> Vec<PartitionId> {
        let at_home = |group: &GroupId| {
            let entry = self.groups.get(group);
            entry.is_some_and(|entry| entry.home == *region)
        };
        let mut births: Vec<PartitionId> = self
            .owners
            .iter()
            .filter(|(_, owner)| at_home(&owner.group))
            .map(|(partition, _)| *partition)
            .collect();
        if births.is_empty() {
            births.extend(self.owners.keys());
        }
        births
    }
}
