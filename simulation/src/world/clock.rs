//! The wall clocks of a world: its time, and how far each is from it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rossby_domain::time::Timestamp;
use rossby_seams::clock::Clock;
use tokio::time::Instant;

/// A clock that runs with the world's time and can be set off from it.
#[derive(Debug)]
pub struct WorldClock {
    begun: Instant,
    wall: Timestamp,
    offset_ms: AtomicI64,
}

impl WorldClock {
    /// A clock that showed `wall` when the world began.
    #[must_use]
    pub fn new(begun: Instant, wall: Timestamp) -> Self {
        Self {
            begun,
            wall,
            offset_ms: AtomicI64::new(0),
        }
    }

    /// Sets it this far from the world's time.
    pub fn set_offset(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::SeqCst);
    }

    /// How far it is from the world's time.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let right = self.wall.as_millis().saturating_add(elapsed);
        Timestamp::from_millis(right.saturating_add_signed(self.offset()))
    }

    fn running(&self) -> Duration {
        self.begun.elapsed()
    }
}
