//! The write-ahead log: one per node, shared by all its groups.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rossby_domain::ids::{GroupId, ReplicaId};
use rossby_seams::disk::Disk;

use crate::LogPosition;

/// Settings of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalOptions {
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory over all groups.
    pub cache_bytes: u64,
}

/// One entry of a group's log: opaque bytes at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it stands.
    pub position: LogPosition,
    /// What it says.
    pub bytes: Bytes,
}

/// What a group's log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The last entry that was purged.
    pub purged: Option<LogPosition>,
    /// The last entry, which may be the purged one.
    pub last: Option<LogPosition>,
    /// The vote, as the raft layer encoded it.
    pub vote: Option<Bytes>,
    /// The last position saved as committed.
    pub committed: Option<LogPosition>,
}

/// Why the log failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    // helper B defines the variants
}

/// Called once, when an append is durable or has failed.
pub type OnDurable = Box<dyn FnOnce(Result<(), WalError>) + Send + 'static>;

/// The log of a node.
#[derive(Debug, Clone)]
pub struct Wal {}

/// The writer: one drain of the queue at a time. Production runs it on a thread, simulation as a task.
#[derive(Debug)]
pub struct WalWriter {}

impl Wal {
    /// Opens the log in `directory`, made if missing, and recovers what it holds.
    pub fn open(_disk: Arc<dyn Disk>, _directory: &Path, _options: WalOptions) -> Result<(Self, WalWriter), WalError> {
        todo!()
    }

    /// The log of one replica.
    pub fn log(&self, _group: GroupId, _replica: ReplicaId) -> Result<GroupLog, WalError> {
        todo!()
    }

    /// Bytes of log since the last purge that a group pins (tells when a checkpoint is worth it).
    pub fn pinned_bytes(&self, _group: GroupId) -> u64 {
        todo!()
    }
}

impl WalWriter {
    /// Waits for work and does one drain: writes, one fdatasync, then tells everybody.
    /// `false` when the log is closed (all handles dropped, or shut down) and the queue is empty.
    pub fn run_once(&mut self) -> bool {
        todo!()
    }

    /// Does what waits now, if anything, without waiting for more. For simulation.
    pub fn drain(&mut self) -> bool {
        todo!()
    }
}

/// The log of one replica. Clones share it.
#[derive(Debug, Clone)]
pub struct GroupLog {}

impl GroupLog {
    /// What the log holds, submitted appends included.
    pub fn state(&self) -> LogState {
        todo!()
    }

    /// Appends entries that follow the last one. They can be read at once; `on_durable` is called
    /// after the fdatasync that covers them.
    pub fn append(&self, _entries: Vec<LogRecord>, _on_durable: OnDurable) -> Result<(), WalError> {
        todo!()
    }

    /// Drops all entries after `index` (all of them for `None`); returns when that is durable.
    pub async fn truncate_after(&self, _index: Option<u64>) -> Result<(), WalError> {
        todo!()
    }

    /// Drops all entries up to `upto`; returns when that is durable.
    pub async fn purge(&self, _upto: LogPosition) -> Result<(), WalError> {
        todo!()
    }

    /// Saves the vote; returns when it is durable.
    pub async fn save_vote(&self, _vote: Bytes) -> Result<(), WalError> {
        todo!()
    }

    /// Notes the committed position; durable with the next drain that syncs, no wait.
    pub fn save_committed(&self, _position: Option<LogPosition>) -> Result<(), WalError> {
        todo!()
    }

    /// Entries with `from <= index < to`, as many as there are without a gap from `from`.
    pub fn read(&self, _from: u64, _to: u64) -> Result<Vec<LogRecord>, WalError> {
        todo!()
    }

    /// Waits until the entry at `index` is durable.
    pub async fn wait_durable(&self, _index: u64) -> Result<(), WalError> {
        todo!()
    }
}
