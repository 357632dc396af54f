//! Changes of the cluster map: the only way from one version to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::map::{ClusterMap, GroupEntry, NodeEntry, NodeState, Owner, SurvivalGoal};
use super::RegionName;
use crate::ids::{Epoch, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId};

/// The ownership epoch of a partition that had no owner before.
const FIRST_EPOCH: Epoch = Epoch(1);
/// The most nodes of a cluster.
pub(super) const MAX_NODES: usize = 1024;
/// The most voters of a group; more make every write slower and nothing safer.
pub(super) const MAX_FOUNDERS: usize = 9;
const MAX_ADDRESS_BYTES: usize = 255;

/// A group as it is born.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingGroup {
    /// Its home region.
    pub home: RegionName,
    /// Its first replicas.
    pub founders: BTreeMap<ReplicaId, NodeId>,
}

/// A change of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The first map. All partitions but a reserve are shared out among the groups in turn.
    Found {
        /// What must be survived.
        goal: SurvivalGoal,
        /// Into how many partitions the key space is cut, for ever.
        partitions: PartitionCount,
        /// The first nodes.
        nodes: BTreeMap<NodeId, NodeEntry>,
        /// The first groups.
        groups: BTreeMap<GroupId, FoundingGroup>,
    },
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
    #[error("a cluster has 1 to {MAX_NODES} nodes and 1 to 4096 groups")]
    Size,
    /// A number that means something else: node 0, group 0, replica 0.
    #[error("number 0 is none for a node, a group of boxes or a replica")]
    Zero,
    /// An address that is empty, too long, or that of another node.
    #[error("node {0} needs addresses of its own")]
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
    /// No active node is left, or none in the home region of a group.
    #[error("it leaves no active node where one is needed")]
    NobodyLeft,
    /// The group is there already.
    #[error("there is a group {0} already")]
    GroupExists(GroupId),
    /// A group that is born with no replica, with too many, or with two on a node.
    #[error("group {0} needs 1 to {MAX_FOUNDERS} first replicas, each on an active node of its own")]
    Founders(GroupId),
    /// A home without nodes.
    #[error("there is no active node in region {0}")]
    NoSuchRegion(RegionName),
    /// Not as many spare partitions.
    #[error("only {left} partitions are spare")]
    NotEnoughSpare {
        /// How many there are.
        left: u16,
    },
    /// A goal that no placement of these nodes can meet.
    #[error("to survive the loss of a region takes nodes in at least 3, and there are {regions}")]
    TooFewRegions {
        /// How many there are.
        regions: u16,
    },
    /// Nothing would change.
    #[error("it is so already")]
    Unchanged,
}

impl ClusterMap {
    /// The map after a change.
    ///
    /// # Errors
    /// [`PlacementRefusal`] if there is none.
    pub fn after(&self, change: &Change) -> Result<Self, PlacementRefusal> {
        let founded = self.version > MapVersion(0);
        let mut next = match (change, founded) {
            (Change::Found { .. }, true) => return Err(PlacementRefusal::AlreadyFounded),
            (Change::Found { goal, partitions, nodes, groups }, false) => {
                Self::found(*goal, *partitions, nodes, groups)?
            }
            (_, false) => return Err(PlacementRefusal::NotFounded),
            (Change::PutNode { node, entry }, true) => self.with_node(*node, entry)?,
            (Change::RemoveNode(node), true) => self.without_node(*node)?,
            (Change::AddGroup { group, born, partitions }, true) => {
                let mut next = self.clone();
                next.add_group(*group, born)?;
                next.hand_out(*group, *partitions)?;
                next
            }
            (Change::SetGoal(goal), true) => Self { goal: *goal, ..self.clone() },
        };
        next.check_goal()?;
        if next == *self {
            return Err(PlacementRefusal::Unchanged);
        }
        next.version = self.version.next();
        Ok(next)
    }

    fn found(
        goal: SurvivalGoal,
        partitions: PartitionCount,
        nodes: &BTreeMap<NodeId, NodeEntry>,
        groups: &BTreeMap<GroupId, FoundingGroup>,
    ) -> Result<Self, PlacementRefusal> {
        let none = Self { goal, partitions, ..Self::default() };
        let mut map = nodes
            .iter()
            .try_fold(none, |map, (node, entry)| map.with_node(*node, entry))?;
        for (group, born) in groups {
            map.add_group(*group, born)?;
        }
        let in_turn = groups.keys().cycle();
        for (partition, group) in partitions.handed_out_at_birth().zip(in_turn) {
            map.owners.insert(partition, Owner { group: *group, epoch: FIRST_EPOCH });
        }
        if map.nodes.is_empty() || map.groups.is_empty() || map.owners.len() < map.groups.len() {
            return Err(PlacementRefusal::Size);
        }
        Ok(map)
    }

