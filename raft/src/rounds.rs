//! Counts the rounds of checkpoints, for whoever asks how a replica is doing.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many checkpoints a replica has begun to write since it started, and how many of them have come
/// to an end, good or not. While the first is ahead, one is being written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckpointRounds {
    /// Begun.
    pub begun: u64,
    /// Ended.
    pub ended: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct RoundCounters {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl RoundCounters {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn read(&self) -> CheckpointRounds {
        // In this order none can have ended that was not begun.
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        CheckpointRounds { begun, ended }
    }
}
