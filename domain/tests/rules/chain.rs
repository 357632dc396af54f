//! Identity chains: what is accepted, and that nothing else is.

use proptest::prelude::*;
use rossby_domain::chain::{
    ChainError, Change, Genesis, KeyRecord, LinkRefusal, MAX_DEVICES, MAX_LINKS,
    MAX_LINKS_BY_DEVICES, MAX_LINKS_BY_RECOVERY, Signer,
};
use rossby_domain::ids::DeviceId;

use crate::common::{add, device_id, genesis, kem, link, public_key, record, remove};

/// Three devices came and one went; one of them has rotated its key.
fn long_record() -> KeyRecord {
    let record = add(&record(1), 2, 1).unwrap();
    let record = record.with_kem(&device_id(2), kem(2, 5)).unwrap();
    let record = add(&record, 3, 2).unwrap();
    let record = remove(&record, 1, 3).unwrap();
    record.with_kem(&device_id(2), kem(2, 6)).unwrap()
}

#[test]
fn a_new_record_has_version_zero_and_its_genesis_as_head() {
    let record = record(1);
    assert_eq!(record.version(), 0);
    assert_eq!(record.head(), genesis(1).hash());
    assert_eq!(record.genesis_hash(), genesis(1).hash());
    let device = record.device(&device_id(1)).unwrap();
    assert_eq!(device.kem, kem(1, 1));
    assert_eq!(device.previous_kem, None);
}

#[test]
fn links_raise_the_version_and_change_the_live_devices() {
    let record = long_record();
    assert_eq!(record.version(), 3);
    assert!(record.signing_key(&device_id(1)).is_none());
    assert_eq!(record.signing_key(&device_id(3)), Some(&public_key(3)));
    // Device 3 is live but can not be sealed to before it has published a KEM key.
    assert_eq!(
        record.devices().map(|keys| keys.device).collect::<Vec<_>>(),
        [device_id(2)]
    );
    let second = record.device(&device_id(2)).unwrap();
    assert_eq!(second.kem.counter, 6);
    assert_eq!(second.previous_kem.as_ref().unwrap().counter, 5);
}

#[test]
fn canonical_bytes_decode_to_the_same_record() {
    for record in [record(1), long_record()] {
        let bytes = record.encode();
        assert!(bytes.len() <= KeyRecord::MAX_BYTES);
        assert_eq!(KeyRecord::decode(&bytes).unwrap(), record);
        assert_eq!(KeyRecord::decode_trusted(&bytes).unwrap(), record);
    }
}

#[test]
fn the_form_in_log_and_tables_is_the_canonical_bytes() {
    let config = bincode::config::standard().with_fixed_int_encoding();
    let record = long_record();
    let bytes = bincode::serde::encode_to_vec(&record, config).unwrap();
    assert!(bytes.ends_with(&record.encode()));
    let (decoded, _) = bincode::serde::decode_from_slice::<KeyRecord, _>(&bytes, config).unwrap();
    assert_eq!(decoded, record);
    let broken = bincode::serde::encode_to_vec(vec![1_u8; 200], config).unwrap();
    assert!(bincode::serde::decode_from_slice::<KeyRecord, _>(&broken, config).is_err());
}

#[test]
fn a_link_by_a_stranger_is_refused() {
    let record = record(1);
    let change = Change::AddDevice { key: public_key(9) };
    let stranger = link(&record, change, Signer::Device(device_id(9)), 9);
    assert_eq!(
        record.extend(stranger),
        Err(ChainError::NotAllowed(LinkRefusal::SignerNotLive))
    );
    let forged = link(&record, change, Signer::Device(device_id(1)), 9);
    assert_eq!(
        record.extend(forged),
        Err(ChainError::BadSignature("a link"))
    );
}

#[test]
fn a_removed_device_can_neither_sign_nor_come_back() {
    let record = remove(&add(&record(1), 2, 1).unwrap(), 2, 1).unwrap();
    assert_eq!(
        add(&record, 3, 2),
        Err(ChainError::NotAllowed(LinkRefusal::SignerNotLive))
    );
    assert_eq!(
        add(&record, 2, 1),
        Err(ChainError::NotAllowed(LinkRefusal::Removed))
    );
}

