//! The clocks of a world: its time, how far the wall clock of each node is from it, and at which pace
//! leases run out there.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
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
    drift: Mutex<Option<Drift>>,
    /// What it has gained by all drifts that are over: setting it does not make that undone.
    ran_ms: AtomicI64,
}

/// How a clock runs away from the world's time.
#[derive(Debug, Clone, Copy)]
struct Drift {
    since: Instant,
    /// Millionths that it is fast; negative is slow.
    ppm: i64,
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
            drift: Mutex::default(),
            ran_ms: AtomicI64::new(0),
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

    /// Sets it this far from the world's time; it runs as fast as that from now on.
    pub fn set_offset(&self, offset_ms: i64) {
        self.end_drift();
        self.offset_ms.store(offset_ms, Ordering::SeqCst);
    }

    /// Lets it run this many millionths fast from now on; slow if negative.
    pub fn drift(&self, ppm: i64) {
        self.offset_ms.fetch_add(self.gained(), Ordering::SeqCst);
        self.end_drift();
        let since = Instant::now();
        *self.drift.lock() = Some(Drift { since, ppm });
    }

    /// How far it is from the world's time.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset_ms
            .load(Ordering::SeqCst)
            .saturating_add(self.gained())
    }

    fn gained(&self) -> i64 {
        let drift = *self.drift.lock();
        drift.map_or(0, |drift| {
            let passed = i64::try_from(drift.since.elapsed().as_millis()).unwrap_or(i64::MAX);
            passed.saturating_mul(drift.ppm) / 1_000_000
        })
    }

    fn end_drift(&self) {
        self.ran_ms.fetch_add(self.gained(), Ordering::SeqCst);
        *self.drift.lock() = None;
    }

    /// Whether it shows another time than the world's, or will.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.offset() != 0 || self.drift.lock().is_some()
    }
}

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let right = self.wall.as_millis().saturating_add(elapsed);
        Timestamp::from_millis(right.saturating_add_signed(self.offset()))
    }

    fn running(&self) -> Duration {
        let ran_ms = self.ran_ms.load(Ordering::SeqCst) + self.gained();
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(elapsed.saturating_add_signed(ran_ms))
    }

    fn lasting(&self) -> Duration {
        self.begun.elapsed() * self.pace_permille / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_drifts_gains_time_and_never_runs_back() {
        let clock = WorldClock::new(Instant::now(), Timestamp::from_millis(1_000_000));
        clock.drift(100_000);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.offset(), 1_000);
        assert_eq!(clock.running(), Duration::from_secs(11));
        clock.set_offset(0);
        assert_eq!(clock.now(), Timestamp::from_millis(1_010_000));
        assert_eq!(clock.running(), Duration::from_secs(11));
        clock.drift(-100_000);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((clock.offset(), clock.is_off()), (-1_000, true));
        assert_eq!(clock.running(), Duration::from_secs(20));
    }
}
