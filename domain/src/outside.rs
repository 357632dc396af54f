//! The outside of an envelope: which keys it says it is sealed to.
//!
//! That stands in the clear in front of what is sealed (`docs/PROTOCOL.md`). The service reads this
//! much of it, so that no envelope gets into a box whose devices have erased the key for it.

use std::collections::BTreeMap;

use crate::chain::{KeyRecord, MAX_DEVICES};
use crate::ids::DeviceId;
use crate::wire::{Reader, WireError};

/// The only version and suite of a body so far.
const VERSION_AND_SUITE: [u8; 2] = [1, 1];

/// Whether an envelope's body is sealed to every device of a record that can be sealed to, under its
/// current or its previous key. A body of another version is taken as it is: what it is sealed to
/// can not be told.
pub(crate) fn is_sealed_for(record: &KeyRecord, body: &[u8]) -> bool {
    let Ok(counters) = key_counters(body) else {
        return true;
    };
    record.devices().all(|keys| {
        let previous = keys.previous_kem.as_ref();
        counters.get(&keys.device).is_some_and(|counter| {
            *counter == keys.kem.counter || previous.is_some_and(|key| *counter == key.counter)
        })
    })
}

/// The devices that a body is sealed to, and under which counter.
pub(crate) fn key_counters(body: &[u8]) -> Result<BTreeMap<DeviceId, u64>, WireError> {
    let mut reader = Reader::new(body);
    if reader.fixed()? != VERSION_AND_SUITE {
        return Err(WireError::Invalid("version"));
    }
    let _commitment: [u8; 32] = reader.fixed()?;
    let _nonce: [u8; 12] = reader.fixed()?;
    let count = usize::from(reader.u8()?);
    if count > MAX_DEVICES {
        return Err(WireError::Invalid("number of wraps"));
    }
    let mut counters = BTreeMap::new();
    for _ in 0..count {
        let device = DeviceId::from_bytes(reader.fixed()?);
        counters.insert(device, reader.u64()?);
        let _encapsulated_key: [u8; 1120] = reader.fixed()?;
        let _wrapped_key: [u8; 48] = reader.fixed()?;
    }
    Ok(counters)
}
