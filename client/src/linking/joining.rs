//! What a device says to get its place in a box, and what it believes of the answer.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{ChainError, KemKey, KeyRecord};
use rossby_domain::ids::{DeviceAddress, DeviceId};
use rossby_domain::statement;
use rossby_proto::v1;
use rossby_seams::random::{Random, bytes};

use super::code::LinkCode;
use super::name::DeviceName;
use crate::connection::Signer;
use crate::crypto::kem::{KemError, KemSecret};
use crate::crypto::secret::Secret;
use crate::crypto::token::open_token;
use crate::identity::{FIRST_COUNTER, Identity, IdentityError, signed_kem};
use crate::registering::box_from_wire;

/// Why a service's answer gives no place.
#[derive(Debug, thiserror::Error)]
pub enum JoiningError {
    /// The key record does not verify.
    #[error("the box's key record does not verify: {0}")]
    Chain(#[from] ChainError),
    /// The box is not the key record's.
    #[error("the key record is not the box's")]
    NotTheBox,
    /// The box's chain does not name the device, or another key of it.
    #[error("the box's chain does not name this device's keys")]
    NotNamed,
    /// The token could not be opened.
    #[error("the token can not be opened: {0}")]
    Token(#[source] KemError),
}

/// A device that belongs to no box yet. `Debug` shows its id only.
#[derive(Clone)]
pub struct Newcomer {
    pub(super) signing_key: SigningKey,
    pub(super) kem: KemSecret,
}

impl Newcomer {
    /// Draws the keys of a new device.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn generate(random: &dyn Random) -> Result<Self, IdentityError> {
        Ok(Self {
            signing_key: SigningKey::from_bytes(Secret::new(bytes(random)?).expose()),
            kem: KemSecret::generate(random)?,
        })
    }

    /// Takes up keys that were stored.
    #[must_use]
    pub fn from_seeds(signing_seed: &Secret<32>, kem_seed: Secret<32>) -> Self {
        Self {
            signing_key: SigningKey::from_bytes(signing_seed.expose()),
            kem: KemSecret::from_seed(kem_seed),
        }
    }

    /// The seeds of the signing key and of the KEM key.
    #[must_use]
    pub fn seeds(&self) -> (Secret<32>, Secret<32>) {
        let signing_seed = Secret::new(self.signing_key.to_bytes());
        (signing_seed, self.kem.seed().clone())
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&self.signing_key.verifying_key().to_bytes())
    }

    /// The code that it shows.
    #[must_use]
    pub fn code(&self, name: DeviceName) -> LinkCode {
        LinkCode {
            key: self.signing_key.verifying_key().to_bytes(),
            name,
        }
    }

    /// Asks for its place.
    ///
    /// # Errors
    /// [`IdentityError::Kem`].
    pub fn request(&self) -> Result<v1::JoinBoxRequest, IdentityError> {
        let kem = signed_kem(&self.signing_key, FIRST_COUNTER, &self.kem)?;
        Ok(join_request(&self.signing_key, &kem))
    }

    /// The device as one of the box that took it in.
    ///
    /// # Errors
    /// [`JoiningError`].
    pub fn joined(
        &self,
        response: v1::JoinBoxResponse,
    ) -> Result<(Identity, Signer), JoiningError> {
        let kem = (FIRST_COUNTER, &self.kem);
        let (record, signer) = joined(&self.signing_key, kem, response)?;
        let kem_keys = vec![(FIRST_COUNTER, self.kem.clone())];
        let identity = Identity::linked(self.signing_key.clone(), kem_keys, record);
        Ok((identity, signer))
    }
}

impl std::fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Newcomer")
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

/// Asks for the place of a device in the box that has linked it.
#[must_use]
pub fn join_request(signing_key: &SigningKey, kem: &KemKey) -> v1::JoinBoxRequest {
    let key = signing_key.verifying_key().to_bytes();
    let signed = statement::join_box(&DeviceId::of_key(&key), &kem.public);
    v1::JoinBoxRequest {
        signing_key: Bytes::copy_from_slice(&key),
        kem_key: Bytes::from(kem.encode()),
        signature: Bytes::copy_from_slice(&signing_key.sign(&signed).to_bytes()),
    }
}

