//! Raft, state machine safety: what one replica has applied at an index, no other replica ever applies
//! anything else at; each applies what stands in its own log, in order and without gaps.

use std::collections::BTreeMap;

use rossby_domain::ids::GroupId;
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Digest, Observation, ReplicaEvent};
use crate::replica_logs::{Id, ReplicaLog};

/// See the file's head.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    applied: BTreeMap<(GroupId, u64), (LogPosition, Digest)>,
    /// Up to where the state of each replica goes.
    states: BTreeMap<Id, Option<LogPosition>>,
}

impl StateMachineSafety {
    fn applies(
        &mut self,
        id: Id,
        log: Option<&ReplicaLog>,
        (position, entry): (LogPosition, Digest),
    ) -> Result<(), String> {
        let key = (id.0, position.index);
        let known = *self.applied.entry(key).or_insert((position, entry));
        if known != (position, entry) {
            return Err(format!(
                "replica {} applies {} ({entry}) where another replica of group {} applied {} ({})",
                id.1,
                show(position),
                id.0,
                show(known.0),
                known.1
            ));
        }
        if let Some(term) = log.and_then(|log| log.term(position.index))
            && term != position.term
        {
            return Err(format!(
                "replica {} applies {}, but its log holds an entry of term {term} there",
                id.1,
                show(position)
            ));
        }
        let before = self.states.insert(id, Some(position));
        match before {
            Some(Some(before)) if position.index != before.index + 1 => Err(format!(
                "replica {} applies {} right after {}",
                id.1,
                show(position),
                show(before)
            )),
            Some(Some(before)) if position.term < before.term => Err(format!(
                "replica {} applies {} after {} of a later term",
                id.1,
                show(position),
                show(before)
            )),
            _ => Ok(()),
        }
    }

    fn jumps(&mut self, id: Id, at: LogPosition) -> Result<(), String> {
        let before = self.states.insert(id, Some(at)).flatten();
        match before {
            Some(before) if before.index > at.index => Err(format!(
                "replica {} had applied {} and goes back to the checkpoint at {}",
                id.1,
                show(before),
                show(at)
            )),
            _ => Ok(()),
        }
    }
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let Some((id, event)) = observation.of_replica() else {
            return Ok(());
        };
        match event {
            ReplicaEvent::Applied { position, entry } => {
                self.applies(id, known.logs.get(&id), (*position, *entry))
            }
            ReplicaEvent::CheckpointInstalled { at } => self.jumps(id, *at),
            ReplicaEvent::Started(found) => {
                self.states.insert(id, found.applied);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, appended, applied, at, caught, found};
    use crate::observe::Recovered;

    fn recovered_at(term: u64, index: u64) -> ReplicaEvent {
        found(Recovered {
            applied: Some(at(term, index)),
            ..Recovered::default()
        })
    }

    #[test]
    fn applying_the_same_in_order_is_legal_also_over_restarts_and_checkpoints() {
        let mut story = Story::default();
        story.replica(1, found(Recovered::default()));
        for (index, entry) in ["a", "b", "c"].into_iter().enumerate() {
            story.replica(1, appended(1, index as u64, entry));
            story.replica(1, applied(1, index as u64, entry));
        }
        story.replica(1, recovered_at(1, 1));
        story.replica(1, applied(1, 2, "c"));
        story.replica(2, found(Recovered::default()));
        story.replica(2, ReplicaEvent::CheckpointInstalled { at: at(1, 1) });
        story.replica(2, applied(1, 2, "c"));
        assert_eq!(caught(StateMachineSafety::default(), &story), None);
    }

    #[test]
    fn another_entry_or_another_term_at_one_index_is_caught() {
        for other in [applied(1, 5, "b"), applied(2, 5, "a")] {
            let mut story = Story::default();
            story.replica(1, applied(1, 5, "a"));
            story.replica(2, other);
            assert!(caught(StateMachineSafety::default(), &story).is_some());
        }
    }

    #[test]
    fn gaps_repeats_and_falling_terms_are_caught() {
        for next in [applied(2, 7, "c"), applied(2, 5, "a"), applied(1, 6, "b")] {
            let mut story = Story::default();
            story.replica(1, applied(2, 5, "a"));
            story.replica(1, next);
            assert!(caught(StateMachineSafety::default(), &story).is_some());
        }
    }

    #[test]
    fn applying_what_the_log_does_not_hold_is_caught() {
        let mut story = Story::default();
        story.replica(1, appended(1, 5, "a"));
        story.replica(1, applied(2, 5, "b"));
        assert!(caught(StateMachineSafety::default(), &story).is_some());
    }

    #[test]
    fn a_state_that_goes_back_to_an_older_checkpoint_is_caught() {
        let mut story = Story::default();
        story.replica(1, applied(1, 5, "a"));
        story.replica(1, ReplicaEvent::CheckpointInstalled { at: at(1, 4) });
        assert!(caught(StateMachineSafety::default(), &story).is_some());
    }
}
