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
