//! How a cluster comes to be: the plan, written down before anything else happens, so that whoever
//! picks it up after a crash makes the same cluster and not a second one.
//!
//! ```text
//!   plan ─┬─► which replicas each node holds, and which of them brings its group to life
//!         ├─► the first members of each group
//!         └─► the first map: version 1 is decided by the plan, before anybody has it in a log
//! ```
//!
//! Every founding node gets the plan and keeps it: each can go on by itself after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rossby_api::admin::InitPlan;
use rossby_api::placement::SealedFile;
use rossby_domain::ids::{
    ClusterId, GroupId, MapVersion, NodeId, PartitionCount, PartitionId, ReplicaId,
};
use rossby_domain::placement::{
    Beginning, Birth, Change, ClusterMap, FoundingGroup, NodeEntry, Owner, PLACEMENT_GROUP,
    PlacementRefusal, RegionName, SurvivalGoal, VOTERS_AT_HOME, birth,
};
use rossby_raft::Member;
use rossby_storage::datadir::{DataDirectory, HeldReplica};
use serde::{Deserialize, Serialize};

/// The first group of boxes; the only one where all nodes are in one region.
pub const FIRST_GROUP: GroupId = GroupId(1);

/// The plan in the data directory.
const FILE: SealedFile = SealedFile {
    name: "founding",
    what: "rossby founding plan",
};
/// With so many regions the loss of one can be survived.
const REGIONS_TO_LOSE_ONE: usize = 3;

/// Why a plan can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct PlanError {
    path: PathBuf,
    reason: String,
}

impl PlanError {
    fn new(data: &DataDirectory, reason: impl ToString) -> Self {
        Self {
            path: FILE.path(data.path()),
            reason: reason.to_string(),
        }
    }

    /// The plan is gone from a data directory, although a group has not got its first members.
    pub fn missing(data: &Path) -> Self {
        Self {
            path: FILE.path(data),
            reason: "the founder's plan is missing; move the data directory away and begin anew"
                .to_owned(),
        }
    }
}

/// What the first map of a cluster that is made of a backup takes over from the lost one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inherited {
    /// No version of its map was above this.
    pub above: MapVersion,
    /// Which group owns which partition.
    pub owners: BTreeMap<PartitionId, Owner>,
}

/// A cluster that is founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Into how many partitions it is cut.
    pub partitions: PartitionCount,
    /// What it is to survive.
    pub goal: SurvivalGoal,
    /// The nodes that found it.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// The first replicas of the placement group.
    pub placement: BTreeMap<ReplicaId, NodeId>,
    /// The groups of boxes.
    pub groups: BTreeMap<GroupId, FoundingGroup>,
    /// What it takes over from a cluster whose backup it is made of, if it is.
    #[serde(default)]
    pub inherited: Option<Inherited>,
    /// The marks of the data directories that it was made for (`mark.rs`). No other gets a place by it.
    #[serde(default)]
    pub marks: BTreeMap<NodeId, String>,
    /// On the founder: every node has taken its place. Nobody is given one by this plan again: a node
    /// that has lost its disk meanwhile would not remember what it promised.
    pub placed: bool,
}

impl Founding {
    /// A plan for these nodes: one group of boxes for each region, in the order of the regions' names.
    ///
    /// # Errors
    /// [`PlacementRefusal`] if these nodes make no cluster, or can't survive what they shall.
    pub fn new(
        cluster: ClusterId,
        name: String,
        partitions: PartitionCount,
        goal: Option<SurvivalGoal>,
        nodes: BTreeMap<NodeId, NodeEntry>,
    ) -> Result<Self, PlacementRefusal> {
        let regions: BTreeSet<&RegionName> = nodes.values().map(|node| &node.region).collect();
        let goal = goal.unwrap_or(if regions.len() >= REGIONS_TO_LOSE_ONE {
            SurvivalGoal::Region
        } else {
            SurvivalGoal::Node
        });
        let Birth { placement, groups } = birth(&nodes, goal, VOTERS_AT_HOME).home_first(&nodes);
        let founding = Self {
            cluster,
            name,
            partitions,
            goal,
            nodes,
            placement,
            groups,
            inherited: None,
            marks: BTreeMap::new(),
            placed: false,
        };
        founding.map()?;
        Ok(founding)
    }

