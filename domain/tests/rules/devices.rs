//! Linking and revoking devices: who may, what a device gets, and what is refused and changes nothing.

use bytes::Bytes;
use rossby_domain::chain::{Change, KeyRecord, Link, LinkRefusal, MAX_DEVICES, Signer};
use rossby_domain::command::{ExtendChain, JoinBox, OfferDevice, Recover, UpdateKey};
use rossby_domain::ids::{DeviceAddress, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::query::Query;
use rossby_domain::restored::Restored;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Rejection, Reply};

use crate::common::world::{World, address, box_id, enqueued, letter, sized_letter, two_people};
use crate::common::{device_id, kem, link, public_key, recovering};

/// The device of this seed as one of box 1.
fn of_box_1(seed: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(1),
        device: device_id(seed),
    }
}

fn record(world: &World) -> KeyRecord {
    world.tables.key_record(&box_id(1)).unwrap().unwrap()
}

fn adding(world: &World, added: u8, by: u8) -> Link {
    let key = public_key(added);
    let signer = Signer::Device(device_id(by));
    link(&record(world), Change::AddDevice { key }, signer, by)
}

fn removing(world: &World, removed: u8, by: u8) -> Link {
    let device = device_id(removed);
    let signer = Signer::Device(device_id(by));
    link(&record(world), Change::RemoveDevice { device }, signer, by)
}

fn extend(link: Link) -> Command {
    let box_id = box_id(1);
    Command::ExtendChain(ExtendChain { box_id, link })
}

fn join(seed: u8, counter: u64) -> Command {
    Command::JoinBox(JoinBox {
        device: of_box_1(seed),
        kem: kem(seed, counter),
    })
}

const fn extended(version: u64) -> Reply {
    Ok(Outcome::ChainExtended { version })
}

const fn joined(token_generation: u64) -> Reply {
    Ok(Outcome::BoxJoined { token_generation })
}

fn refused_link(world: &mut World, link: Link) -> LinkRefusal {
    match world.refused(extend(link)) {
        Rejection::LinkRefused(why) => why,
        other => panic!("{other:?}"),
    }
}

fn generation(world: &World, device: DeviceAddress) -> Option<u64> {
    match world.query(&Query::DeviceAuth(device)) {
        Answer::DeviceAuth(generation) => generation,
        other => panic!("{other:?}"),
    }
}

/// Box 1 with a second device, which has its place.
fn linked() -> World {
    let mut world = two_people(Limits::default());
    let link = adding(&world, 11, 1);
    world.apply(extend(link)).unwrap();
    world.apply(join(11, 1)).unwrap();
    world
}

fn write(world: &mut World, counter: u64, text: &str) -> Reply {
    let mut letter = letter(address(2), box_id(1), counter, text);
    letter.chain_version = record(world).version();
    world.send(letter)
}

#[test]
fn a_linked_device_gets_its_place_when_it_comes_and_everything_from_then_on() {
    let mut world = two_people(Limits::default());
    write(&mut world, 1, "before the link").unwrap();
    let link = adding(&world, 11, 1);
    assert_eq!(world.apply(extend(link)), extended(1));
    // It is live in the chain, and nothing can be sealed to it: it gets nothing and holds nothing back.
    assert!(record(&world).device(&device_id(11)).is_none());
    assert_eq!(generation(&world, of_box_1(11)), None);
    assert!(world.page(of_box_1(11), 0, 10).is_none());
    write(&mut world, 2, "before it came").unwrap();
    world.acknowledge(address(1), 1).unwrap();
    assert_eq!(
        world.tables.queue_state(&box_id(1)).unwrap().unwrap().depth,
        1
    );

    assert_eq!(world.apply(join(11, 1)), joined(1));
    assert_eq!(
        world.apply(join(11, 1)),
        joined(1),
        "the retry of a lost reply"
    );
    assert_eq!(generation(&world, of_box_1(11)), Some(1));
    write(&mut world, 3, "since then").unwrap();
    assert_eq!(world.inbox(of_box_1(11)), [(3, "since then".to_owned())]);
    let both = [
        (2, "before it came".to_owned()),
        (3, "since then".to_owned()),
    ];
    assert_eq!(world.inbox(address(1)), both);
}

