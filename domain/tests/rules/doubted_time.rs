//! While the leader doubts its clock no mail expires, whatever the clock shows.

use rossby_domain::command::Enqueue;
use rossby_domain::limits::Limits;
use rossby_domain::tables::ReadTables as _;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, enqueued, letter, short_lived, two_people,
};

const YEAR_MS: u64 = 365 * DAY_MS;

fn first() -> Enqueue {
    letter(address(1), box_id(2), 1, "one")
}

fn nothing_left_to_remove() -> Result<Outcome, Rejection> {
    Ok(Outcome::Expired {
        removed: 0,
        more: false,
    })
}

/// A letter waits, and the clock shows a year later than it is.
fn a_letter_and_a_wrong_clock(limits: Limits) -> World {
    let mut world = two_people(limits);
    world.send(first()).unwrap();
    world.may_expire = false;
    world.wait(YEAR_MS);
    world
}

#[test]
fn no_envelope_is_hidden_or_purged_and_letters_come_and_go() {
    let mut world = a_letter_and_a_wrong_clock(Limits::default());
    assert_eq!(world.expire(100), nothing_left_to_remove());
    assert_eq!(
        world.send(letter(address(1), box_id(2), 2, "two")),
        enqueued(2)
    );
    world.block(2, 3, true).unwrap();
    let both = [(1, "one".to_owned()), (2, "two".to_owned())];
    assert_eq!(world.inbox(address(2)), both);
    world.acknowledge(address(2), 1).unwrap();
    assert_eq!(world.inbox(address(2)), both[1..]);
    let status = world.page(address(2), 0, 10).unwrap().status;
    assert_eq!((status.depth, status.expired_total), (1, 0));
}

#[test]
fn a_full_queue_stays_full() {
    let mut world = a_letter_and_a_wrong_clock(Limits {
        queue_envelopes: 1,
        ..Limits::default()
    });
    let second = letter(address(1), box_id(2), 2, "two");
    let refused = world.refused(Command::Enqueue(second.clone()));
    assert_eq!(refused, Rejection::SenderShareFull);
    assert_eq!(world.inbox(address(2)).len(), 1);
    // It was not for want of time.
    world.may_expire = true;
    assert_eq!(world.send(second), enqueued(2));
}

#[test]
fn a_box_that_waits_for_its_code_is_kept() {
    let mut world = two_people(Limits::default());
    world.create_box(3, 3).unwrap();
    world.may_expire = false;
    world.wait(YEAR_MS);
    assert_eq!(world.expire_all(), 0);
    let box_state = Query::BoxState(box_id(3));
    assert!(matches!(world.query(&box_state), Answer::BoxState(Some(_))));
    world.may_expire = true;
    world.expire_all();
    assert_eq!(world.query(&box_state), Answer::BoxState(None));
}

#[test]
fn a_code_still_runs_out() {
    let mut world = two_people(Limits::default());
    world.claim_device(3, box_id(3)).unwrap();
    world.create_box(3, 3).unwrap();
    world.open_claim(3, 3, 3).unwrap();
    world.may_expire = false;
    world.wait(10 * MINUTE_MS);
    assert_eq!(world.verify_claim(3, 3, 3), Err(Rejection::CodeExpired));
}

#[test]
fn once_the_time_is_confirmed_what_is_over_goes() {
    let mut world = a_letter_and_a_wrong_clock(Limits::default());
    world.expire(100).unwrap();
    world.may_expire = true;
    assert_eq!(world.inbox(address(2)), []);
    assert!(world.expire_all() >= 1);
    let status = world.page(address(2), 0, 10).unwrap().status;
    assert_eq!((status.depth, status.expired_total), (0, 1));
}

#[test]
fn a_wrong_time_that_was_doubted_harms_no_mail_after_the_clock_was_set_right() {
    let mut world = a_letter_and_a_wrong_clock(Limits::default());
    world.expire(100).unwrap();
    let late = short_lived(letter(address(1), box_id(2), 2, "two"), MINUTE_MS);
    world.send(late).unwrap();
    let right = world
        .tables
        .meta()
        .unwrap()
        .expiry_clock
        .plus_millis(DAY_MS);
    world.now = right;
    world.may_expire = true;
    world.expire_all();
    assert_eq!(world.inbox(address(2)).len(), 2);
    let meta = world.tables.meta().unwrap();
    assert_eq!(meta.expiry_clock, right);
    assert!(meta.clock > right, "the partition's clock never goes back");
    // And time goes on from there.
    world.wait(32 * DAY_MS);
    world.expire(100).unwrap();
    assert_eq!(world.inbox(address(2)), [(2, "two".to_owned())]);
}
