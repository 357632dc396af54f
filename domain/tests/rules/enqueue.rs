//! Enqueue: how an envelope gets into a queue, and each way in which it does not.

use bytes::Bytes;
use rossby_domain::command::{Accept, SetTtl};
use rossby_domain::dedupe::WINDOW;
use rossby_domain::ids::{Counter, DeviceAddress};
use rossby_domain::limits::Limits;
use rossby_domain::tables::Tables as _;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common;
use crate::common::device_id;
use crate::common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, enqueued, letter, short_lived, sized_letter,
    two_people,
};

#[test]
fn letters_are_fetched_in_the_order_they_were_sent() {
    let mut world = two_people(Limits::default());
    for (counter, text) in [(1, "one"), (2, "two"), (7, "three")] {
        world
            .send(letter(address(1), box_id(2), counter, text))
            .unwrap();
    }
    let expected = [(1, "one"), (2, "two"), (3, "three")].map(|(n, t)| (n, t.to_owned()));
    assert_eq!(world.inbox(address(2)), expected);
    // Fetching moves nothing.
    assert_eq!(world.inbox(address(2)), expected);
}

#[test]
fn a_retry_gets_the_first_outcome_and_makes_no_second_envelope() {
    let mut world = two_people(Limits::default());
    let sent = letter(address(1), box_id(2), 1, "hello");
    assert_eq!(world.send(sent.clone()), enqueued(1));
    assert_eq!(world.send(sent.clone()), enqueued(1));
    assert_eq!(world.inbox(address(2)).len(), 1);
    // Nor once it was purged.
    world.acknowledge(address(2), 1).unwrap();
    assert_eq!(world.send(sent), enqueued(1));
    assert_eq!(world.inbox(address(2)), []);
}

#[test]
fn a_retry_gets_the_first_outcome_though_the_chain_has_changed_or_the_queue_is_full() {
    let mut world = two_people(Limits {
        queue_envelopes: 1,
        ..Limits::default()
    });
    let sent = letter(address(1), box_id(2), 1, "hello");
    assert_eq!(world.send(sent.clone()), enqueued(1));
    let second = letter(address(1), box_id(2), 2, "more");
    assert_eq!(
        world.refused(Command::Enqueue(second)),
        Rejection::SenderShareFull
    );
    assert_eq!(world.send(sent.clone()), enqueued(1));

    let longer = common::add(&common::record(2), 9, 2).unwrap();
    world.tables.update_key_record(&box_id(2), &longer).unwrap();
    assert_eq!(world.send(sent), enqueued(1));
}

#[test]
fn a_counter_used_for_another_text_is_refused() {
    let mut world = two_people(Limits::default());
    world
        .send(letter(address(1), box_id(2), 4, "hello"))
        .unwrap();
    let other = letter(address(1), box_id(2), 4, "another");
    assert_eq!(
        world.refused(Command::Enqueue(other)),
        Rejection::CounterReused { next: Counter(5) }
    );
}

#[test]
fn a_counter_that_was_passed_over_is_not_accepted() {
    let mut world = two_people(Limits::default());
    world
        .send(letter(address(1), box_id(2), 4, "hello"))
        .unwrap();
    for counter in [0, 3] {
        let passed = letter(address(1), box_id(2), counter, "late");
        assert_eq!(
            world.refused(Command::Enqueue(passed)),
            Rejection::NotAccepted { next: Counter(5) }
        );
    }
}

#[test]
fn a_counter_older_than_the_window_is_forgotten() {
    let mut world = two_people(Limits::default());
    let last = WINDOW as u64 + 1;
    for counter in 1..=last {
        world
            .send(letter(address(1), box_id(2), counter, "hello"))
            .unwrap();
    }
    let first = letter(address(1), box_id(2), 1, "hello");
    assert_eq!(
        world.refused(Command::Enqueue(first)),
        Rejection::CounterForgotten {
            next: Counter(last + 1)
        }
    );
    assert_eq!(
        world.send(letter(address(1), box_id(2), 2, "hello")),
        enqueued(2)
    );
}

