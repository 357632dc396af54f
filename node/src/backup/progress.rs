//! How far a long command has come, for who watches it on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::output::{self, size};

const INTERVAL: Duration = Duration::from_secs(2);

/// Tells of bytes that are done.
pub(super) struct Progress {
    what: &'static str,
    done: u64,
    total: u64,
    told: Instant,
    watched: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self {
            what,
            done: 0,
            total,
            told: Instant::now(),
            watched: std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.done = self.done.saturating_add(bytes);
        if self.watched && self.told.elapsed() >= INTERVAL {
            self.told = Instant::now();
            let percent = self.done.saturating_mul(100) / self.total.max(1);
            output::note(format!(
                "{}: {} of {} ({percent}%)",
                self.what,
                size(self.done),
                size(self.total)
            ));
        }
    }
}
