//! A reset: somebody who has lost all devices proves their identifier again, for a new box, and gets it from the old
//! one after a delay, unless a device of that one says no.
//!
//! ```text
//!   right code ──► proven ──► the old box is told ──► the delay runs ──► the new box completes it ──► moved
//!                                    │                      │
//!                                    └──── a device says no ┘──► no reset for a while, longer each time
//! ```
//!
//! All of it stands beside the claim, in the identifier's partition, so that each step is a compare-and-set. The delay
//! begins only when the old box has the word: whatever breaks off, nothing is taken from somebody who was not told.

use serde::{Deserialize, Serialize};

use crate::claim::CodeMac;
use crate::ids::BoxId;
use crate::time::{DAY_MS, Timestamp};

/// How often the pause after a "no" doubles.
const MAX_DOUBLINGS: u32 = 3;

/// When a reset lapses that could be completed from then on: after the delay once more, and a day.
pub(crate) fn lapses_at(completes_at: Timestamp, delay_ms: u64) -> Timestamp {
    completes_at.plus_millis(delay_ms.saturating_add(DAY_MS))
}

/// How long a reset with this delay may take, from when it is proven.
#[must_use]
pub const fn longest_ms(delay_ms: u64) -> u64 {
    delay_ms.saturating_mul(2).saturating_add(DAY_MS)
}

/// What is contested about a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contest {
    /// A reset that is under way.
    pub reset: Option<Reset>,
    /// The last time that the owner said no.
    pub veto: Option<Veto>,
    /// Who had the identifier before, if the owner got it by a reset.
    pub former: Option<Former>,
}

/// A reset that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The box that is to get the identifier.
    pub box_id: BoxId,
    /// Names this reset for ever.
    pub serial: u64,
    /// The code that it was proven with, by which a retry is known.
    pub code: CodeMac,
    /// Whether others are to find the new box by the identifier.
    pub discoverable: bool,
    /// When it can be completed; `None` until the old box has the word.
    pub completes_at: Option<Timestamp>,
    /// From then on it counts for nothing.
    pub lapses_at: Timestamp,
}

impl Reset {
    /// Whether it still can be completed, now or later.
    pub(crate) fn is_alive(&self, now: Timestamp) -> bool {
        now < self.lapses_at
    }
}

/// The owner's "no".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veto {
    /// The box that was not to have the identifier.
    pub box_id: BoxId,
    /// No reset begins before.
    pub until: Timestamp,
    /// How many there were, up to the longest pause.
    pub count: u32,
}

impl Veto {
    /// One more, whose pause is twice that of the one before, up to eight times the first.
    pub(crate) fn after(
        earlier: Option<&Self>,
        box_id: BoxId,
        now: Timestamp,
        pause_ms: u64,
    ) -> Self {
        let doublings = earlier.map_or(0, |earlier| earlier.count.min(MAX_DOUBLINGS));
        let pause_ms = pause_ms.saturating_mul(1_u64 << doublings);
        Self {
            box_id,
            until: now.plus_millis(pause_ms),
            count: doublings.saturating_add(1),
        }
    }
}

/// Who had an identifier before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The box.
    pub box_id: BoxId,
    /// The generation of its claim.
    pub generation: u64,
}

/// What a box is told of a reset of one of its identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetNote {
    /// Names the reset.
    pub serial: u64,
    /// When the identifier goes, at the earliest.
    pub completes_at: Timestamp,
    /// From then on it does not go any more.
    pub lapses_at: Timestamp,
}
