//! Which cluster map is gone on with. Nodes tell each other of maps, so one that is left may know of a newer one than the
//! log of its placement group holds.
//!
//! ```text
//!   `<data>/map` here, and in the reports ──► the newest: it was committed
//!   the placement group's log here ──► a map that the newest led to or came from?  yes: gone on with
//!                                                                                  no: the newest takes its place
//! ```

use std::collections::BTreeSet;

use rossby_domain::ids::GroupId;
use rossby_domain::placement::ClusterMap;

use super::known::Report;

/// The newest map that any of these nodes knows.
pub fn newest<'a>(reports: impl Iterator<Item = &'a Report>) -> ClusterMap {
    let maps = reports.map(|report| &report.map);
    let newest = maps.max_by_key(|map| map.version());
    newest.cloned().unwrap_or_default()
}

/// The number that a group is recovered under: one that none had, nor one of those that are `taken`.
pub fn number_after(map: &ClusterMap, group: GroupId, taken: &BTreeSet<GroupId>) -> GroupId {
    let mut number = map.number_after(group);
    while taken.contains(&number) {
        number = GroupId(number.0.saturating_add(1));
    }
    number
}

/// How the maps of a placement group's log follow each other, beside one that is known to be committed.
pub struct Course<'a> {
    known: &'a ClusterMap,
    meets: bool,
}

impl<'a> Course<'a> {
    /// From a map in the log that was committed.
    pub fn from(committed: &ClusterMap, known: &'a ClusterMap) -> Self {
        Self {
            known,
            meets: committed.version() >= known.version(),
        }
    }

    /// Then there was this one.
    pub fn pass(&mut self, map: &ClusterMap) {
        self.meets |= map == self.known;
    }

    /// The map that takes the place of the log's last one: the known one, if the log does not come to it, or ends with
    /// others that were never committed.
    pub fn taken_over(self) -> Option<&'a ClusterMap> {
        (!self.meets).then_some(self.known)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rossby_domain::ids::{NodeId, PartitionCount};
    use rossby_domain::placement::{
        Beginning, Birth, Change, NodeEntry, NodeState, RegionName, SurvivalGoal, VOTERS_AT_HOME,
        birth,
    };

    use super::*;

    fn with(map: &ClusterMap, node: u64) -> ClusterMap {
        let entry = NodeEntry {
            region: RegionName::default(),
            peer_address: format!("10.0.0.{node}:7472"),
            client_address: format!("10.0.0.{node}:7470"),
            state: NodeState::Active,
        };
        let change = match map.nodes().is_empty() {
            false => Change::PutNode {
                node: NodeId(node),
                entry,
            },
            true => {
                let (goal, nodes) = (SurvivalGoal::Node, BTreeMap::from([(NodeId(node), entry)]));
                let Birth { groups, .. } = birth(&nodes, goal, VOTERS_AT_HOME);
                Change::Found(Beginning {
                    goal,
                    partitions: PartitionCount::DEFAULT,
                    nodes,
                    groups,
                })
            }
        };
        map.after(&change).unwrap()
    }

    /// What is taken over if the log goes on from its first map with those that follow.
    fn taken_over<'a>(log: &[&ClusterMap], known: &'a ClusterMap) -> Option<&'a ClusterMap> {
        let mut course = Course::from(log[0], known);
        for map in &log[1..] {
            course.pass(map);
        }
        course.taken_over()
    }

    #[test]
    fn a_map_that_the_log_has_not_come_to_takes_the_place_of_its_own() {
        let first = with(&ClusterMap::default(), 1);
        let second = with(&first, 2);
        let third = with(&second, 3);
        assert_eq!(taken_over(&[&first], &third), Some(&third));
        assert_eq!(taken_over(&[&first, &second], &third), Some(&third));
        // What the log knows beyond may have been acknowledged.
        assert_eq!(taken_over(&[&first, &second, &third], &second), None);
        assert_eq!(taken_over(&[&third], &second), None);
        assert_eq!(taken_over(&[&first], &ClusterMap::default()), None);
        // Others were committed in their place.
        let other = with(&first, 4);
        let later = with(&other, 5);
        assert_eq!(taken_over(&[&first, &second], &other), Some(&other));
        assert_eq!(taken_over(&[&first, &second, &third], &other), Some(&other));
        assert_eq!(taken_over(&[&first, &other, &later], &other), None);
    }

    #[test]
    fn numbers_that_are_taken_are_passed_over() {
        let map = with(&ClusterMap::default(), 1);
        let number = |taken: &[u32]| {
            let taken = taken.iter().copied().map(GroupId).collect();
            number_after(&map, GroupId(1), &taken).0
        };
        assert_eq!(number(&[]), 1025);
        assert_eq!(number(&[1025, 1026, 1030]), 1027);
        assert_eq!(number(&[7]), 1025);
    }
}
