//! Boxes that are suspended, and boxes that others report.

use rossby_domain::command::{CountReport, Suspend};
use rossby_domain::ids::BoxId;
use rossby_domain::limits::Limits;
use rossby_domain::query::{BoxView, ReportedBox};
use rossby_domain::report::ReportMark;
use rossby_domain::tables::Tables as _;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection};

use crate::common::world::{DAY_MS, World, address, box_id, letter, two_people};

fn suspend(seed: u8, suspended: bool) -> Command {
    let box_id = box_id(seed);
    Command::Suspend(Suspend { box_id, suspended })
}

fn is_suspended(world: &World, seed: u8) -> bool {
    world.query(&Query::IsSuspended(box_id(seed))) == Answer::IsSuspended(true)
}

fn view(world: &World, box_id: BoxId) -> Option<BoxView> {
    match world.query(&Query::BoxView(box_id)) {
        Answer::BoxView(view) => view,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_suspended_box_gets_mail_and_reads_it_and_its_devices_are_told() {
    let mut world = two_people(Limits::default());
    for changed in [true, false] {
        let reply = world.apply(suspend(2, true));
        assert_eq!(reply, Ok(Outcome::SuspensionSet { changed }));
        assert!(is_suspended(&world, 2) && !is_suspended(&world, 1));
    }
    world
        .send(letter(address(1), box_id(2), 1, "hello"))
        .unwrap();
    assert_eq!(world.inbox(address(2)), [(1, "hello".to_owned())]);
    assert!(world.page(address(2), 0, 1).unwrap().status.suspended);
    world.acknowledge(address(2), 1).unwrap();
    for changed in [true, false] {
        let reply = world.apply(suspend(2, false));
        assert_eq!(reply, Ok(Outcome::SuspensionSet { changed }));
        assert!(!is_suspended(&world, 2));
    }
    // Who is not there, here at least, sends nothing either.
    assert_eq!(world.refused(suspend(9, true)), Rejection::UnknownBox);
    world.create_box(3, 3).unwrap();
    assert_eq!(world.refused(suspend(3, true)), Rejection::UnknownBox);
    assert!(is_suspended(&world, 9));
}

#[test]
fn a_report_is_counted_once_for_each_who_makes_it_and_shown_with_nothing_of_them() {
    let mut world = two_people(Limits::default());
    let mark = |reporter: u8| ReportMark::of(&[7; 32], &box_id(2), &box_id(reporter));
    let report = |seed: u8, reporter: u8| {
        Command::CountReport(CountReport {
            box_id: box_id(seed),
            mark: mark(reporter),
        })
    };
    for (reporter, first) in [(1, true), (1, false), (3, true), (4, true), (3, false)] {
        let (box_id, mark) = (box_id(2), mark(reporter));
        let known = world.query(&Query::HasReport { box_id, mark });
        assert_eq!(known, Answer::HasReport(!first));
        let reply = world.apply(report(2, reporter));
        assert_eq!(reply, Ok(Outcome::ReportCounted { first }));
    }
    world
        .send(letter(address(1), box_id(2), 1, "hello"))
        .unwrap();
    let expected = BoxView {
        active: true,
        suspended: false,
        devices: 1,
        identifiers: 1,
        reports: 3,
        depth: 1,
        bytes: 5,
        oldest: Some(world.now),
        expired_total: 0,
        ttl_ms: 30 * DAY_MS,
    };
    assert_eq!(view(&world, box_id(2)), Some(expected));
    assert_eq!(view(&world, box_id(1)).unwrap().reports, 0);
    assert_eq!(view(&world, box_id(9)), None);
    assert_eq!(world.refused(report(9, 1)), Rejection::UnknownBox);
    // The mark of a report is not that of the same two the other way round, nor of another cluster's.
    let turned = ReportMark::of(&[7; 32], &box_id(1), &box_id(2));
    let foreign = ReportMark::of(&[8; 32], &box_id(2), &box_id(1));
    assert!(turned != mark(1) && foreign != mark(1));
}

#[test]
fn boxes_that_are_reported_are_listed_page_by_page() {
    let mut world = two_people(Limits::default());
    for (seed, reporters) in [(1, 10..11), (2, 10..15), (9, 10..12)] {
        for reporter in reporters {
            let mark = ReportMark([reporter; 16]);
            world.tables.add_report(&box_id(seed), &mark).unwrap();
        }
    }
    let suspend = Command::Suspend(Suspend {
        box_id: box_id(2),
        suspended: true,
    });
    world.apply(suspend).unwrap();
    let mut listed = Vec::new();
    for limit in [0, 2, 2, 2] {
        let after = listed.last().map(|found: &ReportedBox| found.box_id);
        let Answer::Reported(page) = world.query(&Query::Reported { after, limit }) else {
            panic!("not a page")
        };
        assert!(page.len() <= limit as usize);
        listed.extend(page);
    }
    let found = |seed, reports, suspended| ReportedBox {
        box_id: box_id(seed),
        reports,
        suspended,
    };
    let mut all = [found(1, 1, false), found(2, 5, true), found(9, 2, false)];
    all.sort_by_key(|found| found.box_id);
    assert_eq!(listed, all);
}

#[test]
fn reports_of_a_box_can_be_removed_so_many_at_a_time_and_those_of_others_stay() {
    let mut world = two_people(Limits::default());
    for (seed, reporters) in [(1, 10..11), (2, 10..15)] {
        for reporter in reporters {
            let mark = ReportMark([reporter; 16]);
            world.tables.add_report(&box_id(seed), &mark).unwrap();
        }
    }
    for (limit, removed) in [(3, 3), (0, 0), (3, 2), (3, 0)] {
        let found = world.tables.delete_reports(&box_id(2), limit);
        assert_eq!(found.unwrap(), removed);
    }
    let left = |seed| view(&world, box_id(seed)).unwrap().reports;
    assert_eq!((left(1), left(2)), (1, 0));
}

#[test]
fn a_box_has_heard_from_those_whose_mail_it_took_and_from_nobody_else() {
    let mut world = two_people(Limits::default());
    let heard = |world: &World, own: u8, sender: u8| {
        let (box_id, sender) = (box_id(own), box_id(sender));
        world.query(&Query::HasHeardFrom { box_id, sender }) == Answer::HasHeardFrom(true)
    };
    world.block(2, 1, true).unwrap();
    let refused = world.send(letter(address(1), box_id(2), 1, "blocked"));
    assert_eq!(refused, Err(Rejection::UnknownBox));
    assert!(!heard(&world, 2, 1));
    world.block(2, 1, false).unwrap();
    world
        .send(letter(address(1), box_id(2), 1, "hello"))
        .unwrap();
    assert!(heard(&world, 2, 1) && !heard(&world, 1, 2) && !heard(&world, 2, 3));
    // Also once it is read, or too old.
    world.acknowledge(address(2), 1).unwrap();
    world.wait(31 * DAY_MS);
    world.expire_all();
    assert!(heard(&world, 2, 1));
}
