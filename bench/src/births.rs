//! Boxes that are born in the groups that they are to be in.
//!
//! The service puts a new box into a partition by its genesis record, by chance, and groups own different numbers
//! of partitions. Whoever wants as many boxes in each group draws identities until there is one for the group
//! whose turn it is, and keeps those that were drawn on the way until their turn comes.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rossby_client::identity::Identity;
use rossby_domain::ids::{BoxId, GroupId, PartitionId};
use rossby_seams::random::OsRandom;

use crate::BenchError;

/// Where boxes are born, and identities for each group.
pub struct Births {
    /// In the service's order.
    partitions: Vec<PartitionId>,
    owners: BTreeMap<PartitionId, GroupId>,
    groups: Vec<GroupId>,
    /// The most identities that are kept for a group.
    share: usize,
    stock: Mutex<BTreeMap<GroupId, Vec<Identity>>>,
}

impl std::fmt::Debug for Births {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Births").field(&self.groups).finish()
    }
}

impl Births {
    /// As many boxes in each group, so many in all. The partitions in which boxes are born stand in the service's
    /// order, each with its owner.
    #[must_use]
    pub fn evenly(births: &[(PartitionId, GroupId)], boxes: usize) -> Self {
        let owners: BTreeMap<PartitionId, GroupId> = births.iter().copied().collect();
        let mut groups: Vec<GroupId> = owners.values().copied().collect();
        groups.sort_unstable();
        groups.dedup();
        Self {
            partitions: births.iter().map(|(partition, _)| *partition).collect(),
            share: boxes.div_ceil(groups.len().max(1)),
            owners,
            groups,
            stock: Mutex::default(),
        }
    }

    /// An identity for the box with this number, whose group is that of its turn. Without groups, any.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn identity(&self, number: usize) -> Result<Identity, BenchError> {
        let turn = number.checked_rem(self.groups.len());
        let Some(wanted) = turn.and_then(|turn| self.groups.get(turn)) else {
            return Ok(Identity::generate(&OsRandom)?);
        };
        let mut stock = self.stock.lock();
        if let Some(kept) = stock.get_mut(wanted).and_then(Vec::pop) {
            return Ok(kept);
        }
        loop {
            let drawn = Identity::generate(&OsRandom)?;
            let birth = BoxId::birth(&self.partitions, &drawn.record().genesis_hash());
            match birth.and_then(|birth| self.owners.get(&birth)) {
                Some(group) if group == wanted => return Ok(drawn),
                Some(group) => {
                    let kept = stock.entry(*group).or_default();
                    if kept.len() < self.share {
                        kept.push(drawn);
                    }
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_gets_as_many_boxes_whatever_it_owns() {
        // The first group owns seven partitions, the second one.
        let births: Vec<(PartitionId, GroupId)> = (0..8)
            .map(|number| {
                let partition = PartitionId::try_from(number).unwrap();
                (partition, GroupId(if number < 7 { 1 } else { 2 }))
            })
            .collect();
        let partitions: Vec<PartitionId> = births.iter().map(|(partition, _)| *partition).collect();
        let even = Births::evenly(&births, 10);
        for number in 0..10 {
            let identity = even.identity(number).unwrap();
            let birth = BoxId::birth(&partitions, &identity.record().genesis_hash()).unwrap();
            let is_second = birth == partitions[7];
            assert_eq!(is_second, number % 2 == 1, "box {number}");
        }
        assert!(Births::evenly(&[], 10).identity(3).is_ok());
    }
}
