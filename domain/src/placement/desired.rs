//! Who should vote in a group, and who should keep a copy without a vote.
//!
//! | | where | how many |
//! |---|---|---|
//! | goal `region` | home 2, others 3 (at most 2 in one) | 5, with 2 nodes at home and room for the others |
//! | | home 1, two other regions 1 each | 3, else |
//! | goal `node` | home only | up to 3 or as many as are asked for; odd from 3 on |
//! | | copies without a vote: one in each region where nobody votes | up to 2 |
//! | | the only region | all nodes up to 9, at birth |
//! | placement group | one per region | 3 or 5, with 3 regions or more |
//! | | two regions | 2 + 1 |
//! | | the only region | all nodes up to 9, at birth |
//!
//! Two nodes both vote, though no more of them may fail than of one: what was acknowledged is then on
//! two disks. Of nodes that serve as well, those with the fewest replicas are chosen, then those with
//! the lowest number. Draining nodes are never chosen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::RegionName;
use super::change::{FoundingGroup, LEAST_REGIONS, MAX_FOUNDERS};
use super::map::{NodeEntry, NodeState, SurvivalGoal};
use crate::ids::{GroupId, NodeId, ReplicaId};

/// How many nodes vote at home with the goal `node`, if nobody asks for another number.
pub const VOTERS_AT_HOME: usize = 3;
/// In how many other regions a group has a copy with the goal `node`, with a vote or without.
const COPIES_ELSEWHERE: usize = 2;
/// How many vote when each region has one.
const FEW: usize = 3;
/// How many vote when a region may have two.
const MANY: usize = 5;

/// Nodes of this rank and above are chosen if there is nobody else.
pub(super) const RELUCTANT: u8 = 8;

/// The nodes that there are.
pub type Nodes = BTreeMap<NodeId, NodeEntry>;
/// How many replicas are on each node.
pub type Load = BTreeMap<NodeId, usize>;

/// The groups of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// The first replicas of the placement group.
    pub placement: BTreeMap<ReplicaId, NodeId>,
    /// A data group for each region, numbered in the order of the regions' names from 1 on.
    pub groups: BTreeMap<GroupId, FoundingGroup>,
}

/// The groups that a cluster of these nodes is born with. Without active nodes there are none.
#[must_use]
pub fn birth(nodes: &Nodes, goal: SurvivalGoal, at_home: usize) -> Birth {
    let placement = placement_voters(nodes, &Load::new());
    // The placement group is idle nearly always: it is no load.
    let placement = seats(placement, &mut Load::new());
    let mut load = Load::new();
    let mut groups = BTreeMap::new();
    for (number, home) in (1..).zip(region_sizes(nodes).into_keys()) {
        let voters = founders(nodes, home, goal, at_home, &load);
        let founders = seats(voters, &mut load);
        let home = home.clone();
        groups.insert(GroupId(number), FoundingGroup { home, founders });
    }
    Birth { placement, groups }
}

/// The first replicas of a group on these nodes: numbered in the order of their nodes.
fn seats(nodes: BTreeSet<NodeId>, load: &mut Load) -> BTreeMap<ReplicaId, NodeId> {
    for node in &nodes {
        *load.entry(*node).or_default() += 1;
    }
    (1..).map(ReplicaId).zip(nodes).collect()
}

/// The first voters of a data group at home in a region. `at_home` is how many may vote there with the
/// goal `node`, usually [`VOTERS_AT_HOME`].
#[must_use]
pub fn founders(
    nodes: &Nodes,
    home: &RegionName,
    goal: SurvivalGoal,
    at_home: usize,
    load: &Load,
) -> BTreeSet<NodeId> {
    let sizes = region_sizes(nodes);
    let shape = if sizes.len() <= 1 {
        Shape::at(home, MAX_FOUNDERS)
    } else {
        let there = sizes.get(home).copied().unwrap_or_default();
        Shape::of_data(nodes, home, goal, odd(there.min(at_home)))
    };
    shape.fill(nodes, load, |node| rank_of_new(nodes, node))
}

/// The first voters of the placement group.
#[must_use]
pub fn placement_voters(nodes: &Nodes, load: &Load) -> BTreeSet<NodeId> {
    let shape = Shape::of_placement(nodes, &BTreeSet::new(), MAX_FOUNDERS);
    shape.fill(nodes, load, |node| rank_of_new(nodes, node))
}

fn rank_of_new(nodes: &Nodes, node: NodeId) -> Option<u8> {
    let is_active = |entry: &&NodeEntry| entry.state == NodeState::Active;
    nodes.get(&node).filter(is_active).map(|_| 0)
}

fn active(nodes: &Nodes) -> impl Iterator<Item = (NodeId, &NodeEntry)> {
    let active = nodes
        .iter()
        .filter(|(_, entry)| entry.state == NodeState::Active);
    active.map(|(node, entry)| (*node, entry))
}

/// How many active nodes each region has that has any.
fn region_sizes(nodes: &Nodes) -> BTreeMap<&RegionName, usize> {
    let mut sizes = BTreeMap::new();
    for (_, entry) in active(nodes) {
        *sizes.entry(&entry.region).or_default() += 1;
    }
    sizes
}

