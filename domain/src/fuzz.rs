//! What holds for the decoders of this crate, whatever they are given. For the fuzzer
//! (`fuzz/targets/`) and for the tests that replay its corpus; never in a release.
//!
//! Each function panics if something that must hold does not, and says whether the input was
//! accepted.

use std::fmt::Display;
use std::str::FromStr;

use crate::chain::{KeyRecord, MAX_DEVICES};
use crate::identifier::Identifier;
use crate::ids::{BoxId, ClusterId, DeviceAddress, DeviceId, NodeId};
use crate::outside::key_counters;

/// Identifiers and ids as people and files write them. The first byte says which.
pub fn identifiers(data: &[u8]) -> bool {
    let Some((kind, text)) = data.split_first() else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    match kind % 7 {
        0 => normal(text, Identifier::phone),
        1 => normal(text, Identifier::email),
        2 => reads_back::<BoxId>(text),
        3 => reads_back::<DeviceId>(text),
        4 => reads_back::<DeviceAddress>(text),
        5 => reads_back::<ClusterId>(text),
        _ => reads_back::<NodeId>(text),
    }
}

/// An identifier has one normal form, in ASCII, which is its own.
fn normal<E>(text: &str, parse: impl Fn(&str) -> Result<Identifier, E>) -> bool {
    let Ok(identifier) = parse(text) else {
        return false;
    };
    let form = identifier.as_str();
    assert!(form.len() <= 254 && form.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(parse(form).is_ok_and(|again| again == identifier));
    true
}

fn reads_back<T: FromStr + Display + PartialEq>(text: &str) -> bool {
    let Ok(id) = text.parse::<T>() else {
        return false;
    };
    assert!(id.to_string().parse::<T>().is_ok_and(|again| again == id));
    true
}

/// A key record: what is read is written as the very same bytes. Signatures are checked where the
/// structure holds, so that the fuzzer is not kept from all that lies behind them.
pub fn key_record(data: &[u8]) -> bool {
    let trusted = KeyRecord::decode_trusted(data);
    let verified = KeyRecord::decode(data);
    if let Ok(verified) = &verified {
        assert!(trusted.as_ref().is_ok_and(|trusted| trusted == verified));
    }
    let Ok(record) = trusted else {
        return false;
    };
    assert_eq!(record.encode(), data);
    assert!(data.len() <= KeyRecord::MAX_BYTES);
    assert!(
        record
            .devices()
            .all(|keys| record.signing_key(&keys.device).is_some())
    );
    true
}

/// The outside of an envelope's body. What it says it is sealed to is all there: as many wraps as it
/// says, none of them beyond the end.
pub fn outside(body: &[u8]) -> bool {
    let Ok(counters) = key_counters(body) else {
        return false;
    };
    let wraps = body.get(46).copied().map_or(0, usize::from);
    assert!(counters.len() <= wraps && wraps <= MAX_DEVICES);
    assert!(body.len() >= 47 + wraps * 1192);
    true
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::chain::{
        Change, Genesis, KemKey, Link, SUITE_XWING, Signer, XWING_PUBLIC_KEY_BYTES,
    };
    use crate::ids::PartitionId;

    use super::replay::{replay, seed, with};

    #[test]
    fn the_corpus_of_identifiers_holds() {
        replay("identifiers", identifiers);
    }

    #[test]
    fn the_corpus_of_key_records_holds() {
        replay("key_record", key_record);
    }

    #[test]
    fn the_corpus_of_outsides_holds() {
        replay("outside", outside);
    }

    #[test]
    fn a_real_outside_is_accepted() {
        let wrap = |device: u8| [[device; 16].as_slice(), &[0; 8], &[7; 1168]].concat();
        let head = [[1, 1].as_slice(), &[5; 44], &[2]].concat();
        let body = [head, wrap(1), wrap(2), b"ciphertext".to_vec()].concat();
        seed("outside", "seed-two-devices", &body, outside);
    }

    #[test]
    fn real_identifiers_are_accepted() {
        let box_id = BoxId::derive(PartitionId::new(77).unwrap(), &[3; 32]);
        let device = DeviceId::from_bytes([0xd5; 16]);
        let address = DeviceAddress { box_id, device }.to_string();
        let texts = [
            "+49 (170) 123-4567",
            "First.Last+tag@Example.org",
            &box_id.to_string(),
            &device.to_string(),
            &address,
            "7b2f9d1c-55e0-4c2d-9f6a-0d1e2f3a4b5c",
            "42",
        ];
        for (kind, text) in texts.iter().enumerate() {
            let bytes = with(kind as u8, text.as_bytes());
            seed("identifiers", &format!("seed-{kind}"), &bytes, identifiers);
        }
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> [u8; 32] {
        key(seed).verifying_key().to_bytes()
    }

    fn kem(seed: u8, counter: u64) -> KemKey {
        let public_kem = Bytes::from(vec![seed; XWING_PUBLIC_KEY_BYTES]);
        let device = DeviceId::of_key(&public(seed));
        let signed = KemKey::statement(&device, SUITE_XWING, counter, &public_kem);
        KemKey {
            suite: SUITE_XWING,
            counter,
            public: public_kem,
            signature: key(seed).sign(&signed).to_bytes(),
        }
    }

    fn extended(record: &KeyRecord, change: Change, signer: Signer, by: u8) -> KeyRecord {
        let (version, previous) = (record.version() + 1, record.head());
        let signed = Link::signed_bytes(version, &previous, &change, &signer);
        let link = Link {
            version,
            previous,
            change,
            signer,
            signature: key(by).sign(&signed).to_bytes(),
        };
        record.extend(link).unwrap()
    }

    #[test]
    fn real_key_records_are_accepted() {
        let genesis = Genesis {
            device_key: public(1),
            recovery_key: public(101),
            nonce: [9; 32],
        };
        let device = DeviceId::of_key(&public(1));
        let new = KeyRecord::new(genesis, kem(1, 1)).unwrap();
        let renewed = new.with_kem(&device, kem(1, 2)).unwrap();
        let added = Change::AddDevice { key: public(2) };
        let linked = extended(&renewed, added, Signer::Device(device), 1);
        let linked = linked
            .with_kem(&DeviceId::of_key(&public(2)), kem(2, 1))
            .unwrap();
        let removed = extended(
            &linked,
            Change::RemoveDevice { device },
            Signer::Recovery,
            101,
        );
        for (name, record) in [
            ("seed-new", &new),
            ("seed-renewed", &renewed),
            ("seed-linked", &linked),
            ("seed-removed", &removed),
        ] {
            seed("key_record", name, &record.encode(), key_record);
        }
    }
}