    /// The change that brings the first map.
    #[must_use]
    pub fn change(&self) -> Change {
        let beginning = Beginning {
            goal: self.goal,
            partitions: self.partitions,
            nodes: self.nodes.clone(),
            groups: self.groups.clone(),
        };
        match self.inherited.clone() {
            None => Change::Found(beginning),
            Some(Inherited { above, owners }) => Change::Restore {
                above,
                beginning,
                owners,
            },
        }
    }

    /// The first map.
    ///
    /// # Errors
    /// [`PlacementRefusal`] if there is none.
    pub fn map(&self) -> Result<ClusterMap, PlacementRefusal> {
        ClusterMap::default().after(&self.change())
    }

    fn founders(&self, group: GroupId) -> Option<&BTreeMap<ReplicaId, NodeId>> {
        if group == PLACEMENT_GROUP {
            return Some(&self.placement);
        }
        self.groups.get(&group).map(|born| &born.founders)
    }

    /// The first members of a group; none if the plan does not know it.
    #[must_use]
    pub fn members(&self, group: GroupId) -> BTreeMap<ReplicaId, Member> {
        let member = |(replica, node): (&ReplicaId, &NodeId)| {
            let entry = self.nodes.get(node)?;
            let member = Member {
                node: *node,
                peer_address: entry.peer_address.clone(),
                client_address: entry.client_address.clone(),
            };
            Some((*replica, member))
        };
        let founders = self.founders(group).into_iter().flatten();
        founders.filter_map(member).collect()
    }

