//! A model of the log of each replica, as far as it has told: which term each entry is of.

use std::collections::BTreeMap;

use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_storage::LogPosition;

use crate::observe::{Observation, ReplicaEvent};

/// Names a replica.
pub type Id = (GroupId, ReplicaId);

/// The log of one replica.
#[derive(Debug, Default, Clone)]
pub struct ReplicaLog {
    entries: BTreeMap<u64, u64>,
    /// What was truncated: it may come back if the truncation was not durable when power went.
    truncated: BTreeMap<u64, u64>,
    purged: Option<LogPosition>,
}

impl ReplicaLog {
    /// The term of the entry at this index, if it is there and known.
    pub fn term(&self, index: u64) -> Option<u64> {
        match self.purged {
            Some(purged) if purged.index == index => Some(purged.term),
            _ => self.entries.get(&index).copied(),
        }
    }

    /// The index up to which entries were purged.
    pub fn purged(&self) -> Option<u64> {
        self.purged.map(|purged| purged.index)
    }

    /// The position before an index, if it is known.
    pub fn before(&self, index: u64) -> Option<LogPosition> {
        let index = index.checked_sub(1)?;
        let term = self.term(index)?;
        Some(LogPosition { term, index })
    }

    fn take_in(&mut self, event: &ReplicaEvent) {
        match event {
            ReplicaEvent::Appended { position, .. } => {
                self.entries.insert(position.index, position.term);
                self.truncated.remove(&position.index);
            }
            ReplicaEvent::Truncated { after } => {
                let from = after.map_or(0, |after| after.saturating_add(1));
                self.truncated.extend(self.entries.split_off(&from));
            }
            ReplicaEvent::Purged { upto } | ReplicaEvent::CheckpointInstalled { at: upto } => {
                self.purge(*upto);
            }
            ReplicaEvent::Started(found) => {
                let end = found.last.map_or(0, |last| last.index.saturating_add(1));
                self.entries.split_off(&end);
                let back = std::mem::take(&mut self.truncated);
                for (index, term) in back.into_iter().filter(|(index, _)| *index < end) {
                    self.entries.entry(index).or_insert(term);
                }
                if let Some(purged) = found.purged {
                    self.purge(purged);
                }
                if let Some(last) = found.last {
                    self.entries.insert(last.index, last.term);
                }
            }
            _ => {}
        }
    }

    /// An installed checkpoint purges too: what it covers need not be in the log.
    fn purge(&mut self, upto: LogPosition) {
        self.entries = self.entries.split_off(&upto.index.saturating_add(1));
        self.purged = self.purged.max(Some(upto));
    }
}

/// The logs of all replicas.
#[derive(Debug, Default)]
pub struct ReplicaLogs {
    logs: BTreeMap<Id, ReplicaLog>,
}

impl ReplicaLogs {
    /// Takes in an observation.
    pub fn take_in(&mut self, observation: &Observation) {
        if let Some((id, event)) = observation.of_replica() {
            self.logs.entry(id).or_default().take_in(event);
        }
    }

    /// The log of a replica, if it has told anything.
    pub fn get(&self, id: &Id) -> Option<&ReplicaLog> {
        self.logs.get(id)
    }
}
