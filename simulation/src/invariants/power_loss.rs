//! P8, first half: power loss loses nothing that a replica has reported durable, never makes a node
//! refuse to start, and never leaves a checkpoint that its log does not reach.

use std::collections::{BTreeMap, BTreeSet};

use rossby_storage::LogPosition;

use super::{Invariant, show};
use crate::known::Known;
use crate::observe::{Observation, Recovered, ReplicaEvent, What, Who};
use crate::replica_logs::{Id, ReplicaLog};

/// What a replica has promised to keep.
#[derive(Debug, Default, Clone, Copy)]
struct Promised {
    /// Its log up to here.
    log: Option<LogPosition>,
    /// Its checkpoint, or a newer one.
    checkpoint: Option<LogPosition>,
    /// The last checkpoint that came from another replica, which may be ahead of the log: shipped, or left by an
    /// earlier replica of the group on this node, which this one began with.
    installed: Option<LogPosition>,
    /// What it has applied since it started: a checkpoint of its own is never beyond this. One that
    /// is came from another replica, and the power went before that was reported.
    applied: Option<LogPosition>,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct PowerLoss {
    promised: BTreeMap<Id, Promised>,
    /// Nodes whose disks the world has damaged.
    damaged: BTreeSet<Who>,
}

impl PowerLoss {
    fn take_in(
        &mut self,
        id: Id,
        log: Option<&ReplicaLog>,
        event: &ReplicaEvent,
    ) -> Result<(), String> {
        let begins = !self.promised.contains_key(&id);
        let promised = self.promised.entry(id).or_default();
        match event {
            // What is being truncated is no longer promised, though its sync may still end.
            ReplicaEvent::Flushed { upto }
                if log.and_then(|log| log.term(upto.index)) == Some(upto.term) =>
            {
                let before = promised.log.filter(|log| log.index > upto.index);
                promised.log = before.or(Some(*upto));
            }
            ReplicaEvent::Truncated { after } => {
                let kept = after.and_then(|index| {
                    let term = log?.term(index)?;
                    Some(LogPosition { term, index })
                });
                promised.log = match (promised.log, after) {
                    (Some(log), Some(after)) if log.index <= *after => Some(log),
                    _ => kept,
                };
            }
            ReplicaEvent::CheckpointPublished { at } => {
                promised.checkpoint = promised.checkpoint.max(Some(*at));
            }
            ReplicaEvent::CheckpointInstalled { at } => {
                promised.checkpoint = promised.checkpoint.max(Some(*at));
                promised.installed = Some(*at);
            }
            ReplicaEvent::Applied { position, .. } => promised.applied = Some(*position),
            ReplicaEvent::Started(found) => {
                if begins {
                    promised.installed = found.checkpoint;
                }
                let before = *promised;
                promised.applied = found.applied;
                return compare(id, before, found);
            }
            _ => {}
        }
        Ok(())
    }
}

fn compare(id: Id, promised: Promised, found: &Recovered) -> Result<(), String> {
    let said = |position: Option<LogPosition>| position.map_or("nothing".to_owned(), show);
    if let Some(log) = promised.log {
        let kept = found.last.is_some_and(|last| {
            last.index > log.index || (last.index == log.index && last.term == log.term)
        });
        if !kept {
            return Err(format!(
                "replica {} had reported its log durable up to {} and came back with {}",
                id.1,
                show(log),
                said(found.last)
            ));
        }
    }
    if found.checkpoint < promised.checkpoint {
        return Err(format!(
            "replica {} had a checkpoint at {} and came back with {}",
            id.1,
            said(promised.checkpoint),
            said(found.checkpoint)
        ));
    }
    let index = |position: Option<LogPosition>| position.map(|position| position.index);
    let own = found.checkpoint != promised.installed && found.checkpoint <= promised.applied;
    if index(found.checkpoint) > index(found.last) && own {
        return Err(format!(
            "replica {} came back with a checkpoint of its own at {}, but a log up to {}",
            id.1,
            said(found.checkpoint),
            said(found.last)
        ));
    }
    if index(found.purged) > index(found.checkpoint) {
        return Err(format!(
            "replica {} has purged its log up to {}, but its checkpoint only reaches {}",
            id.1,
            said(found.purged),
            said(found.checkpoint)
        ));
    }
    Ok(())
}

impl Invariant for PowerLoss {
    fn name(&self) -> &'static str {
        "P8 power loss"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let who = observation.who;
        let unharmed = !self.damaged.contains(&who);
        if let Some((id, event)) = observation.of_replica() {
            return self.take_in(id, known.logs.get(&id), event);
        }
        match &observation.what {
            What::BitFlipped { .. } => {
                self.damaged.insert(who);
                Ok(())
            }
            What::Wiped => {
                self.damaged.remove(&who);
                Ok(())
            }
            What::StartRefused { reason } if unharmed => Err(format!(
                "{who}, whose disk is sound, refuses to start: {reason}"
            )),
            What::DamageDetected { reason } if unharmed => Err(format!(
                "{who}, whose disk is sound, reports damage: {reason}"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::Violation;
    use crate::invariants::story::{Story, appended, at, caught, found, node};
    use crate::observe::Digest;

    fn flushed(term: u64, index: u64) -> ReplicaEvent {
        ReplicaEvent::Flushed {
            upto: at(term, index),
        }
    }

    fn log_upto(term: u64, index: u64) -> Recovered {
        Recovered {
            last: Some(at(term, index)),
            ..Recovered::default()
        }
    }

    /// Replica 1 with three entries, two of them durable, and a checkpoint at the first.
    fn story() -> Story {
        let mut story = Story::default();
        story.replica(1, found(Recovered::default()));
        for (index, entry) in [(1, "a"), (2, "b"), (3, "c")] {
            story.replica(1, appended(1, index, entry));
        }
        story.replica(1, flushed(1, 2));
        story.replica(1, ReplicaEvent::CheckpointPublished { at: at(1, 1) });
        story
    }

    fn back_with(found_there: Recovered) -> Option<Violation> {
        let mut story = story();
        story.replica(1, found(found_there));
        caught(PowerLoss::default(), &story)
    }

    #[test]
    fn what_was_promised_comes_back_and_what_was_not_may() {
        for last in [2, 3] {
            let checkpoint = Some(at(1, 1));
            let found_there = Recovered {
                checkpoint,
                purged: checkpoint,
                ..log_upto(1, last)
            };
            assert_eq!(back_with(found_there), None);
        }
    }

    #[test]
    fn a_durable_entry_that_is_lost_or_replaced_is_caught() {
        for last in [None, Some(at(1, 1)), Some(at(2, 2))] {
            let found_there = Recovered {
                last,
                checkpoint: Some(at(1, 1)),
                ..Recovered::default()
            };
            assert!(back_with(found_there).is_some());
        }
    }

    #[test]
    fn a_lost_checkpoint_is_caught() {
        assert!(back_with(log_upto(1, 3)).is_some());
    }

    #[test]
    fn a_checkpoint_ahead_of_the_log_is_caught_unless_it_was_installed() {
        let ahead = Recovered {
            checkpoint: Some(at(1, 4)),
            ..log_upto(1, 3)
        };
        let applied = ReplicaEvent::Applied {
            position: at(1, 4),
            entry: Digest::of(b"d"),
        };
        let mut own = story();
        own.replica(1, applied.clone());
        own.replica(1, found(ahead));
        assert!(caught(PowerLoss::default(), &own).is_some());
        let mut installed = story();
        installed.replica(1, applied);
        installed.replica(1, ReplicaEvent::CheckpointInstalled { at: at(1, 4) });
        installed.replica(1, found(ahead));
        assert_eq!(caught(PowerLoss::default(), &installed), None);
        // The power went while it was installed.
        assert_eq!(back_with(ahead), None);
    }

    #[test]
    fn a_replica_may_begin_with_the_checkpoint_of_an_earlier_one_on_its_node() {
        let inherited = Recovered {
            checkpoint: Some(at(1, 4)),
            applied: Some(at(1, 4)),
            ..Recovered::default()
        };
        let mut story = Story::default();
        story.replica(1, found(inherited));
        story.replica(1, found(inherited));
        assert_eq!(caught(PowerLoss::default(), &story), None);
    }

    #[test]
    fn a_log_purged_beyond_the_checkpoint_is_caught() {
        let hole = Recovered {
            checkpoint: Some(at(1, 1)),
            purged: Some(at(1, 2)),
            ..log_upto(1, 3)
        };
        assert!(back_with(hole).is_some());
    }

    #[test]
    fn what_is_being_truncated_is_not_promised_any_more() {
        let mut story = story();
        story.replica(1, ReplicaEvent::Truncated { after: Some(1) });
        // The sync of what was truncated ends only now.
        story.replica(1, flushed(1, 3));
        let back = Recovered {
            checkpoint: Some(at(1, 1)),
            ..log_upto(1, 1)
        };
        story.replica(1, found(back));
        assert_eq!(caught(PowerLoss::default(), &story), None);
    }

    #[test]
    fn a_sound_node_that_does_not_start_or_sees_damage_is_caught() {
        for what in [
            What::StartRefused {
                reason: "no".into(),
            },
            What::DamageDetected {
                reason: "no".into(),
            },
        ] {
            let mut story = Story::default();
            story.push(node(1), what.clone());
            assert!(caught(PowerLoss::default(), &story).is_some());
            let mut story = Story::default();
            let file = "wal".to_owned();
            story.push(node(1), What::BitFlipped { file, offset: 7 });
            story.push(node(1), what.clone());
            assert_eq!(caught(PowerLoss::default(), &story), None);
            // An empty disk is sound again.
            story.push(node(1), What::Wiped);
            story.push(node(1), what);
            assert!(caught(PowerLoss::default(), &story).is_some());
        }
    }
}
