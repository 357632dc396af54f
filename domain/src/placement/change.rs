//! Changes of the cluster map: the only way from one version to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::RegionName;
use super::check::InvalidMap;
use super::map::{ClusterMap, GroupEntry, NodeEntry, NodeState, Owner, Successor, SurvivalGoal};
use crate::ids::{Epoch, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId};
use crate::planted::{Bug, planted};
use crate::time::Timestamp;

/// The ownership epoch of a partition that had no owner before.
pub(super) const FIRST_EPOCH: Epoch = Epoch(1);
/// The most nodes of a cluster.
pub(super) const MAX_NODES: usize = 1024;
/// The most voters of a group; more make every write slower and nothing safer.
pub(super) const MAX_FOUNDERS: usize = 9;
/// From so many regions on, one of them can be lost and a majority of the others' voters be left.
pub(super) const LEAST_REGIONS: usize = 3;
/// The longest address, in bytes.
const MAX_ADDRESS_BYTES: usize = 255;

/// A group as it is born.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingGroup {
    /// Its home region.
    pub home: RegionName,
    /// Its first replicas.
    pub founders: BTreeMap<ReplicaId, NodeId>,
}

/// What every first map begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// What must be survived.
    pub goal: SurvivalGoal,
    /// Into how many partitions the key space is cut, for ever.
    pub partitions: PartitionCount,
    /// The first nodes.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// The first groups.
    pub groups: BTreeMap<GroupId, FoundingGroup>,
}

impl Beginning {
    fn weight_bytes(&self) -> usize {
        let nodes: usize = self.nodes.values().map(weight_of_node).sum();
        nodes + self.groups.values().map(weight_of_group).sum::<usize>()
    }
}

/// A change of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The first map. All partitions but a reserve are shared out among the groups in turn.
    Found(Beginning),
    /// A node comes. For one that is there, in the same region: its addresses and its state.
    PutNode {
        /// The node.
        node: NodeId,
        /// What is known of it.
        entry: NodeEntry,
    },
    /// A node that is draining goes. That no replica is on it any more is the caller's to know.
    RemoveNode(NodeId),
    /// A group comes, and gets so many of the spare partitions.
    AddGroup {
        /// The group.
        group: GroupId,
        /// How it is born.
        born: FoundingGroup,
        /// How many partitions, at least one.
        partitions: u16,
    },
    /// Another survival goal.
    SetGoal(SurvivalGoal),
    /// The first map of a cluster that is made of a backup: partitions have the owners that they had.
    Restore {
        /// The cluster that was lost may have given out versions up to this one.
        above: MapVersion,
        /// With the groups of the backup.
        beginning: Beginning,
        /// Who owns what.
        owners: BTreeMap<PartitionId, Owner>,
    },
    /// Groups whose quorum was lost for good go on from one replica each, on the same node.
    Recover {
        /// The node.
        node: NodeId,
        /// The nodes that are gone for good, as the operator says.
        lost: BTreeSet<NodeId>,
        /// What takes the place of each group.
        groups: BTreeMap<GroupId, Successor>,
    },
}

impl Change {
    /// About how many bytes it takes in the log, and no less.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        match self {
            Self::Found(beginning) => beginning.weight_bytes(),
            Self::Restore {
                beginning, owners, ..
            } => EACH_BYTES + beginning.weight_bytes() + 20 * owners.len(),
            Self::PutNode { entry, .. } => weight_of_node(entry),
            Self::AddGroup { born, .. } => weight_of_group(born),
            Self::Recover { lost, groups, .. } => EACH_BYTES + 20 * (lost.len() + groups.len()),
            Self::RemoveNode(_) | Self::SetGoal(_) => 0,
        }
    }
}

/// More than anything of a change takes in the log, beside addresses and founders.
const EACH_BYTES: usize = 256;

fn weight_of_node(entry: &NodeEntry) -> usize {
    EACH_BYTES + entry.weight_bytes()
}

