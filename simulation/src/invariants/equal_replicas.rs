//! P10: replicas that applied the same log hold the same bytes.

use std::collections::BTreeMap;

use rossby_domain::ids::{GroupId, PartitionId, ReplicaId};
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Digest, Observation, ReplicaEvent};

/// See the file's head.
#[derive(Debug, Default)]
pub struct EqualReplicas {
    states: BTreeMap<(GroupId, LogPosition, PartitionId), (ReplicaId, Digest)>,
}

impl Invariant for EqualReplicas {
    fn name(&self) -> &'static str {
        "P10 equal replicas"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let Some(((group, replica), event)) = observation.of_replica() else {
            return Ok(());
        };
        let ReplicaEvent::State {
            at,
            partition,
            digest,
        } = event
        else {
            return Ok(());
        };
        let key = (group, *at, *partition);
        let (other, known) = *self.states.entry(key).or_insert((replica, *digest));
        if known == *digest {
            return Ok(());
        }
        Err(format!(
            "at {} partition {partition} is {known} on replica {other} and {digest} on replica \
             {replica} of group {group}",
            show(*at)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, at, caught};

    fn state(partition: u16, index: u64, text: &str) -> ReplicaEvent {
        ReplicaEvent::State {
            at: at(1, index),
            partition: PartitionId::new(partition).unwrap(),
            digest: Digest::of(text.as_bytes()),
        }
    }

    #[test]
    fn equal_states_at_equal_positions_are_legal() {
        let mut story = Story::default();
        for replica in [1, 2] {
            story.replica(replica, state(1, 5, "a"));
            story.replica(replica, state(2, 5, "b"));
            story.replica(replica, state(1, 6, "c"));
        }
        assert_eq!(caught(EqualReplicas::default(), &story), None);
    }

    #[test]
    fn one_replica_that_differs_is_caught() {
        let mut story = Story::default();
        story.replica(1, state(1, 5, "a"));
        story.replica(2, state(2, 5, "a"));
        story.replica(3, state(1, 5, "b"));
        assert!(caught(EqualReplicas::default(), &story).is_some());
    }

    #[test]
    fn a_replica_that_differs_from_its_own_past_is_caught() {
        let mut story = Story::default();
        story.replica(1, state(1, 5, "a"));
        story.replica(1, state(1, 5, "b"));
        assert!(caught(EqualReplicas::default(), &story).is_some());
    }
}
