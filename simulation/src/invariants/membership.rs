//! Members: one change at a time, so that any quorum of the old ones and any of the new ones have a
//! replica in common; a replica that was removed never comes back, and does not lead in a term after
//! its removal; a replica id is given once, to a node that holds nothing of it yet.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Observation, ReplicaEvent, What, Who};

/// The members since one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Members {
    voters: Vec<BTreeSet<ReplicaId>>,
    learners: BTreeSet<ReplicaId>,
}

impl Members {
    fn all(&self) -> BTreeSet<ReplicaId> {
        let voters = self.voters.iter().flatten();
        voters.chain(&self.learners).copied().collect()
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Membership {
    history: BTreeMap<(GroupId, LogPosition), Members>,
    /// Where each replica was removed.
    removed: BTreeMap<(GroupId, ReplicaId), LogPosition>,
    /// The node that each replica lives on.
    homes: BTreeMap<(GroupId, ReplicaId), Who>,
    /// The terms that each replica has led.
    reigns: BTreeSet<(GroupId, ReplicaId, u64)>,
}

/// Whether the voters may change like this in one step.
fn is_one_step(before: &Members, after: &Members) -> bool {
    match (&before.voters[..], &after.voters[..]) {
        ([before], [after]) => before == after,
        ([before], [old, _]) => before == old,
        ([_, new], [after]) => new == after,
        _ => false,
    }
}

impl Membership {
    fn members(&mut self, group: GroupId, at: LogPosition, members: Members) -> Result<(), String> {
        let known = self.history.entry((group, at)).or_insert(members.clone());
        if *known != members {
            return Err(format!(
                "two replicas differ in the members since {}",
                show(at)
            ));
        }
        let before = self.history.range(..(group, at)).next_back();
        let before = before.filter(|((of, _), _)| *of == group);
        let Some(((_, since), before)) = before else {
            return Ok(());
        };
        if !is_one_step(before, &members) {
            return Err(format!(
                "the voters go from {:?} since {} to {:?} since {} in one step",
                before.voters,
                show(*since),
                members.voters,
                show(at)
            ));
        }
        let (before, now) = (before.all(), members.all());
        for gone in before.difference(&now) {
            self.removed.entry((group, *gone)).or_insert(at);
            self.leads_on(group, *gone)?;
        }
        let back = now.iter().find(|replica| {
            let removed = self.removed.get(&(group, **replica));
            removed.is_some_and(|removed| *removed < at)
        });
        back.map_or(Ok(()), |replica| {
            Err(format!(
                "replica {replica} was removed and is a member again since {}",
                show(at)
            ))
        })
    }

    fn leads_on(&self, group: GroupId, replica: ReplicaId) -> Result<(), String> {
        let Some(removed) = self.removed.get(&(group, replica)) else {
            return Ok(());
        };
        let later = (group, replica, removed.term + 1);
        let mut reigns = self.reigns.range(later..=(group, replica, u64::MAX));
        reigns.next().map_or(Ok(()), |(.., term)| {
            Err(format!(
                "replica {replica} was removed at {} and leads term {term}",
                show(*removed)
            ))
        })
    }

    fn started(&mut self, group: GroupId, replica: ReplicaId, on: Who) -> Result<(), String> {
        let home = *self.homes.entry((group, replica)).or_insert(on);
        if home == on {
            Ok(())
        } else {
            Err(format!("replica {replica} of {home} starts on {on}"))
        }
    }
}

impl Invariant for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let who = observation.who;
        if observation.what == What::Wiped {
            // Nothing that lived there may live again.
            let homes = self.homes.values_mut();
            homes
                .filter(|home| **home == who)
                .for_each(|home| *home = Who::World);
        }
        let Some(((group, replica), event)) = observation.of_replica() else {
            return Ok(());
        };
        match event {
            ReplicaEvent::Members {
                at,
                voters,
                learners,
            } => {
                let (voters, learners) = (voters.clone(), learners.clone());
                self.members(group, *at, Members { voters, learners })
            }
            ReplicaEvent::Leads { term } => {
                self.reigns.insert((group, replica, *term));
                self.leads_on(group, replica)
            }
            ReplicaEvent::Started(_) => self.started(group, replica, who),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, at, caught, found, node};
    use crate::observe::Recovered;

    fn ids(numbers: &[u64]) -> BTreeSet<ReplicaId> {
        numbers.iter().copied().map(ReplicaId).collect()
    }

    fn members(index: u64, voters: &[&[u64]], learners: &[u64]) -> ReplicaEvent {
        ReplicaEvent::Members {
            at: at(1, index),
            voters: voters.iter().map(|set| ids(set)).collect(),
            learners: ids(learners),
        }
    }

    /// Replica 3 is replaced by 7.
    fn replacement() -> Story {
        let mut story = Story::default();
        for replica in [1, 2] {
            story.replica(replica, members(1, &[&[1, 2, 3]], &[]));
            story.replica(replica, members(5, &[&[1, 2, 3]], &[7]));
            story.replica(replica, members(6, &[&[1, 2, 3], &[1, 2, 7]], &[]));
            story.replica(replica, members(7, &[&[1, 2, 7]], &[]));
        }
        story
    }

    fn what(story: &Story) -> String {
        caught(Membership::default(), story).unwrap().what
    }

    #[test]
    fn members_may_come_and_go_through_joint_steps() {
        let mut story = replacement();
        // A replica that is behind goes through the same again.
        story.replica(7, members(5, &[&[1, 2, 3]], &[7]));
        story.replica(7, ReplicaEvent::Leads { term: 2 });
        assert_eq!(caught(Membership::default(), &story), None);
    }

    #[test]
    fn voters_must_not_change_in_one_step() {
        let mut story = replacement();
        story.replica(1, members(9, &[&[1, 2]], &[]));
        assert!(what(&story).contains("in one step"), "{}", what(&story));
        let mut story = replacement();
        story.replica(1, members(9, &[&[1, 2, 7], &[1, 2]], &[]));
        story.replica(1, members(10, &[&[2, 7]], &[]));
        assert!(what(&story).contains("in one step"), "{}", what(&story));
    }

    #[test]
    fn replicas_must_not_differ_in_the_members() {
        let mut story = replacement();
        story.replica(7, members(7, &[&[1, 2]], &[]));
        assert!(what(&story).contains("differ"), "{}", what(&story));
    }

    #[test]
    fn who_was_removed_must_not_come_back() {
        let mut story = replacement();
        story.replica(1, members(9, &[&[1, 2, 7]], &[3]));
        assert!(what(&story).contains("again"), "{}", what(&story));
    }

    #[test]
    fn who_was_removed_must_not_lead_a_later_term() {
        let mut story = replacement();
        story.replica(3, ReplicaEvent::Leads { term: 1 });
        assert_eq!(caught(Membership::default(), &story), None);
        story.replica(3, ReplicaEvent::Leads { term: 2 });
        assert!(what(&story).contains("leads term 2"), "{}", what(&story));
        // The same, seen in the other order.
        let mut early = Story::default();
        early.replica(3, ReplicaEvent::Leads { term: 2 });
        early.observations.extend(replacement().observations);
        assert!(what(&early).contains("leads term 2"), "{}", what(&early));
    }

    #[test]
    fn a_replica_lives_on_one_node_and_dies_with_its_disk() {
        let start = || found(Recovered::default());
        let mut story = Story::default();
        story.replica(1, start());
        story.replica(1, start());
        assert_eq!(caught(Membership::default(), &story), None);
        let mut moved = story.clone();
        let (group, replica) = (GroupId(1), ReplicaId(1));
        let event = start();
        moved.push(
            node(2),
            What::Replica {
                group,
                replica,
                event,
            },
        );
        assert!(what(&moved).contains("starts on"), "{}", what(&moved));
        story.push(node(1), What::Wiped);
        story.replica(1, start());
        assert!(what(&story).contains("starts on"), "{}", what(&story));
    }
}
