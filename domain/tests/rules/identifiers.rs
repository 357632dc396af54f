//! More than one identifier in a box: added, verified, removed, and what is left half-done.

use bytes::Bytes;
use rossby_domain::command::{
    ActivateBox, AddIdentifier, DropIdentifier, ReleaseClaim, RemoveIdentifier,
};
use rossby_domain::ids::DeviceAddress;
use rossby_domain::limits::Limits;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common::device_id;
use crate::common::world::{
    DAY_MS, World, address, box_id, identifier, pending_boxes, to_finish, two_people,
};

fn world() -> World {
    two_people(Limits {
        code_pause_ms: 0,
        codes_per_day: 1000,
        ..Limits::default()
    })
}

fn adding(device: DeviceAddress, number: u8) -> Command {
    Command::AddIdentifier(AddIdentifier {
        device,
        identifier: identifier(number),
        sealed_identifier: Bytes::from_static(b"sealed"),
        discoverable: true,
    })
}

fn removing(device: DeviceAddress, number: u8, generation: u64) -> Command {
    Command::RemoveIdentifier(RemoveIdentifier {
        device,
        identifier: identifier(number),
        generation,
    })
}

fn releasing(seed: u8, number: u8, generation: u64) -> Command {
    Command::ReleaseClaim(ReleaseClaim {
        identifier: identifier(number),
        box_id: box_id(seed),
        generation,
    })
}

fn dropping(seed: u8, number: u8, generation: u64) -> Command {
    Command::DropIdentifier(DropIdentifier {
        box_id: box_id(seed),
        identifier: identifier(number),
        generation,
    })
}

fn leaving(generation: u64) -> Result<Outcome, Rejection> {
    Ok(Outcome::IdentifierLeaving { generation })
}

/// Numbers and generations.
fn listed(world: &World, seed: u8) -> Vec<(u8, Option<u64>)> {
    let Answer::Identifiers(listed) = world.query(&Query::Identifiers(box_id(seed))) else {
        panic!()
    };
    let listed = listed.into_iter();
    listed
        .map(|known| (known.hash.as_bytes()[0], known.generation))
        .collect()
}

fn holds(world: &World, seed: u8, number: u8) -> bool {
    let query = Query::Discoverable {
        identifier: identifier(number),
        box_id: box_id(seed),
    };
    world.query(&query) == Answer::Discoverable(Some(true))
}

/// Lists the identifier and has its code verified; the box has not heard of it.
fn half_done(world: &mut World, seed: u8, number: u8) -> u64 {
    let added = world.apply(adding(address(seed), number));
    assert_eq!(added, Ok(Outcome::IdentifierAdded));
    world.open_claim(seed, number, 7).unwrap();
    match world.verify_claim(seed, number, 7) {
        Ok(Outcome::ClaimVerified { generation }) => generation,
        other => panic!("{other:?}"),
    }
}

fn add(world: &mut World, seed: u8, number: u8) -> u64 {
    let generation = half_done(world, seed, number);
    world.activate(seed, number, generation).unwrap();
    generation
}

fn finish(world: &mut World) {
    for command in to_finish(world) {
        world.apply(command).unwrap();
    }
}

#[test]
fn an_identifier_is_the_boxs_once_it_is_verified_and_others_once_it_is_removed() {
    let mut world = world();
    let generation = add(&mut world, 1, 50);
    assert_eq!(listed(&world, 1)[1], (50, Some(generation)));
    assert!(holds(&world, 1, 50) && !holds(&world, 2, 50));
    assert_eq!(pending_boxes(&world), []);
    let token = world.query(&Query::DeviceAuth(address(1)));
    assert_eq!(token, Answer::DeviceAuth(Some(1)));

    let before = world.tables.clone();
    assert_eq!(
        world.apply(removing(address(1), 50, generation)),
        leaving(generation)
    );
    // It is listed no more, and not yet free.
    assert_eq!(listed(&world, 1).len(), 1);
    assert!(holds(&world, 1, 50));
    assert_eq!(
        world.apply(removing(address(1), 50, generation)),
        leaving(generation)
    );
    let released = Ok(Outcome::ClaimReleased { held: None });
    assert_eq!(world.apply(releasing(1, 50, generation)), released);
    assert_eq!(world.apply(releasing(1, 50, generation)), released);
    for _ in 0..2 {
        let dropped = world.apply(dropping(1, 50, generation));
        assert_eq!(dropped, Ok(Outcome::IdentifierRemoved));
    }
    let removed = world.apply(removing(address(1), 50, generation));
    assert_eq!(removed, Ok(Outcome::IdentifierRemoved));
    assert_ne!(world.tables, before);
    let theirs = add(&mut world, 2, 50);
    assert!(theirs > generation && holds(&world, 2, 50));
    // What comes late takes nothing from them.
    world.apply(releasing(1, 50, u64::MAX)).unwrap();
    assert!(holds(&world, 2, 50));
}

