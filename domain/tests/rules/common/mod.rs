//! Identities with known keys, for tests.

pub mod model;
pub mod steps;
pub mod world;

use std::sync::OnceLock;

use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use rossby_domain::chain::{
    ChainError, Change, Genesis, KemKey, KeyRecord, Link, SUITE_XWING, Signer,
    XWING_PUBLIC_KEY_BYTES,
};
use rossby_domain::ids::DeviceId;

/// The signing key made of one byte.
pub fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Worked out once: tests ask for it all the time.
pub fn public_key(seed: u8) -> [u8; 32] {
    static KNOWN: [OnceLock<[u8; 32]>; 256] = [const { OnceLock::new() }; 256];
    *KNOWN[usize::from(seed)].get_or_init(|| signing_key(seed).verifying_key().to_bytes())
}

pub fn device_id(seed: u8) -> DeviceId {
    DeviceId::of_key(&public_key(seed))
}

/// The genesis of device `seed`, with recovery key `seed + 100`.
pub fn genesis(seed: u8) -> Genesis {
    Genesis {
        device_key: public_key(seed),
        recovery_key: public_key(seed.wrapping_add(100)),
        nonce: [seed; 32],
    }
}

/// A KEM key of device `seed`. The public key is no point of X-Wing; nothing here looks inside.
pub fn kem(seed: u8, counter: u64) -> KemKey {
    let public = Bytes::from(vec![seed ^ counter as u8; XWING_PUBLIC_KEY_BYTES]);
    let statement = KemKey::statement(&device_id(seed), SUITE_XWING, counter, &public);
    let signature = signing_key(seed).sign(&statement).to_bytes();
    KemKey {
        suite: SUITE_XWING,
        counter,
        public,
        signature,
    }
}

pub fn record(seed: u8) -> KeyRecord {
    KeyRecord::new(genesis(seed), kem(seed, 1)).unwrap()
}

/// The next link of a chain, signed by the key `signer_seed` in the name of `signer`.
pub fn link(record: &KeyRecord, change: Change, signer: Signer, signer_seed: u8) -> Link {
    let version = record.version() + 1;
    let previous = record.head();
    let signed = Link::signed_bytes(version, &previous, &change, &signer);
    let signature = signing_key(signer_seed).sign(&signed).to_bytes();
    Link {
        version,
        previous,
        change,
        signer,
        signature,
    }
}

/// Adds device `added` in the name of device `by`.
pub fn add(record: &KeyRecord, added: u8, by: u8) -> Result<KeyRecord, ChainError> {
    let change = Change::AddDevice {
        key: public_key(added),
    };
    record.extend(link(record, change, Signer::Device(device_id(by)), by))
}

/// Removes device `removed` in the name of device `by`.
pub fn remove(record: &KeyRecord, removed: u8, by: u8) -> Result<KeyRecord, ChainError> {
    let change = Change::RemoveDevice {
        device: device_id(removed),
    };
    record.extend(link(record, change, Signer::Device(device_id(by)), by))
}

/// Links by the recovery key `recovery_seed` that add device `added`, unless it is there, and remove all others, if it
/// is to be alone. Those that do not follow from the others, since the chain refuses one, are left out.
pub fn recovering(record: &KeyRecord, added: u8, alone: bool, recovery_seed: u8) -> Vec<Link> {
    let own = device_id(added);
    let mut changes = Vec::new();
    if record.signing_key(&own).is_none() {
        let key = public_key(added);
        changes.push(Change::AddDevice { key });
    }
    let others = record
        .live_devices()
        .filter(|other| alone && **other != own);
    changes.extend(others.map(|other| Change::RemoveDevice { device: *other }));
    let (mut links, mut longer) = (Vec::new(), record.clone());
    for change in changes {
        let next = link(&longer, change, Signer::Recovery, recovery_seed);
        links.push(next);
        match longer.extend(next) {
            Ok(extended) => longer = extended,
            Err(_) => break,
        }
    }
    links
}
