//! UpdateKey: what is taken, what is refused, and which envelopes are taken for which keys.

use bytes::Bytes;
use ed25519_dalek::Signer as _;
use proptest::prelude::*;
use rossby_domain::chain::{
    Change, KemKey, KeyRecord, SUITE_XWING, Signer, XWING_PUBLIC_KEY_BYTES,
};
use rossby_domain::command::UpdateKey;
use rossby_domain::ids::{DeviceAddress, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::wire::Writer;
use rossby_domain::{Command, Outcome, Rejection, Reply};

use crate::common::world::{World, address, box_id, enqueued, sized_letter, two_people};
use crate::common::{add, device_id, kem, link, record, signing_key};

/// A key of device `seed` under a counter, made of one byte.
fn key_of(seed: u8, counter: u64, fill: u8) -> KemKey {
    let public = Bytes::from(vec![fill; XWING_PUBLIC_KEY_BYTES]);
    let statement = KemKey::statement(&device_id(seed), SUITE_XWING, counter, &public);
    KemKey {
        suite: SUITE_XWING,
        counter,
        public,
        signature: signing_key(seed).sign(&statement).to_bytes(),
    }
}

fn update(device: DeviceAddress, kem: KemKey) -> Command {
    Command::UpdateKey(UpdateKey { device, kem })
}

fn updated(last: u64) -> Reply {
    Ok(Outcome::KeyUpdated {
        last: Sequence(last),
    })
}

fn record_of(world: &World, seed: u8) -> KeyRecord {
    world.tables.key_record(&box_id(seed)).unwrap().unwrap()
}

/// A body that says on its outside that it is sealed to these keys.
fn sealed_to(keys: &[(u8, u64)]) -> Bytes {
    let count = u8::try_from(keys.len()).unwrap();
    let mut writer = Writer::default()
        .u8(1)
        .u8(1)
        .fixed(&[0; 32])
        .fixed(&[0; 12]);
    writer = writer.u8(count);
    for (seed, counter) in keys {
        writer = writer.fixed(device_id(*seed).as_bytes()).u64(*counter);
        writer = writer.fixed(&[0; 1120]).fixed(&[0; 48]);
    }
    writer.bytes(b"sealed").finish().into()
}

fn send(world: &mut World, counter: u64, body: Bytes) -> Reply {
    world.send(sized_letter(address(2), box_id(1), counter, body))
}

const STALE: Reply = Err(Rejection::StaleKeyRecord { current: 0 });

#[test]
fn a_new_key_takes_the_place_of_the_current_one_which_stays_as_the_previous() {
    let mut world = two_people(Limits::default());
    assert_eq!(world.apply(update(address(1), key_of(1, 2, 7))), updated(0));
    let record = record_of(&world, 1);
    let keys = record.device(&device_id(1)).unwrap();
    assert_eq!(keys.kem, key_of(1, 2, 7));
    assert_eq!(keys.previous_kem, Some(kem(1, 1)));
    assert_eq!(record.version(), 0, "the chain is as it was");
    assert_eq!(KeyRecord::decode(&record.encode()), Ok(record));
}

#[test]
fn the_same_again_has_the_same_outcome_and_changes_nothing() {
    let mut world = two_people(Limits::default());
    world.apply(update(address(1), key_of(1, 5, 7))).unwrap();
    let before = record_of(&world, 1);
    assert_eq!(world.apply(update(address(1), key_of(1, 5, 7))), updated(0));
    assert_eq!(record_of(&world, 1), before);
}

#[test]
fn a_counter_that_was_used_or_passed_over_is_refused() {
    let mut world = two_people(Limits::default());
    world.apply(update(address(1), key_of(1, 5, 7))).unwrap();
    for (counter, fill) in [(5, 8), (4, 7), (1, 0), (0, 7)] {
        let rejection = world.refused(update(address(1), key_of(1, counter, fill)));
        assert_eq!(rejection, Rejection::KeyCounterUsed { current: 5 });
    }
    // The previous key too: it was replaced for good.
    let rejection = world.refused(update(address(1), kem(1, 1)));
    assert_eq!(rejection, Rejection::KeyCounterUsed { current: 5 });
}

#[test]
fn a_key_that_its_device_did_not_sign_is_refused() {
    let mut world = two_people(Limits::default());
    let mut forged = key_of(1, 2, 7);
    forged.signature[3] ^= 1;
    let others = KemKey {
        signature: key_of(2, 2, 7).signature,
        ..key_of(1, 2, 7)
    };
    let moved = KemKey {
        counter: 3,
        ..key_of(1, 2, 7)
    };
    for kem in [forged, others, moved, key_of(2, 2, 7)] {
        let rejection = world.refused(update(address(1), kem));
        assert_eq!(rejection, Rejection::BadKeySignature);
    }
}

#[test]
fn a_box_or_device_that_is_not_there_or_not_authorised_is_refused() {
    let mut world = two_people(Limits::default());
    let unknown = world.refused(update(address(3), key_of(3, 2, 7)));
    assert_eq!(unknown, Rejection::UnknownBox);
    world.claim_device(4, box_id(4)).unwrap();
    world.create_box(4, 4).unwrap();
    let pending = world.refused(update(address(4), key_of(4, 2, 7)));
    assert_eq!(pending, Rejection::UnknownBox);
    let stranger = DeviceAddress {
        device: device_id(2),
        ..address(1)
    };
    let rejection = world.refused(update(stranger, key_of(2, 2, 7)));
    assert_eq!(rejection, Rejection::UnknownDevice);
    // Authorised once, and taken out of the chain since.
    let grown = add(&record_of(&world, 1), 9, 1).unwrap();
    let change = Change::RemoveDevice {
        device: device_id(1),
    };
    let gone = grown.extend(link(&grown, change, Signer::Device(device_id(9)), 9));
    let gone = gone.unwrap();
    world.tables.update_key_record(&box_id(1), &gone).unwrap();
    let rejection = world.refused(update(address(1), key_of(1, 2, 7)));
    assert_eq!(rejection, Rejection::UnknownDevice);
}

#[test]
fn the_outcome_says_up_to_where_there_may_be_mail_for_older_keys() {
    let mut world = two_people(Limits::default());
    assert_eq!(send(&mut world, 1, sealed_to(&[(1, 1)])), enqueued(1));
    assert_eq!(world.apply(update(address(1), key_of(1, 2, 7))), updated(1));
    assert_eq!(send(&mut world, 2, sealed_to(&[(1, 1)])), enqueued(2));
    assert_eq!(world.apply(update(address(1), key_of(1, 3, 7))), updated(2));
    assert_eq!(send(&mut world, 3, sealed_to(&[(1, 1)])), STALE);
    assert_eq!(send(&mut world, 3, sealed_to(&[(1, 2)])), enqueued(3));
    // A retry of what is stored learns its place, whatever key it was sealed for.
    assert_eq!(send(&mut world, 1, sealed_to(&[(1, 1)])), enqueued(1));
}

#[test]
fn an_envelope_must_be_sealed_to_every_device_that_has_a_key() {
    let mut world = two_people(Limits::default());
    let grown = add(&record(1), 9, 1).unwrap();
    world.tables.update_key_record(&box_id(1), &grown).unwrap();
    let letter = |counter, body: Bytes| {
        let mut letter = sized_letter(address(2), box_id(1), counter, body.clone());
        letter.chain_version = 1;
        letter.digest = rossby_domain::command::EnvelopeDigest::of(&box_id(1), 1, None, &body);
        letter
    };
    // The new device has not published a key yet.
    assert_eq!(world.send(letter(1, sealed_to(&[(1, 1)]))), enqueued(1));
    let with_key = grown.with_kem(&device_id(9), kem(9, 1)).unwrap();
    world
        .tables
        .update_key_record(&box_id(1), &with_key)
        .unwrap();
    let stale = Err(Rejection::StaleKeyRecord { current: 1 });
    assert_eq!(world.send(letter(2, sealed_to(&[(1, 1)]))), stale);
    assert_eq!(world.send(letter(2, sealed_to(&[]))), stale);
    assert_eq!(
        world.send(letter(2, sealed_to(&[(1, 1), (9, 1)]))),
        enqueued(2)
    );
    // What another version of the body says can not be told.
    assert_eq!(
        world.send(letter(3, Bytes::from_static(&[2, 1]))),
        enqueued(3)
    );
}

/// A try at a new key: how far above the current counter, which key, and whether it is signed.
fn tries() -> impl Strategy<Value = Vec<(i64, u8, bool)>> {
    let step = prop_oneof![3 => Just(1), 2 => -2..4_i64];
    prop::collection::vec((step, 0..3_u8, prop::bool::weighted(0.9)), 1..20)
}

proptest! {
    #[test]
    fn counters_only_rise_the_record_stays_valid_and_mail_is_taken_for_two_keys(tries in tries()) {
        let mut world = two_people(Limits::default());
        let mut current = (1_u64, kem(1, 1));
        let mut previous = None;
        for (step, fill, is_signed) in tries {
            let counter = current.0.saturating_add_signed(step);
            let mut kem = key_of(1, counter, fill);
            if !is_signed {
                kem.signature = [7; 64];
            }
            let reply = world.apply(update(address(1), kem.clone()));
            if current.1.is_same_key(&kem) {
                prop_assert_eq!(reply, updated(0));
            } else if counter <= current.0 {
                prop_assert_eq!(reply, Err(Rejection::KeyCounterUsed { current: current.0 }));
            } else if !is_signed {
                prop_assert_eq!(reply, Err(Rejection::BadKeySignature));
            } else {
                prop_assert_eq!(reply, updated(0));
                previous = Some(std::mem::replace(&mut current, (counter, kem)));
            }
            let record = record_of(&world, 1);
            let keys = record.device(&device_id(1)).unwrap();
            prop_assert_eq!(&keys.kem, &current.1);
            prop_assert_eq!(keys.previous_kem.as_ref(), previous.as_ref().map(|(_, kem)| kem));
            prop_assert_eq!(KeyRecord::decode(&record.encode()), Ok(record));
        }
        for counter in 0..=current.0 + 1 {
            let is_taken = counter == current.0 || previous.as_ref().is_some_and(|p| p.0 == counter);
            let reply = send(&mut world.clone(), 1, sealed_to(&[(1, counter)]));
            prop_assert_eq!(reply, if is_taken { enqueued(1) } else { STALE });
        }
    }

    #[test]
    fn no_body_makes_the_reading_of_its_outside_panic(
        mut body in prop::collection::vec(any::<u8>(), 0..2500), as_version_1: bool
    ) {
        if as_version_1 && body.len() > 2 {
            body[..2].copy_from_slice(&[1, 1]);
        }
        let mut world = two_people(Limits::default());
        let reply = send(&mut world, 1, body.into());
        prop_assert!(reply == enqueued(1) || reply == STALE);
    }
}
