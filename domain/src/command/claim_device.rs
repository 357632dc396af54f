//! Register, step 1, and the first step of a linked device that comes: the device's directory entry.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::claim::Claim;
use crate::contest::Contest;
use crate::ids::{BoxId, DeviceId};
use crate::rejection::Rejection;
use crate::tables::{InboxKey, Meta, Tables};

/// Binds a device id to a box. If an earlier try with the same genesis record bound it to a box
/// born in another partition, that box is the outcome; a different genesis record is refused. Who only
/// offered it a place ([`super::OfferDevice`]) does not bind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimDevice {
    /// The device, which signed the request.
    pub device: DeviceId,
    /// The box that it wants to make, or to take its place in.
    pub box_id: BoxId,
}

impl ClaimDevice {
    pub(crate) fn execute<T: Tables>(
        self,
        tables: &mut T,
        meta: &mut Meta,
    ) -> Result<Reply, T::Error> {
        let key = InboxKey::Device(self.device);
        let known = tables.claim(&key)?;
        if known.as_ref().is_some_and(Claim::is_offer) {
            tables.delete_claim(&key)?;
        } else if let Some(claim) = known {
            return Ok(if claim.box_id.shares_genesis_with(&self.box_id) {
                Ok(Outcome::DeviceClaimed {
                    box_id: claim.box_id,
                })
            } else {
                Err(Rejection::KeyAlreadyRegistered)
            });
        }
        let claim = Claim {
            box_id: self.box_id,
            generation: meta.next_generation(),
            discoverable: true,
            code: None,
            contest: Contest::default(),
        };
        tables.insert_claim(&key, &claim)?;
        Ok(Ok(Outcome::DeviceClaimed {
            box_id: self.box_id,
        }))
    }
}
