//! Raft, election safety: at most one leader in a term.

use std::collections::BTreeMap;

use rossby_domain::ids::{GroupId, ReplicaId};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, ReplicaEvent};

/// See the file's head.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(GroupId, u64), ReplicaId>,
}

impl ElectionSafety {
    fn won(&mut self, group: GroupId, term: u64, leader: ReplicaId) -> Result<(), String> {
        let known = *self.leaders.entry((group, term)).or_insert(leader);
        if known == leader {
            Ok(())
        } else {
            Err(format!(
                "replicas {known} and {leader} both lead group {group} in term {term}"
            ))
        }
    }
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let Some(((group, replica), event)) = observation.of_replica() else {
            return Ok(());
        };
        match event {
            ReplicaEvent::Leads { term } => self.won(group, *term, replica),
            // A follower that accepts a leader names it too.
            ReplicaEvent::Voted(vote) if vote.won => self.won(group, vote.term, vote.candidate),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught, vote, won};

    #[test]
    fn one_leader_in_each_term_is_legal() {
        let mut story = Story::default();
        story.replica(1, ReplicaEvent::Leads { term: 1 });
        story.replica(1, ReplicaEvent::Leads { term: 1 });
        story.replica(2, won(1, 1));
        story.replica(2, vote(2, 2));
        story.replica(2, ReplicaEvent::Leads { term: 2 });
        assert_eq!(caught(ElectionSafety::default(), &story), None);
    }

    #[test]
    fn two_leaders_in_one_term_are_caught() {
        let mut story = Story::default();
        story.replica(1, ReplicaEvent::Leads { term: 3 });
        story.replica(2, ReplicaEvent::Leads { term: 3 });
        assert!(caught(ElectionSafety::default(), &story).is_some());
    }

    #[test]
    fn a_follower_that_accepts_another_leader_of_the_term_is_caught() {
        let mut story = Story::default();
        story.replica(1, ReplicaEvent::Leads { term: 3 });
        story.replica(3, won(3, 2));
        assert!(caught(ElectionSafety::default(), &story).is_some());
    }
}
