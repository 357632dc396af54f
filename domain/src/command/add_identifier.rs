//! AddIdentifier, step 1: the box lists another identifier, not yet verified.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Outcome, Reply, intent};
use crate::identifier::IdentifierHash;
use crate::ids::DeviceAddress;
use crate::profile::{MAX_IDENTIFIERS, ProfileIdentifier};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Lists an identifier before a code is sent there ([`super::OpenClaim`]), so that what a box has verified
/// it always lists. [`super::VerifyClaim`] and [`super::ActivateBox`] verify it like the first one. One that is not
/// verified in time is let go of by itself ([`super::Expire`]).
///
/// Repeating it changes nothing. One that is on its way out is not taken back: it is to be released first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddIdentifier {
    /// The device that asks, which signed the request.
    pub device: DeviceAddress,
    /// The identifier.
    pub identifier: IdentifierHash,
    /// The same, sealed under the cluster's seal key, for the box's own profile.
    pub sealed_identifier: Bytes,
    /// Whether others may find the box by it, once verified.
    pub discoverable: bool,
}

impl AddIdentifier {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let DeviceAddress { box_id, device } = self.device;
        let profile = tables.profile(&box_id)?;
        let Some(mut profile) = profile.filter(|p| p.authorised_device(&device).is_some()) else {
            return Ok(Err(Rejection::UnknownDevice));
        };
        let listed = profile.identifier(&self.identifier);
        let generation = listed.map(ProfileIdentifier::named_generation);
        let is_verified = generation.is_some_and(|generation| generation > 0);
        if profile.leaving.contains(&self.identifier) {
            let generation = generation.unwrap_or_default();
            return Ok(Ok(Outcome::IdentifierLeaving { generation }));
        }
        if listed.is_none() {
            if profile.identifiers.len() >= MAX_IDENTIFIERS {
                let limit = MAX_IDENTIFIERS as u32;
                return Ok(Err(Rejection::TooManyIdentifiers { limit }));
            }
            profile.identifiers.push(ProfileIdentifier {
                hash: self.identifier,
                generation: None,
                sealed: self.sealed_identifier,
                discoverable: self.discoverable,
            });
            tables.put_profile(&box_id, &profile)?;
        }
        if !is_verified {
            intent::open(tables, meta, &box_id, device)?;
        }
        Ok(Ok(Outcome::IdentifierAdded))
    }
}
