//! What becomes of the map when groups whose quorum was lost for good go on from one replica each.
//!
//! ```text
//!   group 2, on nodes 1, 2, 3 ──2 and 3 are lost──► group 1028, on node 1: the same partitions, each an epoch later
//! ```
//!
//! The successor has another number, so whoever still holds a replica of the old group can neither vote in it nor be
//! taken for it. The placement group keeps its number, which everybody knows it by; there the replicas below the
//! successor's are void.

use std::collections::{BTreeMap, BTreeSet};

use super::PLACEMENT_GROUP;
use super::change::{LEAST_REGIONS, PlacementRefusal};
use super::map::{ClusterMap, GroupEntry, NodeState, Owner, Successor, SurvivalGoal};
use crate::ids::{Epoch, GroupId, NodeId, ReplicaId};

/// Numbers of groups and of nodes that are given after a loss lie so far above all that are known, since others may have
/// given some that whoever goes on has not heard of.
pub(super) const BEYOND: u32 = 1024;

impl ClusterMap {
    pub(super) fn recover(
        &mut self,
        node: NodeId,
        lost: &BTreeSet<NodeId>,
        groups: &BTreeMap<GroupId, Successor>,
    ) -> Result<(), PlacementRefusal> {
        if lost.contains(&node) {
            return Err(PlacementRefusal::NotLost(node));
        }
        let entry = self.nodes.get_mut(&node);
        let entry = entry.ok_or(PlacementRefusal::UnknownNode(node))?;
        // It is to hold replicas, whatever was planned for it.
        entry.state = NodeState::Active;
        let region = entry.region.clone();
        // What was told before, and its answer lost, holds nothing else up.
        let new: Vec<_> = groups
            .iter()
            .filter(|(group, successor)| self.successors.get(group) != Some(successor))
            .collect();
        if new.is_empty() {
            return Err(PlacementRefusal::Unchanged);
        }
        let is_known =
            |group: &GroupId| *group == PLACEMENT_GROUP || self.groups.contains_key(group);
        if let Some((unknown, _)) = new.iter().find(|(group, _)| !is_known(group)) {
            return Err(PlacementRefusal::NotRecoverable(**unknown));
        }
        for (group, successor) in new {
            self.succeed(node, *group, *successor)?;
        }
        self.nodes.retain(|other, _| !lost.contains(other));
        // What nobody is left for can't be asked for.
        let active: BTreeSet<_> = self.active_regions().into_iter().cloned().collect();
        for entry in self.groups.values_mut() {
            if !active.contains(&entry.home) {
                entry.home = region.clone();
            }
        }
        if active.len() < LEAST_REGIONS {
            self.goal = SurvivalGoal::Node;
        }
        Ok(())
    }

    fn succeed(
        &mut self,
        node: NodeId,
        group: GroupId,
        successor: Successor,
    ) -> Result<(), PlacementRefusal> {
        let refusal = PlacementRefusal::NotRecoverable(group);
        if successor.replica == ReplicaId(0) {
            return Err(PlacementRefusal::Zero);
        }
        if group == PLACEMENT_GROUP {
            let before = self.successors.get(&group);
            let is_later = before.is_none_or(|before| successor.replica > before.replica);
            if successor.group != PLACEMENT_GROUP || !is_later {
                return Err(refusal);
            }
        } else {
            let was_there = self.groups.contains_key(&successor.group)
                || self.successors.contains_key(&successor.group);
            if successor.group == PLACEMENT_GROUP || was_there {
                return Err(refusal);
            }
            let GroupEntry { home, .. } = self.groups.remove(&group).ok_or(refusal)?;
            let founders = BTreeMap::from([(successor.replica, node)]);
            self.groups
                .insert(successor.group, GroupEntry { home, founders });
            for owner in self
                .owners
                .values_mut()
                .filter(|owner| owner.group == group)
            {
                *owner = Owner {
                    group: successor.group,
                    epoch: Epoch(owner.epoch.0.saturating_add(1)),
                };
            }
        }
        self.successors.insert(group, successor);
        Ok(())
    }
}
