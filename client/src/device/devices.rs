//! The box's devices: adding, naming and revoking them, and being let in again.

use rossby_domain::chain::{ChainError, ChainHash, Change, KemKey, Link, Signer as LinkSigner};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, DeviceId};
use rossby_proto::v1;

use super::contacts::Found;
use super::{Device, DeviceError};
use crate::connection::JoinBox;
use crate::linking::{DeviceName, LinkCode, join_request, joined};
use crate::store::{Access, AccountRow, DeviceNameRow, GrowingRow, StoreError};

/// How often a link is signed anew because another device was quicker.
const MAX_TRIES: u32 = 4;

/// How far a device of the box has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has its place: it gets what comes.
    Joined,
    /// It was added and has not come yet.
    Expected,
}

/// A device of this box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDevice {
    /// The device.
    pub device: DeviceId,
    /// What it is called, if this device knows.
    pub name: Option<DeviceName>,
    /// Whether it is this one.
    pub is_this: bool,
    /// How far it has come.
    pub standing: Standing,
    /// The version of the chain since which it is there: 0 for the first device of the box.
    pub since_version: u64,
    /// Which device added it; `None` for the first one, and for one that the recovery key added.
    pub added_by: Option<DeviceId>,
}

impl Device {
    /// The devices of this box, the oldest first, as this device knows them.
    ///
    /// # Errors
    /// [`DeviceError::Store`].
    pub fn devices(&self) -> Result<Vec<OwnDevice>, DeviceError> {
        let identity = self.identity();
        let record = identity.record();
        let mut devices = Vec::new();
        for device in record.live_devices() {
            let link = record.links().iter().find(|link| {
                matches!(link.change, Change::AddDevice { key } if DeviceId::of_key(&key) == *device)
            });
            let standing = match record.device(device) {
                Some(_) => Standing::Joined,
                None => Standing::Expected,
            };
            devices.push(OwnDevice {
                device: *device,
                name: self.store.get::<DeviceNameRow>(device)?.map(|row| row.name),
                is_this: *device == identity.device(),
                standing,
                since_version: link.map_or(0, |link| link.version),
                added_by: link.and_then(|link| match link.signer {
                    LinkSigner::Device(device) => Some(device),
                    LinkSigner::Recovery => None,
                }),
            });
        }
        devices.sort_by_key(|device| device.since_version);
        Ok(devices)
    }

    /// The devices of this box, as the service tells, if what it tells grows from what is known.
    ///
    /// # Errors
    /// [`DeviceError::Call`], [`DeviceError::IdentityChanged`], [`DeviceError::Store`].
    pub async fn renew_devices(&self) -> Result<Vec<OwnDevice>, DeviceError> {
        self.catch_up().await?;
        let _ = self.greet().await;
        self.devices()
    }

    /// The hash of the box's genesis, of which both devices show digits
    /// ([`LinkCode::box_comparison`]).
    #[must_use]
    pub fn genesis_hash(&self) -> ChainHash {
        self.identity().record().genesis_hash()
    }

    /// Adds the device that shows this code. Its owner has compared the digits
    /// ([`LinkCode::comparison`]): who adds another's device gives them all that comes from then on.
    ///
    /// Again does no harm: what was cut off is finished.
    ///
    /// # Errors
    /// [`DeviceError::LinkedAlready`]; [`DeviceError::LinkRefused`], for example for too many devices;
    /// [`DeviceError::Call`], for example with `KEY_ALREADY_REGISTERED`.
    pub async fn approve(&self, code: &LinkCode) -> Result<DeviceId, DeviceError> {
        let device = code.device();
        self.catch_up().await?;
        if self.identity().record().signing_key(&device).is_some() {
            self.offer_again(code).await?;
            return Err(DeviceError::LinkedAlready);
        }
        self.extend_chain(Change::AddDevice { key: code.key })
            .await?;
        self.store
            .write(|batch| self.name_device(batch, &device, &code.name))?;
        Ok(device)
    }