#[test]
fn an_unknown_an_inactive_and_a_blocking_box_look_the_same() {
    let mut world = two_people(Limits::default());
    let sent = letter(address(1), box_id(2), 1, "hello");
    world.send(sent.clone()).unwrap();
    world.block(2, 1, true).unwrap();
    world.create_box(4, 4).unwrap();

    let to = |to, counter| Command::Enqueue(letter(address(1), box_id(to), counter, "hello"));
    assert_eq!(world.refused(to(3, 1)), Rejection::UnknownBox);
    assert_eq!(world.refused(to(4, 1)), Rejection::UnknownBox);
    assert_eq!(world.refused(to(2, 2)), Rejection::UnknownBox);
    // Even the retry of what was stored before the block, and what is refused otherwise.
    assert_eq!(world.refused(Command::Enqueue(sent)), Rejection::UnknownBox);
    let large = Bytes::from(vec![0; 1 << 20]);
    let large = Command::Enqueue(sized_letter(address(1), box_id(2), 2, large));
    assert_eq!(world.refused(large), Rejection::UnknownBox);
    for seen in [2, 3, 4] {
        let query = Query::KeyRecord {
            box_id: box_id(seen),
            sender: address(1),
        };
        assert_eq!(world.query(&query), Answer::KeyRecord(None));
    }

    world.block(2, 1, false).unwrap();
    assert_eq!(
        world.send(letter(address(1), box_id(2), 2, "again")),
        enqueued(2)
    );
}

#[test]
fn an_envelope_too_large_is_refused_before_a_stale_one() {
    let mut world = two_people(Limits {
        envelope_bytes: 4,
        ..Limits::default()
    });
    let mut large = letter(address(1), box_id(2), 1, "hello");
    large.chain_version = 1;
    assert_eq!(
        world.refused(Command::Enqueue(large)),
        Rejection::EnvelopeTooLarge { limit_bytes: 4 }
    );
    assert_eq!(
        world.send(letter(address(1), box_id(2), 1, "hell")),
        enqueued(1)
    );
}

#[test]
fn an_envelope_for_another_chain_version_is_refused_and_consumes_no_counter() {
    let mut world = two_people(Limits::default());
    let mut stale = letter(address(1), box_id(2), 1, "hello");
    stale.chain_version = 1;
    assert_eq!(
        world.refused(Command::Enqueue(stale)),
        Rejection::StaleKeyRecord { current: 0 }
    );
    assert_eq!(
        world.send(letter(address(1), box_id(2), 1, "hello")),
        enqueued(1)
    );
}

#[test]
fn a_share_counts_bytes_too() {
    let mut world = two_people(Limits {
        queue_bytes: 40,
        ..Limits::default()
    });
    world
        .send(letter(address(1), box_id(2), 1, "12345"))
        .unwrap();
    let more = Command::Enqueue(letter(address(1), box_id(2), 2, "123456"));
    assert_eq!(world.refused(more), Rejection::SenderShareFull);
    assert_eq!(
        world.send(letter(address(1), box_id(2), 2, "12345")),
        enqueued(2)
    );
}

#[test]
fn a_full_queue_is_refused() {
    let limits = Limits {
        queue_envelopes: 2,
        sender_share_percent: 50,
        ..Limits::default()
    };
    let mut world = two_people(limits);
    world.register(3);
    world.send(letter(address(1), box_id(2), 1, "one")).unwrap();
    world.send(letter(address(3), box_id(2), 1, "two")).unwrap();
    let third = Command::Enqueue(letter(address(2), box_id(2), 1, "three"));
    assert_eq!(world.refused(third), Rejection::QueueFull);
}

#[test]
fn the_last_tenth_of_a_queue_is_for_contacts() {
    let ten = Limits {
        queue_envelopes: 10,
        sender_share_percent: 100,
        ..Limits::default()
    };
    let mut world = two_people(ten);
    world.register(3);
    for counter in 1..=9 {
        let sent = world.send(letter(address(1), box_id(2), counter, "hello"));
        assert_eq!(sent, enqueued(counter));
    }
    for stranger in [1, 3] {
        let tenth = Command::Enqueue(letter(address(stranger), box_id(2), 10, "more"));
        assert_eq!(world.refused(tenth), Rejection::QueueFull);
    }
    // Whom the box has written to, its own devices, and everybody if it hears contacts only.
    let tenth = || letter(address(3), box_id(2), 10, "an answer");
    let sent = world.clone().apply(Command::EnqueueOfContact(tenth()));
    assert_eq!(sent, enqueued(10));
    let to_itself = letter(address(2), box_id(2), 1, "note");
    assert_eq!(world.clone().send(to_itself), enqueued(10));
    let only_3 = Accept {
        box_id: box_id(2),
        contacts_only: Some(true),
        allow: vec![box_id(3)],
        disallow: Vec::new(),
    };
    world.apply(Command::Accept(only_3)).unwrap();
    assert_eq!(world.send(tenth()), enqueued(10));
    // Then it is full for contacts too.
    let eleventh = letter(address(3), box_id(2), 11, "more");
    let eleventh = Command::EnqueueOfContact(eleventh);
    assert_eq!(world.refused(eleventh), Rejection::QueueFull);
}

