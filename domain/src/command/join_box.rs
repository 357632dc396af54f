//! JoinBox: a device that a link has added takes its place in the box.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reply};
use crate::chain::{KemKey, KeyRecord};
use crate::ids::{BoxId, DeviceAddress, DeviceId};
use crate::profile::DeviceState;
use crate::rejection::Rejection;
use crate::tables::{Meta, Tables};

/// Takes the first KEM key of a device that is live in its box's chain, and lets the device in: it gets
/// every envelope from here on, since from here on none is stored that is not sealed to it too
/// ([`super::Enqueue`]).
///
/// Repeating it gives the same token generation, unless that was refused for good when the state was
/// restored: then it is how a device gets a new one. Its cursor stays where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinBox {
    /// The device, which signed the request.
    pub device: DeviceAddress,
    /// Its KEM key, signed by it: the first one, or the current one again. The signature is checked here.
    pub kem: KemKey,
}

impl JoinBox {
    pub(crate) fn execute<T: Tables>(self, tables: &mut T, meta: &Meta) -> Result<Reply, T::Error> {
        let Self {
            device: DeviceAddress { box_id, device },
            kem,
        } = self;
        let profile = tables.profile(&box_id)?.filter(|profile| profile.active);
        let (Some(mut profile), Some(record)) = (profile, tables.key_record(&box_id)?) else {
            return Ok(Err(Rejection::UnknownBox));
        };
        let renewed = match with_key(&record, &device, &kem) {
            Ok(renewed) => renewed,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if let Some(renewed) = renewed {
            tables.update_key_record(&box_id, &renewed)?;
        }
        let known = profile.devices.get(&device).copied();
        let state = place(tables, meta, &box_id, known.as_ref())?;
        if known != Some(state) {
            profile.devices.insert(device, state);
            tables.put_profile(&box_id, &profile)?;
        }
        Ok(Ok(Outcome::BoxJoined {
            token_generation: state.token_generation,
        }))
    }

    /// A record of the box with the device's key in it; `None` if the key is there already, so that at
    /// most its token is still to be renewed.
    ///
    /// # Errors
    /// [`Rejection::DeviceRevoked`], [`Rejection::UnknownDevice`], [`Rejection::KeyCounterUsed`],
    /// [`Rejection::BadKeySignature`].
    pub fn over(&self, record: &KeyRecord) -> Result<Option<KeyRecord>, Rejection> {
        with_key(record, &self.device.device, &self.kem)
    }
}

/// The place of a device that has one, with a good token, or that comes now.
pub(super) fn place<T: Tables>(
    tables: &T,
    meta: &Meta,
    box_id: &BoxId,
    known: Option<&DeviceState>,
) -> Result<DeviceState, T::Error> {
    if let Some(known) = known {
        return Ok(known.let_in(meta));
    }
    let queue = tables.queue_state(box_id)?.unwrap_or_default();
    Ok(DeviceState {
        authorised: true,
        cursor: meta.last_sequence(&queue),
        // No device comes twice, so this is the first token that it ever gets.
        token_generation: meta.token_after(0),
    })
}

/// The record with the device's key; `None` if it is there already.
pub(super) fn with_key(
    record: &KeyRecord,
    device: &DeviceId,
    kem: &KemKey,
) -> Result<Option<KeyRecord>, Rejection> {
    if record.is_removed(device) {
        return Err(Rejection::DeviceRevoked);
    }
    if record.signing_key(device).is_none() {
        return Err(Rejection::UnknownDevice);
    }
    if let Some(keys) = record.device(device) {
        if keys.kem.is_same_key(kem) {
            return Ok(None);
        }
        let current = keys.kem.counter;
        if kem.counter <= current {
            return Err(Rejection::KeyCounterUsed { current });
        }
    }
    // Its form is a type, its counter and its device were checked.
    let renewed = record.with_kem(device, kem.clone());
    renewed.map(Some).map_err(|_| Rejection::BadKeySignature)
}
