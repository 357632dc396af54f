//! Fetch, Acknowledge, Block, and how envelopes leave a queue.

use rossby_domain::command::{Acknowledge, Block, Expire};
use rossby_domain::ids::{Counter, DeviceAddress, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common;
use crate::common::device_id;
use crate::common::world::{DAY_MS, MINUTE_MS, address, box_id, letter, short_lived, two_people};

#[test]
fn an_expired_envelope_is_not_shown_and_then_purged() {
    let mut world = two_people(Limits::default());
    world
        .send(short_lived(
            letter(address(1), box_id(2), 1, "short"),
            MINUTE_MS,
        ))
        .unwrap();
    world
        .send(letter(address(1), box_id(2), 2, "long"))
        .unwrap();
    world.wait(MINUTE_MS - 1);
    assert_eq!(world.inbox(address(2)).len(), 2);
    world.wait(1);
    assert_eq!(world.inbox(address(2)), [(2, "long".to_owned())]);
    world.wait(DAY_MS);
    world.expire_all();
    let status = world.page(address(2), 0, 10).unwrap().status;
    assert_eq!(
        (status.depth, status.bytes, status.expired_total),
        (1, 4, 1)
    );
    world.wait(30 * DAY_MS);
    world.expire_all();
    let status = world.page(address(2), 0, 10).unwrap().status;
    assert_eq!(
        (status.depth, status.bytes, status.expired_total),
        (0, 0, 2)
    );
    assert_eq!(status.last, Sequence(2));
}

#[test]
fn a_cursor_never_goes_back() {
    let mut world = two_people(Limits::default());
    for counter in 1..=3 {
        world
            .send(letter(address(1), box_id(2), counter, "hello"))
            .unwrap();
    }
    let acknowledged = |cursor, purged| {
        Ok(Outcome::Acknowledged {
            cursor: Sequence(cursor),
            purged,
        })
    };
    assert_eq!(world.acknowledge(address(2), 2), acknowledged(2, 2));
    assert_eq!(world.acknowledge(address(2), 1), acknowledged(2, 0));
    assert_eq!(world.inbox(address(2)), [(3, "hello".to_owned())]);
}

#[test]
fn what_was_never_enqueued_can_not_be_acknowledged() {
    let mut world = two_people(Limits::default());
    world
        .send(letter(address(1), box_id(2), 1, "hello"))
        .unwrap();
    let beyond = Acknowledge {
        device: address(2),
        upto: Sequence(2),
    };
    assert_eq!(
        world.refused(Command::Acknowledge(beyond)),
        Rejection::BeyondQueue { last: Sequence(1) }
    );
}

#[test]
fn only_an_authorised_device_of_an_active_box_acknowledges_or_fetches() {
    let mut world = two_people(Limits::default());
    world.create_box(4, 4).unwrap();
    let stranger = DeviceAddress {
        box_id: box_id(2),
        device: device_id(1),
    };
    for (device, expected) in [
        (address(3), Rejection::UnknownBox),
        (address(4), Rejection::UnknownBox),
        (stranger, Rejection::UnknownDevice),
    ] {
        let command = Acknowledge {
            device,
            upto: Sequence(0),
        };
        assert_eq!(world.refused(Command::Acknowledge(command)), expected);
        assert_eq!(world.page(device, 0, 1), None);
        assert_eq!(
            world.query(&Query::DeviceAuth(device)),
            Answer::DeviceAuth(None)
        );
    }
    assert_eq!(
        world.query(&Query::DeviceAuth(address(2))),
        Answer::DeviceAuth(Some(1))
    );
}

#[test]
fn a_large_acknowledgement_is_purged_in_parts_and_to_the_end() {
    let limits = Limits {
        sender_share_percent: 100,
        ..Limits::default()
    };
    let mut world = two_people(limits);
    for counter in 1..=1500 {
        world
            .send(letter(address(1), box_id(2), counter, "hello"))
            .unwrap();
    }
    let Ok(Outcome::Acknowledged { cursor, purged }) = world.acknowledge(address(2), 1500) else {
        panic!()
    };
    assert_eq!((cursor, purged), (Sequence(1500), 1024));
    assert_eq!(world.inbox(address(2)), []);
    // Long before they would have expired, and not counted as unread.
    assert_eq!(world.expire_all(), 1500 - 1024);
    let status = world.page(address(2), 0, 1).unwrap().status;
    assert_eq!(
        (status.depth, status.bytes, status.expired_total),
        (0, 0, 0)
    );
}

#[test]
fn a_page_keeps_to_its_bounds_and_says_whether_there_is_more() {
    let mut world = two_people(Limits::default());
    for counter in 1..=4 {
        world
            .send(letter(address(1), box_id(2), counter, "12345"))
            .unwrap();
    }
    let page = |after, max_envelopes, max_bytes| {
        let after = Sequence(after);
        let query = Query::Fetch {
            device: address(2),
            after,
            max_envelopes,
            max_bytes,
        };
        let Answer::Page(Some(page)) = world.query(&query) else {
            panic!()
        };
        (
            page.envelopes
                .iter()
                .map(|e| e.sequence.0)
                .collect::<Vec<_>>(),
            page.more,
        )
    };
    assert_eq!(page(0, 10, 1000), (vec![1, 2, 3, 4], false));
    assert_eq!(page(0, 2, 1000), (vec![1, 2], true));
    assert_eq!(page(0, 10, 14), (vec![1, 2], true));
    assert_eq!(page(0, 10, 1), (vec![1], true));
    assert_eq!(page(3, 1, 1), (vec![4], false));
    assert_eq!(page(0, 0, 0), (vec![], true));
    assert_eq!(page(9, 10, 1000), (vec![], false));
}

#[test]
fn the_key_record_comes_with_the_senders_free_counter() {
    let mut world = two_people(Limits::default());
    world
        .send(letter(address(1), box_id(2), 6, "hello"))
        .unwrap();
    let counter = |sender| {
        let query = Query::KeyRecord {
            box_id: box_id(2),
            sender,
        };
        let Answer::KeyRecord(Some(found)) = world.query(&query) else {
            panic!()
        };
        assert_eq!(found.record, common::record(2));
        found.next_counter
    };
    assert_eq!(counter(address(1)), Counter(7));
    assert_eq!(counter(address(2)), Counter(1));
}

#[test]
fn the_list_of_blocked_boxes_is_bounded() {
    let mut world = two_people(Limits {
        blocked_boxes: 1,
        ..Limits::default()
    });
    world.block(2, 1, true).unwrap();
    world.block(2, 1, true).unwrap();
    let third = Block {
        box_id: box_id(2),
        other: box_id(3),
        blocked: true,
    };
    assert_eq!(
        world.refused(Command::Block(third.clone())),
        Rejection::TooManyBlocked { limit: 1 }
    );
    world.block(2, 1, false).unwrap();
    assert_eq!(
        world.apply(Command::Block(third)),
        Ok(Outcome::BlockChanged)
    );
    let absent = Block {
        box_id: box_id(9),
        other: box_id(1),
        blocked: true,
    };
    assert_eq!(world.refused(Command::Block(absent)), Rejection::UnknownBox);
}

#[test]
fn expiry_looks_at_a_bounded_number_of_envelopes_and_comes_to_the_end() {
    let limits = Limits {
        sender_share_percent: 100,
        ..Limits::default()
    };
    let mut world = two_people(limits);
    // Those that expire lie behind many that do not.
    for counter in 1..=50 {
        world
            .send(letter(address(1), box_id(2), counter, "long"))
            .unwrap();
    }
    for counter in 51..=60 {
        let sent = letter(address(1), box_id(2), counter, "short");
        world.send(short_lived(sent, MINUTE_MS)).unwrap();
    }
    world.wait(DAY_MS);
    assert_eq!(
        world.apply(Command::Expire(Expire { limit: 20 })),
        Ok(Outcome::Expired {
            removed: 0,
            more: true
        })
    );
    world.expire_all();
    let status = world.page(address(2), 0, 1).unwrap().status;
    assert_eq!((status.depth, status.expired_total), (50, 10));
}