#[test]
fn the_last_tenth_counts_bytes_too_and_no_contact_has_more_than_a_share() {
    let mut world = two_people(Limits {
        queue_bytes: 100,
        sender_share_percent: 95,
        ..Limits::default()
    });
    let body = |bytes| Bytes::from(vec![0; bytes]);
    let first = sized_letter(address(1), box_id(2), 1, body(90));
    assert_eq!(world.send(first), enqueued(1));
    let beyond = |bytes| sized_letter(address(1), box_id(2), 2, body(bytes));
    let refused = world.refused(Command::Enqueue(beyond(1)));
    assert_eq!(refused, Rejection::QueueFull);
    let refused = world.refused(Command::EnqueueOfContact(beyond(6)));
    assert_eq!(refused, Rejection::SenderShareFull);
    let sent = world.apply(Command::EnqueueOfContact(beyond(5)));
    assert_eq!(sent, enqueued(2));
}

#[test]
fn expired_envelopes_make_room_at_once() {
    let mut world = two_people(Limits {
        queue_envelopes: 4,
        ..Limits::default()
    });
    world
        .send(short_lived(
            letter(address(1), box_id(2), 1, "one"),
            MINUTE_MS,
        ))
        .unwrap();
    let second = letter(address(1), box_id(2), 2, "two");
    let refused = world.refused(Command::Enqueue(second.clone()));
    assert_eq!(refused, Rejection::SenderShareFull);
    world.wait(MINUTE_MS);
    assert_eq!(world.send(second), enqueued(2));
    let status = world.page(address(2), 0, 10).unwrap().status;
    assert_eq!(
        (status.depth, status.bytes, status.expired_total),
        (1, 3, 1)
    );
}

#[test]
fn a_ttl_is_capped_by_the_limit() {
    let mut world = two_people(Limits::default());
    let sent = short_lived(letter(address(1), box_id(2), 1, "hello"), u64::MAX);
    world.send(sent).unwrap();
    let envelope = world.page(address(2), 0, 1).unwrap().envelopes.remove(0);
    assert_eq!(
        envelope.expires_at.millis_since(envelope.enqueued_at),
        30 * DAY_MS
    );
}

#[test]
fn a_statement_of_how_long_mail_may_wait_is_good_once_and_never_for_less_than_a_minute() {
    let mut world = two_people(Limits::default());
    let set = |longest_ms, number| {
        Command::SetTtl(SetTtl {
            box_id: box_id(2),
            longest_ms,
            number,
        })
    };
    let status = |world: &World| {
        let status = world.page(address(2), 0, 1).unwrap().status;
        (status.ttl_ms, status.ttl_number)
    };
    assert_eq!(status(&world), (30 * DAY_MS, 0));
    let short = set(Some(0), 1);
    let set_to = |ttl_ms| Ok(Outcome::TtlSet { ttl_ms });
    for _ in 0..2 {
        assert_eq!(world.apply(short.clone()), set_to(MINUTE_MS));
    }
    assert_eq!(status(&world), (MINUTE_MS, 1));
    assert_eq!(world.apply(set(None, 2)), set_to(30 * DAY_MS));
    // Neither the old one again, nor another under a number that is taken, nor one that takes all numbers.
    let others = [
        set(Some(DAY_MS), 2),
        set(None, 1),
        set(Some(DAY_MS), u64::MAX),
    ];
    for other in [short].into_iter().chain(others) {
        let used = Rejection::TtlNumberUsed { current: 2 };
        assert_eq!(world.refused(other), used);
    }
    assert_eq!(status(&world), (30 * DAY_MS, 2));
}

