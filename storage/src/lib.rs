//! Durable bytes: the Raft log, the state below it, and its checkpoints.
//!
//! ```text
//!   raft ── append, truncate, purge, vote ──► wal ──► Disk: <data>/wal/*.wal        (truth, fsynced)
//!     │
//!     └─ apply ──► store ──► overlay (memory) ── checkpoint ──► Disk: <data>/checkpoints (truth, fsynced)
//!                               └── frozen part, in small chunks ──► Base (sled): rebuildable
//! ```
//!
//! The log and the checkpoints are the truth; the base below the overlay never holds the only copy of
//! anything and is rebuilt when in doubt. This crate knows nothing of roles, requests or plaintext.

pub mod codec;
pub mod datadir;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod sled_base;
pub mod store;
pub mod wal;

use serde::{Deserialize, Serialize};

/// Where an entry stands in a group's log. Ordered by term, then index, as Raft compares logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    /// The term of the leader that proposed the entry.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}
