//! A reset: somebody who has lost all devices proves their identifier again, for a new box, and gets it from the old
//! one after a delay, unless a device of that one says no.
//!
//! ```text
//!   right code ──► proven ──► the old box is told ──► the delay runs ──► the new box completes it ──► moved
//!                                    │                      │
//!                                    └──── a device says no ┘──► no reset for a while, longer each time
//! ```
//!
//! All of it stands beside the claim, in the identifier's partition, so that each step is a compare-and-set. A reset has
//! one date, set when it is proven, which the old box is told; if that takes longer than it may, the reset is over and
//! is proven anew: whatever breaks off, nothing is taken from somebody who was not told, or sooner than they were told.
//! Who proves it later ends what others have begun, and completing takes another code: to have read the phone
//! once is not enough.
//!
//! All times are of the one clock that mail expires by in that partition; while it is in doubt nothing begins and
//! nothing is completed. The owner's "no" counts always.

use serde::{Deserialize, Serialize};

use crate::claim::CodeMac;
use crate::ids::BoxId;
use crate::planted::{Bug, planted};
use crate::time::{DAY_MS, Timestamp};

/// How often the pause after a "no" doubles.
const MAX_DOUBLINGS: u32 = 3;
/// How long it may take from the proof until the old box has the word.
const TELLING_MS: u64 = 10 * 60_000;
/// What is told of a reset, and the box that waits for it, stay longer than it can be completed: other groups' clocks
/// show it.
const LEEWAY_MS: u64 = DAY_MS;

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
    /// Whether the old box has the word. Until then it can not be completed.
    pub started: bool,
    /// By when the old box must have it; else it counts for nothing.
    pub starts_by: Timestamp,
    /// When it can be completed: the delay after the old box has the word at the latest.
    pub completes_at: Timestamp,
    /// From then on it counts for nothing.
    pub lapses_at: Timestamp,
}

impl Reset {
    /// One that is proven now, by the clock that mail expires by. Its times never change: what the old box is told of
    /// it is true, or it is over.
    pub(crate) fn proven(
        (box_id, serial): (BoxId, u64),
        (code, discoverable): (CodeMac, bool),
        now: Timestamp,
        delay_ms: u64,
    ) -> Self {
        let starts_by = now.plus_millis(TELLING_MS.min(delay_ms));
        let completes_at = starts_by.plus_millis(delay_ms);
        Self {
            box_id,
            serial,
            code,
            discoverable,
            started: false,
            starts_by,
            completes_at,
            lapses_at: completes_at.plus_millis(delay_ms.saturating_add(DAY_MS)),
        }
    }

    /// Whether it counts for anything.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        let until = if self.started {
            self.lapses_at
        } else {
            self.starts_by
        };
        now < until
    }

    /// Whether its delay is over.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.started && (self.completes_at <= now || planted(Bug::ResetEarly))
    }

    /// What the old box is to be told.
    #[must_use]
    pub fn note(&self) -> ResetNote {
        ResetNote {
            serial: self.serial,
            completes_at: self.completes_at,
            lapses_at: self.lapses_at,
        }
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

impl ResetNote {
    /// Until when what was told stands, and the new box is kept.
    #[must_use]
    pub fn stands_until(&self) -> Timestamp {
        self.lapses_at.plus_millis(LEEWAY_MS)
    }

    /// Whether it may be completed yet, for all that the box knows.
    pub(crate) fn stands(&self, now: Timestamp) -> bool {
        now < self.stands_until()
    }
}
