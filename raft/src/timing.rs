//! Raft's intervals.

use std::time::Duration;

/// Raft's intervals. [`Timing::lan`] is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats. A heartbeat must be answered within this time.
    pub heartbeat: Duration,
    /// Shortest wait before an election.
    pub election_min: Duration,
    /// Longest wait before an election.
    pub election_max: Duration,
}

impl Timing {
    /// For nodes within a few milliseconds of each other.
    #[must_use]
    pub const fn lan() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
        }
    }

    /// For nodes in several regions.
    #[must_use]
    pub const fn wan() -> Self {
        Self {
            heartbeat: Duration::from_millis(500),
            election_min: Duration::from_millis(2500),
            election_max: Duration::from_millis(5000),
        }
    }

    /// For how many milliseconds, at least, a voter elects nobody else after it heard from a leader.
    pub(crate) fn promise_ms(&self) -> u64 {
        u64::try_from(self.election_min.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::lan()
    }
}
