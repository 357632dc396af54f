//! From a device's key to an authorised box: each command of the chain, and each refusal.

use rossby_domain::chain::KeyRecord;
use rossby_domain::command::{ActivateBox, ClaimDevice, CreateBox, MarkCodeUnsent};
use rossby_domain::ids::{BoxId, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::query::{OutboxItem, PendingBox};
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, create_box, identifier, open_claim,
    open_hidden_claim, pending_boxes, pending_boxes_after, verify_claim,
};
use crate::common::{self, device_id, genesis, kem};

fn world() -> World {
    World::new(Limits::default())
}

fn verified(generation: u64) -> Result<Outcome, Rejection> {
    Ok(Outcome::ClaimVerified { generation })
}

fn outbox(world: &World) -> Vec<OutboxItem> {
    let query = Query::Outbox {
        partition: common::world::partition(),
        after: None,
        limit: 100,
    };
    match world.query(&query) {
        Answer::Outbox(items) => items,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_stays_bound_to_the_box_it_first_chose() {
    let mut world = world();
    let first = box_id(1);
    assert_eq!(
        world.claim_device(1, first),
        Ok(Outcome::DeviceClaimed { box_id: first })
    );
    // The same genesis through another node, which chose another partition.
    let again = BoxId::derive(PartitionId::new(9).unwrap(), &genesis(1).hash());
    assert_eq!(
        world.claim_device(1, again),
        Ok(Outcome::DeviceClaimed { box_id: first })
    );
    assert_eq!(
        world.query(&Query::ResolveDevice(device_id(1))),
        Answer::ResolvedDevice(Some(first))
    );
    assert_eq!(
        world.query(&Query::ResolveDevice(device_id(2))),
        Answer::ResolvedDevice(None)
    );
    let other = ClaimDevice {
        device: device_id(1),
        box_id: box_id(2),
    };
    assert_eq!(
        world.refused(Command::ClaimDevice(other)),
        Rejection::KeyAlreadyRegistered
    );
}

#[test]
fn a_new_box_is_there_but_not_active_until_its_claim_is_verified() {
    let mut world = world();
    assert_eq!(world.create_box(1, 1), Ok(Outcome::BoxCreated));
    let active = |world: &World| match world.query(&Query::BoxState(box_id(1))) {
        Answer::BoxState(Some(state)) => state.active,
        other => panic!("{other:?}"),
    };
    assert!(!active(&world));
    let expected = PendingBox {
        box_id: box_id(1),
        device: device_id(1),
        identifiers: vec![identifier(1)],
        leaving: Vec::new(),
    };
    assert_eq!(pending_boxes(&world), [expected]);

    world.open_claim(1, 1, 1).unwrap();
    assert_eq!(world.verify_claim(1, 1, 1), verified(1));
    let activated = Ok(Outcome::BoxActivated {
        token_generation: 1,
    });
    assert_eq!(world.activate(1, 1, 1), activated);
    assert!(active(&world));
    assert_eq!(pending_boxes(&world), []);
    // A retry of each step gets the same.
    assert_eq!(world.verify_claim(1, 1, 1), verified(1));
    assert_eq!(world.activate(1, 1, 1), activated);
    assert_eq!(
        world.query(&Query::VerifiedClaim(identifier(1))),
        Answer::VerifiedClaim(Some((box_id(1), 1)))
    );
    world.wait(100 * DAY_MS);
    world.expire_all();
    assert!(active(&world));
    assert_eq!(
        world.query(&Query::DeviceAuth(address(1))),
        Answer::DeviceAuth(Some(1))
    );
}

#[test]
fn pending_boxes_can_be_walked_in_steps_and_name_all_that_they_asked_for() {
    let mut world = world();
    for seed in 1..=3 {
        world.create_box(seed, seed).unwrap();
    }
    world.create_box(2, 9).unwrap();
    let all = pending_boxes(&world);
    assert_eq!(all.len(), 3);
    let asked = all.iter().find(|pending| pending.box_id == box_id(2));
    assert_eq!(asked.unwrap().identifiers, [identifier(2), identifier(9)]);
    let (mut walked, mut after) = (Vec::new(), None);
    while let [one] = &pending_boxes_after(&world, after, 1)[..] {
        after = Some(one.box_id);
        walked.push(one.clone());
    }
    assert_eq!(walked, all);
}

#[test]
fn an_authorised_box_can_not_be_made_again() {
    let mut world = world();
    world.register(1);
    assert_eq!(
        world.refused(create_box(1, 1)),
        Rejection::KeyAlreadyRegistered
    );
}

#[test]
fn a_box_that_is_not_made_of_its_record_is_refused() {
    let mut world = world();
    let Command::CreateBox(command) = create_box(1, 1) else {
        panic!()
    };
    let forged = CreateBox {
        record: common::record(2),
        ..command.clone()
    };
    assert_eq!(
        world.refused(Command::CreateBox(forged)),
        Rejection::UnknownBox
    );
    let extended = common::add(&common::record(1), 2, 1).unwrap();
    let grown = CreateBox {
        record: extended,
        ..command
    };
    assert_eq!(
        world.refused(Command::CreateBox(grown)),
        Rejection::UnknownBox
    );
}

#[test]
fn registering_again_renews_identifier_and_kem_key() {
    let mut world = world();
    world.create_box(1, 1).unwrap();
    let Command::CreateBox(command) = create_box(1, 2) else {
        panic!()
    };
    let record = |counter| KeyRecord::new(genesis(1), kem(1, counter)).unwrap();
    let newer = CreateBox {
        record: record(2),
        ..command.clone()
    };
    world.apply(Command::CreateBox(newer)).unwrap();
    // A late retry of the first try brings nothing back.
    let older = CreateBox {
        record: record(1),
        ..command
    };
    world.apply(Command::CreateBox(older)).unwrap();
    let Answer::BoxState(Some(state)) = world.query(&Query::BoxState(box_id(1))) else {
        panic!()
    };
    assert_eq!(state.record, record(2));
    let pending = pending_boxes(&world);
    assert_eq!(pending[0].identifiers, [identifier(1), identifier(2)]);
    // Whichever of the two is verified makes the box come to life.
    assert_eq!(
        world.activate(1, 1, 7),
        Ok(Outcome::BoxActivated {
            token_generation: 1
        })
    );
}

#[test]
fn a_box_that_is_never_authorised_is_dropped() {
    let mut world = world();
    let before = world.tables.clone();
    world.create_box(1, 1).unwrap();
    world.wait(DAY_MS - 1);
    world.create_box(1, 2).unwrap();
    world.wait(DAY_MS - 1);
    assert_eq!(world.expire_all(), 0);
    world.wait(1);
    assert_eq!(world.expire_all(), 1);
    assert_eq!(
        world.query(&Query::BoxState(box_id(1))),
        Answer::BoxState(None)
    );
    // Nothing is left of it.
    let mut empty = World {
        tables: before,
        ..world.clone()
    };
    empty.expire_all();
    assert_eq!(world.tables, empty.tables);
    assert_eq!(world.create_box(1, 1), Ok(Outcome::BoxCreated));
}

#[test]
fn activation_needs_the_box_its_device_and_its_identifier() {
    let mut world = world();
    let activate = |seed, device, number| {
        Command::ActivateBox(ActivateBox {
            box_id: box_id(seed),
            device: device_id(device),
            identifier: identifier(number),
            generation: 1,
        })
    };
    assert_eq!(world.refused(activate(1, 1, 1)), Rejection::UnknownBox);
    world.create_box(1, 1).unwrap();
    assert_eq!(world.refused(activate(1, 2, 1)), Rejection::UnknownDevice);
    assert_eq!(world.refused(activate(1, 1, 2)), Rejection::NoCodeRequested);
}

#[test]
fn a_discoverable_identifier_that_is_taken_is_refused_at_once_a_hidden_one_after_the_code() {
    let mut world = world();
    world.register(1);
    assert_eq!(
        world.refused(open_claim(2, 1, 9)),
        Rejection::IdentifierTaken
    );

    world.apply(open_hidden_claim(3, 30, 3)).unwrap();
    world.verify_claim(3, 30, 3).unwrap();
    assert_eq!(
        world.query(&Query::ResolveIdentifier(identifier(30))),
        Answer::ResolvedIdentifier(None)
    );
    world.wait(MINUTE_MS);
    assert_eq!(world.open_claim(2, 30, 9), Ok(Outcome::ClaimOpened));
    assert_eq!(
        world.verify_claim(2, 30, 8),
        Err(Rejection::WrongCode { attempts_left: 4 })
    );
    assert_eq!(
        world.refused(verify_claim(2, 30, 9)),
        Rejection::IdentifierTaken
    );
    assert_eq!(
        world.query(&Query::ResolveIdentifier(identifier(1))),
        Answer::ResolvedIdentifier(Some(box_id(1)))
    );
}

#[test]
fn of_two_boxes_with_good_codes_the_first_gets_the_identifier() {
    let mut world = world();
    world.open_claim(1, 50, 1).unwrap();
    world.wait(MINUTE_MS);
    world.open_claim(2, 50, 2).unwrap();
    // Neither can use the other's code.
    assert_eq!(
        world.verify_claim(1, 50, 2),
        Err(Rejection::WrongCode { attempts_left: 4 })
    );
    assert_eq!(world.verify_claim(2, 50, 2), verified(1));
    assert_eq!(
        world.refused(verify_claim(1, 50, 1)),
        Rejection::IdentifierTaken
    );
    assert_eq!(world.verify_claim(2, 50, 2), verified(1));
}

#[test]
fn a_box_that_lost_the_code_it_was_verified_with_can_ask_for_another() {
    let mut world = world();
    world.open_claim(1, 1, 1).unwrap();
    assert_eq!(world.verify_claim(1, 1, 1), verified(1));
    world.wait(MINUTE_MS);
    assert_eq!(world.open_claim(1, 1, 2), Ok(Outcome::ClaimOpened));
    assert_eq!(world.verify_claim(1, 1, 2), verified(1));
    assert_eq!(world.verify_claim(1, 1, 2), verified(1));
    assert_eq!(
        world.refused(verify_claim(1, 1, 1)),
        Rejection::NoCodeRequested
    );
}

#[test]
fn codes_wait_in_the_outbox_until_they_are_sent() {
    let mut world = world();
    world.open_claim(1, 1, 1).unwrap();
    let first = outbox(&world).remove(0);
    assert_eq!((first.identifier, first.box_id), (identifier(1), box_id(1)));
    world.wait(MINUTE_MS);
    world.open_claim(1, 1, 2).unwrap();
    let second = outbox(&world).remove(0);
    assert!(second.serial > first.serial);
    // The receipt for the first code does not take out the second.
    assert_eq!(
        world.mark_sent(1, 1, first.serial),
        Ok(Outcome::CodeMarkedSent)
    );
    assert_eq!(outbox(&world), std::slice::from_ref(&second));
    assert_eq!(
        world.mark_sent(1, 1, second.serial),
        Ok(Outcome::CodeMarkedSent)
    );
    assert_eq!(outbox(&world), []);
    assert_eq!(
        world.mark_sent(1, 1, second.serial),
        Ok(Outcome::CodeMarkedSent)
    );
    // The old code is void, the new one holds.
    assert!(matches!(
        world.verify_claim(1, 1, 1),
        Err(Rejection::WrongCode { .. })
    ));
    assert_eq!(world.verify_claim(1, 1, 2), verified(1));
}

#[test]
fn a_code_that_was_used_is_not_sent_any_more() {
    let mut world = world();
    world.open_claim(1, 1, 1).unwrap();
    world.verify_claim(1, 1, 1).unwrap();
    assert_eq!(outbox(&world), []);
}

#[test]
fn a_code_that_nobody_asked_for_is_refused() {
    assert_eq!(
        world().refused(verify_claim(1, 1, 1)),
        Rejection::NoCodeRequested
    );
}

#[test]
fn wrong_codes_use_up_the_attempts_and_then_the_right_one_is_void() {
    let mut world = world();
    world.open_claim(1, 1, 1).unwrap();
    for attempts_left in (0..5).rev() {
        let wrong = Err(Rejection::WrongCode { attempts_left });
        assert_eq!(world.verify_claim(1, 1, 9), wrong);
    }
    assert_eq!(
        world.refused(verify_claim(1, 1, 9)),
        Rejection::CodeExhausted
    );
    assert_eq!(
        world.refused(verify_claim(1, 1, 1)),
        Rejection::CodeExhausted
    );
    world.wait(MINUTE_MS);
    world.open_claim(1, 1, 2).unwrap();
    assert_eq!(world.verify_claim(1, 1, 2), verified(1));
}

#[test]
fn an_expired_code_is_refused_and_in_the_end_forgotten() {
    let mut world = world();
    world.open_claim(1, 1, 1).unwrap();
    world.wait(10 * MINUTE_MS);
    assert_eq!(outbox(&world), []);
    assert_eq!(world.refused(verify_claim(1, 1, 1)), Rejection::CodeExpired);
    assert_eq!(world.expire_all(), 1, "the sealed code");
    assert_eq!(world.refused(verify_claim(1, 1, 1)), Rejection::CodeExpired);
    world.wait(DAY_MS);
    assert_eq!(world.expire_all(), 2, "the pending claim and the budget");
    assert_eq!(
        world.refused(verify_claim(1, 1, 1)),
        Rejection::NoCodeRequested
    );
}

#[test]
fn codes_come_with_growing_pauses_and_a_daily_budget() {
    let mut world = world();
    let start = world.now;
    for pause in [1, 2, 4, 8, 16] {
        assert_eq!(world.open_claim(1, 1, 1), Ok(Outcome::ClaimOpened));
        world.wait(pause * MINUTE_MS - 1);
        // Whichever box asks: the person behind the identifier is the one who is bothered.
        let retry_at = if pause == 16 {
            start.plus_millis(DAY_MS)
        } else {
            world.now.plus_millis(1)
        };
        assert_eq!(
            world.refused(open_claim(2, 1, 2)),
            Rejection::TooManyCodes { retry_at }
        );
        world.wait(1);
    }
    assert!(matches!(
        world.refused(open_claim(1, 1, 1)),
        Rejection::TooManyCodes { .. }
    ));
    assert_eq!(
        world.open_claim(1, 2, 1),
        Ok(Outcome::ClaimOpened),
        "another identifier"
    );
    world.now = start.plus_millis(DAY_MS);
    assert_eq!(world.open_claim(1, 1, 1), Ok(Outcome::ClaimOpened));
}

#[test]
fn only_so_many_boxes_try_for_one_identifier_at_a_time() {
    let limits = Limits {
        pending_per_identifier: 2,
        codes_per_day: 100,
        code_pause_ms: 0,
        ..Limits::default()
    };
    let mut world = World::new(limits);
    let retry_at = world.now.plus_millis(10 * MINUTE_MS);
    world.open_claim(1, 1, 1).unwrap();
    world.wait(MINUTE_MS);
    world.open_claim(2, 1, 2).unwrap();
    assert_eq!(
        world.refused(open_claim(3, 1, 3)),
        Rejection::TooManyCodes { retry_at }
    );
    // One of them may renew its own.
    assert_eq!(world.open_claim(1, 1, 4), Ok(Outcome::ClaimOpened));
    // The second's expires first now, and gives up its place.
    world.wait(10 * MINUTE_MS - 1);
    assert!(matches!(
        world.refused(open_claim(3, 1, 3)),
        Rejection::TooManyCodes { .. }
    ));
    world.wait(1);
    assert_eq!(world.open_claim(3, 1, 3), Ok(Outcome::ClaimOpened));
    assert_eq!(world.verify_claim(3, 1, 3), verified(1));
}

#[test]
fn nothing_is_left_of_codes_in_the_end() {
    let mut world = world();
    let mut empty = world.clone();
    for number in 1..=5 {
        world.open_claim(1, number, 1).unwrap();
        world.wait(MINUTE_MS);
        world.open_claim(2, number, 2).unwrap();
    }
    world.wait(3 * DAY_MS);
    empty.now = world.now;
    world.expire_all();
    empty.expire_all();
    // The serials that were given out stay.
    let meta = world.tables.meta().unwrap();
    empty.tables.put_meta(&meta).unwrap();
    assert_eq!(world.tables, empty.tables);
}

fn mark_unsent(world: &mut World, serial: u64, gave_up: bool) {
    let row = OutboxItem {
        serial,
        ..outbox(world).remove(0)
    };
    let marked = world.apply(Command::MarkCodeUnsent(MarkCodeUnsent {
        identifier: row.identifier,
        box_id: row.box_id,
        serial,
        gave_up,
    }));
    assert_eq!(marked, Ok(Outcome::CodeMarkedUnsent));
}

/// A box that waits for its code, and the sending's serial.
fn waiting() -> (World, u64) {
    let mut world = world();
    world.claim_device(1, box_id(1)).unwrap();
    world.create_box(1, 1).unwrap();
    world.open_claim(1, 1, 1).unwrap();
    let serial = outbox(&world)[0].serial;
    (world, serial)
}

fn not_sent(reply: &Result<Outcome, Rejection>) -> Option<bool> {
    match reply {
        Err(Rejection::CodeNotSent { trying, .. }) => Some(*trying),
        _ => None,
    }
}

#[test]
fn who_waits_for_a_code_that_is_late_is_told_until_it_is_sent() {
    let (mut world, serial) = waiting();
    mark_unsent(&mut world, serial, false);
    assert_eq!(outbox(&world).len(), 1);
    assert_eq!(not_sent(&world.verify_claim(1, 1, 9)), Some(true));
    assert_eq!(not_sent(&world.open_claim(1, 1, 2)), Some(true));
    world.mark_sent(1, 1, serial).unwrap();
    assert!(matches!(
        world.verify_claim(1, 1, 9),
        Err(Rejection::WrongCode { .. })
    ));
    assert!(world.verify_claim(1, 1, 1).is_ok());
}

#[test]
fn a_code_that_was_given_up_leaves_the_outbox_and_its_guesses_still_count() {
    let (mut world, serial) = waiting();
    mark_unsent(&mut world, serial, true);
    assert_eq!(outbox(&world), []);
    for _ in 0..Limits::default().code_attempts {
        assert_eq!(not_sent(&world.verify_claim(1, 1, 9)), Some(false));
    }
    assert_eq!(world.verify_claim(1, 1, 1), Err(Rejection::CodeExhausted));
}

#[test]
fn news_of_another_sending_changes_nothing() {
    let (mut world, serial) = waiting();
    mark_unsent(&mut world, serial + 1, true);
    assert_eq!(outbox(&world).len(), 1);
    assert!(matches!(
        world.verify_claim(1, 1, 9),
        Err(Rejection::WrongCode { .. })
    ));
}
