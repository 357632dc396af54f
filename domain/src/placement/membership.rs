//! Who votes in a group, as its leader tells.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::map::{ClusterMap, SurvivalGoal};
use crate::ids::NodeId;

/// A group's members, by node: a node has at most one replica of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Who leads, if anybody is known to.
    pub leader: Option<NodeId>,
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// While a change of voters is half-way: who will vote. A majority of both must agree until then.
    pub coming: Option<BTreeSet<NodeId>>,
    /// Who has a replica and no vote.
    pub learners: BTreeSet<NodeId>,
}

impl Membership {
    /// The sets of voters of each of which a majority must agree.
    pub(super) fn electorates(&self) -> impl Iterator<Item = &BTreeSet<NodeId>> {
        std::iter::once(&self.voters).chain(&self.coming)
    }

    /// Every node with a replica.
    pub(super) fn replicas(&self) -> impl Iterator<Item = NodeId> {
        let voters = self.electorates().flatten();
        voters.chain(&self.learners).copied()
    }

    /// Whether enough of its voters are among these for it to go on.
    pub(super) fn has_quorum(&self, alive: impl Fn(NodeId) -> bool) -> bool {
        self.electorates()
            .all(|voters| has_majority(voters, &alive))
    }
}

/// How many of so many voters are a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether a majority of these voters are alive.
pub(super) fn has_majority(voters: &BTreeSet<NodeId>, alive: impl Fn(NodeId) -> bool) -> bool {
    voters.iter().filter(|node| alive(**node)).count() >= majority(voters.len())
}

/// Whether these voters go on after the loss of any one node or region, whichever the goal is about, on
/// top of those that are not alive.
pub(super) fn survives(
    map: &ClusterMap,
    goal: SurvivalGoal,
    voters: &BTreeSet<NodeId>,
    alive: impl Fn(NodeId) -> bool,
) -> bool {
    voters.iter().all(|lost| {
        let goes_too = |node: NodeId| match goal {
            SurvivalGoal::Node => node == *lost,
            SurvivalGoal::Region => node == *lost || map.share_region(node, *lost),
        };
        has_majority(voters, |node| alive(node) && !goes_too(node))
    })
}
