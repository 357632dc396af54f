//! Raft, log matching: entries of one index and term are the same in all logs, and so is all that
//! stands before them.

use std::collections::BTreeMap;

use rossby_domain::ids::GroupId;
use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Digest, Observation, ReplicaEvent};
use crate::replica_logs::{Id, ReplicaLog};

/// What an entry is, and what it stands after.
#[derive(Debug, Clone, Copy)]
struct Entry {
    digest: Digest,
    before: Option<LogPosition>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(GroupId, LogPosition), Entry>,
}

impl LogMatching {
    fn appended(
        &mut self,
        id: Id,
        log: Option<&ReplicaLog>,
        (position, digest): (LogPosition, Digest),
    ) -> Result<(), String> {
        let before = log.and_then(|log| log.before(position.index));
        let known = self
            .entries
            .entry((id.0, position))
            .or_insert(Entry { digest, before });
        if known.digest != digest {
            return Err(format!(
                "entry {} of group {} is {} in one log and {digest} in that of replica {}",
                show(position),
                id.0,
                known.digest,
                id.1
            ));
        }
        match (known.before, before) {
            (Some(known), Some(before)) if known != before => Err(format!(
                "entry {} of group {} stands after {} in one log and after {} in that of replica {}",
                show(position),
                id.0,
                show(known),
                show(before),
                id.1
            )),
            (None, Some(before)) => {
                known.before = Some(before);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        match observation.of_replica() {
            Some((id, ReplicaEvent::Appended { position, entry })) => {
                self.appended(id, known.logs.get(&id), (*position, *entry))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, appended, caught};

    #[test]
    fn logs_that_diverge_and_are_truncated_are_legal() {
        let mut story = Story::default();
        for replica in [1, 2] {
            story.replica(replica, appended(1, 1, "a"));
        }
        story.replica(1, appended(1, 2, "b"));
        story.replica(2, appended(2, 2, "c"));
        story.replica(1, ReplicaEvent::Truncated { after: Some(1) });
        story.replica(1, appended(2, 2, "c"));
        assert_eq!(caught(LogMatching::default(), &story), None);
    }

    #[test]
    fn two_entries_at_one_position_are_caught() {
        let mut story = Story::default();
        story.replica(1, appended(1, 1, "a"));
        story.replica(2, appended(1, 1, "b"));
        assert!(caught(LogMatching::default(), &story).is_some());
    }

    #[test]
    fn one_entry_after_two_histories_is_caught() {
        let mut story = Story::default();
        story.replica(1, appended(1, 1, "a"));
        story.replica(2, appended(2, 1, "b"));
        for replica in [1, 2] {
            story.replica(replica, appended(3, 2, "c"));
        }
        assert!(caught(LogMatching::default(), &story).is_some());
    }
}
