//! A partition that was restored from a backup: the old one went on after the backup was taken, and
//! devices remember what it told them.

use proptest::prelude::*;
use rossby_domain::ids::Sequence;
use rossby_domain::limits::Limits;
use rossby_domain::query::Query;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::{Answer, Outcome, Rejection};

use crate::common::world::{World, address, box_id, letter, two_people};

const HOUR_MS: u64 = 3_600_000;

/// The partition as it was, restored `later_ms` after that.
fn restore(backup: &World, later_ms: u64, revoke: bool) -> World {
    let mut world = backup.clone();
    world.wait(later_ms);
    let mut meta = world.tables.meta().unwrap();
    meta.restored = meta.restored.again(world.now, revoke);
    world.tables.put_meta(&meta).unwrap();
    world
}

fn sent(world: &mut World, counter: u64, text: &str) -> u64 {
    match world.send(letter(address(1), box_id(2), counter, text)) {
        Ok(Outcome::Enqueued { sequence }) => sequence.0,
        other => panic!("{other:?}"),
    }
}

fn token(world: &World, device: u8) -> Option<u64> {
    match world.query(&Query::DeviceAuth(address(device))) {
        Answer::DeviceAuth(generation) => generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sequence_that_the_old_partition_may_have_given_out_is_never_given_out_again() {
    let mut world = two_people(Limits::default());
    sent(&mut world, 1, "before");
    let backup = world.clone();
    let lost = sent(&mut world, 2, "lost");
    let mut once = restore(&backup, HOUR_MS, false);
    let first = sent(&mut once, 3, "first");
    assert!(first > lost);
    // The same old backup again: above what the first restored partition gave out.
    let mut twice = restore(&backup, 2 * HOUR_MS, false);
    assert!(sent(&mut twice, 4, "second") > first);
    // A backup of the restored one.
    let mut again = restore(&once, HOUR_MS, false);
    assert!(sent(&mut again, 5, "third") > first);
}

#[test]
fn an_acknowledgement_of_what_the_old_partition_gave_takes_no_new_letter_away() {
    let mut world = two_people(Limits::default());
    let backup = world.clone();
    for counter in 1..=3 {
        sent(&mut world, counter, "lost");
    }
    // The device has three letters, and its acknowledgement comes late.
    let mut restored = restore(&backup, HOUR_MS, false);
    let new = sent(&mut restored, 4, "new");
    let late = restored.acknowledge(address(2), 3);
    assert_eq!(
        late,
        Ok(Outcome::Acknowledged {
            cursor: Sequence(3),
            purged: 0
        })
    );
    assert_eq!(restored.inbox(address(2)), [(new, "new".to_owned())]);
    // Even before anything new has come.
    let mut empty = restore(&backup, HOUR_MS, false);
    empty.acknowledge(address(2), 3).unwrap();
    let new = sent(&mut empty, 4, "new");
    assert_eq!(empty.inbox(address(2)), [(new, "new".to_owned())]);
    // But what nobody can have seen is refused as ever.
    let beyond = empty.acknowledge(address(2), new + 1);
    assert_eq!(
        beyond,
        Err(Rejection::BeyondQueue {
            last: Sequence(new)
        })
    );
}

#[test]
fn a_counter_that_the_old_partition_took_is_behind_a_sender_who_goes_on() {
    let mut world = two_people(Limits::default());
    sent(&mut world, 1, "before");
    let backup = world.clone();
    sent(&mut world, 2, "lost");
    let mut restored = restore(&backup, HOUR_MS, false);
    let new = sent(&mut restored, 3, "new");
    assert_eq!(
        restored.inbox(address(2)),
        [(1, "before".to_owned()), (new, "new".to_owned())]
    );
    // A retry of what was stored before the backup is still known.
    assert_eq!(sent(&mut restored, 1, "before"), 1);
    // A retry of what was lost comes too late to keep its order; the sender is told so.
    let retry = restored.send(letter(address(1), box_id(2), 2, "lost"));
    assert!(
        matches!(retry, Err(Rejection::NotAccepted { .. })),
        "{retry:?}"
    );
}

#[test]
fn an_envelope_that_was_on_its_way_is_stored_once_by_its_retry() {
    let mut world = two_people(Limits::default());
    let backup = world.clone();
    sent(&mut world, 1, "on its way");
    let mut restored = restore(&backup, HOUR_MS, false);
    let stored = sent(&mut restored, 1, "on its way");
    assert_eq!(sent(&mut restored, 1, "on its way"), stored);
    assert_eq!(
        restored.inbox(address(2)),
        [(stored, "on its way".to_owned())]
    );
}

#[test]
fn tokens_stay_good_unless_they_are_revoked_and_then_a_code_brings_a_new_one() {
    let world = two_people(Limits::default());
    assert_eq!(token(&world, 1), Some(1));
    let mut kept = restore(&world, HOUR_MS, false);
    assert_eq!(token(&kept, 1), Some(1));
    assert_eq!(kept.create_box(1, 1), Err(Rejection::KeyAlreadyRegistered));

    let mut revoked = restore(&world, HOUR_MS, true);
    assert_eq!(token(&revoked, 1), None);
    // A new code is asked for as by somebody new; the box stays.
    assert_eq!(revoked.create_box(1, 1), Ok(Outcome::BoxCreated));
    revoked.open_claim(1, 1, 9).unwrap();
    let verified = revoked.verify_claim(1, 1, 9).unwrap();
    let Outcome::ClaimVerified { generation } = verified else {
        panic!("{verified:?}")
    };
    let activated = revoked.activate(1, 1, generation).unwrap();
    let Outcome::BoxActivated { token_generation } = activated else {
        panic!("{activated:?}")
    };
    assert_eq!(token(&revoked, 1), Some(token_generation));
    assert_eq!(token(&revoked, 2), None);
    // Above all that the old partition can have given out; and a retry gives the same.
    assert!(token_generation > revoked.tables.meta().unwrap().restored.floor());
    assert_eq!(
        revoked.activate(1, 1, generation),
        Ok(Outcome::BoxActivated { token_generation })
    );
    assert_eq!(
        revoked.create_box(1, 1),
        Err(Rejection::KeyAlreadyRegistered)
    );
    // A later restoring keeps it, and keeps the others out.
    let later = restore(&revoked, HOUR_MS, false);
    assert_eq!(token(&later, 1), Some(token_generation));
    assert_eq!(token(&later, 2), None);
}

#[test]
fn claims_and_first_tokens_get_generations_that_nobody_had() {
    let mut world = two_people(Limits::default());
    let backup = world.clone();
    world.register(3);
    let mut restored = restore(&backup, HOUR_MS, false);
    let floor = restored.tables.meta().unwrap().restored.floor();
    restored.register(4);
    assert!(token(&restored, 4) > Some(floor));
    let last = restored.tables.meta().unwrap().last_generation;
    assert!(last > floor);
    assert!(restored.tables.meta().unwrap().last_serial > floor);
}

proptest! {
    /// Whatever a device has seen of the old partition and acknowledges late, it gets all letters of
    /// the restored one: those of the backup, and every new one, each once.
    #[test]
    fn no_device_misses_a_new_letter(
        before in 0_u64..6,
        lost in 0_u64..6,
        seen in 0_u64..12,
        acknowledged in 0_u64..6,
        late_at in 0_usize..5,
        new in 0_u64..5,
    ) {
        let mut world = two_people(Limits::default());
        for counter in 1..=before {
            sent(&mut world, counter, "before");
        }
        if acknowledged > 0 {
            world.acknowledge(address(2), acknowledged.min(before)).unwrap();
        }
        let backup = world.clone();
        for counter in before + 1..=before + lost {
            sent(&mut world, counter, "lost");
        }
        let cursor = seen.min(before + lost);
        let mut restored = restore(&backup, HOUR_MS, false);
        let mut got = Vec::new();
        for number in 0..new {
            if late_at as u64 == number {
                restored.acknowledge(address(2), cursor).unwrap();
            }
            let sequence = sent(&mut restored, before + lost + 1 + number, "new");
            prop_assert!(sequence > before + lost);
            got.push((sequence, "new".to_owned()));
        }
        let known = cursor.max(acknowledged.min(before));
        let page = restored.page(address(2), known, u32::MAX).unwrap();
        let fetched: Vec<_> = page
            .envelopes
            .iter()
            .map(|envelope| (envelope.sequence.0, String::from_utf8_lossy(&envelope.body).into_owned()))
            .collect();
        let old = (known + 1..=before).map(|sequence| (sequence, "before".to_owned()));
        prop_assert_eq!(fetched, old.chain(got).collect::<Vec<_>>());
    }
}
