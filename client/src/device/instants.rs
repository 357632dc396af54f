//! The instants that name messages and order conversations.
//!
//! Each message bears the instant that its device put on it: of that device's clock, but after every one that it gave before, and
//! after those of all that it has heard. So what answers a message stands after it on everybody's devices, whatever their clocks
//! (Lamport, "Time, Clocks, and the Ordering of Events in a Distributed System", 1978; with clocks as in Kulkarni et al.,
//! "Logical Physical Clocks", 2014).

use rossby_domain::time::Timestamp;

use super::Device;
use crate::store::{Batch, StoreError, WrittenRow};

/// Instants this far ahead are of a clock that was wrong: it is not followed any more once it was set right.
const LONGEST_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;
/// So far ahead of the own clock others' instants are followed. Nobody can make this device date its messages into next week.
const LONGEST_FOLLOWED_MS: u64 = 10 * 60 * 1000;

impl Device {
    /// The instant of what the owner says now of others, and chooses: of two words of one's devices the later holds, so all go by the
    /// service's clock and not by their own.
    pub(super) fn said_at(&self) -> Timestamp {
        self.connection.now()
    }
}

/// The instant of a new message: now, and never that of another one, which it would be taken for
/// ([`MessageId`](crate::envelope::MessageId)). A clock that was set back a little does not turn the order of edits around either.
pub(super) fn take(batch: &mut Batch<'_>, now: Timestamp) -> Result<Timestamp, StoreError> {
    let next = match batch.get::<WrittenRow>(&())? {
        Some(WrittenRow { last }) if last.millis_since(now) < LONGEST_AHEAD_MS => {
            now.max(last.plus_millis(1))
        }
        _ => now,
    };
    batch.put(&(), &WrittenRow { last: next })?;
    Ok(next)
}

/// Notes the latest instant of what others have said: what is written here from now on comes after it.
pub(super) fn follow(
    batch: &mut Batch<'_>,
    heard: impl Iterator<Item = Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let credible = heard.filter(|heard| heard.millis_since(now) <= LONGEST_FOLLOWED_MS);
    let Some(latest) = credible.max() else {
        return Ok(());
    };
    let WrittenRow { last } = batch.get::<WrittenRow>(&())?.unwrap_or_default();
    if latest > last {
        batch.put(&(), &WrittenRow { last: latest })?;
    }
    Ok(())
}