#[test]
fn a_box_lists_eight_and_keeps_one_that_is_verified() {
    let mut world = world();
    let first = listed(&world, 1)[0].1.unwrap();
    for number in 50..57 {
        world.apply(adding(address(1), number)).unwrap();
    }
    let limit = Rejection::TooManyIdentifiers { limit: 8 };
    assert_eq!(world.refused(adding(address(1), 57)), limit);
    world.apply(adding(address(1), 56)).unwrap();
    // The others are not verified.
    let last = world.refused(removing(address(1), 1, first));
    assert_eq!(last, Rejection::LastIdentifier);
    world.apply(removing(address(1), 50, 0)).unwrap();
    finish(&mut world);
    let second = add(&mut world, 1, 57);
    world.apply(removing(address(1), 1, first)).unwrap();
    // Nor is the one that leaves another.
    let last = world.refused(removing(address(1), 57, second));
    assert_eq!(last, Rejection::LastIdentifier);
}

#[test]
fn only_a_device_that_may_use_the_box_changes_its_identifiers() {
    let mut world = world();
    let stranger = DeviceAddress {
        device: device_id(2),
        ..address(1)
    };
    let generation = add(&mut world, 1, 50);
    for command in [adding(stranger, 51), removing(stranger, 50, generation)] {
        assert_eq!(world.refused(command), Rejection::UnknownDevice);
    }
    world.create_box(3, 3).unwrap();
    let early = adding(address(3), 51);
    assert_eq!(world.refused(early), Rejection::UnknownDevice);
}

#[test]
fn an_old_request_does_not_remove_what_was_added_after_it() {
    let mut world = world();
    let first = add(&mut world, 1, 50);
    world.apply(removing(address(1), 50, first)).unwrap();
    finish(&mut world);
    let second = add(&mut world, 1, 50);
    for old in [0, first] {
        let refused = world.refused(removing(address(1), 50, old));
        assert_eq!(refused, Rejection::IdentifierChanged);
    }
    let held = Ok(Outcome::ClaimReleased { held: Some(second) });
    assert_eq!(world.apply(releasing(1, 50, first)), held);
    world.apply(dropping(1, 50, first)).unwrap();
    assert!(holds(&world, 1, 50));
    assert_eq!(listed(&world, 1)[1], (50, Some(second)));
}

#[test]
fn what_is_half_done_is_finished_either_way() {
    let mut world = world();
    let generation = half_done(&mut world, 1, 50);
    let waiting = pending_boxes(&world);
    assert_eq!(waiting[0].identifiers, [identifier(50)]);
    finish(&mut world);
    assert_eq!(listed(&world, 1)[1], (50, Some(generation)));
    assert_eq!(pending_boxes(&world), []);

    // Removed before the box has heard that it has it: it is free all the same.
    let generation = half_done(&mut world, 1, 51);
    world.apply(removing(address(1), 51, 0)).unwrap();
    let late = ActivateBox {
        box_id: box_id(1),
        device: device_id(1),
        identifier: identifier(51),
        generation,
    };
    let late = world.refused(Command::ActivateBox(late));
    assert_eq!(late, Rejection::NoCodeRequested);
    assert_eq!(world.apply(adding(address(1), 51)), leaving(0));
    assert_eq!(
        world.apply(releasing(1, 51, 0)),
        Ok(Outcome::ClaimReleased {
            held: Some(generation)
        })
    );
    finish(&mut world);
    assert!(!holds(&world, 1, 51));
    assert_eq!(pending_boxes(&world), []);
}

#[test]
fn what_is_never_verified_is_forgotten_and_leaves_nothing_behind() {
    let mut world = world();
    world.apply(adding(address(1), 50)).unwrap();
    world.wait(DAY_MS - 1);
    world.expire_all();
    assert_eq!(listed(&world, 1).len(), 2);
    // Verified at the last moment, and the box never told.
    world.open_claim(1, 50, 7).unwrap();
    world.verify_claim(1, 50, 7).unwrap();
    world.wait(1);
    world.expire_all();
    assert_eq!(listed(&world, 1).len(), 1);
    assert!(holds(&world, 1, 50));
    assert_eq!(pending_boxes(&world)[0].leaving, [(identifier(50), 0)]);
    finish(&mut world);
    assert!(!holds(&world, 1, 50));
    assert_eq!(pending_boxes(&world), []);
    world.wait(10 * DAY_MS);
    world.expire_all();
    assert_eq!(world.tables.due(world.now, 1).unwrap(), []);
}

#[test]
fn finishing_lets_no_device_in_that_was_shut_out() {
    let mut world = world();
    half_done(&mut world, 1, 50);
    let mut meta = world.tables.meta().unwrap();
    meta.restored = meta.restored.again(world.now, true);
    world.tables.put_meta(&meta).unwrap();
    finish(&mut world);
    let token = world.query(&Query::DeviceAuth(address(1)));
    assert_eq!(token, Answer::DeviceAuth(None));
    assert_eq!(pending_boxes(&world)[0].identifiers, []);
    // It can still register again, and finish by itself.
    world.create_box(1, 1).unwrap();
}
