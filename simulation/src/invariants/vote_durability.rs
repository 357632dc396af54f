//! Raft, votes: no replica votes for two candidates in one term, not even over a crash, and none
//! goes back to an earlier term.

use std::collections::BTreeMap;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, Recovered, ReplicaEvent, Vote};
use crate::replica_logs::Id;

/// See the file's head.
#[derive(Debug, Default)]
pub struct VoteDurability {
    /// The last vote that each replica has promised.
    promised: BTreeMap<Id, Vote>,
}

/// Whether a replica that promised `before` may hold `after` later on.
fn may_follow(before: &Vote, after: &Vote) -> bool {
    match after.term.cmp(&before.term) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Less => false,
        // Whoever has won is accepted by all, also by those who voted for another.
        std::cmp::Ordering::Equal if after.won && !before.won => true,
        std::cmp::Ordering::Equal => after == before,
    }
}

impl VoteDurability {
    fn voted(&mut self, id: Id, vote: Vote) -> Result<(), String> {
        let before = self.promised.insert(id, vote);
        match before {
            Some(before) if !may_follow(&before, &vote) => Err(format!(
                "replica {} voted for {before}, then for {vote}",
                id.1
            )),
            _ => Ok(()),
        }
    }

    fn started(&mut self, id: Id, found: &Recovered) -> Result<(), String> {
        let Some(promised) = self.promised.get(&id).copied() else {
            return Ok(());
        };
        match found.vote {
            // A newer one was on its way to the disk when the replica stopped.
            Some(vote) if may_follow(&promised, &vote) => {
                self.promised.insert(id, vote);
                Ok(())
            }
            Some(vote) => Err(format!(
                "replica {} had voted for {promised} and came back with {vote}",
                id.1
            )),
            None => Err(format!(
                "replica {} had voted for {promised} and came back without a vote",
                id.1
            )),
        }
    }
}

impl Invariant for VoteDurability {
    fn name(&self) -> &'static str {
        "vote durability"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let Some((id, event)) = observation.of_replica() else {
            return Ok(());
        };
        match event {
            ReplicaEvent::Voted(vote) => self.voted(id, *vote),
            ReplicaEvent::Started(found) => self.started(id, found),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::ids::ReplicaId;

    use super::*;
    use crate::invariants::story::{Story, caught, found, vote, won};

    fn after(term: u64, candidate: u64, won: bool) -> Recovered {
        let candidate = ReplicaId(candidate);
        Recovered {
            vote: Some(Vote {
                term,
                candidate,
                won,
            }),
            ..Recovered::default()
        }
    }

    #[test]
    fn votes_that_go_on_are_legal() {
        let mut story = Story::default();
        story.replica(1, found(Recovered::default()));
        story.replica(1, vote(1, 2));
        story.replica(1, won(1, 3));
        story.replica(1, won(1, 3));
        story.replica(1, vote(2, 1));
        story.replica(1, found(after(2, 1, false)));
        // In flight at the crash, and on disk after all.
        story.replica(1, found(after(3, 2, false)));
        story.replica(1, vote(4, 3));
        assert_eq!(caught(VoteDurability::default(), &story), None);
    }

    #[test]
    fn two_votes_in_a_term_are_caught() {
        let mut story = Story::default();
        story.replica(1, vote(5, 2));
        story.replica(1, vote(5, 3));
        assert!(caught(VoteDurability::default(), &story).is_some());
    }

    #[test]
    fn two_votes_in_a_term_over_a_crash_are_caught() {
        for forgotten in [Recovered::default(), after(4, 2, true), after(5, 3, false)] {
            let mut story = Story::default();
            story.replica(1, vote(5, 2));
            story.replica(1, found(forgotten));
            assert!(caught(VoteDurability::default(), &story).is_some());
        }
    }

    #[test]
    fn an_earlier_term_and_a_leader_taken_back_are_caught() {
        for later in [vote(4, 2), vote(5, 2), won(5, 3)] {
            let mut story = Story::default();
            story.replica(1, won(5, 2));
            story.replica(1, later);
            assert!(caught(VoteDurability::default(), &story).is_some());
        }
    }
}
