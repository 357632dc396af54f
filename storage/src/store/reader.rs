//! Readers of a group's state.

use std::collections::BTreeSet;
use std::sync::Arc;

use rossby_domain::ids::PartitionId;
use rossby_domain::tables::ReadTables as _;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query, answer};
use sha2::{Digest as _, Sha256};

use super::checkpoint::Checkpoint;
use super::error::StoreError;
use super::partition::Partition;
use super::shared::GroupShared;
use crate::LogPosition;

/// A digest of all rows of each partition that has any, in order.
pub type PartitionDigests = Vec<(PartitionId, [u8; 32])>;

/// What a group's state says of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupTimes {
    /// The latest clock: the latest stamp of all commands.
    pub clock: Timestamp,
    /// The latest expiry clock; zero if no command ever carried one in.
    pub expiry_clock: Timestamp,
    /// When the state was restored from a backup; zero if never.
    pub restored_at: Timestamp,
}

/// Reads a group's state, from any thread, at whatever was applied last.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<GroupShared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<GroupShared>) -> Self {
        Self { shared }
    }

    /// Answers a query from one partition, at one instant of it.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or [`StoreError::Failed`] once the state machine is gone or has
    /// failed; otherwise what the rows below say: damage stops the replica, it is never an answer.
    /// After [`StoreError::is_too_many_files`] the replica goes on.
    pub fn query(
        &self,
        partition: PartitionId,
        now: Timestamp,
        query: &Query,
    ) -> Result<Answer, StoreError> {
        let _gate = self.shared.gate.read();
        let partition = self.partition(partition)?;
        let tables = partition.read();
        // Checked last: the state machine may have gone while this waited for its turn.
        self.shared.check()?;
        answer(&tables, now, query).map_err(|error| self.failed(error))
    }

    fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, StoreError> {
        self.shared
            .partition(id)
            .map_err(|error| self.failed(error))
    }

    /// A read that failed stops the replica, unless it did only because too many files are open: what is in
    /// memory is as right as before.
    fn failed(&self, error: StoreError) -> StoreError {
        if error.is_too_many_files() {
            error
        } else {
            self.shared.fail(error)
        }
    }

    /// A SHA-256 of all rows of each partition that has any, and the entry they are all at. Equal
    /// logs give equal digests, whatever of the state is in memory or below. Reads everything, and
    /// no entry is applied meanwhile.
    ///
    /// # Errors
    /// As of [`Self::query`].
    pub fn digests(&self) -> Result<(Option<LogPosition>, PartitionDigests), StoreError> {
        self.shared.check()?;
        let applied = self.shared.applied.read();
        let _gate = self.shared.gate.read();
        let ids = self.partitions();
        let mut digests = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(digest) = self.digest(id).map_err(|error| self.failed(error))? {
                digests.push((id, digest));
            }
        }
        self.shared.check()?;
        Ok((applied.position, digests))
    }

    /// The latest times of all partitions.
    ///
    /// # Errors
    /// As of [`Self::query`].
    pub fn times(&self) -> Result<GroupTimes, StoreError> {
        let _gate = self.shared.gate.read();
        let mut latest = GroupTimes::default();
        for id in self.partitions() {
            let meta = self.partition(id)?.read().meta();
            let meta = meta.map_err(|error| self.failed(error))?;
            latest.clock = latest.clock.max(meta.clock);
            latest.expiry_clock = latest.expiry_clock.max(meta.expiry_clock);
            latest.restored_at = latest.restored_at.max(meta.restored.at);
        }
        self.shared.check()?;
        Ok(latest)
    }

    /// The partitions that may have rows.
    fn partitions(&self) -> BTreeSet<PartitionId> {
        let mut ids: BTreeSet<PartitionId> = self.shared.touched().into_iter().collect();
        let current = self.shared.rounds.lock().current.clone();
        if let Some(checkpoint) = &current {
            ids.extend(
                Checkpoint::contents(checkpoint)
                    .partitions
                    .iter()
                    .map(|p| p.partition),
            );
        }
        ids
    }

    /// The digest of one partition; `None` if it has no rows.
    fn digest(&self, id: PartitionId) -> Result<Option<[u8; 32]>, StoreError> {
        let partition = self.shared.partition(id)?;
        let mut hasher = Sha256::new();
        let mut empty = true;
        partition.read().for_each(|key, value| {
            empty = false;
            for part in [key, value] {
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        })?;
        Ok((!empty).then(|| hasher.finalize().into()))
    }
}
