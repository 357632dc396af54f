//! What a run did, step by step: what may be found on the disk after it was stopped anywhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use rossby_storage::datadir::Identity;
use rossby_storage::store::PartitionDigests;

/// The log of one group as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogModel {
    pub replica: u64,
    pub removed: Vec<u64>,
    pub vote: Option<Bytes>,
    pub purged: Option<(u64, u64)>,
    /// Index to term and bytes.
    pub entries: BTreeMap<u64, (u64, Bytes)>,
}

impl LogModel {
    pub fn last(&self) -> Option<(u64, u64)> {
        let entry = self.entries.last_key_value();
        entry
            .map(|(index, (term, _))| (*term, *index))
            .or(self.purged)
    }

    /// The index of the next entry.
    pub fn next(&self) -> Option<u64> {
        self.last().map(|(_, index)| index + 1)
    }
}

/// The logs of all groups.
pub type Logs = BTreeMap<u32, LogModel>;
/// The index of the last published checkpoint of each group.
pub type Checkpoints = BTreeMap<u32, u64>;

/// How far each of the histories may have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    pub logs: usize,
    pub identities: usize,
    pub checkpoints: usize,
}

/// All states that the parts went through, oldest first, and how far they are for sure and at most.
#[derive(Debug, Clone)]
pub struct History {
    pub logs: Vec<Logs>,
    pub identities: Vec<Option<Identity>>,
    pub checkpoints: Vec<Checkpoints>,
    /// By group, index and term, after the entry was applied.
    pub digests: BTreeMap<(u32, u64, u64), PartitionDigests>,
    /// After each deed was begun.
    pub deeds: Vec<Marks>,
    /// How many deeds came to their end.
    pub done: usize,
}

impl History {
    pub fn new() -> Self {
        Self {
            logs: vec![Logs::new()],
            identities: vec![None],
            checkpoints: vec![Checkpoints::new()],
            digests: BTreeMap::new(),
            deeds: Vec::new(),
            done: 0,
        }
    }

    /// A deed begins, which may bring the parts up to their last states.
    pub fn issue(&mut self) {
        self.deeds.push(Marks {
            logs: self.logs.len() - 1,
            identities: self.identities.len() - 1,
            checkpoints: self.checkpoints.len() - 1,
        });
    }

    /// What was acknowledged.
    pub fn sure(&self) -> Marks {
        self.after(self.done)
    }

    /// What may have happened.
    pub fn possible(&self) -> Marks {
        self.after(self.deeds.len())
    }

    /// How far the parts are after so many deeds.
    pub fn after(&self, deeds: usize) -> Marks {
        deeds
            .checked_sub(1)
            .map(|last| self.deeds[last])
            .unwrap_or_default()
    }
}