#[test]
fn no_envelope_is_stored_that_is_not_sealed_to_who_has_joined() {
    let sealed_to = |seeds: &[u8]| {
        let mut seeds = seeds.to_vec();
        seeds.sort_by_key(|seed| device_id(*seed));
        let mut body = vec![1, 1];
        body.extend([0; 44]);
        body.push(u8::try_from(seeds.len()).unwrap());
        for seed in seeds {
            body.extend(device_id(seed).as_bytes());
            body.extend(1_u64.to_be_bytes());
            body.extend([0; 1120 + 48]);
        }
        Bytes::from(body)
    };
    let mut world = two_people(Limits::default());
    let link = adding(&world, 11, 1);
    world.apply(extend(link)).unwrap();
    let send = |world: &mut World, counter, seeds: &[u8]| {
        let mut letter = sized_letter(address(2), box_id(1), counter, sealed_to(seeds));
        letter.chain_version = 1;
        world.send(letter)
    };
    assert_eq!(send(&mut world, 1, &[1]), enqueued(1));
    world.apply(join(11, 1)).unwrap();
    let stale = Err(Rejection::StaleKeyRecord { current: 1 });
    assert_eq!(send(&mut world, 2, &[1]), stale);
    assert_eq!(send(&mut world, 2, &[1, 11]), enqueued(2));
    let page = world.page(of_box_1(11), 0, 10).unwrap();
    assert_eq!(page.envelopes.len(), 1);
}

#[test]
fn a_revoked_device_is_gone_at_once_and_holds_the_queue_no_longer() {
    let mut world = linked();
    for counter in 1..=3 {
        write(&mut world, counter, "x").unwrap();
    }
    world.acknowledge(address(1), 2).unwrap();
    assert_eq!(
        world.tables.queue_state(&box_id(1)).unwrap().unwrap().depth,
        3
    );
    let link = removing(&world, 11, 1);
    assert_eq!(world.apply(extend(link)), extended(2));
    let state = world.tables.queue_state(&box_id(1)).unwrap().unwrap();
    assert_eq!((state.depth, state.purged_upto), (1, Sequence(2)));

    assert_eq!(
        world.apply(extend(link)),
        extended(2),
        "the retry of a lost reply"
    );
    assert_eq!(generation(&world, of_box_1(11)), None);
    assert!(world.page(of_box_1(11), 0, 10).is_none());
    let device = of_box_1(11);
    let kem = kem(11, 2);
    let update = Command::UpdateKey(UpdateKey { device, kem });
    assert_eq!(world.refused(update), Rejection::UnknownDevice);
    assert_eq!(world.refused(join(11, 2)), Rejection::DeviceRevoked);
    let upto = world.acknowledge(device, 3);
    assert_eq!(upto, Err(Rejection::UnknownDevice));
    let again = adding(&world, 11, 1);
    assert_eq!(refused_link(&mut world, again), LinkRefusal::Removed);
}

#[test]
fn only_a_live_devices_signature_over_the_chain_as_it_is_counts() {
    let mut world = linked();
    let stranger = {
        let key = public_key(12);
        let signer = Signer::Device(device_id(2));
        link(&record(&world), Change::AddDevice { key }, signer, 2)
    };
    assert_eq!(
        refused_link(&mut world, stranger),
        LinkRefusal::SignerNotLive
    );
    let forged = {
        let key = public_key(12);
        let signer = Signer::Device(device_id(1));
        link(&record(&world), Change::AddDevice { key }, signer, 2)
    };
    assert_eq!(world.refused(extend(forged)), Rejection::BadKeySignature);
    // Two sign over the same head: one is first, the other is told.
    let (first, second) = (adding(&world, 12, 1), adding(&world, 13, 11));
    world.apply(extend(first)).unwrap();
    let changed = Rejection::ChainChanged { current: 2 };
    assert_eq!(world.refused(extend(second)), changed);
    // The recovery key overrides all devices.
    let device = device_id(11);
    let link = link(
        &record(&world),
        Change::RemoveDevice { device },
        Signer::Recovery,
        101,
    );
    assert_eq!(world.apply(extend(link)), extended(3));
    let nobody = Command::ExtendChain(ExtendChain {
        box_id: box_id(9),
        link,
    });
    assert_eq!(world.refused(nobody), Rejection::UnknownBox);
}