/// The record of the box that a device has its place in, and what it signs its requests with. The
/// service may name any box that has linked the device, and no other: which one is for a person to see.
///
/// # Errors
/// [`JoiningError`].
pub fn joined(
    signing_key: &SigningKey,
    (counter, kem): (u64, &KemSecret),
    response: v1::JoinBoxResponse,
) -> Result<(KeyRecord, Signer), JoiningError> {
    let record = KeyRecord::decode(&response.key_record)?;
    let box_id = box_from_wire(&response.box_id)
        .filter(|box_id| box_id.is_of_genesis(&record.genesis_hash()))
        .ok_or(JoiningError::NotTheBox)?;
    let key = signing_key.verifying_key().to_bytes();
    let device = DeviceId::of_key(&key);
    let public = kem.public_key().map_err(JoiningError::Token)?;
    let keys = record.device(&device);
    if !keys.is_some_and(|keys| keys.kem.counter == counter && keys.kem.public == public) {
        return Err(JoiningError::NotNamed);
    }
    let address = DeviceAddress { box_id, device };
    let (encapsulated_key, sealed) = (&response.encapsulated_key, &response.sealed_token);
    let token = open_token(kem, &address, encapsulated_key, sealed).map_err(JoiningError::Token)?;
    let signer = Signer {
        address,
        token,
        host: response.hawk_host,
    };
    Ok((record, signer))
}

#[cfg(test)]
mod tests {
    use rossby_domain::chain::{Change, verify_signature};
    use rossby_domain::ids::{BoxId, PartitionId};
    use rossby_seams::random::SeededRandom;

    use super::*;
    use crate::crypto::kem;
    use crate::crypto::token::TOKEN_INFO;

    fn newcomer(seed: u64) -> Newcomer {
        Newcomer::generate(&SeededRandom::new(seed)).unwrap()
    }

    /// What an honest service answers to a device that `owner` has linked.
    fn answer(owner: &Identity, newcomer: &Newcomer) -> v1::JoinBoxResponse {
        let key = newcomer.code(DeviceName::new("new").unwrap()).key;
        let link = owner.sign_link(Change::AddDevice { key });
        let kem = signed_kem(&newcomer.signing_key, 1, &newcomer.kem).unwrap();
        let record = owner.record().extend(link).unwrap();
        let record = record.with_kem(&newcomer.device(), kem.clone()).unwrap();
        let partition = PartitionId::new(1).unwrap();
        let box_id = BoxId::derive(partition, &record.genesis_hash());
        let device = newcomer.device();
        let aad = DeviceAddress { box_id, device }.to_string();
        let random = SeededRandom::new(3);
        let sealed = kem::seal(&random, &kem.public, TOKEN_INFO, aad.as_bytes(), b"token");
        let sealed = sealed.unwrap();
        v1::JoinBoxResponse {
            box_id: Bytes::copy_from_slice(box_id.as_bytes()),
            key_record: record.encode().into(),
            encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
            sealed_token: Bytes::copy_from_slice(&sealed.ciphertext),
            hawk_host: "cluster".to_owned(),
        }
    }

    #[test]
    fn a_linked_device_takes_up_the_box_that_names_it() {
        let owner = Identity::generate(&SeededRandom::new(1)).unwrap();
        let new = newcomer(2);
        let (identity, signer) = new.joined(answer(&owner, &new)).unwrap();
        assert_eq!(identity.device(), new.device());
        assert_eq!(identity.record().version(), 1);
        assert!(identity.recovery_seed().is_none());
        assert_eq!(signer.token.expose(), b"token");
        let request = new.request().unwrap();
        let kem = KemKey::decode(&request.kem_key).unwrap();
        let statement = statement::join_box(&new.device(), &kem.public);
        let key = request.signing_key[..].try_into().unwrap();
        let signature = request.signature[..].try_into().unwrap();
        assert!(verify_signature(&key, &statement, &signature));
    }

    #[test]
    fn a_service_can_not_make_a_device_join_what_has_not_linked_it() {
        let owner = Identity::generate(&SeededRandom::new(1)).unwrap();
        let (new, other) = (newcomer(2), newcomer(3));
        let good = answer(&owner, &new);
        // The box as it was before, or with another device in it.
        let mut unnamed = good.clone();
        unnamed.key_record = owner.record().encode().into();
        let foreign = answer(&owner, &other);
        for response in [unnamed, foreign] {
            let joined = new.joined(response);
            assert!(matches!(joined, Err(JoiningError::NotNamed)));
        }
        let mut forged = good.clone();
        let mut bytes = forged.key_record.to_vec();
        bytes[250] ^= 1;
        forged.key_record = bytes.into();
        assert!(matches!(new.joined(forged), Err(JoiningError::Chain(_))));
        let mut elsewhere = good.clone();
        let partition = PartitionId::new(1).unwrap();
        let box_id = BoxId::derive(partition, &[9; 32]);
        elsewhere.box_id = Bytes::copy_from_slice(box_id.as_bytes());
        assert!(matches!(
            new.joined(elsewhere),
            Err(JoiningError::NotTheBox)
        ));
        let mut sealed = good;
        sealed.sealed_token = answer(&owner, &other).sealed_token;
        assert!(matches!(new.joined(sealed), Err(JoiningError::Token(_))));
    }
}
