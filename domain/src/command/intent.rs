//! The intent row of a box: there while something is to be finished that other partitions have a part in.

use crate::ids::{BoxId, DeviceId};
use crate::profile::Intent;
use crate::tables::{DueKey, Meta, Tables};
use crate::time::Timestamp;

/// Puts the row, or renews its time.
pub(super) fn open<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    box_id: &BoxId,
    device: DeviceId,
) -> Result<(), T::Error> {
    let expires_at = meta.clock.plus_millis(meta.limits.pending_box_ttl_ms);
    open_until(tables, box_id, device, expires_at)
}

/// Puts the row to be there until then, or later if it is to be already.
pub(super) fn open_until<T: Tables>(
    tables: &mut T,
    box_id: &BoxId,
    device: DeviceId,
    until: Timestamp,
) -> Result<(), T::Error> {
    let due = DueKey::Intent(*box_id);
    let mut expires_at = until;
    if let Some(earlier) = tables.intent(box_id)? {
        tables.remove_due(earlier.expires_at, &due)?;
        expires_at = expires_at.max(earlier.expires_at);
    }
    tables.put_intent(box_id, &Intent { device, expires_at })?;
    tables.add_due(expires_at, &due)
}

/// Removes the row, if there is one.
pub(super) fn close<T: Tables>(tables: &mut T, box_id: &BoxId) -> Result<(), T::Error> {
    if let Some(intent) = tables.intent(box_id)? {
        tables.remove_due(intent.expires_at, &DueKey::Intent(*box_id))?;
        tables.delete_intent(box_id)?;
    }
    Ok(())
}
