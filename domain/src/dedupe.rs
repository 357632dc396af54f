//! Effectively once: what a box remembers of each sender device (guarantee P2).
//!
//! A counter is new if it is greater than the last one; gaps are allowed and stay empty for ever.
//! A known counter with the same digest gets its first outcome again. Rejections consume none.
//!
//! ```text
//!   counter > last                      -> enqueue, remember
//!   in the window, same digest          -> the first outcome
//!   in the window, other digest         -> CounterReused
//!   below last, within the window, gap  -> NotAccepted
//!   older than the window               -> CounterForgotten
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::command::EnvelopeDigest;
use crate::ids::{Counter, Sequence};
use crate::planted::{Bug, planted};
use crate::rejection::Rejection;

/// How many accepted envelopes a box remembers per sender device. A client keeps one request in
/// flight per box, of fewer envelopes than this.
pub const WINDOW: usize = 32;

/// One accepted envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its counter.
    pub counter: Counter,
    /// Where it went.
    pub sequence: Sequence,
    /// What it was.
    pub digest: EnvelopeDigest,
}

/// What a box remembers of one sender device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SenderRow {
    /// The last [`WINDOW`] accepted envelopes, oldest first, counters rising.
    pub accepted: VecDeque<Accepted>,
    /// Whether older ones were dropped from the window.
    pub forgotten: bool,
    /// This device's envelopes now in the queue.
    pub waiting: u32,
    /// Bytes of their bodies.
    pub waiting_bytes: u64,
}

/// What a box says to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Never used: the envelope is new.
    Fresh,
    /// This very envelope was stored there.
    Stored(Sequence),
    /// Why the counter can not be used.
    Refused(Rejection),
}

impl SenderRow {
    /// The counter of the last accepted envelope.
    #[must_use]
    pub fn last(&self) -> Counter {
        self.accepted
            .back()
            .map_or(Counter(0), |accepted| accepted.counter)
    }

    /// Judges an envelope by its counter and digest. See the table above.
    #[must_use]
    pub fn judge(&self, counter: Counter, digest: &EnvelopeDigest) -> Verdict {
        let last = self.last();
        if counter > last || planted(Bug::DedupeOff) {
            return Verdict::Fresh;
        }
        let next = last.next();
        let oldest = self
            .accepted
            .front()
            .map_or(Counter(0), |accepted| accepted.counter);
        Verdict::Refused(
            match self.accepted.iter().find(|known| known.counter == counter) {
                Some(known) if known.digest == *digest => return Verdict::Stored(known.sequence),
                Some(_) => Rejection::CounterReused { next },
                None if self.forgotten && counter < oldest => Rejection::CounterForgotten { next },
                None => Rejection::NotAccepted { next },
            },
        )
    }

    /// Remembers an accepted envelope, whose counter must be above [`Self::last`], and forgets the
    /// oldest if the window is full.
    pub(crate) fn remember(&mut self, accepted: Accepted) {
        self.accepted.push_back(accepted);
        while self.accepted.len() > WINDOW {
            self.accepted.pop_front();
            self.forgotten = true;
        }
    }
}
