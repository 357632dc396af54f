//! The last step of linking, before the device comes: a place in a box is offered to it.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::claim::Claim;
use crate::ids::{BoxId, DeviceId};
use crate::rejection::Rejection;
use crate::tables::{InboxKey, Meta, Tables};

/// Lets a device find the box whose chain names it. The device knows nothing of that yet, and only it binds
/// itself ([`super::ClaimDevice`]): until then the last offer counts, so nobody who knows its key can keep
/// it from its owner. It is proposed for links that are in a chain only, and there are only so many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferDevice {
    /// The device that a link has added.
    pub device: DeviceId,
    /// The box whose chain has that link.
    pub box_id: BoxId,
}

impl OfferDevice {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        let Self { device, box_id } = self;
        let key = InboxKey::Device(device);
        let known = tables.claim(&key)?;
        if let Some(claim) = &known {
            if claim.box_id == box_id {
                return Ok(Ok(Outcome::DeviceClaimed { box_id }));
            }
            if !claim.is_offer() {
                return Ok(Err(Rejection::KeyAlreadyRegistered));
            }
            tables.delete_claim(&key)?;
        }
        let claim = Claim::offer(box_id, meta.next_generation());
        tables.insert_claim(&key, &claim)?;
        Ok(Ok(Outcome::DeviceClaimed { box_id }))
    }
}