#[test]
fn the_recovery_key_overrides_the_devices() {
    let record = record(1);
    let change = Change::AddDevice { key: public_key(2) };
    let record = record
        .extend(link(&record, change, Signer::Recovery, 101))
        .unwrap();
    let change = Change::RemoveDevice {
        device: device_id(1),
    };
    let record = record
        .extend(link(&record, change, Signer::Recovery, 101))
        .unwrap();
    assert_eq!(record.live_devices().collect::<Vec<_>>(), [&device_id(2)]);
}

#[test]
fn the_last_device_can_not_be_removed() {
    assert_eq!(
        remove(&record(1), 1, 1),
        Err(ChainError::NotAllowed(LinkRefusal::LastDevice))
    );
}

#[test]
fn a_ninth_device_is_refused() {
    let eight = (2..=8).fold(record(1), |record, seed| add(&record, seed, 1).unwrap());
    assert_eq!(
        add(&eight, 9, 1),
        Err(ChainError::NotAllowed(LinkRefusal::TooManyDevices))
    );
}

#[test]
fn a_link_must_name_the_head_and_the_next_version() {
    let first = record(1);
    let change = Change::AddDevice { key: public_key(2) };
    let next = link(&first, change, Signer::Recovery, 101);
    let second = first.extend(next).unwrap();
    assert_eq!(second.extend(next), Err(ChainError::BrokenChain));
    let mut skipping = next;
    skipping.version = 2;
    assert_eq!(first.extend(skipping), Err(ChainError::BrokenChain));
}

fn numbered_key(number: u32) -> [u8; 32] {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ed25519_dalek::SigningKey::from_bytes(&bytes)
        .verifying_key()
        .to_bytes()
}

/// Further devices come and go, each with another key, for as long as the signer may add one.
fn filled(mut record: KeyRecord, signer: Signer, seed: u8) -> KeyRecord {
    let mut number = u32::try_from(record.links().len()).unwrap();
    loop {
        number += 1;
        let key = numbered_key(number);
        let adding = link(&record, Change::AddDevice { key }, signer, seed);
        match record.extend(adding) {
            Ok(longer) => record = longer,
            Err(error) => {
                assert_eq!(error, ChainError::NotAllowed(LinkRefusal::ChainFull));
                return record;
            }
        }
        let device = DeviceId::of_key(&key);
        let removing = link(&record, Change::RemoveDevice { device }, signer, seed);
        record = record.extend(removing).unwrap();
    }
}

#[test]
fn a_device_that_fills_the_chain_can_still_be_removed_and_the_recovery_key_goes_on() {
    let record = add(&record(1), 2, 1).unwrap();
    let full = filled(record, Signer::Device(device_id(2)), 2);
    assert!(full.links().len() >= MAX_LINKS_BY_DEVICES);
    let full_for_all = add(&full, 3, 1);
    assert_eq!(
        full_for_all,
        Err(ChainError::NotAllowed(LinkRefusal::ChainFull))
    );
    assert!(remove(&full, 2, 1).is_ok());
    let device = device_id(2);
    let removing = link(
        &full,
        Change::RemoveDevice { device },
        Signer::Recovery,
        101,
    );
    let safe = full.extend(removing).unwrap();
    let key = public_key(3);
    let adding = link(&safe, Change::AddDevice { key }, Signer::Recovery, 101);
    let safe = safe.extend(adding).unwrap();
    assert!(remove(&safe, 1, 3).is_ok());
}