#[test]
fn what_expired_before_all_devices_had_acknowledged_it_is_counted_whoever_comes_first() {
    let mut world = two_people(Limits::default());
    let short = |counter| {
        let sent = letter(address(1), box_id(2), counter, "hello");
        short_lived(sent, 60 * MINUTE_MS)
    };
    world.send(short(1)).unwrap();
    world.wait(MINUTE_MS);
    let long = letter(address(1), box_id(2), 2, "hello");
    world.send(long).unwrap();
    let expired = |world: &World| {
        let status = world.page(address(2), 0, 1).unwrap().status;
        (status.expired_total, status.oldest)
    };
    let came = world.now;
    world.wait(30 * MINUTE_MS);
    world.send(short(3)).unwrap();
    world.wait(40 * MINUTE_MS);
    // It is not shown any more, and is not the oldest one either, though its row is there still.
    assert_eq!(expired(&world), (0, Some(came)));
    world.acknowledge(address(2), 2).unwrap();
    assert_eq!(expired(&world), (1, Some(came.plus_millis(30 * MINUTE_MS))));
    // What was read in time is not.
    world.acknowledge(address(2), 3).unwrap();
    world.wait(2 * DAY_MS);
    world.expire_all();
    assert_eq!(expired(&world), (1, None));
    world.send(short(4)).unwrap();
    world.wait(2 * DAY_MS);
    assert_eq!(expired(&world), (1, None));
    world.expire_all();
    assert_eq!(expired(&world), (2, None));
}

#[test]
fn the_shortest_of_what_cluster_box_and_sender_want_counts() {
    let mut world = two_people(Limits::default());
    let mut number = 0;
    let mut set = |longest_ms| {
        number += 1;
        Command::SetTtl(SetTtl {
            box_id: box_id(2),
            longest_ms,
            number,
        })
    };
    let mut counter = 0;
    let mut lives = |world: &mut World, wanted: Option<u64>| {
        counter += 1;
        let sent = letter(address(1), box_id(2), counter, "hello");
        let sent = wanted.map_or(sent.clone(), |ttl_ms| short_lived(sent, ttl_ms));
        world.send(sent).unwrap();
        let page = world.page(address(2), counter - 1, 1).unwrap();
        let life = page.envelopes[0].expires_at.millis_since(world.now);
        (life, page.status.ttl_ms)
    };
    assert_eq!(lives(&mut world, None), (30 * DAY_MS, 30 * DAY_MS));
    let ttl_ms = DAY_MS;
    let reply = world.apply(set(Some(DAY_MS)));
    assert_eq!(reply, Ok(Outcome::TtlSet { ttl_ms }));
    assert_eq!(lives(&mut world, None), (DAY_MS, DAY_MS));
    let longer = Some(2 * DAY_MS);
    assert_eq!(lives(&mut world, longer), (DAY_MS, DAY_MS));
    let shorter = Some(MINUTE_MS);
    assert_eq!(lives(&mut world, shorter), (MINUTE_MS, DAY_MS));
    // Nobody waits longer than the cluster lets them.
    let ttl_ms = 30 * DAY_MS;
    for longest_ms in [Some(31 * DAY_MS), None] {
        let reply = world.apply(set(longest_ms));
        assert_eq!(reply, Ok(Outcome::TtlSet { ttl_ms }));
        assert_eq!(lives(&mut world, None), (ttl_ms, ttl_ms));
    }
    // What came before keeps what it was given.
    world.wait(DAY_MS);
    world.expire_all();
    assert_eq!(world.inbox(address(2)).len(), 3);
    let unknown = SetTtl {
        box_id: box_id(9),
        longest_ms: None,
        number: 1,
    };
    let unknown = Command::SetTtl(unknown);
    assert_eq!(world.refused(unknown), Rejection::UnknownBox);
}

#[test]
fn a_sender_box_gets_a_quarter_of_a_queue_whatever_its_devices() {
    let mut world = two_people(Limits {
        queue_envelopes: 8,
        ..Limits::default()
    });
    let second_device = DeviceAddress {
        box_id: box_id(1),
        device: device_id(77),
    };
    world.send(letter(address(1), box_id(2), 1, "one")).unwrap();
    world
        .send(letter(second_device, box_id(2), 1, "two"))
        .unwrap();
    for sender in [address(1), second_device] {
        let third = Command::Enqueue(letter(sender, box_id(2), 2, "three"));
        assert_eq!(world.refused(third), Rejection::SenderShareFull);
    }
    // Others still have theirs, and what the recipient acknowledged counts no more.
    world
        .send(letter(address(2), box_id(2), 1, "to myself"))
        .unwrap();
    world.acknowledge(address(2), 1).unwrap();
    assert_eq!(
        world.send(letter(second_device, box_id(2), 2, "three")),
        enqueued(4)
    );
}
