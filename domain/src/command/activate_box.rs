//! Authorize, step 2: the box comes to life, or has one more identifier.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply, intent};
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceId};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Authorises a box and its first device, after the box's claim was verified. In a box that is authorised
/// already, the identifier is one more that is verified, by whichever of its devices.
/// Repeating it gives the same token generation, unless that was refused for good when the state was
/// restored: then it is how a device gets a new one.
///
/// An identifier that the box has not asked for, or lets go of, is refused with
/// [`Rejection::NoCodeRequested`]: Register again puts it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivateBox {
    /// The box.
    pub box_id: BoxId,
    /// Its first device, or any one later.
    pub device: DeviceId,
    /// The identifier that was verified.
    pub identifier: IdentifierHash,
    /// The generation of the verified claim.
    pub generation: u64,
}

impl ActivateBox {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let Some(before) = tables.profile(&self.box_id)? else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let mut profile = before.clone();
        let Some(device) = profile.devices.get_mut(&self.device) else {
            return Ok(Err(Rejection::UnknownDevice));
        };
        if profile.active && !device.authorised {
            return Ok(Err(Rejection::UnknownDevice));
        }
        if profile.leaving.contains(&self.identifier) {
            return Ok(Err(Rejection::NoCodeRequested));
        }
        let mut identifiers = profile.identifiers.iter_mut();
        let Some(identifier) = identifiers.find(|known| known.hash == self.identifier) else {
            return Ok(Err(Rejection::NoCodeRequested));
        };
        identifier.generation = identifier.generation.max(Some(self.generation));
        if !profile.active {
            profile.active = true;
            device.authorised = true;
            device.token_generation = meta.token_after(0);
        } else {
            *device = device.let_in(meta);
        }
        let token_generation = device.token_generation;
        if profile != before {
            tables.put_profile(&self.box_id, &profile)?;
        }
        // What it has asked for besides may be verified already, or is forgotten in time.
        if profile.is_settled() {
            intent::close(tables, &self.box_id)?;
        }
        Ok(Ok(Outcome::BoxActivated { token_generation }))
    }
}
