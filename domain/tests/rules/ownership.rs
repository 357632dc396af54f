//! Who may change a partition, and how its clock moves.

use rossby_domain::command::{Adopt, Expire};
use rossby_domain::ids::{Epoch, PartitionId};
use rossby_domain::limits::Limits;
use rossby_domain::tables::MemoryTables;
use rossby_domain::time::Timestamp;
use rossby_domain::{
    Answer, Command, Context, Outcome, Query, Rejection, Reply, Routed, answer, apply,
};

use crate::common::world::{EPOCH, World, address, box_id, letter, partition, two_people};

fn context(stamp: Timestamp) -> Context {
    Context {
        stamp,
        may_expire: true,
    }
}

fn apply_at(tables: &mut MemoryTables, stamp: Timestamp, epoch: Epoch, command: Command) -> Reply {
    let routed = Routed {
        partition: partition(),
        epoch,
        command,
    };
    apply(tables, &context(stamp), routed).unwrap()
}

fn adopt(limits: Limits) -> Command {
    Command::Adopt(Adopt { limits })
}

fn clock(tables: &MemoryTables) -> Timestamp {
    let query = Query::Ownership(partition());
    match answer(tables, Timestamp::default(), &query).unwrap() {
        Answer::Ownership { clock, .. } => clock,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partition_that_was_never_adopted_takes_no_commands() {
    let mut tables = MemoryTables::default();
    let now = Timestamp::from_millis(1);
    let reply = apply_at(
        &mut tables,
        now,
        EPOCH,
        Command::Expire(Expire { limit: 1 }),
    );
    assert_eq!(reply, Err(Rejection::NotOwner { owned: None }));
    assert_eq!(tables, MemoryTables::default());
}

#[test]
fn commands_of_another_epoch_are_refused_and_change_nothing() {
    let mut world = two_people(Limits::default());
    let before = world.tables.clone();
    world.wait(1000);
    for epoch in [Epoch(EPOCH.0 - 1), Epoch(EPOCH.0 + 1)] {
        let command = Command::Enqueue(letter(address(1), box_id(2), 1, "hello"));
        let reply = apply_at(&mut world.tables, world.now, epoch, command);
        assert_eq!(reply, Err(Rejection::NotOwner { owned: Some(EPOCH) }));
    }
    assert_eq!(world.tables, before);
}

#[test]
fn a_newer_epoch_takes_over_and_fences_off_the_older() {
    let mut world = World::new(Limits::default());
    let now = world.now;
    let newer = Epoch(EPOCH.0 + 4);
    let limits = Limits {
        blocked_boxes: 7,
        ..Limits::default()
    };
    let adopted = Ok(Outcome::Adopted { epoch: newer });
    assert_eq!(
        apply_at(&mut world.tables, now, newer, adopt(limits)),
        adopted
    );
    // The same again is a retry; other limits, or an older epoch, are not.
    assert_eq!(
        apply_at(&mut world.tables, now, newer, adopt(limits)),
        adopted
    );
    let not_owner = Err(Rejection::NotOwner { owned: Some(newer) });
    assert_eq!(
        apply_at(&mut world.tables, now, newer, adopt(Limits::default())),
        not_owner
    );
    assert_eq!(
        apply_at(&mut world.tables, now, EPOCH, adopt(limits)),
        not_owner
    );
    let expire = Command::Expire(Expire { limit: 1 });
    assert_eq!(apply_at(&mut world.tables, now, EPOCH, expire), not_owner);
}

#[test]
fn a_command_for_a_box_of_another_partition_is_refused() {
    let mut world = two_people(Limits::default());
    let before = world.tables.clone();
    let routed = Routed {
        partition: PartitionId::new(partition().number() + 1).unwrap(),
        epoch: EPOCH,
        command: Command::Enqueue(letter(address(1), box_id(2), 1, "hello")),
    };
    let reply = apply(&mut world.tables, &context(world.now), routed).unwrap();
    assert!(matches!(reply, Err(Rejection::NotOwner { .. })));
    assert_eq!(world.tables, before);
}

#[test]
fn the_clock_of_a_partition_never_goes_back() {
    let mut world = two_people(Limits::default());
    let later = world.now.plus_millis(5000);
    world.now = later;
    world
        .send(letter(address(1), box_id(2), 1, "first"))
        .unwrap();
    world.now = Timestamp::from_millis(1);
    world
        .send(letter(address(1), box_id(2), 2, "second"))
        .unwrap();
    assert_eq!(clock(&world.tables), later);
    let page = world.page(address(2), 0, 10).unwrap();
    assert!(
        page.envelopes
            .iter()
            .all(|envelope| envelope.enqueued_at == later)
    );
}
