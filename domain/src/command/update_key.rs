//! UpdateKey: a new KEM key for a device.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::chain::KemKey;
use crate::ids::DeviceAddress;
use crate::rejection::Rejection;
use crate::tables::Tables;

/// Puts a newer KEM key into the record of a device's box. The key before it stays, as the previous
/// one, and what is sealed for either is taken ([`super::Enqueue`]); the one before that goes.
///
/// The chain and its version stay as they are. The same key under the same counter again is the
/// retry of a lost reply, and has the same outcome as long as it is the current one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateKey {
    /// The device.
    pub device: DeviceAddress,
    /// Its key, signed by it. The signature is checked here: this is rare, and whoever proposes
    /// needs to know nothing of the record.
    pub kem: KemKey,
}

impl UpdateKey {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T) -> Result<Reply, T::Error> {
        let box_id = &self.device.box_id;
        let profile = tables.profile(box_id)?.filter(|profile| profile.active);
        let (Some(profile), Some(record)) = (profile, tables.key_record(box_id)?) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let device = &self.device.device;
        if profile.authorised_device(device).is_none() || record.signing_key(device).is_none() {
            return Ok(Err(Rejection::UnknownDevice));
        }
        let last = tables.queue_state(box_id)?.unwrap_or_default().last;
        if let Some(keys) = record.device(device) {
            if keys.kem.is_same_key(&self.kem) {
                return Ok(Ok(Outcome::KeyUpdated { last }));
            }
            let current = keys.kem.counter;
            if self.kem.counter <= current {
                return Ok(Err(Rejection::KeyCounterUsed { current }));
            }
        }
        match record.with_kem(device, self.kem) {
            Ok(renewed) => {
                tables.update_key_record(box_id, &renewed)?;
                Ok(Ok(Outcome::KeyUpdated { last }))
            }
            // Its form is a type, its counter and its device were checked.
            Err(_) => Ok(Err(Rejection::BadKeySignature)),
        }
    }
}
