//! How the cluster of a world is laid out: its regions, its nodes, its first groups, and how far it is from
//! one to another.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use rossby_domain::ids::{GroupId, NodeId, PartitionCount, ReplicaId};
use rossby_domain::placement::{
    Beginning, Birth, Change, ClusterMap, NodeEntry, NodeState, PLACEMENT_GROUP, Patience,
    PlacementRefusal, RegionName, SurvivalGoal, VOTERS_AT_HOME, birth,
};
use rossby_raft::{Member, Timing};
use rossby_seams::transport::Conditions;
use rossby_storage::datadir::HeldReplica;

use super::dice::Dice;

/// The one group of worlds without regions.
pub const GROUP: GroupId = GroupId(1);
/// It is born on so many nodes.
const MEMBERS: u64 = 3;
/// Of 1,000 worlds so many have three regions of one node, and of three nodes.
const SMALL_PERMILLE: u64 = 250;
const LARGE_PERMILLE: u64 = 80;
/// The regions.
const REGIONS: [&str; 3] = ["asia", "eu", "us"];
/// So many nodes may come later. Each join token takes a number, and some are never used.
const TO_COME: u64 = 10;
/// How long one way between two regions takes, at least and at most, in milliseconds.
const WAY_MS: (u64, u64) = (10, 75);
/// The partitions of worlds without regions, and with them: some of these are spare.
const FEW_PARTITIONS: u16 = 4;
const MANY_PARTITIONS: u16 = 16;

/// The kind of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One group on three nodes, which owns everything.
    One,
    /// Three regions of so many nodes: a group for each, and the placement group over all of them.
    Regions(u64),
}

/// A text that names no kind of world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("worlds are of the kinds one, 3x1 and 3x3")]
pub struct NoShape;

impl FromStr for Shape {
    type Err = NoShape;

    fn from_str(text: &str) -> Result<Self, NoShape> {
        match text {
            "one" => Ok(Self::One),
            "3x1" => Ok(Self::Regions(1)),
            "3x3" => Ok(Self::Regions(3)),
            _ => Err(NoShape),
        }
    }
}

impl Shape {
    /// Its name, as a command line gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Regions(1) => "3x1",
            Self::Regions(_) => "3x3",
        }
    }

    /// The kind that a world is of if nobody says so.
    #[must_use]
    pub fn drawn(dice: &Dice) -> Self {
        match dice.between(0, 999) {
            small if small < SMALL_PERMILLE => Self::Regions(1),
            large if large < SMALL_PERMILLE + LARGE_PERMILLE => Self::Regions(3),
            _ => Self::One,
        }
    }
}

/// The layout of a world's cluster.
#[derive(Debug)]
pub struct Layout {
    /// The nodes that are there from the beginning, those to spare too, and where they are.
    pub nodes: BTreeMap<NodeId, RegionName>,
    /// Those that may come later, and where they will be.
    pub to_come: BTreeMap<NodeId, RegionName>,
    /// The first replicas of each group.
    pub founders: BTreeMap<GroupId, BTreeMap<ReplicaId, NodeId>>,
    /// How the cluster map begins, where there is one, and the map then.
    pub first: Option<(Change, ClusterMap)>,
    /// Into how many partitions the key space is cut.
    pub partitions: PartitionCount,
    /// One way between two regions, the one with the lower name first.
    ways: BTreeMap<(RegionName, RegionName), Duration>,
}

/// What the members of a group know of a node.
#[must_use]
pub fn member(node: NodeId) -> Member {
    Member {
        node,
        peer_address: format!("node-{node}"),
        client_address: format!("node-{node}:clients"),
    }
}

impl Layout {
    /// The layout of a kind of world; what the kind leaves open is drawn.
    ///
    /// # Errors
    /// [`PlacementRefusal`] if there is no such cluster.
    pub fn new(shape: Shape, dice: &Dice) -> Result<Self, PlacementRefusal> {
        match shape {
            Shape::One => Ok(Self::one()),
            Shape::Regions(each) => Self::regions(each, dice),
        }
    }

    fn one() -> Self {
        let nodes = (1..=MEMBERS + 1).map(|node| (NodeId(node), RegionName::default()));
        let seats = (1..=MEMBERS).map(|node| (ReplicaId(node + 100), NodeId(node)));
        Self {
            nodes: nodes.collect(),
            to_come: BTreeMap::new(),
            founders: BTreeMap::from([(GROUP, seats.collect())]),
            first: None,
            partitions: partitions(FEW_PARTITIONS),
            ways: BTreeMap::new(),
        }
    }