fn weight_of_group(born: &FoundingGroup) -> usize {
    EACH_BYTES + 20 * born.founders.len()
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapHistoryRow {
    /// The version of the map with it.
    pub version: MapVersion,
    /// When, by the clock of the placement group.
    pub at: Timestamp,
    /// The change.
    pub change: Change,
}

/// Why a change makes no map. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PlacementRefusal {
    /// There is a map already.
    #[error("the cluster was founded before")]
    AlreadyFounded,
    /// There is no map yet.
    #[error("the cluster was not founded yet")]
    NotFounded,
    /// Too few or too many.
    #[error(
        "a cluster has 1 to {MAX_NODES} nodes and at least one group, and a partition for each group"
    )]
    Size,
    /// A number that means something else.
    #[error("0 is no number for a node, a group of boxes or a replica, nor of partitions to give")]
    Zero,
    /// An address that is missing, too long or not printable, or that of another node.
    #[error("node {0} needs an address for its peers, and no other node's addresses")]
    Address(NodeId),
    /// The node is not in the map.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// A node can't move: it would be another failure domain for what it holds.
    #[error("node {0} is in another region, and a node stays where it is")]
    OtherRegion(NodeId),
    /// A node leaves only once it is drained.
    #[error("node {0} is not drained: `rossby node drain {0}` comes first")]
    NotDraining(NodeId),
    /// A region where a group is at home would be left without an active node.
    #[error("it leaves no active node in region {0}, where a group is at home")]
    NobodyLeft(RegionName),
    /// The group is there already.
    #[error("there is a group {0} already")]
    GroupExists(GroupId),
    /// A group that is born with no replica, with too many, or with two on a node.
    #[error(
        "group {0} needs 1 to {MAX_FOUNDERS} first replicas, each on an active node of its own"
    )]
    Founders(GroupId),
    /// A home without nodes.
    #[error("there is no active node in region {0}")]
    NoSuchRegion(RegionName),
    /// Not as many spare partitions.
    #[error("spare partitions: {left}, fewer than asked for")]
    NotEnoughSpare {
        /// How many there are.
        left: u16,
    },
    /// A goal that no placement of these nodes can meet.
    #[error(
        "to survive the loss of a region takes active nodes in at least 3, and there are {regions}"
    )]
    TooFewRegions {
        /// How many there would be.
        regions: u16,
    },
    /// Nothing would change.
    #[error("it is so already")]
    Unchanged,
    /// A backup's partition that there is not, whose owner there is not, or that has none and needs one.
    #[error("partition {0} can't have the owner that it is to have")]
    Owner(PartitionId),
    /// The group is not there, or was recovered before, or its successor is not new.
    #[error("group {0} is not there any more, or what is to take its place was there before")]
    NotRecoverable(GroupId),
    /// It would lose the node that groups are recovered on.
    #[error("groups are recovered on node {0}: it can't be lost")]
    NotLost(NodeId),
}

impl ClusterMap {
    /// The map after a change.
    ///
    /// # Errors
    /// [`PlacementRefusal`] if there is none.
    pub fn after(&self, change: &Change) -> Result<Self, PlacementRefusal> {
        let founded = self.version > MapVersion(0);
        let mut next = self.clone();
        match (change, founded) {
            (Change::Found(_) | Change::Restore { .. }, true) => {
                return Err(PlacementRefusal::AlreadyFounded);
            }
            (Change::Found(beginning), false) => {
                next.begin(beginning)?;
                next.hand_out_in_turn()?;
            }
            (
                Change::Restore {
                    above,
                    beginning,
                    owners,
                },
                false,
            ) => {
                next.begin(beginning)?;
                next.owners.clone_from(owners);
                next.check_owned()?;
                // A version must be left to come.
                if above.0 >= u64::MAX - 1 {
                    return Err(PlacementRefusal::Size);
                }
                next.version = *above;
            }
            (_, false) => return Err(PlacementRefusal::NotFounded),
            (Change::PutNode { node, entry }, true) => {
                next.put_node(*node, entry)?;
                if let Some(home) = next.deserted_home() {
                    return Err(PlacementRefusal::NobodyLeft(home.clone()));
                }
            }
            (Change::RemoveNode(node), true) => next.remove_node(*node)?,
            (
                Change::AddGroup {
                    group,
                    born,
                    partitions,
                },
                true,
            ) => {
                next.add_group(*group, born)?;
                next.hand_out(*group, *partitions)?;
            }
            (Change::SetGoal(goal), true) => next.goal = *goal,
            (Change::Recover { node, lost, groups }, true) => next.recover(*node, lost, groups)?,
        }
        next.check_goal()?;
        if next == *self {
            return Err(PlacementRefusal::Unchanged);
        }
        next.version = self.version.max(next.version).next();
        Ok(next)
    }

    /// The same with a higher version than this, if it has none.
    pub(crate) fn raised_above(mut self, floor: MapVersion) -> Self {
        self.version = self.version.max(floor.next());
        self
    }

    fn begin(&mut self, beginning: &Beginning) -> Result<(), PlacementRefusal> {
        let Beginning { nodes, groups, .. } = beginning;
        (self.goal, self.partitions) = (beginning.goal, beginning.partitions);
        if nodes.is_empty() || groups.is_empty() {
            return Err(PlacementRefusal::Size);
        }
        for (node, entry) in nodes {
            self.put_node(*node, entry)?;
        }
        for (group, born) in groups {
            self.add_group(*group, born)?;
        }
        Ok(())
    }

    /// Shares all partitions but a reserve out among the groups.
    fn hand_out_in_turn(&mut self) -> Result<(), PlacementRefusal> {
        let in_turn = self.groups.keys().cycle();
        for (partition, group) in self.partitions.handed_out_at_birth().zip(in_turn) {
            let owner = Owner {
                group: *group,
                epoch: FIRST_EPOCH,
            };
            self.owners.insert(partition, owner);
        }
        if self.owners.len() < self.groups.len() {
            return Err(PlacementRefusal::Size);
        }
        Ok(())
    }

