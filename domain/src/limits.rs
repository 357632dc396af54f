//! Limits that apply enforces. They are replicated: set by [`crate::command::Adopt`], so that every
//! replica enforces the same. Limits of the doors (sizes of requests, rates) are in `api`.

use serde::{Deserialize, Serialize};

use crate::time::DAY_MS;

/// How much of a queue only contacts may fill, in hundredths. Others are refused once the rest is taken.
pub const CONTACTS_PERCENT: u8 = 10;
/// The least that a box's owner may let mail wait: with less, it would be gone before a device that is on could fetch it.
pub const SHORTEST_TTL_MS: u64 = 60_000;

/// The limits of a partition. [`Limits::default`] gives the design's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of an envelope's body.
    pub envelope_bytes: u32,
    /// Envelopes in a box's queue.
    pub queue_envelopes: u32,
    /// Bytes of bodies in a box's queue.
    pub queue_bytes: u64,
    /// One sender box's largest share of a queue, in hundredths.
    pub sender_share_percent: u8,
    /// How long an envelope may wait, in milliseconds.
    pub envelope_ttl_ms: u64,
    /// How long a verification code is accepted, in milliseconds.
    pub code_ttl_ms: u64,
    /// Wrong codes before a code is void.
    pub code_attempts: u8,
    /// Codes sent to an identifier in a day.
    pub codes_per_day: u32,
    /// The pause after the first code, in milliseconds; it doubles with each code of the day.
    pub code_pause_ms: u64,
    /// Boxes that may try for one identifier at a time.
    pub pending_per_identifier: u32,
    /// How long a box may stay without a verified identifier, in milliseconds.
    pub pending_box_ttl_ms: u64,
    /// Boxes that a box may block, and boxes that it may have as contacts.
    pub blocked_boxes: u32,
    /// How long an identifier stays with its box, once another has proven it and the box was told, in milliseconds; and
    /// the pause after that box first said no.
    pub reset_delay_ms: u64,
}

/// The limits that [`crate::command::Adopt`] carries in the log, and that were stored first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct FirstLimits {
    envelope_bytes: u32,
    queue_envelopes: u32,
    queue_bytes: u64,
    sender_share_percent: u8,
    envelope_ttl_ms: u64,
    code_ttl_ms: u64,
    code_attempts: u8,
    codes_per_day: u32,
    code_pause_ms: u64,
    pending_per_identifier: u32,
    pending_box_ttl_ms: u64,
    blocked_boxes: u32,
}

impl From<Limits> for FirstLimits {
    fn from(limits: Limits) -> Self {
        Self {
            envelope_bytes: limits.envelope_bytes,
            queue_envelopes: limits.queue_envelopes,
            queue_bytes: limits.queue_bytes,
            sender_share_percent: limits.sender_share_percent,
            envelope_ttl_ms: limits.envelope_ttl_ms,
            code_ttl_ms: limits.code_ttl_ms,
            code_attempts: limits.code_attempts,
            codes_per_day: limits.codes_per_day,
            code_pause_ms: limits.code_pause_ms,
            pending_per_identifier: limits.pending_per_identifier,
            pending_box_ttl_ms: limits.pending_box_ttl_ms,
            blocked_boxes: limits.blocked_boxes,
        }
    }
}

impl From<FirstLimits> for Limits {
    fn from(first: FirstLimits) -> Self {
        Self {
            envelope_bytes: first.envelope_bytes,
            queue_envelopes: first.queue_envelopes,
            queue_bytes: first.queue_bytes,
            sender_share_percent: first.sender_share_percent,
            envelope_ttl_ms: first.envelope_ttl_ms,
            code_ttl_ms: first.code_ttl_ms,
            code_attempts: first.code_attempts,
            codes_per_day: first.codes_per_day,
            code_pause_ms: first.code_pause_ms,
            pending_per_identifier: first.pending_per_identifier,
            pending_box_ttl_ms: first.pending_box_ttl_ms,
            blocked_boxes: first.blocked_boxes,
            ..Self::default()
        }
    }
}

/// [`FirstLimits`], where limits are written.
pub(crate) mod first {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{FirstLimits, Limits};

    pub(crate) fn serialize<S: Serializer>(limits: &Limits, to: S) -> Result<S::Ok, S::Error> {
        FirstLimits::from(*limits).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Limits, D::Error> {
        FirstLimits::deserialize(from).map(Into::into)
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MINUTE_MS: u64 = 60_000;
        Self {
            envelope_bytes: 96 * 1024,
            queue_envelopes: 10_000,
            queue_bytes: 256 * 1024 * 1024,
            sender_share_percent: 25,
            envelope_ttl_ms: 30 * DAY_MS,
            code_ttl_ms: 10 * MINUTE_MS,
            code_attempts: 5,
            codes_per_day: 5,
            code_pause_ms: MINUTE_MS,
            pending_per_identifier: 8,
            pending_box_ttl_ms: DAY_MS,
            blocked_boxes: 1000,
            reset_delay_ms: 7 * DAY_MS,
        }
    }
}