    fn with_node(&self, node: NodeId, entry: &NodeEntry) -> Result<Self, PlacementRefusal> {
        if node == NodeId(0) {
            return Err(PlacementRefusal::Zero);
        }
        let known = self.nodes.get(&node);
        if known.is_some_and(|known| known.region != entry.region) {
            return Err(PlacementRefusal::OtherRegion(node));
        }
        if known.is_none() && self.nodes.len() >= MAX_NODES {
            return Err(PlacementRefusal::Size);
        }
        let is_address = |address: &str| address.len() <= MAX_ADDRESS_BYTES;
        let taken = self.nodes.iter().any(|(other, known)| {
            let same = |own: &str, theirs: &str| !own.is_empty() && own == theirs;
            *other != node
                && (same(&entry.peer_address, &known.peer_address)
                    || same(&entry.client_address, &known.client_address))
        });
        if taken || !is_address(&entry.peer_address) || !is_address(&entry.client_address) {
            return Err(PlacementRefusal::Address(node));
        }
        let mut next = self.clone();
        next.nodes.insert(node, entry.clone());
        next.check_homes()?;
        Ok(next)
    }

    fn without_node(&self, node: NodeId) -> Result<Self, PlacementRefusal> {
        match self.nodes.get(&node) {
            None => return Err(PlacementRefusal::UnknownNode(node)),
            Some(entry) if entry.state == NodeState::Active => {
                return Err(PlacementRefusal::NotDraining(node));
            }
            Some(_) => {}
        }
        let mut next = self.clone();
        next.nodes.remove(&node);
        Ok(next)
    }

    fn add_group(&mut self, group: GroupId, born: &FoundingGroup) -> Result<(), PlacementRefusal> {
        if group == GroupId(0) || born.founders.contains_key(&ReplicaId(0)) {
            return Err(PlacementRefusal::Zero);
        }
        if self.groups.contains_key(&group) {
            return Err(PlacementRefusal::GroupExists(group));
        }
        let nodes: BTreeSet<&NodeId> = born.founders.values().collect();
        let count = born.founders.len();
        let fits = nodes.len() == count && (1..=MAX_FOUNDERS).contains(&count);
        if !fits || !nodes.iter().all(|node| self.is_active(node)) {
            return Err(PlacementRefusal::Founders(group));
        }
        let FoundingGroup { home, founders } = born.clone();
        self.groups.insert(group, GroupEntry { home, founders });
        self.check_homes()
    }

    /// Gives a group the spare partitions with the highest numbers.
    fn hand_out(&mut self, group: GroupId, count: u16) -> Result<(), PlacementRefusal> {
        let mut spare: Vec<PartitionId> = self.spare().collect();
        let left = u16::try_from(spare.len()).unwrap_or(u16::MAX);
        if count == 0 || count > left {
            return Err(PlacementRefusal::NotEnoughSpare { left });
        }
        let kept = spare.len() - usize::from(count);
        for partition in spare.split_off(kept) {
            self.owners.insert(partition, Owner { group, epoch: FIRST_EPOCH });
        }
        Ok(())
    }

    fn is_active(&self, node: &NodeId) -> bool {
        let entry = self.nodes.get(node);
        entry.is_some_and(|entry| entry.state == NodeState::Active)
    }

    /// The regions that active nodes are in.
    pub(super) fn active_regions(&self) -> BTreeSet<&RegionName> {
        let active = self.nodes.values().filter(|node| node.state == NodeState::Active);
        active.map(|node| &node.region).collect()
    }

    fn check_homes(&self) -> Result<(), PlacementRefusal> {
        let regions = self.active_regions();
        let homeless = self.groups.values().find(|group| !regions.contains(&group.home));
        match homeless {
            Some(group) => Err(PlacementRefusal::NoSuchRegion(group.home.clone())),
            None if regions.is_empty() => Err(PlacementRefusal::NobodyLeft),
            None => Ok(()),
        }
    }

    fn check_goal(&self) -> Result<(), PlacementRefusal> {
        let regions = self.active_regions().len();
        if self.goal == SurvivalGoal::Region && regions < 3 {
            let regions = u16::try_from(regions).unwrap_or(u16::MAX);
            return Err(PlacementRefusal::TooFewRegions { regions });
        }
        Ok(())
    }
}
