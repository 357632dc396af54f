//! The intent row of a box: there while something is to be finished that other partitions have a part in.

use crate::ids::{BoxId, DeviceId};
use crate::profile::Intent;
use crate::tables::{DueKey, Meta, Tables};

/// Puts the row, or renews its time.
pub(super) fn open<T: Tables>(
    tables: &mut T,
    meta: &Meta,
    box_id: &BoxId,
    device: DeviceId,
) -> Result<(), T::Error> {
    let due = DueKey::Intent(*box_id);
    if let Some(earlier) = tables.intent(box_id)? {
        tables.remove_due(earlier.expires_at, &due)?;
    }
    let expires_at = meta.clock.plus_millis(meta.limits.pending_box_ttl_ms);
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