#[test]
fn no_chain_is_so_full_that_a_device_can_not_be_removed_and_all_fit_their_bytes() {
    // As many devices as there may be, added as late as can be.
    let mut record = record(1);
    let most = u32::try_from(MAX_LINKS_BY_RECOVERY).unwrap();
    let late = most - u32::try_from(MAX_DEVICES).unwrap();
    let mut number = 0;
    while record.links().len() < MAX_LINKS_BY_RECOVERY {
        let key = numbered_key(number);
        let change = Change::AddDevice { key };
        let adding = link(&record, change, Signer::Recovery, 101);
        match record.extend(adding) {
            Ok(longer) => record = longer,
            Err(error) => {
                assert_eq!(error, ChainError::NotAllowed(LinkRefusal::TooManyDevices));
                break;
            }
        }
        if record.version() < u64::from(late) {
            let device = DeviceId::of_key(&key);
            let change = Change::RemoveDevice { device };
            let removing = link(&record, change, Signer::Recovery, 101);
            record = record.extend(removing).unwrap();
        }
        number += 1;
    }
    assert_eq!(record.live_devices().count(), MAX_DEVICES);
    let devices: Vec<_> = record.live_devices().copied().collect();
    for device in devices.into_iter().filter(|device| *device != device_id(1)) {
        let change = Change::RemoveDevice { device };
        let removing = link(&record, change, Signer::Device(device_id(1)), 1);
        record = record.extend(removing).unwrap();
    }
    assert!(record.links().len() <= MAX_LINKS);
    assert_eq!(record.live_devices().count(), 1);
    let full = filled(record, Signer::Recovery, 101);
    assert!(full.links().len() >= MAX_LINKS_BY_RECOVERY);
    assert_eq!(KeyRecord::decode(&full.encode()).unwrap(), full);
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    // The neutral element: under it, anybody's signature could verify.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let weak = Genesis {
        recovery_key: neutral,
        ..genesis(1)
    };
    assert_eq!(KeyRecord::new(weak, kem(1, 1)), Err(ChainError::BadKey));
    let shared = Genesis {
        recovery_key: public_key(1),
        ..genesis(1)
    };
    assert_eq!(
        KeyRecord::new(shared, kem(1, 1)),
        Err(ChainError::NotAllowed(LinkRefusal::RecoveryKey))
    );
}

#[test]
fn kem_keys_only_move_forward() {
    let record = record(1).with_kem(&device_id(1), kem(1, 4)).unwrap();
    let stale = ChainError::BadKemKey("not newer than the current one");
    assert_eq!(record.with_kem(&device_id(1), kem(1, 4)), Err(stale));
    assert_eq!(record.with_kem(&device_id(1), kem(1, 2)), Err(stale));
    assert_eq!(
        record.with_kem(&device_id(2), kem(2, 9)),
        Err(ChainError::BadKemKey("the device is not live"))
    );
    let mut forged = kem(1, 5);
    forged.counter = 6;
    assert_eq!(
        record.with_kem(&device_id(1), forged),
        Err(ChainError::BadSignature("a KEM key"))
    );
    let mut other_suite = kem(1, 5);
    other_suite.suite = 2;
    assert_eq!(
        record.with_kem(&device_id(1), other_suite),
        Err(ChainError::BadKemKey("unknown suite"))
    );
}

#[test]
fn trusted_decoding_still_checks_the_structure() {
    let mut bytes = long_record().encode();
    // The second link's `previous` starts after version, genesis, count and the first link.
    let first_link = 8 + 32 + 1 + 32 + 1 + 16 + 64;
    bytes[1 + 96 + 2 + first_link + 8] ^= 1;
    assert_eq!(
        KeyRecord::decode_trusted(&bytes),
        Err(ChainError::BrokenChain)
    );
}

proptest! {
    #[test]
    fn any_mutated_byte_is_refused(position in any::<proptest::sample::Index>(), bit in 0..8) {
        let original = long_record().encode();
        let mut bytes = original.clone();
        bytes[position.index(original.len())] ^= 1_u8 << bit;
        prop_assert!(KeyRecord::decode(&bytes).is_err());
    }

    #[test]
    fn a_record_cut_short_or_made_longer_is_refused(
        cut in any::<proptest::sample::Index>(),
        extra in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let original = long_record().encode();
        prop_assert!(KeyRecord::decode(&original[..cut.index(original.len())]).is_err());
        let longer = [original.as_slice(), &extra].concat();
        prop_assert!(KeyRecord::decode(&longer).is_err());
        prop_assert!(KeyRecord::decode_trusted(&longer).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = KeyRecord::decode(&bytes);
        let mut versioned = bytes;
        if let Some(first) = versioned.first_mut() {
            *first = 1;
        }
        // What structure alone lets through must at least be canonical.
        if let Ok(record) = KeyRecord::decode_trusted(&versioned) {
            prop_assert_eq!(record.encode(), versioned);
        }
    }
}
