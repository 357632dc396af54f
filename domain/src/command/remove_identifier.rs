//! RemoveIdentifier, steps 1 and 3: an identifier is on its way out of its box, and is gone.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply, intent};
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceAddress};
use crate::profile::ProfileIdentifier;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Begins to take an identifier from a box, which goes on until it is released: the box's leader sees to that
/// if whoever asked does not. A box keeps one that is verified.
///
/// What is not listed is gone already, by an earlier try or ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveIdentifier {
    /// The device that asks, which signed the request.
    pub device: DeviceAddress,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The generation under which the box lists it, or 0 if it is not verified: so that no request
    /// removes what was added after it.
    pub generation: u64,
}

impl RemoveIdentifier {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let DeviceAddress { box_id, device } = self.device;
        let profile = tables.profile(&box_id)?;
        let Some(mut profile) = profile.filter(|p| p.authorised_device(&device).is_some()) else {
            return Ok(Err(Rejection::UnknownDevice));
        };
        let Some(listed) = profile.identifier(&self.identifier) else {
            return Ok(Ok(Outcome::IdentifierRemoved));
        };
        let generation = listed.named_generation();
        if !profile.leaving.contains(&self.identifier) {
            if generation != self.generation {
                return Ok(Err(Rejection::IdentifierChanged));
            }
            if profile.is_last_identifier(&self.identifier) {
                return Ok(Err(Rejection::LastIdentifier));
            }
            profile.leaving.insert(self.identifier);
            tables.put_profile(&box_id, &profile)?;
            intent::open(tables, meta, &box_id, device)?;
        }
        Ok(Ok(Outcome::IdentifierLeaving { generation }))
    }
}

/// Takes an identifier off a box's list, after its claim was released ([`super::ReleaseClaim`]). Nothing
/// happens to one that is not on its way out, or under another generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropIdentifier {
    /// The box.
    pub box_id: BoxId,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The generation under which the box lists it, or 0 if it is not verified.
    pub generation: u64,
}

impl DropIdentifier {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let Some(mut profile) = tables.profile(&self.box_id)? else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let listed = profile.identifier(&self.identifier);
        let is_meant = listed.map(ProfileIdentifier::named_generation) == Some(self.generation);
        if is_meant && profile.leaving.remove(&self.identifier) {
            let mut identifiers = profile.identifiers;
            identifiers.retain(|known| known.hash != self.identifier);
            profile.identifiers = identifiers;
            profile.resets.remove(&self.identifier);
            tables.put_profile(&self.box_id, &profile)?;
            if profile.is_settled() {
                intent::close(tables, &self.box_id)?;
            }
        }
        Ok(Ok(Outcome::IdentifierRemoved))
    }
}
