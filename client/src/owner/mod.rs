//! What the owner of a box says on any of its devices, and how the devices come to say the same.
//!
//! ```text
//!   contact.rs  of somebody: what to call them, that they are a contact, blocked, verified, forgotten
//!   choices.rs  of the box: which receipts it sends, and whom it takes messages from
//! ```
//!
//! Each thing that can be said is a register that the latest word wins (Shapiro et al., "A comprehensive study of Convergent and
//! Commutative Replicated Data Types", 2011): whichever devices hear which words in which order, they end with the same. Two words of
//! one instant are told apart by what they say.

mod choices;
mod contact;

use rossby_domain::time::Timestamp;
use rossby_domain::wire::{Reader, WireError};
use serde::{Deserialize, Serialize};

pub use self::choices::{Choice, Choices, Chosen};
pub use self::contact::{ContactWord, Entry, Overruled, Part, Said};
pub(crate) use self::contact::{MAX_NAME_BYTES, cut, parse};

/// What was said this far ahead was said by a clock that was wrong: whoever hears it, and whoever says more, takes it as said now.
const LONGEST_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;

/// Something that was said, and when. Of two words the later holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Latest<T> {
    at: Timestamp,
    value: T,
}

impl<T: Ord + Default> Latest<T> {
    /// That nothing is said any more.
    fn at(at: Timestamp) -> Self {
        Self {
            at,
            value: T::default(),
        }
    }

    /// Dates it back to now if it was said by a clock that was wrong.
    fn pull(&mut self, now: Timestamp) {
        if is_ahead(self.at, now) {
            self.at = now;
        }
    }

    /// Dates what was said as all others do who hear it, if nothing was said since.
    fn date(&mut self, said: &Self, at: Timestamp) {
        if self == said {
            self.pull(at);
        }
    }

    /// Takes another word, if it is later; whether it was.
    fn take(&mut self, other: Self) -> bool {
        let is_later = other > *self;
        if is_later {
            *self = other;
        }
        is_later
    }

    /// Says this at some instant, if it is not what was said last, or is said again on purpose; whether it was said.
    fn say(&mut self, at: Timestamp, value: T, again: bool) -> bool {
        let is_said = again || self.value != value;
        if is_said {
            *self = Self { at, value };
        }
        is_said
    }

    fn read(
        reader: &mut Reader<'_>,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, WireError>,
    ) -> Result<Self, WireError> {
        Ok(Self {
            at: read_time(reader)?,
            value: read(reader)?,
        })
    }
}

/// Whether something was said by a clock that was wrong.
fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    at.millis_since(now) >= LONGEST_AHEAD_MS
}

/// The instant of what is said now: after the last word.
fn instant(last: Timestamp, now: Timestamp) -> Timestamp {
    now.max(last.plus_millis(1))
}

fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, WireError> {
    Ok(Timestamp::from_millis(reader.u64()?))
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Invalid("flag")),
    }
}
