//! The cluster map, who should vote, what survives, and what the planner does.

mod admission;
mod changes;
mod cluster;
mod desired;
mod explain;
mod place;
mod plan;
mod recover;

use rossby_domain::ids::{GroupId, NodeId, PartitionCount};
use rossby_domain::placement::{
    Beginning, Change, ClusterMap, NodeEntry, NodeState, Nodes, RegionName, SurvivalGoal,
    VOTERS_AT_HOME, birth,
};

/// A region's name of a letter.
pub fn region(letter: char) -> RegionName {
    RegionName::new(&format!("region-{letter}")).unwrap()
}

pub fn entry(node: u64, letter: char) -> NodeEntry {
    NodeEntry {
        region: region(letter),
        peer_address: format!("10.0.0.{node}:7471"),
        client_address: format!("10.0.0.{node}:7470"),
        state: NodeState::Active,
    }
}

pub fn draining(entry: NodeEntry) -> NodeEntry {
    NodeEntry {
        state: NodeState::Draining,
        ..entry
    }
}

/// Nodes 1.. in the regions of these letters.
pub fn nodes(letters: &str) -> Nodes {
    let numbered = (1..).zip(letters.chars());
    numbered
        .map(|(node, letter)| (NodeId(node), entry(node, letter)))
        .collect()
}

/// What founds a cluster of these nodes as `cluster init` does.
pub fn found(nodes: &Nodes, goal: SurvivalGoal) -> Change {
    Change::Found(Beginning {
        goal,
        partitions: PartitionCount::DEFAULT,
        nodes: nodes.clone(),
        groups: birth(nodes, goal, VOTERS_AT_HOME).groups,
    })
}

pub fn founded(letters: &str, goal: SurvivalGoal) -> ClusterMap {
    let none = ClusterMap::default();
    none.after(&found(&nodes(letters), goal)).unwrap()
}

pub fn ids(numbers: &[u64]) -> std::collections::BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

pub const FIRST: GroupId = GroupId(1);
