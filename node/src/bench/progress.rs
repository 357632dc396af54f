//! How far it is, on a terminal. Elsewhere a line for each step.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const TICK: Duration = Duration::from_millis(200);
const BAR: &str = "{prefix:<24} {bar:32} {pos}/{len}  {eta}";
const SPINNER: &str = "{prefix:<24} {spinner} {elapsed}";

/// A step that takes a while. It disappears when it is dropped.
#[derive(Debug)]
pub(super) struct Step(ProgressBar);

impl Step {
    /// One of so many pieces.
    pub(super) fn of(what: &str, pieces: u64) -> Self {
        Self::begin(what, ProgressBar::new(pieces), BAR)
    }

    /// One whose end is not known.
    pub(super) fn open(what: &str) -> Self {
        Self::begin(what, ProgressBar::new_spinner(), SPINNER)
    }

    /// So much time.
    pub(super) fn lasting(what: &str, time: Duration) -> Self {
        Self::of(what, time.as_secs())
    }

    fn begin(what: &str, bar: ProgressBar, style: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            output::note(what);
            return Self(ProgressBar::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So many pieces more are done.
    pub(super) fn done(&self, pieces: u64) {
        self.0.inc(pieces);
    }

    /// So much is done in all.
    pub(super) fn reached(&self, pieces: u64) {
        self.0.set_position(pieces);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
