//! A device's own keys, and the record that it publishes of them.

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{
    ChainError, Change, Genesis, KemKey, KeyRecord, Link, SUITE_XWING, Signer,
};
use rossby_domain::ids::DeviceId;
use rossby_seams::random::{Random, RandomError, bytes};

use crate::crypto::kem::{KemError, KemSecret};
use crate::crypto::secret::Secret;

/// The counter of a new device's first KEM key.
pub(crate) const FIRST_COUNTER: u64 = 1;

/// Why an identity could not be made or taken up again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdentityError {
    /// No randomness to make keys from.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The record is not a valid one.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The KEM key could not be made.
    #[error(transparent)]
    Kem(#[from] KemError),
}

/// The keys of a device of a box; of the first one, with the recovery key.
#[derive(Clone)]
pub struct Identity {
    signing_key: SigningKey,
    recovery_seed: Option<Secret<32>>,
    kem_keys: Vec<(u64, KemSecret)>,
    record: KeyRecord,
}

impl Identity {
    /// Makes the keys of a new identity and its key record.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn generate(random: &dyn Random) -> Result<Self, IdentityError> {
        let signing_key = SigningKey::from_bytes(Secret::new(bytes(random)?).expose());
        let recovery_seed = Secret::new(bytes(random)?);
        let genesis = Genesis {
            device_key: signing_key.verifying_key().to_bytes(),
            recovery_key: SigningKey::from_bytes(recovery_seed.expose())
                .verifying_key()
                .to_bytes(),
            nonce: bytes(random)?,
        };
        let kem = KemSecret::generate(random)?;
        let key = signed_kem(&signing_key, FIRST_COUNTER, &kem)?;
        let record = KeyRecord::new(genesis, key)?;
        Ok(Self {
            signing_key,
            recovery_seed: Some(recovery_seed),
            kem_keys: vec![(FIRST_COUNTER, kem)],
            record,
        })
    }

    /// Takes up keys that were stored.
    #[must_use]
    pub fn from_parts(
        signing_seed: &Secret<32>,
        recovery_seed: Option<Secret<32>>,
        kem_seeds: Vec<(u64, Secret<32>)>,
        record: KeyRecord,
    ) -> Self {
        let kem_keys = kem_seeds
            .into_iter()
            .map(|(counter, seed)| (counter, KemSecret::from_seed(seed)))
            .collect();
        let signing_key = SigningKey::from_bytes(signing_seed.expose());
        Self {
            signing_key,
            recovery_seed,
            kem_keys,
            record,
        }
    }

    /// The keys of a device that was linked to a box. The box's recovery key stays where it is.
    #[must_use]
    pub fn linked(
        signing_key: SigningKey,
        kem_keys: Vec<(u64, KemSecret)>,
        record: KeyRecord,
    ) -> Self {
        Self {
            signing_key,
            recovery_seed: None,
            kem_keys,
            record,
        }
    }

    /// The next link of the box's chain, signed by this device.
    #[must_use]
    pub fn sign_link(&self, change: Change) -> Link {
        let (version, previous) = (self.record.version() + 1, self.record.head());
        let signer = Signer::Device(self.device());
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        Link {
            version,
            previous,
            change,
            signer,
            signature: self.signing_key.sign(&signed).to_bytes(),
        }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        DeviceId::of_key(&self.signing_key.verifying_key().to_bytes())
    }

    /// The device's signing key.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    /// The seed of the recovery key, for its owner to write down; `None` on a device that was linked.
    #[must_use]
    pub fn recovery_seed(&self) -> Option<&Secret<32>> {
        self.recovery_seed.as_ref()
    }

    /// The identity without the recovery key.
    #[must_use]
    pub fn without_recovery_seed(&self) -> Self {
        Self {
            recovery_seed: None,
            ..self.clone()
        }
    }

    /// The device's KEM keys by counter, the newest last.
    #[must_use]
    pub fn kem_keys(&self) -> &[(u64, KemSecret)] {
        &self.kem_keys
    }

    /// The box's key record.
    #[must_use]
    pub fn record(&self) -> &KeyRecord {
        &self.record
    }

    /// The counter of the device's key in the record.
    #[must_use]
    pub fn published_counter(&self) -> u64 {
        let keys = self.record.device(&self.device());
        keys.map_or(0, |keys| keys.kem.counter)
    }

    /// The newest KEM key, for publication, if it is not in the record yet.
    ///
    /// # Errors
    /// [`IdentityError::Kem`].
    pub fn unpublished(&self) -> Result<Option<KemKey>, IdentityError> {
        let newest = self.kem_keys.last();
        newest
            .filter(|(counter, _)| *counter > self.published_counter())
            .map(|(counter, secret)| signed_kem(&self.signing_key, *counter, secret))
            .transpose()
    }

    /// The identity with one more KEM key, under the next counter. It is not in the record yet.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn with_new_kem(&self, random: &dyn Random) -> Result<Self, IdentityError> {
        self.with_kem_above(random, 0)
    }

    /// The same, under a counter above one that was used, on a home that is older than the device.
    ///
    /// # Errors
    /// [`IdentityError::Random`].
    pub fn with_kem_above(&self, random: &dyn Random, used: u64) -> Result<Self, IdentityError> {
        let newest = self.kem_keys.last().map_or(0, |(counter, _)| *counter);
        let highest = newest.max(self.published_counter()).max(used);
        let counter = highest.saturating_add(1);
        let mut identity = self.clone();
        identity
            .kem_keys
            .push((counter, KemSecret::generate(random)?));
        Ok(identity)
    }

    /// The identity with another record of it.
    #[must_use]
    pub fn with_record(&self, record: KeyRecord) -> Self {
        Self {
            record,
            ..self.clone()
        }
    }

    /// The identity without its KEM keys below a counter.
    #[must_use]
    pub fn without_kem_below(&self, counter: u64) -> Self {
        let mut identity = self.clone();
        identity.kem_keys.retain(|(of, _)| *of >= counter);
        identity
    }
}

/// A KEM key as its device publishes it.
pub(crate) fn signed_kem(
    signing_key: &SigningKey,
    counter: u64,
    secret: &KemSecret,
) -> Result<KemKey, IdentityError> {
    let device = DeviceId::of_key(&signing_key.verifying_key().to_bytes());
    let public = secret.public_key()?;
    let statement = KemKey::statement(&device, SUITE_XWING, counter, &public);
    Ok(KemKey {
        suite: SUITE_XWING,
        counter,
        public: Bytes::from(public),
        signature: signing_key.sign(&statement).to_bytes(),
    })
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rossby_seams::random::SeededRandom;

    #[test]
    fn a_new_identity_publishes_a_record_that_verifies() {
        let identity = Identity::generate(&SeededRandom::new(1)).unwrap();
        let record = KeyRecord::decode(&identity.record().encode()).unwrap();
        assert_eq!(record.version(), 0);
        assert_eq!(record.genesis().device(), identity.device());
        let keys = record.device(&identity.device()).unwrap();
        assert_eq!(
            keys.kem.public,
            identity.kem_keys()[0].1.public_key().unwrap()
        );
    }

    #[test]
    fn no_secret_is_shown_by_debug() {
        let identity = Identity::generate(&SeededRandom::new(1)).unwrap();
        let shown = format!("{identity:?} {:?}", identity.kem_keys());
        assert!(shown.contains("Secret(..)"));
        let seed = format!("{:?}", identity.recovery_seed().unwrap().expose());
        assert!(!shown.contains(&seed));
    }
}