    /// Whether partitions have owners that there are, those of the directory all, and groups have partitions.
    fn check_owned(&self) -> Result<(), PlacementRefusal> {
        self.check_owners().map_err(|invalid| match invalid {
            InvalidMap::Owner(partition) | InvalidMap::Directory(partition) => {
                PlacementRefusal::Owner(partition)
            }
            _ => PlacementRefusal::Size,
        })?;
        let has_partitions = |group: &GroupId| self.partitions_of(*group).next().is_some();
        match self.groups.keys().all(has_partitions) {
            true => Ok(()),
            false => Err(PlacementRefusal::Size),
        }
    }

    fn put_node(&mut self, node: NodeId, entry: &NodeEntry) -> Result<(), PlacementRefusal> {
        if node == NodeId(0) {
            return Err(PlacementRefusal::Zero);
        }
        match self.nodes.get(&node) {
            Some(known) if known.region != entry.region => {
                return Err(PlacementRefusal::OtherRegion(node));
            }
            None if self.nodes.len() >= MAX_NODES => return Err(PlacementRefusal::Size),
            _ => {}
        }
        let others = || self.nodes.iter().filter(|(other, _)| **other != node);
        // A node without a door for peers is a cluster by itself, and gets one before others come.
        if let Some((unreachable, _)) = others().find(|(_, other)| !other.has_addresses(false)) {
            return Err(PlacementRefusal::Address(*unreachable));
        }
        let alone = others().next().is_none();
        if !entry.has_addresses(alone)
            || others().any(|(_, other)| entry.shares_address_with(other))
        {
            return Err(PlacementRefusal::Address(node));
        }
        self.nodes.insert(node, entry.clone());
        Ok(())
    }

    fn remove_node(&mut self, node: NodeId) -> Result<(), PlacementRefusal> {
        match self.nodes.get(&node) {
            None => Err(PlacementRefusal::UnknownNode(node)),
            Some(entry) if entry.state == NodeState::Active => {
                Err(PlacementRefusal::NotDraining(node))
            }
            Some(_) => {
                self.nodes.remove(&node);
                Ok(())
            }
        }
    }

    fn add_group(&mut self, group: GroupId, born: &FoundingGroup) -> Result<(), PlacementRefusal> {
        if group == GroupId(0) || born.founders.contains_key(&ReplicaId(0)) {
            return Err(PlacementRefusal::Zero);
        }
        if self.groups.contains_key(&group) || self.successors.contains_key(&group) {
            return Err(PlacementRefusal::GroupExists(group));
        }
        if !self.active_regions().contains(&born.home) {
            return Err(PlacementRefusal::NoSuchRegion(born.home.clone()));
        }
        let mut founders = born.founders.values();
        if !has_founders(&born.founders) || !founders.all(|node| self.is_active(*node)) {
            return Err(PlacementRefusal::Founders(group));
        }
        let FoundingGroup { home, founders } = born.clone();
        self.groups.insert(group, GroupEntry { home, founders });
        Ok(())
    }

    /// Gives a group the spare partitions with the highest numbers.
    fn hand_out(&mut self, group: GroupId, count: u16) -> Result<(), PlacementRefusal> {
        if count == 0 {
            return Err(PlacementRefusal::Zero);
        }
        let mut spare: Vec<PartitionId> = match planted(Bug::OwnedPartitionGiven) {
            true => self.owners.keys().copied().collect(),
            false => self.spare().collect(),
        };
        let Some(kept) = spare.len().checked_sub(usize::from(count)) else {
            let left = u16::try_from(spare.len()).unwrap_or(u16::MAX);
            return Err(PlacementRefusal::NotEnoughSpare { left });
        };
        for partition in spare.split_off(kept) {
            let epoch = FIRST_EPOCH;
            self.owners.insert(partition, Owner { group, epoch });
        }
        Ok(())
    }

    fn check_goal(&self) -> Result<(), PlacementRefusal> {
        let regions = self.active_regions().len();
        if self.goal == SurvivalGoal::Region && regions < LEAST_REGIONS {
            let regions = u16::try_from(regions).unwrap_or(u16::MAX);
            return Err(PlacementRefusal::TooFewRegions { regions });
        }
        Ok(())
    }
}

/// Whether as many replicas as may be stand on as many nodes.
pub(super) fn has_founders(founders: &BTreeMap<ReplicaId, NodeId>) -> bool {
    let nodes: BTreeSet<&NodeId> = founders.values().collect();
    nodes.len() == founders.len() && (1..=MAX_FOUNDERS).contains(&founders.len())
}

impl NodeEntry {
    /// How many bytes its addresses take.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.peer_address.len() + self.client_address.len()
    }

    /// Whether its peers can be told where it is, unless it is `alone` and has none. Clients need not be.
    pub(super) fn has_addresses(&self, alone: bool) -> bool {
        let is_printable = |address: &str| {
            address.len() <= MAX_ADDRESS_BYTES && address.bytes().all(|b| b.is_ascii_graphic())
        };
        (alone || !self.peer_address.is_empty())
            && is_printable(&self.peer_address)
            && is_printable(&self.client_address)
    }

    pub(super) fn shares_address_with(&self, other: &Self) -> bool {
        self.peer_address == other.peer_address
            || (!self.client_address.is_empty() && self.client_address == other.client_address)
    }
}
