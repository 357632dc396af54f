//! The clocks of a world: its time, how far the wall clock of each node is from it, and at which pace
//! leases run out there.

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
    pace_permille: u32,
}

impl WorldClock {
    /// A clock that showed `wall` when the world began.
    #[must_use]
    pub fn new(begun: Instant, wall: Timestamp) -> Self {
        Self {
            begun,
            wall,
            offset_ms: AtomicI64::new(0),
            pace_permille: 1_000,
        }
    }

    /// The same clock, by which so many thousandths of the time pass for leases. Elections go by the world's own
    /// time: so a lease is measured by another clock than the promises that it rests on.
    #[must_use]
    pub fn paced(self, pace_permille: u32) -> Self {
        Self {
            pace_permille,
            ..self
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

    fn lasting(&self) -> Duration {
        self.begun.elapsed() * self.pace_permille / 1_000
    }
}
