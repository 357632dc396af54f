//! A device has stored what it fetched.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::{BoxId, DeviceAddress, Sequence};
use crate::planted::{Bug, planted};
use crate::profile::Profile;
use crate::queue::{Purgeable, purge};
use crate::rejection::Rejection;
use crate::tables::{DueKey, Meta, QueueState, Tables};

/// Moves a device's cursor up to `upto` (never back) and purges what every authorised device of
/// the box has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The device.
    pub device: DeviceAddress,
    /// The last sequence that it has stored.
    pub upto: Sequence,
}

/// How many envelopes one acknowledgement purges.
const PURGE_ENVELOPES: u32 = 1024;
/// How many bytes of bodies it purges (one envelope more is fine).
const PURGE_BYTES: u64 = 8 * 1024 * 1024;

impl Acknowledge {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let box_id = self.device.box_id;
        let Some(mut profile) = tables.profile(&box_id)?.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let before = profile.acknowledged_by_all().unwrap_or_default();
        let device = profile.devices.get_mut(&self.device.device);
        let Some(device) = device.filter(|device| device.authorised) else {
            return Ok(Err(Rejection::UnknownDevice));
        };
        let state = tables.queue_state(&box_id)?.unwrap_or_default();
        // A device may have seen more than a restored queue remembers.
        let last = meta.last_sequence(&state);
        if self.upto > last {
            return Ok(Err(Rejection::BeyondQueue { last }));
        }
        let cursor = device.cursor.max(self.upto);
        if cursor > device.cursor {
            device.cursor = cursor;
            tables.put_profile(&box_id, &profile)?;
        }
        let purged = purge_acknowledged(tables, meta, &box_id, (before, &profile), state)?;
        Ok(Ok(Outcome::Acknowledged { cursor, purged }))
    }
}

/// Purges what all devices have acknowledged, up to a bound. What is left goes with the next
/// acknowledgement, or with the next Expire, for which a marker is set. `before`: up to where they had acknowledged before
/// this command, beside the profile that it leaves.
pub(super) fn purge_acknowledged<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    box_id: &BoxId,
    (before, profile): (Sequence, &Profile),
    mut state: QueueState,
) -> Result<u32, T::Error> {
    let mut upto = profile.acknowledged_by_all().unwrap_or_default();
    if planted(Bug::PurgeBeforeLastDevice) {
        upto = state.last;
    }
    if upto <= state.purged_upto {
        return Ok(0);
    }
    let purgeable = Purgeable::of(profile, meta.expiry_clock).since(before);
    // No more can leave than there are sequences: the rest of a long queue is not looked at.
    let most = u32::try_from(upto.0.saturating_sub(state.purged_upto.0))
        .map_or(PURGE_ENVELOPES, |most| most.min(PURGE_ENVELOPES));
    let mut leaving = tables.envelopes(box_id, state.purged_upto, most, PURGE_BYTES)?;
    let is_all = leaving.last().is_none_or(|last| last.sequence >= upto);
    leaving.retain(|envelope| envelope.sequence <= upto);
    purge(tables, box_id, &mut state, &purgeable, &leaving)?;
    if is_all {
        state.purged_upto = upto;
    } else {
        state.purged_upto = leaving
            .last()
            .map_or(state.purged_upto, |last| last.sequence);
        state.swept_upto = Sequence(0);
        tables.add_due(meta.expiry_clock, &DueKey::Queue(*box_id))?;
    }
    tables.put_queue_state(box_id, &state)?;
    Ok(u32::try_from(leaving.len()).unwrap_or(u32::MAX))
}
