//! The wall clock, and one that only runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rossby_domain::time::Timestamp;

/// Tells the time of day. It may jump either way: whoever needs order asks the log, not a clock.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// How long it is since some instant of the past, by a clock that is never set: for measuring
    /// what has passed while the time of day jumps.
    fn running(&self) -> Duration;

    /// The same, but by a clock that goes on while the machine is suspended: for what ends by itself, such as a
    /// lease, and must have ended when the machine wakes up.
    fn lasting(&self) -> Duration {
        self.running()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that everybody asks"
    )]
    fn now(&self) -> Timestamp {
        // A clock set before 1970 reads as 1970: the time check against the peers will refuse it.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn running(&self) -> Duration {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGUN.elapsed()
    }

    #[cfg(target_os = "linux")]
    fn lasting(&self) -> Duration {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(since_boot).unwrap_or_default()
    }
}

/// A clock that stands still until it is told to move. Clones share the hand.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    hand: Arc<AtomicU64>,
    run: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self {
            hand: Arc::new(AtomicU64::new(start.as_millis())),
            run: Arc::default(),
        }
    }

    /// Moves the hand to `now`, forwards or back, in no time.
    pub fn set(&self, now: Timestamp) {
        self.hand.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Moves the hand forwards, as time passes.
    pub fn advance_millis(&self, millis: u64) {
        self.hand.fetch_add(millis, Ordering::SeqCst);
        self.run.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.hand.load(Ordering::SeqCst))
    }

    fn running(&self) -> Duration {
        Duration::from_millis(self.run.load(Ordering::SeqCst))
    }
}