#[test]
fn an_offer_binds_nobody_and_the_last_one_counts_until_the_device_comes() {
    let mut world = two_people(Limits::default());
    let offer = |seed, number| {
        let (device, box_id) = (device_id(seed), box_id(number));
        Command::OfferDevice(OfferDevice { device, box_id })
    };
    let offered = |number| {
        let box_id = box_id(number);
        Ok(Outcome::DeviceClaimed { box_id })
    };
    let found = |world: &World, seed| {
        let device = device_id(seed);
        let asked = [Query::ResolveDevice(device), Query::BoundDevice(device)];
        asked.map(|query| match world.query(&query) {
            Answer::ResolvedDevice(found) => found,
            other => panic!("{other:?}"),
        })
    };
    // Somebody has seen the code, and was first.
    assert_eq!(world.apply(offer(11, 2)), offered(2));
    assert_eq!(found(&world, 11), [Some(box_id(2)), None]);
    assert_eq!(world.apply(offer(11, 1)), offered(1));
    assert_eq!(world.apply(offer(11, 1)), offered(1));
    assert_eq!(found(&world, 11), [Some(box_id(1)), None]);
    assert_eq!(world.claim_device(11, box_id(1)), offered(1));
    assert_eq!(found(&world, 11), [Some(box_id(1)); 2]);
    // It has come: nobody else's offer counts any more.
    let taken = Rejection::KeyAlreadyRegistered;
    assert_eq!(world.refused(offer(11, 2)), taken);
    assert_eq!(world.apply(offer(11, 1)), offered(1));
    assert_eq!(found(&world, 11), [Some(box_id(1)); 2]);
    // Nor is who registers kept from it by an offer.
    assert_eq!(world.apply(offer(12, 1)), offered(1));
    assert_eq!(world.claim_device(12, box_id(12)), offered(12));
    assert_eq!(found(&world, 12), [Some(box_id(12)); 2]);
}

#[test]
fn somebody_who_can_read_must_be_left() {
    let mut world = two_people(Limits::default());
    let link = adding(&world, 11, 1);
    world.apply(extend(link)).unwrap();
    // The second device was added and never came.
    for (removed, by) in [(1, 1), (1, 11)] {
        let link = removing(&world, removed, by);
        assert_eq!(refused_link(&mut world, link), LinkRefusal::LastDevice);
    }
    let link = removing(&world, 11, 1);
    assert_eq!(world.apply(extend(link)), extended(2));
    assert_eq!(world.refused(join(11, 1)), Rejection::DeviceRevoked);
    let link = removing(&world, 1, 1);
    assert_eq!(refused_link(&mut world, link), LinkRefusal::LastDevice);
}

#[test]
fn a_box_has_at_most_eight_devices() {
    let mut world = two_people(Limits::default());
    for added in 11..10 + u8::try_from(MAX_DEVICES).unwrap() {
        let link = adding(&world, added, 1);
        world.apply(extend(link)).unwrap();
        assert_eq!(world.apply(join(added, 1)), joined(1));
    }
    let ninth = adding(&world, 50, 1);
    assert_eq!(refused_link(&mut world, ninth), LinkRefusal::TooManyDevices);
    let link = removing(&world, 11, 1);
    world.apply(extend(link)).unwrap();
    let ninth = adding(&world, 50, 1);
    assert_eq!(world.apply(extend(ninth)), extended(9));
}

#[test]
fn a_stolen_device_can_not_fill_the_chain_against_its_removal() {
    let mut world = linked();
    let mut spent = 120;
    loop {
        let adding = adding(&world, spent, 11);
        if let Err(refused) = world.apply(extend(adding)) {
            let full = Rejection::LinkRefused(LinkRefusal::ChainFull);
            assert_eq!(refused, full);
            break;
        }
        let removing = removing(&world, spent, 11);
        world.apply(extend(removing)).unwrap();
        spent += 1;
    }
    let version = record(&world).version();
    let link = removing(&world, 11, 1);
    assert_eq!(world.apply(extend(link)), extended(version + 1));
    assert_eq!(generation(&world, of_box_1(11)), None);
    // Only the recovery key takes in another.
    let by_device = adding(&world, 12, 1);
    assert_eq!(refused_link(&mut world, by_device), LinkRefusal::ChainFull);
    let by_recovery = {
        let key = public_key(12);
        let change = Change::AddDevice { key };
        crate::common::link(&record(&world), change, Signer::Recovery, 101)
    };
    assert_eq!(world.apply(extend(by_recovery)), extended(version + 2));
    assert_eq!(world.apply(join(12, 1)), joined(1));
}