    /// The replicas that a node holds.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> BTreeSet<HeldReplica> {
        let groups = std::iter::once(PLACEMENT_GROUP).chain(self.groups.keys().copied());
        let held = |group: GroupId| {
            let founders = self.founders(group)?;
            let (replica, _) = founders.iter().find(|(_, on)| **on == node)?;
            Some(HeldReplica {
                group,
                replica: *replica,
                initialise: founders.keys().next() == Some(replica),
            })
        };
        groups.filter_map(held).collect()
    }

    /// Whether a node's data directory is the one that the plan was made for, as far as that is known.
    #[must_use]
    pub fn knows(&self, node: NodeId, mark: &str) -> bool {
        self.marks.get(&node).is_none_or(|known| known == mark)
    }

    /// Reads the plan in a data directory, if there is one.
    ///
    /// # Errors
    /// [`PlanError`] if it is damaged or can't be read.
    pub fn read(data: &DataDirectory) -> Result<Option<Self>, PlanError> {
        let read = FILE.read(&**data.disk(), data.path());
        read.map_err(|reason| PlanError::new(data, reason))
    }

    /// Writes the plan into a data directory, durably and in one step.
    ///
    /// # Errors
    /// [`PlanError`] if it can't be written.
    pub fn write(&self, data: &DataDirectory) -> Result<(), PlanError> {
        let written = FILE.write(&**data.disk(), data.path(), self);
        written.map_err(|error| PlanError::new(data, error))
    }

    /// Whether an operator's plan is for this cluster.
    #[must_use]
    pub fn is_of(&self, plan: &InitPlan) -> bool {
        let planned: BTreeSet<_> = plan.nodes.iter().map(|(node, _)| *node).collect();
        let own: BTreeSet<_> = self.nodes.keys().copied().collect();
        self.name == plan.name
            && self.partitions == plan.partitions
            && plan.survive.is_none_or(|goal| goal == self.goal)
            && own == planned
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rossby_seams::disk::MemoryDisk;

    use super::*;

    fn entry(node: u64, region: &str) -> (NodeId, NodeEntry) {
        let entry = NodeEntry {
            region: RegionName::new(region).unwrap(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: format!("10.0.0.{node}:7470"),
            state: rossby_domain::placement::NodeState::Active,
        };
        (NodeId(node), entry)
    }

    fn founding(nodes: &[(u64, &str)]) -> Founding {
        let nodes = nodes.iter().map(|(node, region)| entry(*node, region));
        let cluster = ClusterId::from_random([7; 16]);
        let name = "test".to_owned();
        Founding::new(
            cluster,
            name,
            PartitionCount::DEFAULT,
            None,
            nodes.collect(),
        )
        .unwrap()
    }

    fn one_region() -> Founding {
        founding(&[(30, "local"), (10, "local"), (20, "local")])
    }

    fn held(founding: &Founding, node: u64) -> Vec<(u32, u64, bool)> {
        let held = founding.held_by(NodeId(node));
        held.into_iter()
            .map(|held| (held.group.0, held.replica.0, held.initialise))
            .collect()
    }

    #[test]
    fn replicas_are_numbered_in_the_order_of_the_nodes_and_the_first_brings_its_group_to_life() {
        let founding = one_region();
        assert_eq!(held(&founding, 10), [(0, 1, true), (1, 1, true)]);
        assert_eq!(held(&founding, 30), [(0, 3, false), (1, 3, false)]);
        assert_eq!(held(&founding, 1), []);
        assert_eq!(founding.goal, SurvivalGoal::Node);
        let members = founding.members(FIRST_GROUP);
        assert_eq!(members[&ReplicaId(2)].peer_address, "10.0.0.20:7472");
    }

    #[test]
    fn each_region_gets_a_group_that_a_node_of_it_brings_to_life() {
        let founding = founding(&[(1, "us"), (2, "eu"), (3, "asia")]);
        assert_eq!(founding.goal, SurvivalGoal::Region);
        let homes: Vec<_> = founding.groups.values().map(|g| g.home.as_str()).collect();
        assert_eq!(homes, ["asia", "eu", "us"]);
        for (group, node) in [(1, 3), (2, 2), (3, 1)] {
            let held = held(&founding, node);
            assert!(held.contains(&(group, 1, true)), "{held:?}");
            assert_eq!(founding.groups[&GroupId(group)].founders.len(), 3);
        }
        let map = founding.map().unwrap();
        assert_eq!(map.groups().len(), 3);
        assert_eq!(map.spare().count(), 32);
    }

    #[test]
    fn a_plan_is_the_same_whatever_the_order_of_its_nodes_and_else_another() {
        let founding = one_region();
        let plan = |nodes: &[u64], name: &str, survive| InitPlan {
            name: name.to_owned(),
            partitions: PartitionCount::DEFAULT,
            nodes: nodes
                .iter()
                .map(|&node| (NodeId(node), String::new()))
                .collect(),
            survive,
        };
        assert!(founding.is_of(&plan(&[20, 30, 10], "test", None)));
        assert!(founding.is_of(&plan(&[20, 30, 10], "test", Some(SurvivalGoal::Node))));
        assert!(!founding.is_of(&plan(&[20, 30, 10], "test", Some(SurvivalGoal::Region))));
        assert!(!founding.is_of(&plan(&[20, 30, 10], "other", None)));
        assert!(!founding.is_of(&plan(&[20, 30], "test", None)));
        assert!(!founding.is_of(&plan(&[20, 30, 40], "test", None)));
    }

    #[test]
    fn the_plan_that_is_read_is_the_one_that_was_written() {
        let disk = Arc::new(MemoryDisk::default());
        let data = DataDirectory::open(disk, Path::new("/data")).unwrap();
        assert!(Founding::read(&data).unwrap().is_none());
        let founding = one_region();
        founding.write(&data).unwrap();
        assert_eq!(Founding::read(&data).unwrap(), Some(founding));
    }
}
