//! The next group of boxes of a cluster, as `rossby group add` founds it.

use super::change::{Change, FoundingGroup};
use super::desired::{Birth, Load, Nodes, VOTERS_AT_HOME, founders};
use super::map::ClusterMap;
use super::{PLACEMENT_GROUP, RegionName};
use crate::ids::{GroupId, NodeId, ReplicaId};

/// The next group at home in a region, and the change of the map that brings it. If nobody says how many
/// partitions it gets, it gets half of those that are spare.
#[must_use]
pub fn next_group(
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

impl Birth {
    /// The same groups of boxes, each with its replicas at home first: the first one brings its group to life, and is
    /// likely to lead.
    #[must_use]
    pub fn home_first(mut self, nodes: &Nodes) -> Self {
        for born in self.groups.values_mut() {
            home_first(born, nodes);
        }
        self
    }
}

/// Numbers the replicas anew, those at home first.
fn home_first(born: &mut FoundingGroup, nodes: &Nodes) {
    let is_away = |node: &NodeId| nodes.get(node).is_none_or(|at| at.region != born.home);
    let mut founders: Vec<NodeId> = born.founders.values().copied().collect();
    founders.sort_by_key(|node| (is_away(node), *node));
    born.founders = (1..).map(ReplicaId).zip(founders).collect();
}
