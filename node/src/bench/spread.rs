//! How boxes and clients are spread over groups.

use std::collections::BTreeMap;

use rossby_domain::ids::{BoxId, GroupId, PartitionId};
use serde::Serialize;

use super::target::Target;

/// One group, and what of the load is in it.
#[derive(Debug, Serialize)]
pub(super) struct SpreadView {
    group: GroupId,
    /// The node that led it when the load began, if it told.
    leader: Option<String>,
    /// Partitions in which boxes of this group are born.
    partitions: usize,
    /// Boxes that the clients choose from.
    boxes: usize,
    /// Clients whose own box is there.
    clients: usize,
}

impl SpreadView {
    /// Where these boxes are, by the partitions that they were really born in.
    pub(super) fn of(
        target: &Target,
        boxes: impl Iterator<Item = BoxId>,
        clients: impl Iterator<Item = BoxId>,
    ) -> Vec<Self> {
        let owners: BTreeMap<PartitionId, GroupId> = target.births().iter().copied().collect();
        let group_of = |box_id: BoxId| owners.get(&box_id.partition()).copied().unwrap_or(FIRST);
        let mut groups = BTreeMap::new();
        let view = |group| Self {
            group,
            leader: target.leader_at_first(group).map(ToString::to_string),
            partitions: owners.values().filter(|owner| **owner == group).count(),
            boxes: 0,
            clients: 0,
        };
        for box_id in boxes {
            let group = group_of(box_id);
            groups.entry(group).or_insert_with(|| view(group)).boxes += 1;
        }
        for box_id in clients {
            let group = group_of(box_id);
            groups.entry(group).or_insert_with(|| view(group)).clients += 1;
        }
        groups.into_values().collect()
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        let led = match &self.leader {
            Some(leader) => format!(", led by {leader}"),
            None => String::new(),
        };
        format!(
            "group {}{led}: {} boxes, {} clients",
            self.group, self.boxes, self.clients
        )
    }
}

/// The only group of a cluster that has no other, which nobody was asked about.
const FIRST: GroupId = GroupId(1);
