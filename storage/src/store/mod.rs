//! The state of the groups of a node: overlay, base, checkpoints.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, PartitionId};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Query, Reply};
use rossby_seams::base::Base;
use rossby_seams::disk::Disk;

use crate::LogPosition;

/// Why the store failed. Any of these stops the replica.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    // helper C defines the variants
}

/// The state of all groups of a node.
#[derive(Debug, Clone)]
pub struct Store {}

impl Store {
    /// Opens the store: `checkpoints` is the folder of checkpoint files, `base` the key-value store
    /// below. A base whose index does not match the manifests is emptied and rebuilt, which is logged.
    pub fn open(_disk: Arc<dyn Disk>, _checkpoints: &Path, _base: Arc<dyn Base>) -> Result<Self, StoreError> {
        todo!()
    }

    /// The state machine of one group (there is one at a time), recovered to its last checkpoint.
    pub fn group(&self, _group: GroupId) -> Result<GroupStore, StoreError> {
        todo!()
    }

    /// Bytes in overlays, over all groups.
    pub fn overlay_bytes(&self) -> u64 {
        todo!()
    }
}

/// What a group has applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last applied entry.
    pub position: Option<LogPosition>,
    /// The last membership, as the raft layer encoded it, with its position.
    pub membership: Option<(Option<LogPosition>, Bytes)>,
}

/// The state machine of a group: the only writer of its state.
#[derive(Debug)]
pub struct GroupStore {}

impl GroupStore {
    /// What was applied.
    pub fn applied(&self) -> Applied {
        todo!()
    }

    /// Applies an entry of commands (as `codec::encode_batch` made it): one reply per command.
    pub fn apply_batch(&mut self, _position: LogPosition, _batch: &[u8]) -> Result<Vec<Reply>, StoreError> {
        todo!()
    }

    /// Applies an entry that carries no commands.
    pub fn apply_blank(&mut self, _position: LogPosition) -> Result<(), StoreError> {
        todo!()
    }

    /// Applies a change of membership (opaque here).
    pub fn apply_membership(&mut self, _position: LogPosition, _membership: Bytes) -> Result<(), StoreError> {
        todo!()
    }

    /// A reader of this group's state, for any thread.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// Freezes the state at the last applied entry: swaps the overlays, O(1) per dirty partition.
    /// `None` if nothing was applied since the last checkpoint, or one is still being written.
    pub fn cut(&mut self) -> Option<CheckpointCut> {
        todo!()
    }

    /// The last published checkpoint.
    pub fn current(&self) -> Option<Checkpoint> {
        todo!()
    }

    /// Replaces the whole state by a received checkpoint, once it is verified and durable.
    pub fn install(&mut self, _checkpoint: Checkpoint) -> Result<(), StoreError> {
        todo!()
    }
}

/// A frozen state on its way to a checkpoint.
#[derive(Debug)]
pub struct CheckpointCut {}

impl CheckpointCut {
    /// The entry it was frozen at.
    pub fn position(&self) -> LogPosition {
        todo!()
    }

    /// Writes and syncs the files of the dirty partitions. Blocking I/O.
    pub fn write(self) -> Result<WrittenCheckpoint, StoreError> {
        todo!()
    }
}

/// Files that are durable but not yet the checkpoint: publish only once the log is durable up to
/// their position.
#[derive(Debug)]
pub struct WrittenCheckpoint {}

impl WrittenCheckpoint {
    /// Publishes the manifest in one atomic step, then moves the frozen overlay to the base in small
    /// chunks and drops files that no manifest names.
    pub fn publish(self) -> Result<Checkpoint, StoreError> {
        todo!()
    }
}

/// A published checkpoint, or a received one: its manifest and where its files are.
#[derive(Debug, Clone)]
pub struct Checkpoint {}

/// A file of a checkpoint, named by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// SHA-256 of the content.
    pub digest: [u8; 32],
    /// Its length in bytes.
    pub length: u64,
}

impl Checkpoint {
    /// The entry it holds the state at.
    pub fn position(&self) -> LogPosition {
        todo!()
    }

    /// The membership at that entry.
    pub fn membership(&self) -> Option<(Option<LogPosition>, Bytes)> {
        todo!()
    }

    /// The manifest's bytes, to be sent to a follower.
    pub fn manifest(&self) -> Bytes {
        todo!()
    }

    /// The files it consists of.
    pub fn files(&self) -> Vec<FileName> {
        todo!()
    }

    /// A piece of a file. The files of a checkpoint stay readable as long as a clone of it lives.
    pub fn read(&self, _file: &FileName, _offset: u64, _length: u32) -> Result<Bytes, StoreError> {
        todo!()
    }
}

/// A checkpoint on its way in: files land in a staging folder, resumable, verified by digest.
#[derive(Debug)]
pub struct IncomingCheckpoint {}

impl IncomingCheckpoint {
    /// Begins, or resumes, receiving the checkpoint with this manifest.
    pub fn begin(_store: &Store, _group: GroupId, _manifest: &[u8]) -> Result<Self, StoreError> {
        todo!()
    }

    /// Files still missing and from which offset.
    pub fn missing(&self) -> Vec<(FileName, u64)> {
        todo!()
    }

    /// Takes the next piece of a file; pieces come in order.
    pub fn write(&mut self, _file: &FileName, _offset: u64, _bytes: &[u8]) -> Result<(), StoreError> {
        todo!()
    }

    /// Verifies all digests and syncs; the result can be installed.
    pub fn finish(self) -> Result<Checkpoint, StoreError> {
        todo!()
    }
}

/// Reads a group's state, from any thread, at whatever was applied last.
#[derive(Debug, Clone)]
pub struct Reader {}

impl Reader {
    /// Answers a query from one partition, at one instant of it.
    pub fn query(&self, _partition: PartitionId, _now: Timestamp, _query: &Query) -> Result<Answer, StoreError> {
        todo!()
    }

    /// A digest of all rows of each partition that has any, and the entry they are at.
    pub fn digests(&self) -> Result<(Option<LogPosition>, Vec<(PartitionId, [u8; 32])>), StoreError> {
        todo!()
    }
}
