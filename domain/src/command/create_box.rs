//! Register, step 2: the box itself, not yet authorised.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Outcome, Reply, intent};
use crate::chain::KeyRecord;
use crate::identifier::IdentifierHash;
use crate::ids::{BoxId, DeviceId, Sequence};
use crate::profile::{DeviceState, Profile, ProfileIdentifier};
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Makes a box that waits for its first identifier. The row is also the intent from which the
/// leader can finish a half-done Authorize. Repeating it, also with another identifier, is fine
/// while the box is not authorised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateBox {
    /// The box, derived from the record's genesis.
    pub box_id: BoxId,
    /// The key record: genesis, no links yet, the first device's KEM key. Verified by the proposer.
    pub record: KeyRecord,
    /// The identifier to be verified.
    pub identifier: IdentifierHash,
    /// The same, sealed under the cluster's seal key, for the box's own profile.
    pub sealed_identifier: Bytes,
    /// Whether others may find the box by this identifier.
    pub discoverable: bool,
}

impl CreateBox {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        // The proposer has made the id from a new record; no other box must ever come to be.
        let is_new = self.record.version() == 0;
        if !is_new || !self.box_id.is_of_genesis(&self.record.genesis_hash()) {
            return Ok(Err(Rejection::UnknownBox));
        }
        let device = self.record.genesis().device();
        let mut profile = match tables.profile(&self.box_id)? {
            Some(profile) if profile.deleted => return Ok(Err(Rejection::BoxDeleted)),
            Some(profile) if profile.active => {
                return self.let_in_again(tables, meta, &device, profile);
            }
            Some(profile) => {
                self.renew_record(tables)?;
                profile
            }
            None => {
                tables.insert_key_record(&self.box_id, &self.record)?;
                let state = DeviceState {
                    authorised: false,
                    cursor: Sequence(0),
                    token_generation: 0,
                };
                Profile {
                    devices: BTreeMap::from([(device, state)]),
                    ..Profile::default()
                }
            }
        };
        profile.put_pending_identifier(self.pending_identifier());
        tables.put_profile(&self.box_id, &profile)?;
        intent::open(tables, meta, &self.box_id, device)?;
        Ok(Ok(Outcome::BoxCreated))
    }

    fn pending_identifier(&self) -> ProfileIdentifier {
        ProfileIdentifier {
            hash: self.identifier,
            generation: None,
            sealed: self.sealed_identifier.clone(),
            discoverable: self.discoverable,
        }
    }

    /// A device whose token was refused for good, when the state was restored, may prove an
    /// identifier again. Its box is there already, and stays, whatever comes of that.
    fn let_in_again<T: Tables>(
        &self,
        tables: &mut T,
        meta: &Meta,
        device: &DeviceId,
        mut profile: Profile,
    ) -> Result<Reply, T::Error> {
        let refused = meta.restored.refused_tokens;
        let known = profile.devices.get(device);
        if !known.is_some_and(|known| known.authorised && known.token_generation <= refused) {
            return Ok(Err(Rejection::KeyAlreadyRegistered));
        }
        profile.put_pending_identifier(self.pending_identifier());
        tables.put_profile(&self.box_id, &profile)?;
        Ok(Ok(Outcome::BoxCreated))
    }

    /// A later try may bring a newer KEM key: the token will be sealed to it.
    fn renew_record<T: Tables>(&self, tables: &mut T) -> Result<(), T::Error> {
        let counter = |record: &KeyRecord| record.devices().map(|keys| keys.kem.counter).max();
        let stored = tables.key_record(&self.box_id)?;
        if stored.is_some_and(|stored| counter(&self.record) > counter(&stored)) {
            tables.update_key_record(&self.box_id, &self.record)?;
        }
        Ok(())
    }
}
