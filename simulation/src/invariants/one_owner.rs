//! One owner: at one ownership epoch a partition is ruled by one group, whatever map anybody believes in.

use std::collections::BTreeMap;

use rossby_domain::ids::{Epoch, GroupId, PartitionId};
use rossby_domain::placement::PLACEMENT_GROUP;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, ReplicaEvent};

/// See the file's head.
#[derive(Debug, Default)]
pub struct OneOwner {
    owners: BTreeMap<(PartitionId, Epoch), GroupId>,
}

impl Invariant for OneOwner {
    fn name(&self) -> &'static str {
        "one owner"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let Some(((group, replica), event)) = observation.of_replica() else {
            return Ok(());
        };
        let ReplicaEvent::Ruled { partition, epoch } = event else {
            return Ok(());
        };
        // Its partitions are those of a key space of its own.
        if group == PLACEMENT_GROUP {
            return Ok(());
        }
        let owner = *self.owners.entry((*partition, *epoch)).or_insert(group);
        if owner == group {
            return Ok(());
        }
        Err(format!(
            "replica {replica} of group {group} rules partition {partition} at epoch {epoch}, which is group \
             {owner}'s"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught, node};
    use crate::observe::What;
    use rossby_domain::ids::ReplicaId;

    fn ruled(story: &mut Story, group: u32, partition: u16, epoch: u64) {
        let what = What::Replica {
            group: GroupId(group),
            replica: ReplicaId(1),
            event: ReplicaEvent::Ruled {
                partition: PartitionId::new(partition).unwrap(),
                epoch: Epoch(epoch),
            },
        };
        story.push(node(1), what);
    }

    #[test]
    fn partitions_of_several_groups_and_a_later_epoch_of_another_are_legal() {
        let mut story = Story::default();
        for (group, partition, epoch) in [(1, 3, 1), (2, 4, 1), (1, 3, 1), (2, 3, 2), (0, 3, 1)] {
            ruled(&mut story, group, partition, epoch);
        }
        assert_eq!(caught(OneOwner::default(), &story), None);
    }

    #[test]
    fn two_groups_that_rule_one_partition_at_one_epoch_are_caught() {
        let mut story = Story::default();
        ruled(&mut story, 1, 3, 1);
        ruled(&mut story, 2, 3, 1);
        let violation = caught(OneOwner::default(), &story).unwrap();
        assert!(violation.what.contains("which is group 1's"), "{violation}");
    }
}
