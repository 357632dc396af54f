//! Promotion: a replica gets a vote only when it has what the others have, but for the last of it. A vote that
//! comes before makes the group count on somebody who can neither lead nor, for a while, help to commit.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Observation, ReplicaEvent};
use crate::replica_logs::Id;

/// A replica may lack so many entries when it gets its vote, and as many may be appended until that is seen.
const MAY_LACK: u64 = 2 * 256;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Promotion {
    /// The voters since the last entry that changed them, and that entry.
    voters: BTreeMap<GroupId, (LogPosition, BTreeSet<ReplicaId>)>,
    /// How far each replica has come.
    reached: BTreeMap<Id, u64>,
}

impl Promotion {
    fn reaches(&mut self, id: Id, index: u64) {
        let reached = self.reached.entry(id).or_default();
        *reached = index.max(*reached);
    }

    fn votes(
        &mut self,
        group: GroupId,
        at: LogPosition,
        voters: BTreeSet<ReplicaId>,
    ) -> Result<(), String> {
        let before = match self.voters.get(&group) {
            // A replica that is behind sees it again.
            Some((seen, _)) if *seen >= at => return Ok(()),
            before => before.map(|(_, voters)| voters.clone()),
        };
        self.voters.insert(group, (at, voters.clone()));
        // The first voters found the group.
        let Some(before) = before else {
            return Ok(());
        };
        for new in voters.difference(&before) {
            let reached = self.reached.get(&(group, *new)).copied();
            match reached {
                Some(reached) if reached.saturating_add(MAY_LACK) >= at.index => {}
                reached => {
                    let reached = reached.map_or("nothing".to_owned(), |index| index.to_string());
                    return Err(format!(
                        "replica {new} of group {group} has a vote since {}, but has got {reached} of the log",
                        show(at)
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Invariant for Promotion {
    fn name(&self) -> &'static str {
        "promotion"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let Some((id, event)) = observation.of_replica() else {
            return Ok(());
        };
        match event {
            ReplicaEvent::Appended { position, .. } => self.reaches(id, position.index),
            ReplicaEvent::CheckpointInstalled { at } => self.reaches(id, at.index),
            // A new replica begins with the checkpoint that another one of its group has left on the node.
            ReplicaEvent::Started(found) => {
                if let Some(at) = found.checkpoint {
                    self.reaches(id, at.index);
                }
            }
            ReplicaEvent::Members { at, voters, .. } => {
                let voters = voters.iter().flatten().copied().collect();
                return self.votes(id.0, *at, voters);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, appended, at, caught};
    use crate::observe::Recovered;

    fn members(index: u64, voters: &[&[u64]]) -> ReplicaEvent {
        let ids = |set: &&[u64]| set.iter().copied().map(ReplicaId).collect();
        ReplicaEvent::Members {
            at: at(1, index),
            voters: voters.iter().map(ids).collect(),
            learners: BTreeSet::new(),
        }
    }

    fn story(of_the_newcomer: Option<ReplicaEvent>) -> Story {
        let mut story = Story::default();
        story.replica(1, members(1, &[&[1, 2, 3]]));
        if let Some(event) = of_the_newcomer {
            story.replica(7, event);
        }
        story.replica(1, members(900, &[&[1, 2, 3], &[1, 2, 7]]));
        story.replica(1, members(901, &[&[1, 2, 7]]));
        story.replica(7, members(1, &[&[1, 2, 3]]));
        story
    }

    #[test]
    fn a_replica_that_has_the_log_or_a_checkpoint_may_vote() {
        let installed = ReplicaEvent::CheckpointInstalled { at: at(1, 700) };
        let inherited = ReplicaEvent::Started(Recovered {
            vote: None,
            last: None,
            purged: Some(at(1, 700)),
            checkpoint: Some(at(1, 700)),
            applied: Some(at(1, 700)),
        });
        for event in [appended(1, 890, "a"), installed, inherited] {
            assert_eq!(caught(Promotion::default(), &story(Some(event))), None);
        }
    }

    #[test]
    fn a_vote_for_who_has_nothing_or_too_little_is_caught() {
        for event in [None, Some(appended(1, 200, "a"))] {
            let violation = caught(Promotion::default(), &story(event)).unwrap();
            assert!(violation.what.contains("has a vote since"), "{violation}");
        }
    }
}