/// Up to so many, and an odd number from 3 on.
fn odd(count: usize) -> usize {
    match count {
        0..=2 => count,
        _ => count - usize::from(count.is_multiple_of(2)),
    }
}

/// How voters, or copies without a vote, are to be spread over regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// All of them.
    total: usize,
    /// The region that comes first, and how many of them are there.
    first: Option<(RegionName, usize)>,
    /// How many at most are in each other region.
    elsewhere: usize,
}

impl Shape {
    fn at(home: &RegionName, total: usize) -> Self {
        Self {
            total,
            first: Some((home.clone(), total)),
            elsewhere: 0,
        }
    }

    /// Of a data group. The shape goes by the nodes that are active, not by those that are up: a region
    /// that is down for a while is no reason to move. With the goal `node`, `at_home` are to vote.
    pub(super) fn of_data(
        nodes: &Nodes,
        home: &RegionName,
        goal: SurvivalGoal,
        at_home: usize,
    ) -> Self {
        let sizes = region_sizes(nodes);
        let at = sizes.get(home).copied().unwrap_or_default();
        if goal == SurvivalGoal::Node || sizes.len() < LEAST_REGIONS {
            return Self::at(home, at.min(at_home).min(MAX_FOUNDERS));
        }
        let others = sizes.iter().filter(|(region, _)| **region != home);
        let in_pairs: usize = others.map(|(_, size)| (*size).min(2)).sum();
        let (total, each) = if at >= 2 && in_pairs >= MANY - 2 {
            (MANY, 2)
        } else {
            (FEW, 1)
        };
        Self {
            total,
            first: Some((home.clone(), each)),
            elsewhere: each,
        }
    }

    /// Of the placement group. Of two regions, the one that has two of `voters` keeps them. In the
    /// only region there are up to `at_home`.
    pub(super) fn of_placement(nodes: &Nodes, voters: &BTreeSet<NodeId>, at_home: usize) -> Self {
        let sizes = region_sizes(nodes);
        if sizes.len() >= LEAST_REGIONS {
            let total = if sizes.len() >= MANY { MANY } else { FEW };
            return Self {
                total,
                first: None,
                elsewhere: 1,
            };
        }
        let held = |region: &RegionName| {
            let there = active(nodes).filter(|(_, entry)| entry.region == *region);
            there.filter(|(node, _)| voters.contains(node)).count()
        };
        let first = sizes.iter().max_by_key(|(region, size)| {
            ((**size).min(2), held(region), **size, Reverse(**region))
        });
        let Some((first, size)) = first else {
            return Self {
                total: 0,
                first: None,
                elsewhere: 0,
            };
        };
        if sizes.len() == 1 {
            return Self::at(first, (*size).min(at_home));
        }
        let both = (*size).min(2);
        Self {
            total: both + 1,
            first: Some(((*first).clone(), both)),
            elsewhere: 1,
        }
    }

    /// Of the copies without a vote that a group keeps with the goal `node`, if there are voters in so many
    /// regions, its home among them.
    pub(super) fn of_copies(regions: usize) -> Self {
        Self {
            total: (COPIES_ELSEWHERE + 1).saturating_sub(regions),
            first: None,
            elsewhere: 1,
        }
    }

    /// The voters: nodes of the lowest rank first, then spread over regions, then by load and number.
    /// A node without a rank is not chosen, and one of a rank from [`RELUCTANT`] on only if no other
    /// fits.
    pub(super) fn fill(
        &self,
        nodes: &Nodes,
        load: &Load,
        rank: impl Fn(NodeId) -> Option<u8>,
    ) -> BTreeSet<NodeId> {
        let ranked = nodes.keys().filter_map(|node| {
            let load = load.get(node).copied().unwrap_or_default();
            Some((rank(*node)?, load, *node))
        });
        let ranked: BTreeSet<(u8, usize, NodeId)> = ranked.collect();
        let (willing, reluctant): (Vec<_>, Vec<_>) =
            ranked.iter().partition(|(rank, _, _)| *rank < RELUCTANT);
        let mut chosen = BTreeSet::new();
        self.choose(nodes, &willing, &mut chosen);
        self.choose(nodes, &reluctant, &mut chosen);
        chosen
    }

    fn choose(&self, nodes: &Nodes, from: &[(u8, usize, NodeId)], chosen: &mut BTreeSet<NodeId>) {
        let region = |node: &NodeId| nodes.get(node).map(|entry| &entry.region);
        let first = self.first.as_ref().map(|(home, _)| home);
        let most = |node: &NodeId| match &self.first {
            Some((home, count)) if region(node) == Some(home) => *count,
            _ => self.elsewhere,
        };
        while chosen.len() < self.total {
            let neighbours = |node: &NodeId| {
                let there = chosen.iter().filter(|other| region(other) == region(node));
                there.count()
            };
            let fits = from
                .iter()
                .filter(|(_, _, node)| !chosen.contains(node) && neighbours(node) < most(node));
            let next = fits.min_by_key(|(rank, load, node)| {
                let is_elsewhere = region(node) != first;
                (is_elsewhere, *rank, neighbours(node), *load, *node)
            });
            let Some((_, _, node)) = next else { break };
            chosen.insert(*node);
        }
    }
}
