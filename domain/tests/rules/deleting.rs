//! A box that is deleted: nothing of it is left, and no other is ever in its place.

use bytes::Bytes;
use rossby_domain::command::{Block, CountReport, DeleteBox, JoinBox, SetProfile};
use rossby_domain::limits::Limits;
use rossby_domain::profile::Profile;
use rossby_domain::report::ReportMark;
use rossby_domain::tables::ReadTables as _;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common::kem;
use crate::common::world::{
    DAY_MS, World, address, box_id, create_box, enqueued, identifier, letter, pending_boxes,
    to_finish, two_people,
};

fn delete(seed: u8) -> Command {
    let device = address(seed);
    Command::DeleteBox(DeleteBox { device })
}

fn holder(world: &World, number: u8) -> Answer {
    world.query(&Query::VerifiedClaim(identifier(number)))
}

#[test]
fn nothing_of_a_deleted_box_is_left_but_that_it_was() {
    let mut world = two_people(Limits::default());
    world.register(3);
    for sender in [1, 2] {
        for counter in 1..=300 {
            let sent = world.send(letter(address(sender), box_id(3), counter, "x"));
            sent.unwrap();
        }
    }
    world.block(3, 1, true).unwrap();
    for reporter in 0..200 {
        let report = Command::CountReport(CountReport {
            box_id: box_id(3),
            mark: ReportMark([reporter; 16]),
        });
        world.apply(report).unwrap();
    }
    let shown = Command::SetProfile(SetProfile {
        device: address(3),
        version: 1,
        sealed: Bytes::from_static(b"sealed"),
    });
    world.apply(shown).unwrap();
    let generation = match holder(&world, 3) {
        Answer::VerifiedClaim(Some((_, generation))) => generation,
        other => panic!("{other:?}"),
    };
    let leaving = vec![(identifier(3), generation)];
    assert_eq!(world.apply(delete(3)), Ok(Outcome::BoxDeleted { leaving }));

    // At once it is one that is not there.
    let sent = letter(address(2), box_id(3), 301, "x");
    assert_eq!(world.refused(Command::Enqueue(sent)), Rejection::UnknownBox);
    assert_eq!(
        world.query(&Query::BoxState(box_id(3))),
        Answer::BoxState(None)
    );
    assert_eq!(
        world.query(&Query::DeviceAuth(address(3))),
        Answer::DeviceAuth(None)
    );
    assert!(world.page(address(3), 0, 10).is_none());
    assert_eq!(world.refused(delete(3)), Rejection::UnknownDevice);
    let blocking = Command::Block(Block {
        box_id: box_id(3),
        other: box_id(2),
        blocked: true,
    });
    assert_eq!(world.refused(blocking), Rejection::UnknownBox);

    // In steps, each of which may be the last before a crash, the rest goes.
    world.expire_all();
    assert_eq!(world.tables.queue_state(&box_id(3)).unwrap(), None);
    assert_eq!(world.tables.senders(&box_id(3), 10).unwrap(), []);
    assert_eq!(world.tables.count_reports(&box_id(3), 1).unwrap(), 0);
    assert_eq!(world.tables.sealed_profile(&box_id(3)).unwrap(), None);
    assert_ne!(holder(&world, 3), Answer::VerifiedClaim(None));
    for command in to_finish(&world) {
        world.apply(command.clone()).unwrap();
        world.apply(command).unwrap();
    }
    assert_eq!(holder(&world, 3), Answer::VerifiedClaim(None));
    assert_eq!(pending_boxes(&world), []);
    world.wait(100 * DAY_MS);
    world.expire_all();
    let only_that_it_was = Profile {
        deleted: true,
        ..Profile::default()
    };
    assert_eq!(
        world.tables.profile(&box_id(3)).unwrap(),
        Some(only_that_it_was)
    );
    assert_eq!(world.tables.due(world.now, 1).unwrap(), []);
    // Others are as they were.
    let sent = world.send(letter(address(2), box_id(1), 1, "hello"));
    assert_eq!(sent, enqueued(1));
}

#[test]
fn no_box_comes_back_and_its_devices_are_told_while_its_identifier_is_free_for_others() {
    let mut world = two_people(Limits {
        code_pause_ms: 0,
        ..Limits::default()
    });
    world.apply(delete(2)).unwrap();
    for command in to_finish(&world) {
        world.apply(command).unwrap();
    }
    // The same keys again are the same box, which is deleted.
    assert!(world.claim_device(2, box_id(2)).is_ok());
    assert_eq!(world.refused(create_box(2, 2)), Rejection::BoxDeleted);
    let joining = Command::JoinBox(JoinBox {
        device: address(2),
        kem: kem(2, 1),
    });
    assert_eq!(world.refused(joining), Rejection::UnknownBox);
    let asked = |world: &World, seed| world.query(&Query::IsDeleted(box_id(seed)));
    assert_eq!(asked(&world, 2), Answer::IsDeleted(true));
    assert_eq!(asked(&world, 1), Answer::IsDeleted(false));
    assert_eq!(asked(&world, 9), Answer::IsDeleted(false));
    world.open_claim(1, 2, 7).unwrap();
    let taken = world.verify_claim(1, 2, 7);
    assert!(
        matches!(taken, Ok(Outcome::ClaimVerified { .. })),
        "{taken:?}"
    );
}

#[test]
fn a_claim_that_was_verified_while_its_box_is_deleted_is_released_all_the_same() {
    let mut world = two_people(Limits {
        code_pause_ms: 0,
        ..Limits::default()
    });
    // Registered, and the box has not heard that its first identifier is proven.
    world.claim_device(3, box_id(3)).unwrap();
    world.create_box(3, 3).unwrap();
    world.open_claim(3, 3, 7).unwrap();
    let waiting = Rejection::UnknownDevice;
    assert_eq!(world.refused(delete(3)), waiting, "it is not one yet");
    let Ok(Outcome::ClaimVerified { generation }) = world.verify_claim(3, 3, 7) else {
        panic!("not verified")
    };
    world.activate(3, 3, generation).unwrap();
    // Its code is asked for again, and is right at the last moment.
    world.open_claim(3, 3, 8).unwrap();
    world.apply(delete(3)).unwrap();
    world.verify_claim(3, 3, 8).unwrap();
    for command in to_finish(&world) {
        world.apply(command).unwrap();
    }
    assert_eq!(holder(&world, 3), Answer::VerifiedClaim(None));
    let late = world.verify_claim(3, 3, 8);
    assert_eq!(late, Err(Rejection::NoCodeRequested));
}
