//! What a person shows of themselves: replaced under rising versions, by devices that are let in, and seen by whom the box hears.

use bytes::Bytes;
use rossby_domain::command::SetProfile;
use rossby_domain::limits::Limits;
use rossby_domain::profile::{MAX_PROFILE_STEP, MAX_SEALED_PROFILE_BYTES, SealedProfile};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

use crate::common::world::{World, address, box_id, letter, two_people};

fn set(world: &mut World, by: u8, version: u64, sealed: &[u8]) -> Reply {
    world.apply(Command::SetProfile(SetProfile {
        device: address(by),
        version,
        sealed: Bytes::copy_from_slice(sealed),
    }))
}

fn seen(world: &World, by: u8, of: u8, after: u64) -> Option<SealedProfile> {
    let query = Query::SealedProfile {
        box_id: box_id(of),
        sender: box_id(by),
        after,
    };
    match rossby_domain::answer(&world.tables, world.now, &query).unwrap() {
        Answer::SealedProfile(found) => found,
        other => panic!("{other:?}"),
    }
}

fn shown(version: u64, sealed: &[u8]) -> Option<SealedProfile> {
    let sealed = Bytes::copy_from_slice(sealed);
    Some(SealedProfile { version, sealed })
}

#[test]
fn no_device_can_use_up_the_versions_before_it_is_removed() {
    let mut world = two_people(Limits::default());
    assert_eq!(set(&mut world, 1, 7, b"seven"), Ok(Outcome::ProfileSet));
    for version in [8 + MAX_PROFILE_STEP, u64::MAX] {
        let refused = set(&mut world, 1, version, b"the last");
        assert_eq!(refused, Err(Rejection::ProfileVersionUsed { current: 7 }));
    }
    assert_eq!(seen(&world, 1, 1, 0), shown(7, b"seven"));
    let highest = 7 + MAX_PROFILE_STEP;
    assert_eq!(set(&mut world, 1, highest, b"far"), Ok(Outcome::ProfileSet));
}

#[test]
fn a_version_only_rises_and_the_same_again_is_a_retry() {
    let mut world = two_people(Limits::default());
    assert_eq!(seen(&world, 2, 1, 0), None);
    assert_eq!(set(&mut world, 1, 3, b"three"), Ok(Outcome::ProfileSet));
    assert_eq!(set(&mut world, 1, 3, b"three"), Ok(Outcome::ProfileSet));
    for (version, sealed) in [(3, b"other"), (2, b"three"), (0, b"three")] {
        let refused = set(&mut world, 1, version, sealed);
        assert_eq!(refused, Err(Rejection::ProfileVersionUsed { current: 3 }));
    }
    assert_eq!(seen(&world, 2, 1, 2), shown(3, b"three"));
    assert_eq!(
        seen(&world, 2, 1, 3),
        shown(3, b""),
        "whoever has it is not given it again"
    );
    assert_eq!(set(&mut world, 1, 9, b"nine"), Ok(Outcome::ProfileSet));
    assert_eq!(seen(&world, 1, 1, 3), shown(9, b"nine"));
    let large = vec![1; MAX_SEALED_PROFILE_BYTES + 1];
    let limit_bytes = MAX_SEALED_PROFILE_BYTES as u32;
    let refused = set(&mut world, 1, 10, &large);
    assert_eq!(refused, Err(Rejection::ProfileTooLarge { limit_bytes }));
    assert_eq!(set(&mut world, 7, 1, b"nobody"), Err(Rejection::UnknownBox));
    let mut stranger = address(1);
    stranger.device = address(2).device;
    let refused = world.apply(Command::SetProfile(SetProfile {
        device: stranger,
        version: 11,
        sealed: Bytes::from_static(b"stolen"),
    }));
    assert_eq!(refused, Err(Rejection::UnknownDevice));
    // It changes nothing of how the box is written to.
    world
        .send(letter(address(2), box_id(1), 1, "hello"))
        .unwrap();
}
