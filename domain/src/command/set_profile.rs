//! SetProfile: what a person shows of themselves, sealed for those whom they have given the key.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::ids::DeviceAddress;
use crate::profile::{MAX_PROFILE_STEP, MAX_SEALED_PROFILE_BYTES, SealedProfile};
use crate::rejection::Rejection;
use crate::tables::Tables;

/// Puts a sealed profile in the place of the box's earlier one. Its version must be above that of the earlier one, so that of two
/// devices that do it at once the second one notices, and not far above: a device that is removed later must not have used all
/// that there are. The very same under the same version again is the retry of a lost reply.
///
/// The device has signed it, which whoever proposes has checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetProfile {
    /// The device.
    pub device: DeviceAddress,
    /// Its version.
    pub version: u64,
    /// The profile, sealed.
    pub sealed: Bytes,
}

impl SetProfile {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let box_id = &self.device.box_id;
        let profile = tables.profile(box_id)?;
        let Some(profile) = profile.filter(|profile| profile.active) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        if profile.authorised_device(&self.device.device).is_none() {
            return Ok(Err(Rejection::UnknownDevice));
        }
        if self.sealed.len() > MAX_SEALED_PROFILE_BYTES {
            let limit_bytes = MAX_SEALED_PROFILE_BYTES as u32;
            return Ok(Err(Rejection::ProfileTooLarge { limit_bytes }));
        }
        let new = SealedProfile {
            version: self.version,
            sealed: self.sealed,
        };
        let known = tables.sealed_profile(box_id)?;
        if known.as_ref() == Some(&new) {
            return Ok(Ok(Outcome::ProfileSet));
        }
        let current = known.map(|known| known.version).unwrap_or_default();
        let highest = current.saturating_add(MAX_PROFILE_STEP);
        if new.version <= current || new.version > highest {
            return Ok(Err(Rejection::ProfileVersionUsed { current }));
        }
        tables.put_sealed_profile(box_id, &new)?;
        Ok(Ok(Outcome::ProfileSet))
    }
}
