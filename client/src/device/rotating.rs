//! Rotating the device's KEM key.
//!
//! ```text
//!   make a key, store it ──► UpdateKey ──► put it into the own record ──► erase what nobody seals to
//!          ▲                    │
//!          └── the same again ◄─┘ no answer: this time or the next, under the same counter
//! ```
//!
//! A key is stored before anybody can seal to it. It is erased when nothing sealed to it can come any
//! more: the service takes envelopes for the current key and the one before, and says, with each new key,
//! up to which place there may be some for older ones. Once that is acknowledged, the older keys go.

use bytes::Bytes;
use rossby_domain::chain::{KemKey, KeyRecord};
use rossby_domain::ids::Sequence;
use rossby_proto::v1;

use super::contacts::{Found, LookupBy};
use super::{Device, DeviceError, identity_row, key_times};
use crate::connection::{Signer, UpdateKey};
use crate::identity::{FIRST_COUNTER, Identity};
use crate::store::{Batch, MarksRow, ProfileRow, RetiringRow};

/// The device's KEM key after a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The counter of the new key.
    pub counter: u64,
    /// How many private keys this device still has: the current one, the one before, and those that
    /// mail may still wait for.
    pub kept: usize,
}

impl Device {
    /// Gives this device a new KEM key. After an error the key is kept, and the next call goes on
    /// with the same one.
    ///
    /// # Errors
    /// [`DeviceError::Call`], [`DeviceError::Store`], [`DeviceError::IdentityChanged`] if the service
    /// shows another chain for this box than its own.
    pub async fn rotate_keys(&self) -> Result<Rotated, DeviceError> {
        let _one_at_a_time = self.rotating.lock().await;
        let signer = self.signer()?;
        let mut caught_up = false;
        loop {
            let key = self.key_to_publish()?;
            let request = v1::UpdateKeyRequest {
                kem_key: Bytes::from(key.encode()),
            };
            let reply = self.connection.call::<UpdateKey>(&request, Some(&signer));
            match reply.await {
                Ok(response) => return self.published(key, Sequence(response.last)),
                // This home is older than the device: an old copy was put back.
                Err(error)
                    if !caught_up
                        && error
                            .refusal()
                            .is_some_and(|refusal| refusal.code == "KEY_COUNTER_USED") =>
                {
                    self.renew_own_record().await?;
                    caught_up = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the service the device's key again, and the box's chain, if it has lost them: one that was
    /// restored from an older backup shows a key whose private half may be erased, and may take in a
    /// device that was revoked. A device that never rotated and is alone in its box need not ask.
    ///
    /// # Errors
    /// [`DeviceError`]; the next time makes up for it.
    pub(super) async fn keep_key_published(&self) -> Result<(), DeviceError> {
        let identity = self.identity();
        let device = identity.device();
        let keys = identity.record().device(&device);
        let Some(key) = keys.map(|keys| keys.kem.clone()) else {
            return Ok(());
        };
        let is_first = key.counter <= FIRST_COUNTER && identity.record().version() == 0;
        let signer = self.signer()?;
        let shows = self.store.get::<ProfileRow>(&signer.address.box_id)?;
        if is_first && shows.is_none() && !self.may_have_grown()? {
            return Ok(());
        }
        let found = self.lookup(&LookupBy::Box(signer.address.box_id)).await?;
        // Neither waits for the other: mail must be sealed for keys that there are, whatever the chain.
        let given = self.give_key_again(&signer, &key, &found).await;
        let _ = self.keep_profile_published(&found).await;
        self.keep_chain_published(&found).await?;
        given
    }

    /// Gives the service this device's key again if it shows an older one, or none.
    async fn give_key_again(
        &self,
        signer: &Signer,
        key: &KemKey,
        found: &Found,
    ) -> Result<(), DeviceError> {
        let shown = found.record.device(&signer.address.device);
        let current = shown.map(|keys| keys.kem.counter);
        let before = if current.is_some_and(|current| current >= key.counter) {
            shown.and_then(|keys| Some(keys.previous_kem.as_ref()?.counter))
        } else {
            let request = v1::UpdateKeyRequest {
                kem_key: Bytes::from(key.encode()),
            };
            let again = self.connection.call::<UpdateKey>(&request, Some(signer));
            again.await?;
            // The key that was shown counts as the one before now.
            current
        };
        // If it is erased, it must go too. This may be another go at it.
        let identity = self.identity();
        let is_kept = |counter| identity.kem_keys().iter().any(|(of, _)| *of == counter);
        if before.is_some_and(|counter| !is_kept(counter)) {
            self.rotate_keys().await?;
        }
        Ok(())
    }

    /// The key that was made and not published yet, or else a new one. It is stored.
    fn key_to_publish(&self) -> Result<KemKey, DeviceError> {
        if let Some(key) = self.identity().unpublished()? {
            return Ok(key);
        }
        let random = self.environment.random.as_ref();
        self.change_identity(|_, identity| Ok(identity.with_new_kem(random)?))?;
        let made = self.identity().unpublished()?;
        made.ok_or(DeviceError::Damaged("identity"))
    }

    /// The service has the key: it goes into the own record, and what nobody can seal to any more goes.
    fn published(&self, key: KemKey, last: Sequence) -> Result<Rotated, DeviceError> {
        let counter = key.counter;
        self.change_identity(|batch, identity| {
            let record = with_key(identity, key)?;
            let keys = record.device(&identity.device());
            let oldest = keys.and_then(|keys| keys.previous_kem.as_ref());
            let below = oldest.map_or(counter, |previous| previous.counter);
            let retiring = batch.get::<RetiringRow>(&())?.unwrap_or_default();
            let retiring = RetiringRow {
                below: retiring.below.max(below),
                upto: retiring.upto.max(last),
            };
            batch.put(&(), &retiring)?;
            key_times::note_new(batch, counter, self.environment.clock.now())?;
            Ok(identity.with_record(record))
        })?;
        self.erase_retired()?;
        Ok(Rotated {
            counter,
            kept: self.identity().kem_keys().len(),
        })
    }

    /// Erases the keys that nothing can be sealed to that is still to come.
    pub(super) fn erase_retired(&self) -> Result<(), DeviceError> {
        let marks = self.store.get::<MarksRow>(&())?.unwrap_or_default();
        let Some(retiring) = self.store.get::<RetiringRow>(&())? else {
            return Ok(());
        };
        if marks.acknowledged < retiring.upto {
            return Ok(());
        }
        self.change_identity(|batch, identity| {
            batch.remove::<RetiringRow>(&())?;
            let erased = identity.kem_keys().iter().map(|(counter, _)| *counter);
            for counter in erased.filter(|counter| *counter < retiring.below) {
                key_times::note_erased(batch, counter, self.environment.clock.now())?;
            }
            Ok(identity.without_kem_below(retiring.below))
        })
    }

    /// Changes the device's keys, on the disk before in memory.
    pub(super) fn change_identity(
        &self,
        change: impl FnOnce(&mut Batch<'_>, &Identity) -> Result<Identity, DeviceError>,
    ) -> Result<(), DeviceError> {
        // Not the identity itself is held meanwhile: who writes something else reads it.
        let _one_at_a_time = self.changing.lock();
        let changed = self.store.write(|batch| {
            let changed = change(batch, &self.identity())?;
            batch.put(&(), &identity_row(&changed))?;
            Ok::<_, DeviceError>(changed)
        })?;
        *self.identity.write() = changed.into();
        Ok(())
    }
}

/// The identity's record with a key that was published.
fn with_key(identity: &Identity, key: KemKey) -> Result<KeyRecord, DeviceError> {
    let device = identity.device();
    let known = identity.record().device(&device);
    if known.is_some_and(|keys| keys.kem.is_same_key(&key)) {
        return Ok(identity.record().clone());
    }
    Ok(identity.record().with_kem(&device, key)?)
}