    /// The last node is a spare one, in any region.
    fn regions(each: u64, dice: &Dice) -> Result<Self, PlacementRefusal> {
        let names: Vec<RegionName> = REGIONS
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        let all = names
            .iter()
            .flat_map(|name| (0..each).map(move |_| name.clone()));
        let founding: BTreeMap<NodeId, RegionName> = (1..).map(NodeId).zip(all).collect();
        let goal = match dice.permille(800) {
            true => SurvivalGoal::Region,
            false => SurvivalGoal::Node,
        };
        let entries = founding
            .iter()
            .map(|(node, region)| (*node, entry(*node, region)));
        let entries: BTreeMap<NodeId, NodeEntry> = entries.collect();
        let Birth { placement, groups } =
            birth(&entries, goal, VOTERS_AT_HOME).home_first(&entries);
        let data = groups
            .iter()
            .map(|(group, born)| (*group, born.founders.clone()));
        let founders = std::iter::once((PLACEMENT_GROUP, placement))
            .chain(data)
            .collect();
        let partitions = partitions(MANY_PARTITIONS);
        let change = Change::Found(Beginning {
            goal,
            partitions,
            nodes: entries,
            groups,
        });
        let map = ClusterMap::default().after(&change)?;
        let mut nodes = founding;
        let spare = NodeId(each * 3 + 1);
        nodes.extend(dice.pick(&names).map(|region| (spare, region.clone())));
        let mut ways = BTreeMap::new();
        for (at, first) in names.iter().enumerate() {
            for second in names.iter().skip(at + 1) {
                let (least, most) = WAY_MS;
                ways.insert((first.clone(), second.clone()), dice.millis(least, most));
            }
        }
        let later = (spare.0 + 1..=spare.0 + TO_COME).map(NodeId);
        let to_come = later.filter_map(|node| Some((node, dice.pick(&names)?.clone())));
        let to_come = to_come.collect();
        Ok(Self {
            nodes,
            to_come,
            founders,
            first: Some((change, map)),
            partitions,
            ways,
        })
    }

    /// Whether there is a placement group, and with it a map.
    #[must_use]
    pub fn has_map(&self) -> bool {
        self.first.is_some()
    }

    /// Raft's intervals.
    #[must_use]
    pub fn timing(&self) -> Timing {
        match self.has_map() {
            true => Timing::wan(),
            false => Timing::lan(),
        }
    }

    /// How long the plan waits: a world is short.
    #[must_use]
    pub fn patience() -> Patience {
        Patience {
            dead_after_ms: 15_000,
            stable_ms: 3_000,
            cool_down_ms: 3_000,
        }
    }

    /// The replicas that a node is born with.
    #[must_use]
    pub fn held_by(&self, node: NodeId) -> BTreeSet<HeldReplica> {
        let held = |(group, seats): (&GroupId, &BTreeMap<ReplicaId, NodeId>)| {
            let (replica, _) = seats.iter().find(|(_, on)| **on == node)?;
            Some(HeldReplica {
                group: *group,
                replica: *replica,
                initialise: false,
            })
        };
        self.founders.iter().filter_map(held).collect()
    }

    /// Where a node is.
    #[must_use]
    pub fn region(&self, node: NodeId) -> RegionName {
        let region = self.nodes.get(&node).or_else(|| self.to_come.get(&node));
        region.cloned().unwrap_or_default()
    }

    /// A node as the map shows it.
    #[must_use]
    pub fn entry(&self, node: NodeId) -> NodeEntry {
        entry(node, &self.region(node))
    }

    /// All regions.
    #[must_use]
    pub fn all_regions(&self) -> BTreeSet<&RegionName> {
        self.nodes.values().collect()
    }

    /// One way between two regions, beyond what it takes within one.
    #[must_use]
    pub fn way(&self, from: &RegionName, to: &RegionName) -> Duration {
        let key = (from.min(to).clone(), from.max(to).clone());
        self.ways.get(&key).copied().unwrap_or_default()
    }

    /// How frames travel between two nodes on a quiet day, if that is not as usual.
    #[must_use]
    pub fn conditions(&self, from: NodeId, to: NodeId) -> Option<Conditions> {
        let way = self.way(&self.region(from), &self.region(to));
        (!way.is_zero()).then_some(Conditions {
            delay: way,
            jitter: way / 10,
            lost_permille: 0,
        })
    }
}

fn entry(node: NodeId, region: &RegionName) -> NodeEntry {
    let Member {
        peer_address,
        client_address,
        ..
    } = member(node);
    NodeEntry {
        region: region.clone(),
        peer_address,
        client_address,
        state: NodeState::Active,
    }
}

fn partitions(count: u16) -> PartitionCount {
    // Both are powers of two.
    PartitionCount::new(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_of_regions_has_a_group_at_home_in_each_and_one_over_all() {
        for each in [1, 3] {
            let layout = Layout::new(Shape::Regions(each), &Dice::new(7)).unwrap();
            assert_eq!(layout.nodes.len() as u64, 3 * each + 1);
            let groups: Vec<u32> = layout.founders.keys().map(|group| group.0).collect();
            assert_eq!(groups, [0, 1, 2, 3]);
            let spare = NodeId(3 * each + 1);
            assert!(layout.held_by(spare).is_empty());
            let later = layout.to_come.keys().next();
            assert_eq!(later, Some(&NodeId(3 * each + 2)));
            let (_, map) = layout.first.as_ref().unwrap();
            assert!(!map.nodes().contains_key(&spare) && map.spare().count() == 2);
        }
    }

    #[test]
    fn it_takes_longer_to_another_region_than_within_one() {
        let layout = Layout::new(Shape::Regions(3), &Dice::new(7)).unwrap();
        assert_eq!(layout.conditions(NodeId(1), NodeId(2)), None);
        let there = layout.conditions(NodeId(1), NodeId(4)).unwrap();
        assert!(there.delay >= Duration::from_millis(10));
        assert_eq!(layout.conditions(NodeId(4), NodeId(1)), Some(there));
    }

    #[test]
    fn a_kind_is_read_by_its_name() {
        for shape in [Shape::One, Shape::Regions(1), Shape::Regions(3)] {
            assert_eq!(shape.name().parse(), Ok(shape));
        }
        assert_eq!("3x2".parse::<Shape>(), Err(NoShape));
    }
}
