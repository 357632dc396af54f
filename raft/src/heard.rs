//! When a replica last heard from a leader.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When a replica last heard from a leader. openraft does not tell.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    /// It has, now.
    pub(crate) fn now(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// When it last has.
    pub(crate) fn last(&self) -> Option<Instant> {
        *self.0.lock()
    }

    /// Whether that was no longer ago than `limit`.
    pub(crate) fn within(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|heard| heard.elapsed() <= limit)
    }
}