#[test]
fn nobody_takes_a_place_without_a_link_or_with_a_key_of_another() {
    let mut world = linked();
    assert_eq!(world.refused(join(12, 1)), Rejection::UnknownDevice);
    let link = adding(&world, 12, 1);
    world.apply(extend(link)).unwrap();
    let foreign = Command::JoinBox(JoinBox {
        device: of_box_1(12),
        kem: kem(11, 1),
    });
    assert_eq!(world.refused(foreign), Rejection::BadKeySignature);
    world.apply(join(12, 5)).unwrap();
    // A key from before is not taken back, whoever has kept the request.
    let used = Rejection::KeyCounterUsed { current: 5 };
    assert_eq!(world.refused(join(12, 4)), used);
    let elsewhere = Command::JoinBox(JoinBox {
        device: DeviceAddress {
            box_id: box_id(9),
            device: device_id(12),
        },
        kem: kem(12, 1),
    });
    assert_eq!(world.refused(elsewhere), Rejection::UnknownBox);
}

#[test]
fn after_a_restoring_that_revoked_all_tokens_a_device_gets_a_new_one_and_keeps_its_place() {
    let mut world = linked();
    write(&mut world, 1, "one").unwrap();
    world.acknowledge(of_box_1(11), 1).unwrap();
    let mut meta = world.tables.meta().unwrap();
    meta.restored = Restored::default().again(Timestamp::from_millis(1_795_359_845_000), true);
    world.tables.put_meta(&meta).unwrap();
    assert_eq!(generation(&world, of_box_1(11)), None);
    let next = meta.restored.refused_tokens + 1;
    assert_eq!(world.apply(join(11, 1)), joined(next));
    assert_eq!(world.apply(join(11, 1)), joined(next));
    assert_eq!(
        world.apply(join(1, 1)),
        joined(next),
        "the first device too"
    );
    assert_eq!(generation(&world, of_box_1(11)), Some(next));
    let page = world.page(of_box_1(11), 0, 10).unwrap();
    assert_eq!(page.status.cursor, Sequence(1));
}

#[test]
fn what_a_boxs_devices_send_each_other_leaves_room_for_others() {
    let limits = Limits {
        queue_envelopes: 8,
        ..Limits::default()
    };
    let mut world = two_people(limits);
    for counter in 1..=2 {
        let own = letter(address(1), box_id(1), counter, "copy");
        assert_eq!(world.send(own), enqueued(counter));
    }
    let own = letter(address(1), box_id(1), 3, "copy");
    assert_eq!(world.send(own), Err(Rejection::SenderShareFull));
    let other = letter(address(2), box_id(1), 1, "letter");
    assert_eq!(world.send(other), enqueued(3));
    // What was refused waits on its device, until the others have read.
    world.acknowledge(address(1), 3).unwrap();
    let own = letter(address(1), box_id(1), 3, "copy");
    assert_eq!(world.send(own), enqueued(4));
}

/// Device `added` recovers box 1 with its recovery key, as the chain is now.
fn recover(world: &World, added: u8, alone: bool) -> Command {
    Command::Recover(Recover {
        device: of_box_1(added),
        links: recovering(&record(world), added, alone, 101),
        kem: kem(added, 1),
    })
}

