//! What the recovery key says: that its box be shown, and that a new device take its place there, alone or
//! beside the others.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{
    ChainError, Change, KeyRecord, Link, MAX_DEVICES, Signer, SigningPublicKey,
};
use rossby_domain::identifier::Identifier;
use rossby_domain::ids::{BoxId, DeviceId};
use rossby_domain::statement::{self, Recoverable};
use rossby_proto::v1::{self, lookup_recovery_request::By};

use super::joining::{JoiningError, Newcomer};
use crate::crypto::secret::Secret;
use crate::identity::{FIRST_COUNTER, IdentityError, signed_kem};
use crate::registering::{box_from_wire, identifier_to_wire};

/// By what a box is found that is to be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverBy {
    /// A phone or email that is proven for it, whether or not others find it by that.
    Identifier(Identifier),
    /// Its id.
    Box(BoxId),
}

/// A recovery key in use. `Debug` shows nothing of it.
pub struct RecoveryKey(SigningKey);

impl RecoveryKey {
    /// The key of this seed ([`crate::crypto::recovery::from_text`]).
    #[must_use]
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(SigningKey::from_bytes(seed.expose()))
    }

    /// Whether it is the recovery key of this record's box.
    #[must_use]
    pub fn is_of(&self, record: &KeyRecord) -> bool {
        record.genesis().recovery_key == self.public()
    }

    fn public(&self) -> SigningPublicKey {
        self.0.verifying_key().to_bytes()
    }

    /// Asks for the key record of its box.
    #[must_use]
    pub fn lookup_request(&self, by: &RecoverBy) -> v1::LookupRecoveryRequest {
        let (wire, signed) = match by {
            RecoverBy::Box(box_id) => {
                let bytes = Bytes::copy_from_slice(box_id.as_bytes());
                (By::BoxId(bytes), Recoverable::Box(box_id))
            }
            RecoverBy::Identifier(identifier) => {
                let wire = By::Identifier(identifier_to_wire(identifier));
                (wire, Recoverable::Identifier(identifier))
            }
        };
        let signed = statement::lookup_recovery(signed);
        v1::LookupRecoveryRequest {
            by: Some(wire),
            recovery_key: Bytes::copy_from_slice(&self.public()),
            signature: Bytes::copy_from_slice(&self.0.sign(&signed).to_bytes()),
        }
    }

    /// The box that was found, if it is this key's, and the one that was asked for.
    ///
    /// # Errors
    /// [`JoiningError::Chain`], [`JoiningError::NotTheBox`].
    pub fn found(
        &self,
        by: &RecoverBy,
        response: &v1::LookupRecoveryResponse,
    ) -> Result<(BoxId, KeyRecord), JoiningError> {
        let record = KeyRecord::decode(&response.key_record)?;
        let is_asked = |found: &BoxId| match by {
            RecoverBy::Box(asked) => asked == found,
            RecoverBy::Identifier(_) => true,
        };
        box_from_wire(&response.box_id)
            .filter(|found| found.is_of_genesis(&record.genesis_hash()) && is_asked(found))
            .filter(|_| self.is_of(&record))
            .map(|box_id| (box_id, record))
            .ok_or(JoiningError::NotTheBox)
    }

    /// The links that add a device to a box, unless it is there, and remove all others, if they are to go.
    ///
    /// # Errors
    /// [`ChainError::NotAllowed`] where the chain does not take them.
    pub fn links(
        &self,
        record: &KeyRecord,
        device: &SigningPublicKey,
        alone: bool,
    ) -> Result<Vec<Link>, ChainError> {
        let own = DeviceId::of_key(device);
        let others = record
            .live_devices()
            .filter(|other| alone && **other != own);
        let mut changes: Vec<_> = others
            .map(|other| Change::RemoveDevice { device: *other })
            .collect();
        if record.signing_key(&own).is_none() {
            // First, where there is room for it: a chain near its end takes removals yet, and no more devices.
            let is_full = record.live_devices().count() >= MAX_DEVICES;
            let place = usize::from(is_full && !changes.is_empty());
            changes.insert(place, Change::AddDevice { key: *device });
        }
        let mut links = Vec::new();
        let mut longer = record.clone();
        for change in changes {
            let link = self.link(&longer, change);
            longer = longer.extend(link)?;
            links.push(link);
        }
        Ok(links)
    }

    fn link(&self, record: &KeyRecord, change: Change) -> Link {
        let (version, previous) = (record.version() + 1, record.head());
        let signer = Signer::Recovery;
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        Link {
            version,
            previous,
            change,
            signer,
            signature: self.0.sign(&signed).to_bytes(),
        }
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

impl Newcomer {
    /// The device's public signing key.
    #[must_use]
    pub fn public_key(&self) -> SigningPublicKey {
        self.signing_key.verifying_key().to_bytes()
    }

    /// Asks for its place by links that the recovery key has signed. Answered as [`Self::request`] is.
    ///
    /// # Errors
    /// [`IdentityError::Kem`].
    pub fn recovery_request(
        &self,
        box_id: &BoxId,
        links: &[Link],
    ) -> Result<v1::RecoverRequest, IdentityError> {
        let kem = signed_kem(&self.signing_key, FIRST_COUNTER, &self.kem)?;
        let signed = statement::recover(box_id, &self.device(), &kem.public);
        let signature = self.signing_key.sign(&signed).to_bytes();
        let links = links.iter().map(|link| Bytes::from(link.encode()));
        Ok(v1::RecoverRequest {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            links: links.collect(),
            signing_key: Bytes::copy_from_slice(&self.public_key()),
            kem_key: Bytes::from(kem.encode()),
            signature: Bytes::copy_from_slice(&signature),
        })
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::chain::{LinkRefusal, MAX_LINKS_BY_DEVICES, MAX_LINKS_BY_RECOVERY};
    use rossby_domain::ids::PartitionId;
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::identity::Identity;

    fn owner() -> (Identity, RecoveryKey) {
        let owner = Identity::generate(&SeededRandom::new(1)).unwrap();
        let key = RecoveryKey::from_seed(owner.recovery_seed().unwrap());
        (owner, key)
    }

    fn device(number: u64) -> SigningPublicKey {
        let random = SeededRandom::new(1000 + number);
        Newcomer::generate(&random).unwrap().public_key()
    }

    fn extended(record: &KeyRecord, links: &[Link]) -> KeyRecord {
        let extend = |record: KeyRecord, link: &Link| record.extend(*link).unwrap();
        links.iter().fold(record.clone(), extend)
    }

    /// A record with links by its first device, adding and removing one after the other.
    fn filled(owner: &Identity, links: u64) -> KeyRecord {
        let mut identity = owner.clone();
        for number in 0..links {
            let key = device(number / 2);
            let change = match number % 2 {
                0 => Change::AddDevice { key },
                _ => Change::RemoveDevice {
                    device: DeviceId::of_key(&key),
                },
            };
            let longer = identity.record().extend(identity.sign_link(change));
            identity = identity.with_record(longer.unwrap());
        }
        identity.record().clone()
    }

    #[test]
    fn a_device_takes_the_place_of_all_others_also_where_there_is_no_room_for_one_more() {
        let (owner, key) = owner();
        let mut record = owner.record().clone();
        for number in 0..7 {
            let links = key.links(&record, &device(number), false).unwrap();
            assert_eq!(links.len(), 1);
            record = extended(&record, &links);
        }
        assert_eq!(record.live_devices().count(), MAX_DEVICES);
        let new = device(9);
        let beside = key.links(&record, &new, false);
        let full = ChainError::NotAllowed(LinkRefusal::TooManyDevices);
        assert_eq!(beside, Err(full));
        let links = key.links(&record, &new, true).unwrap();
        let after = extended(&record, &links);
        let live: Vec<_> = after.live_devices().copied().collect();
        assert_eq!(live, [DeviceId::of_key(&new)]);
        // What is done need not be done again.
        assert_eq!(key.links(&after, &new, true), Ok(Vec::new()));
    }

    #[test]
    fn a_chain_that_a_thief_has_filled_is_recovered() {
        let (owner, key) = owner();
        let record = filled(&owner, MAX_LINKS_BY_DEVICES as u64);
        let thiefs = owner.sign_link(Change::AddDevice { key: device(500) });
        assert!(record.extend(thiefs).is_err());
        let new = device(501);
        let after = extended(&record, &key.links(&record, &new, true).unwrap());
        assert_eq!(after.live_devices().count(), 1);
        // And goes on being so as long as there is room for all removals.
        let mut record = after;
        let mut number = 600;
        while record.links().len() < MAX_LINKS_BY_RECOVERY {
            let links = key.links(&record, &device(number), true).unwrap();
            record = extended(&record, &links);
            number += 1;
        }
        let over = key.links(&record, &device(number), true);
        assert_eq!(over, Err(ChainError::NotAllowed(LinkRefusal::ChainFull)));
    }

    #[test]
    fn a_service_can_not_show_another_box_as_the_keys() {
        let (owner, key) = owner();
        let other = Identity::generate(&SeededRandom::new(2)).unwrap();
        let answer = |identity: &Identity| {
            let partition = PartitionId::new(1).unwrap();
            let box_id = BoxId::derive(partition, &identity.record().genesis_hash());
            let response = v1::LookupRecoveryResponse {
                box_id: Bytes::copy_from_slice(box_id.as_bytes()),
                key_record: identity.record().encode().into(),
            };
            (box_id, response)
        };
        let ((own, honest), (theirs, foreign)) = (answer(&owner), answer(&other));
        let by_email = RecoverBy::Identifier(Identifier::email("a@b.example").unwrap());
        let by_box = RecoverBy::Box(own);
        for by in [&by_email, &by_box] {
            assert_eq!(key.found(by, &honest).unwrap().0, own);
            assert!(matches!(
                key.found(by, &foreign),
                Err(JoiningError::NotTheBox)
            ));
        }
        let asked = key.found(&RecoverBy::Box(theirs), &honest);
        assert!(matches!(asked, Err(JoiningError::NotTheBox)));
        let mixed = v1::LookupRecoveryResponse {
            box_id: foreign.box_id,
            ..honest
        };
        let mixed = key.found(&by_email, &mixed);
        assert!(matches!(mixed, Err(JoiningError::NotTheBox)));
    }
}
