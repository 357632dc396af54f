//! The recovery key: kept on the device that made it until its owner has written it down, and used where nothing
//! else is left.
//!
//! ```text
//!   words ──► the box that has this key ──► links: this device in, others out ──► its place ──► Device
//!                        ▲                                  │
//!                        └── another device was quicker ◄───┘
//! ```

use rossby_domain::chain::{ChainError, KeyRecord, Link};
use rossby_domain::ids::BoxId;

use super::devices::is_refused;
use super::linking::{Linking, Welcome};
use super::{Device, DeviceError};
use crate::connection::{JoinBox, LookupRecovery, Recover};
use crate::crypto::secret::Secret;
use crate::linking::{JoiningError, Newcomer, RecoverBy, RecoveryKey};
use crate::store::{LinkingRow, StoreError};

/// How often the links are signed anew because another device was quicker. Each time costs the other one of the links
/// that it has left.
const MAX_TRIES: u32 = 8;

impl Device {
    /// Whether this is the seed of the box's recovery key. Any device of the box can tell.
    #[must_use]
    pub fn is_recovery_key(&self, seed: &Secret<32>) -> bool {
        RecoveryKey::from_seed(seed).is_of(self.identity().record())
    }

    /// Takes the recovery key from this device; whether it was there. It can't be brought back.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn forget_recovery_key(&self) -> Result<bool, DeviceError> {
        if self.identity().recovery_seed().is_none() {
            return Ok(false);
        }
        self.change_identity(|_, identity| Ok(identity.without_recovery_seed()))?;
        Ok(true)
    }
}

impl Linking {
    /// Takes a place in the box that has this recovery key, and takes theirs from all other devices if they are to
    /// be `revoked`. The key is not kept.
    ///
    /// Cut off and begun again it goes on where it was, with the same keys.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `NOT_RECOVERABLE` if no such box is found; [`DeviceError::LinkRefused`], for
    /// example for too many devices; [`DeviceError::Joining`] if the answer can not be believed.
    pub async fn recover(
        mut self,
        by: &RecoverBy,
        seed: &Secret<32>,
        revoked: bool,
    ) -> Result<Device, DeviceError> {
        let key = RecoveryKey::from_seed(seed);
        let mut tries = 0;
        loop {
            let request = key.lookup_request(by);
            let calling = self.connection.call::<LookupRecovery>(&request, None);
            let (box_id, record) = key.found(by, &calling.await?)?;
            if record.is_removed(&self.newcomer.device()) {
                // Somebody was quicker to remove it than this was to remove them.
                self.draw_new_keys()?;
            }
            let device = self.newcomer.public_key();
            let links = key.links(&record, &device, revoked);
            let links = links.map_err(|error| match error {
                ChainError::NotAllowed(why) => DeviceError::LinkRefused(why),
                other => other.into(),
            })?;
            tries += 1;
            match self.take_place(&box_id, &record, &links).await {
                Ok(welcome) => return self.accept(welcome).await,
                Err(error) if tries < MAX_TRIES && is_outrun(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_place(
        &self,
        box_id: &BoxId,
        record: &KeyRecord,
        links: &[Link],
    ) -> Result<Welcome, DeviceError> {
        let response = if links.is_empty() {
            let request = self.newcomer.request()?;
            self.connection.call::<JoinBox>(&request, None).await?
        } else {
            let request = self.newcomer.recovery_request(box_id, links)?;
            self.connection.call::<Recover>(&request, None).await?
        };
        let (identity, signer) = self.newcomer.joined(response)?;
        // What the key has signed is in the chain, and nothing before it is another.
        let shown = identity.record();
        let is_signed = match links.last() {
            Some(last) => shown.has_link(last),
            None => record
                .links()
                .last()
                .is_none_or(|last| shown.has_link(last)),
        };
        if signer.address.box_id != *box_id || !is_signed {
            return Err(JoiningError::NotTheBox.into());
        }
        Ok(Welcome { identity, signer })
    }

    fn draw_new_keys(&mut self) -> Result<(), DeviceError> {
        let newcomer = Newcomer::generate(self.environment.random.as_ref())?;
        let (signing_seed, kem_seed) = newcomer.seeds();
        let row = LinkingRow {
            signing_seed,
            kem_seed,
            name: self.name.clone(),
        };
        self.store
            .write::<_, StoreError>(|batch| batch.put(&(), &row))?;
        self.newcomer = newcomer;
        Ok(())
    }
}

/// Whether another device has changed the chain meanwhile.
fn is_outrun(error: &DeviceError) -> bool {
    is_refused(error, "CHAIN_CHANGED") || is_refused(error, "DEVICE_REVOKED")
}
