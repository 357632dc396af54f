//! The queue of a box: how its counts are kept, and how what is no longer needed leaves it.
//!
//! An envelope leaves in one way only, [`purge`], which takes it off the counts of the queue and of
//! its sender. It may leave when every authorised device has acknowledged it, or when it expired.
//!
//! What has expired is told by the partition's expiry clock, never by its clock alone: a wrong clock
//! must not drop mail. Expiry is found through the `due` table: one marker per box and day of expiry, which becomes due
//! when that day is over. Readers do not wait for it: an expired envelope is never shown.

use std::collections::BTreeMap;

use crate::envelope::Envelope;
use crate::ids::{BoxId, DeviceAddress, Sequence};
use crate::profile::Profile;
use crate::tables::{DueKey, QueueState, Tables};
use crate::time::{DAY_MS, Timestamp};

/// The marker by which [`crate::command::Expire`] finds an envelope that expires at this time.
pub(crate) fn expiry_marker(box_id: &BoxId, expires_at: Timestamp) -> (Timestamp, DueKey) {
    let days = expires_at.as_millis() / DAY_MS;
    let end_of_day = days.saturating_add(1).saturating_mul(DAY_MS);
    (Timestamp::from_millis(end_of_day), DueKey::Queue(*box_id))
}

/// Which envelopes of a box may be purged now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purgeable {
    /// Up to here every authorised device has acknowledged.
    acknowledged: Sequence,
    /// And up to here before the command that purges.
    acknowledged_before: Sequence,
    expired_by: Timestamp,
}

impl Purgeable {
    /// `expired_by` is the partition's expiry clock.
    pub(crate) fn of(profile: &Profile, expired_by: Timestamp) -> Self {
        let acknowledged = profile.acknowledged_by_all().unwrap_or_default();
        Self {
            acknowledged,
            acknowledged_before: acknowledged,
            expired_by,
        }
    }

    /// The same, for a command that acknowledges what stands behind `acknowledged_before`.
    pub(crate) fn since(self, acknowledged_before: Sequence) -> Self {
        Self {
            acknowledged_before,
            ..self
        }
    }

    pub(crate) fn includes(&self, envelope: &Envelope) -> bool {
        self.is_acknowledged(envelope) || envelope.is_expired(self.expired_by)
    }

    fn is_acknowledged(&self, envelope: &Envelope) -> bool {
        envelope.sequence <= self.acknowledged
    }

    /// Whether it expired before all devices had acknowledged it. Who acknowledges what comes behind it was not shown it.
    fn is_expired_unread(&self, envelope: &Envelope) -> bool {
        envelope.sequence > self.acknowledged_before && envelope.is_expired(self.expired_by)
    }
}

/// Removes envelopes of a box and takes them off all counts. The caller puts `state`.
pub(crate) fn purge<T: Tables>(
    tables: &mut T,
    box_id: &BoxId,
    state: &mut QueueState,
    purgeable: &Purgeable,
    envelopes: &[Envelope],
) -> Result<(), T::Error> {
    // One read and one write per sender, however many of its envelopes go.
    let mut by_sender = BTreeMap::<DeviceAddress, (u32, u64)>::new();
    for envelope in envelopes {
        tables.purge_envelope(box_id, envelope.sequence)?;
        let bytes = envelope.body.len() as u64;
        state.depth = state.depth.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
        if purgeable.is_expired_unread(envelope) {
            state.expired_total = state.expired_total.saturating_add(1);
        }
        let (count, total) = by_sender.entry(envelope.id.sender).or_default();
        *count = count.saturating_add(1);
        *total = total.saturating_add(bytes);
    }
    for (sender, (count, bytes)) in by_sender {
        let mut row = tables.sender(box_id, &sender)?.unwrap_or_default();
        row.waiting = row.waiting.saturating_sub(count);
        row.waiting_bytes = row.waiting_bytes.saturating_sub(bytes);
        tables.put_sender(box_id, &sender, &row)?;
    }
    Ok(())
}