#[test]
fn the_recovery_key_puts_a_new_device_in_the_place_of_all_others_in_one_step() {
    let mut world = linked();
    for counter in 1..=3 {
        write(&mut world, counter, "for those that are gone").unwrap();
    }
    let recovery = recover(&world, 12, true);
    assert_eq!(world.apply(recovery.clone()), joined(1));
    assert_eq!(
        world.apply(recovery),
        joined(1),
        "the retry of a lost reply"
    );
    for stolen in [1, 11] {
        assert_eq!(generation(&world, of_box_1(stolen)), None);
        assert!(world.page(of_box_1(stolen), 0, 10).is_none());
        assert_eq!(world.refused(join(stolen, 1)), Rejection::DeviceRevoked);
        let theirs = adding(&world, 13, stolen);
        assert_eq!(refused_link(&mut world, theirs), LinkRefusal::SignerNotLive);
    }
    // What nobody can read any more is not kept; what comes is for the new device.
    let state = world.tables.queue_state(&box_id(1)).unwrap().unwrap();
    assert_eq!((state.depth, state.last), (0, Sequence(3)));
    write(&mut world, 4, "since then").unwrap();
    assert_eq!(world.inbox(of_box_1(12)), [(4, "since then".to_owned())]);
}

#[test]
fn a_device_that_is_let_in_beside_the_others_takes_nothing_from_them() {
    let mut world = linked();
    write(&mut world, 1, "before").unwrap();
    let recovery = recover(&world, 12, false);
    assert_eq!(world.apply(recovery), joined(1));
    write(&mut world, 2, "for all").unwrap();
    assert_eq!(world.inbox(of_box_1(12)), [(2, "for all".to_owned())]);
    assert_eq!(world.inbox(address(1)).len(), 2);
    // Called again to be alone, it signs only what is left to do.
    let alone = recover(&world, 12, true);
    assert_eq!(world.apply(alone), joined(1));
    assert_eq!(record(&world).live_devices().count(), 1);
}

#[test]
fn a_chain_that_a_thief_has_filled_is_recovered() {
    let mut world = linked();
    let mut spent = 120;
    loop {
        let theirs = adding(&world, spent, 11);
        if world.apply(extend(theirs)).is_err() {
            break;
        }
        let theirs = removing(&world, spent, 11);
        world.apply(extend(theirs)).unwrap();
        spent += 1;
    }
    // Also the owner's own device is gone: the thief's is the last one.
    let theirs = removing(&world, 1, 11);
    world.apply(extend(theirs)).unwrap();
    let recovery = recover(&world, 12, true);
    assert_eq!(world.apply(recovery), joined(1));
    assert_eq!(generation(&world, of_box_1(11)), None);
    assert_eq!(generation(&world, of_box_1(12)), Some(1));
}

#[test]
fn what_the_recovery_key_has_not_signed_over_the_chain_as_it_is_recovers_nothing() {
    let mut world = linked();
    let with = |links| {
        let (device, kem) = (of_box_1(12), kem(12, 1));
        Command::Recover(Recover { device, links, kem })
    };
    // By another key, by a live device, and by nobody.
    let forged = recovering(&record(&world), 12, true, 102);
    assert_eq!(world.refused(with(forged)), Rejection::BadKeySignature);
    let by_device = adding(&world, 12, 1);
    assert_eq!(
        world.refused(with(vec![by_device])),
        Rejection::BadKeySignature
    );
    assert_eq!(world.refused(with(Vec::new())), Rejection::UnknownDevice);
    // Somebody was quicker; and of several links all hold or none.
    let stale = recover(&world, 12, true);
    let quicker = adding(&world, 13, 11);
    world.apply(extend(quicker)).unwrap();
    let changed = Rejection::ChainChanged { current: 2 };
    assert_eq!(world.refused(stale), changed);
    let mut mixed = recovering(&record(&world), 12, true, 101);
    mixed.last_mut().unwrap().signature = [7; 64];
    assert_eq!(world.refused(with(mixed)), Rejection::BadKeySignature);
    let foreign = Command::Recover(Recover {
        device: of_box_1(12),
        links: recovering(&record(&world), 12, true, 101),
        kem: kem(11, 1),
    });
    assert_eq!(world.refused(foreign), Rejection::BadKeySignature);
    let links = recovering(&record(&world), 12, true, 101);
    let elsewhere = Command::Recover(Recover {
        device: DeviceAddress {
            box_id: box_id(9),
            device: device_id(12),
        },
        links,
        kem: kem(12, 1),
    });
    assert_eq!(world.refused(elsewhere), Rejection::UnknownBox);
}
