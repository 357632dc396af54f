//! How far a long command has come, for who watches it on a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use crate::output;

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

/// A number of bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = format!("{bytes} B");
    let mut scaled = bytes.saturating_mul(10);
    for unit in UNITS {
        scaled /= 1024;
        if scaled < 10 {
            break;
        }
        shown = format!("{}.{} {unit}", scaled / 10, scaled % 10);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_shown_in_the_largest_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (2_u64 << 40, "2.0 TiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