    /// A device that was added and has not come may not find its box: the try was cut off, its directory was
    /// restored, or somebody else has added it since. The same link again makes this box the one it finds.
    async fn offer_again(&self, code: &LinkCode) -> Result<(), DeviceError> {
        let device = code.device();
        let identity = self.identity();
        let record = identity.record();
        let is_expected = record.device(&device).is_none();
        let adds = |link: &&Link| link.change == Change::AddDevice { key: code.key };
        if let Some(link) = record.links().iter().find(adds).filter(|_| is_expected) {
            self.publish(link).await?;
            self.store
                .write(|batch| self.name_device(batch, &device, &code.name))?;
        }
        Ok(())
    }

    /// Removes a device of this box, for ever. It gets nothing from then on, and what only it had not
    /// read yet is kept for it no longer.
    ///
    /// # Errors
    /// [`DeviceError::NoSuchDevice`]; [`DeviceError::LinkRefused`] for the last one;
    /// [`DeviceError::Call`].
    pub async fn revoke(&self, device: &DeviceId) -> Result<(), DeviceError> {
        self.catch_up().await?;
        if self.identity().record().signing_key(device).is_none() {
            return Err(DeviceError::NoSuchDevice);
        }
        self.extend_chain(Change::RemoveDevice { device: *device })
            .await?;
        // It is removed, whoever may still have to be told.
        let _ = self.take_over_pages(device).await;
        self.settle_profiles_soon().await;
        Ok(())
    }

    /// Calls a device of this box so, and tells the others. Whether they could be told now.
    ///
    /// # Errors
    /// [`DeviceError::NoSuchDevice`], [`DeviceError::Store`].
    pub async fn rename(&self, device: &DeviceId, name: &DeviceName) -> Result<bool, DeviceError> {
        if self.identity().record().signing_key(device).is_none() {
            return Err(DeviceError::NoSuchDevice);
        }
        let _one_at_a_time = self.sending.lock().await;
        let signer = self.signer()?;
        self.store
            .write(|batch| self.name_device(batch, device, name))?;
        if self.devices()?.len() < 2 {
            return Ok(true);
        }
        self.tell_names(&signer, &[])?;
        Ok(self.flush_words(&signer).await.is_ok())
    }

