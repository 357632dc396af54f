//! A group's state, as its state machine, its readers and its checkpoints share it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rossby_domain::ids::PartitionId;

use super::base_rows::BaseHandle;
use super::checkpoint::Checkpoint;
use super::envelopes::StoredEnvelopes;
use super::error::StoreError;
use super::files::GroupFiles;
use super::layer::Gauge;
use super::partition::Partition;
use crate::LogPosition;

/// What a group has applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last applied entry.
    pub position: Option<LogPosition>,
    /// The last membership, as the raft layer encoded it, with its position.
    pub membership: Option<(Option<LogPosition>, Bytes)>,
}

impl Applied {
    /// What a group has applied that has just this checkpoint.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            position: Some(checkpoint.position()),
            membership: checkpoint.membership(),
        }
    }
}

/// A group's state.
///
/// Locks are taken in this order: `flow`, `applied`, `gate`, `partitions`, a partition's, `rounds`.
#[derive(Debug)]
pub(crate) struct GroupShared {
    pub(crate) files: Arc<GroupFiles>,
    pub(crate) base: BaseHandle,
    gauge: Gauge,
    /// Held for writing while an entry is applied.
    pub(crate) applied: RwLock<Applied>,
    /// Held for reading by readers, and for writing while the whole state is replaced.
    pub(crate) gate: RwLock<()>,
    partitions: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
    pub(crate) rounds: Mutex<Rounds>,
    /// Held while a checkpoint is published and moves to the base, and while one is installed.
    pub(crate) flow: Mutex<()>,
    /// The state machine is gone.
    closed: AtomicBool,
    /// Something failed on the way, so that the state in memory can't be trusted any more.
    failed: AtomicBool,
}

/// Checkpoints: the last one, and the one on its way.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// The last one published or installed.
    pub(crate) current: Option<Checkpoint>,
    /// The round that is being written.
    pub(crate) writing: Option<u64>,
    next: u64,
}

impl Rounds {
    /// Begins the round of a checkpoint at this position: its number, and the checkpoint before it.
    /// `None` if one is still being written, or there is nothing new.
    pub(crate) fn begin(&mut self, position: LogPosition) -> Option<(u64, Option<Checkpoint>)> {
        let last = self.current.as_ref().map(Checkpoint::position);
        if self.writing.is_some() || last >= Some(position) {
            return None;
        }
        let round = self.next;
        self.next = round.wrapping_add(1);
        self.writing = Some(round);
        Some((round, self.current.clone()))
    }
}

impl GroupShared {
    /// The state that a checkpoint holds, or an empty one.
    pub(crate) fn new(
        files: Arc<GroupFiles>,
        base: BaseHandle,
        gauge: Gauge,
        checkpoint: Option<Checkpoint>,
    ) -> Self {
        let applied = checkpoint.as_ref().map(Applied::of).unwrap_or_default();
        Self {
            files,
            base,
            gauge,
            applied: RwLock::new(applied),
            gate: RwLock::new(()),
            partitions: RwLock::default(),
            rounds: Mutex::new(Rounds {
                current: checkpoint,
                writing: None,
                next: 0,
            }),
            flow: Mutex::new(()),
            closed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// The state machine is gone. Readers may outlive it; the memory of its layers must not.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for partition in self.partitions.write().values() {
            partition.clear();
        }
    }

    /// Whether the state can still be used.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            Err(StoreError::Closed)
        } else if self.failed.load(Ordering::Acquire) {
            Err(StoreError::Failed)
        } else {
            Ok(())
        }
    }

    /// Notes that the state can't be trusted any more.
    pub(crate) fn fail(&self, error: StoreError) -> StoreError {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::warn!(group = %self.files.group, %error, "the group's state has failed");
        }
        error
    }

    /// A partition, which is made if it never was touched since the start.
    ///
    /// # Errors
    /// [`StoreError::Inconsistent`] if the checkpoint does not keep its files.
    pub(crate) fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, StoreError> {
        use std::collections::btree_map::Entry;
        if let Some(partition) = self.partitions.read().get(&id) {
            return Ok(Arc::clone(partition));
        }
        match self.partitions.write().entry(id) {
            Entry::Occupied(made) => Ok(Arc::clone(made.get())),
            Entry::Vacant(empty) => {
                let base = self.base.partition(self.files.group, id);
                let none = StoredEnvelopes::default();
                let current = self.rounds.lock().current.clone();
                let envelopes = match current {
                    Some(current) => current.envelopes(id, &none)?,
                    None => none,
                };
                let partition = Partition::new(id, base, envelopes, self.gauge.clone());
                Ok(Arc::clone(empty.insert(Arc::new(partition))))
            }
        }
    }

    /// The partitions that are in memory.
    pub(crate) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }

    /// Forgets what is in memory of all partitions.
    pub(crate) fn forget_partitions(&self) {
        self.partitions.write().clear();
    }

    /// The partitions that were touched since the start.
    pub(crate) fn touched(&self) -> Vec<PartitionId> {
        self.partitions.read().keys().copied().collect()
    }
}
