//! Raft, commitment: a leader's log holds all that was committed before (leader completeness); what a
//! replica knows as committed stands in its log, agrees with what others know, and does not go back
//! while it lives.

use std::collections::BTreeMap;

use rossby_domain::ids::GroupId;
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Observation, ReplicaEvent};
use crate::replica_logs::{Id, ReplicaLog};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Commit {
    /// The term of each committed entry that anybody has told of.
    committed: BTreeMap<(GroupId, u64), u64>,
    /// What each replica knows to be committed in this life.
    known: BTreeMap<Id, LogPosition>,
}

impl Commit {
    fn commits(
        &mut self,
        id: Id,
        log: Option<&ReplicaLog>,
        upto: LogPosition,
    ) -> Result<(), String> {
        let before = self.known.insert(id, upto);
        if let Some(before) = before.filter(|before| before.index > upto.index) {
            return Err(format!(
                "replica {} knew {} to be committed and goes back to {}",
                id.1,
                show(before),
                show(upto)
            ));
        }
        self.note(id, upto)?;
        let Some(log) = log else {
            return Ok(());
        };
        // What lies between is committed with it.
        let from = before.map_or(upto.index, |before| before.index + 1);
        for index in from..upto.index {
            if let Some(term) = log.term(index) {
                self.note(id, LogPosition { term, index })?;
            }
        }
        match log.term(upto.index) {
            Some(term) if term != upto.term => Err(format!(
                "replica {} says that {} is committed, but its log holds term {term} there",
                id.1,
                show(upto)
            )),
            _ => Ok(()),
        }
    }

    fn note(&mut self, id: Id, position: LogPosition) -> Result<(), String> {
        let key = (id.0, position.index);
        let known = *self.committed.entry(key).or_insert(position.term);
        if known == position.term {
            return Ok(());
        }
        Err(format!(
            "replica {} says that {} is committed; another one said term {known} there",
            id.1,
            show(position)
        ))
    }

    fn leads(&self, id: Id, log: Option<&ReplicaLog>, term: u64) -> Result<(), String> {
        let Some(log) = log else {
            return Ok(());
        };
        let first = log.purged().map_or(0, |purged| purged + 1);
        let committed = self.committed.range((id.0, first)..=(id.0, u64::MAX));
        for ((_, index), of) in committed {
            // What was committed in a later term, an old leader need not know.
            if *of < term && log.term(*index) != Some(*of) {
                let holds = log
                    .term(*index)
                    .map_or("nothing".to_owned(), |term| format!("term {term}"));
                return Err(format!(
                    "replica {} leads term {term}, but its log holds {holds} at {index}, where \
                     {of}.{index} was committed",
                    id.1
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for Commit {
    fn name(&self) -> &'static str {
        "commitment"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let Some((id, event)) = observation.of_replica() else {
            return Ok(());
        };
        let log = known.logs.get(&id);
        match event {
            ReplicaEvent::Started(_) => {
                self.known.remove(&id);
                Ok(())
            }
            ReplicaEvent::Committed { upto } => self.commits(id, log, *upto),
            ReplicaEvent::Applied { position, .. } => self.note(id, *position),
            ReplicaEvent::Leads { term } => self.leads(id, log, *term),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, appended, at, caught, found};
    use crate::observe::Recovered;

    fn committed(term: u64, index: u64) -> ReplicaEvent {
        ReplicaEvent::Committed {
            upto: at(term, index),
        }
    }

    fn started(last: LogPosition) -> ReplicaEvent {
        found(Recovered {
            last: Some(last),
            ..Recovered::default()
        })
    }

    /// Replica 1 has committed two entries of term 1, replica 2 has them, replica 3 the first.
    fn story() -> Story {
        let mut story = Story::default();
        for replica in [1, 2] {
            story.replica(replica, appended(1, 1, "a"));
            story.replica(replica, appended(1, 2, "b"));
        }
        story.replica(3, appended(1, 1, "a"));
        story.replica(1, committed(1, 1));
        story.replica(1, committed(1, 2));
        story
    }

    #[test]
    fn a_leader_with_all_that_was_committed_is_legal() {
        let mut story = story();
        story.replica(2, ReplicaEvent::Leads { term: 2 });
        // After a restart a replica learns anew what is committed.
        story.replica(1, started(at(1, 2)));
        story.replica(1, committed(1, 1));
        // So does one whose log was purged.
        story.replica(3, ReplicaEvent::CheckpointInstalled { at: at(1, 2) });
        story.replica(3, ReplicaEvent::Leads { term: 3 });
        assert_eq!(caught(Commit::default(), &story), None);
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_caught() {
        let mut story = story();
        story.replica(3, ReplicaEvent::Leads { term: 2 });
        assert!(caught(Commit::default(), &story).is_some());
    }

    #[test]
    fn a_leader_that_lost_a_committed_entry_in_a_crash_is_caught() {
        let mut story = story();
        story.replica(2, started(at(1, 1)));
        story.replica(2, ReplicaEvent::Leads { term: 2 });
        assert!(caught(Commit::default(), &story).is_some());
    }

    #[test]
    fn a_leader_with_another_entry_where_one_was_committed_is_caught() {
        let mut story = story();
        story.replica(3, appended(2, 2, "c"));
        story.replica(3, ReplicaEvent::Leads { term: 3 });
        assert!(caught(Commit::default(), &story).is_some());
    }

    #[test]
    fn committing_back_or_differently_is_caught() {
        for wrong in [committed(1, 1), committed(2, 2)] {
            let mut story = story();
            story.replica(1, wrong);
            assert!(caught(Commit::default(), &story).is_some());
        }
        let mut story = story();
        story.replica(3, committed(2, 2));
        assert!(caught(Commit::default(), &story).is_some());
    }
}