    /// Signs a link over the chain as it is, and over the next one if another device was quicker.
    async fn extend_chain(&self, change: Change) -> Result<(), DeviceError> {
        let mut tries = 0;
        loop {
            let identity = self.identity();
            let link = identity.sign_link(change);
            // What the service would refuse anyway is not sent.
            let longer = identity.record().extend(link);
            let longer = longer.map_err(|error| match error {
                ChainError::NotAllowed(why) => DeviceError::LinkRefused(why),
                other => other.into(),
            })?;
            tries += 1;
            if let Change::AddDevice { .. } = change {
                // Whatever becomes of the reply, or of this device.
                self.store
                    .write::<_, StoreError>(|batch| batch.put(&(), &GrowingRow))?;
            }
            match self.publish(&link).await {
                // A listener may have met it meanwhile, and more.
                Ok(()) if self.identity().record().has_link(&link) => return Ok(()),
                Ok(()) => return self.adopt(&longer),
                Err(error) if tries < MAX_TRIES && is_refused(&error, "CHAIN_CHANGED") => {
                    self.catch_up().await?;
                    let record = self.identity().record().clone();
                    let is_done = match change {
                        Change::AddDevice { key } => {
                            record.signing_key(&DeviceId::of_key(&key)).is_some()
                        }
                        Change::RemoveDevice { device } => record.signing_key(&device).is_none(),
                    };
                    if is_done {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.settle_growth(&error).await?;
                    return Err(error);
                }
            }
        }
    }

    /// After a refusal nothing is on its way any more: what the service shows then holds.
    async fn settle_growth(&self, error: &DeviceError) -> Result<(), DeviceError> {
        let is_over = matches!(error, DeviceError::Call(error) if error.refusal().is_some());
        if is_over && self.catch_up().await.is_ok() {
            self.store
                .write::<_, StoreError>(|batch| batch.remove::<GrowingRow>(&()))?;
        }
        Ok(())
    }

    /// Whether an error says that the service does not take this device's token any more. One that was
    /// ever linked, or has linked others, can ask by its key why.
    #[must_use]
    pub fn is_shut_out(&self, error: &DeviceError) -> bool {
        is_refused(error, "UNAUTHENTICATED") && self.identity().record().version() > 0
    }

    /// Asks for this device's place in its box again, by its key alone: for one that the service does
    /// not let in any more.
    ///
    /// # Errors
    /// [`DeviceError::Call`], with `DEVICE_REVOKED` if it was removed; [`DeviceError::Joining`];
    /// [`DeviceError::IdentityChanged`] if the service shows another chain. The device is let in then.
    pub async fn rejoin(&self) -> Result<DeviceAddress, DeviceError> {
        // Its keys stay as they are meanwhile.
        let _one_at_a_time = self.rotating.lock().await;
        let own: BoxId = self.account()?.box_id.ok_or(DeviceError::NotRegistered)?;
        let (kem, response) = self.ask_for_place().await?;
        let identity = self.identity();
        let mut kept = identity.kem_keys().iter();
        let kept = kept.find(|(counter, _)| *counter == kem.counter);
        let (counter, secret) = kept.ok_or(DeviceError::Damaged("identity"))?;
        let (record, signer) = joined(identity.signing_key(), (*counter, secret), response)?;
        let address = signer.address;
        if address.box_id != own {
            return Err(DeviceError::Untrue("another box is shown as this device's"));
        }
        // It is let in, whatever comes of the record.
        let access = Access {
            token: signer.token,
            hawk_host: signer.host,
        };
        self.store.write::<_, DeviceError>(|batch| {
            let mut account = batch
                .get::<AccountRow>(&())?
                .ok_or(DeviceError::Damaged("account"))?;
            account.access = Some(access);
            Ok(batch.put(&(), &account)?)
        })?;
        let found = Found {
            box_id: own,
            record,
            next_counter: Counter(0),
            profile: None,
        };
        self.keep_chain_published(&found).await?;
        Ok(address)
    }

    /// Asks with the key that is published, as far as is known here, and then with later ones. The key
    /// that the service has now, and its answer.
    pub(super) async fn ask_for_place(&self) -> Result<(KemKey, v1::JoinBoxResponse), DeviceError> {
        let identity = self.identity();
        let published = identity.record().device(&identity.device());
        let published = published.map(|keys| keys.kem.clone());
        let mut kem = published.ok_or(DeviceError::Damaged("identity"))?;
        let mut tries = 0;
        loop {
            let request = join_request(identity.signing_key(), &kem);
            tries += 1;
            match self.connection.call::<JoinBox>(&request, None).await {
                Ok(response) => return Ok((kem, response)),
                Err(error) if tries < MAX_TRIES => kem = self.later_key(error.into(), &kem)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The key to ask with if the service has a later one than `asked`: the reply to a rotation was lost, or
    /// this home is older than the device. Any other error is returned.
    fn later_key(&self, error: DeviceError, asked: &KemKey) -> Result<KemKey, DeviceError> {
        let refusal = match &error {
            DeviceError::Call(error) => error.refusal(),
            _ => None,
        };
        let Some(refusal) = refusal.filter(|refusal| refusal.code == "KEY_COUNTER_USED") else {
            return Err(error);
        };
        let made = self.identity().unpublished()?;
        if let Some(made) = made.filter(|made| made.counter > asked.counter) {
            return Ok(made);
        }
        let used = refusal.figures.get("current_counter");
        let used = used.and_then(|text| text.parse::<u64>().ok());
        let random = self.environment.random.as_ref();
        self.change_identity(|_, identity| {
            Ok(identity.with_kem_above(random, used.unwrap_or_default())?)
        })?;
        let made = self.identity().unpublished()?;
        made.ok_or(DeviceError::Damaged("identity"))
    }
}

pub(super) fn is_refused(error: &DeviceError, code: &str) -> bool {
    let refusal = match error {
        DeviceError::Call(error) => error.refusal(),
        _ => None,
    };
    refusal.is_some_and(|refusal| refusal.code == code)
}
