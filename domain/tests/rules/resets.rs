//! Resets: an identifier goes from a box whose devices are lost to a new one, and from no other box.

use proptest::prelude::*;
use proptest::test_runner::Config;
use rossby_domain::command::{
    ActivateBox, AwaitReset, ForgetReset, LoseIdentifier, NoteReset, OpenReset, ProveReset,
    StartReset, VetoReset,
};
use rossby_domain::contest::Former;
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

use crate::common::device_id;
use crate::common::world::{
    DAY_MS, World, address, box_id, code, create_box, identifier, letter, open_claim,
    pending_boxes, two_people,
};

const DELAY_MS: u64 = 7 * DAY_MS;

fn world() -> World {
    let mut world = two_people(Limits {
        code_pause_ms: 0,
        codes_per_day: 1_000_000,
        ..Limits::default()
    });
    for seed in [3, 4] {
        world.claim_device(seed, box_id(seed)).unwrap();
        world.apply(create_box(seed, 1)).unwrap();
    }
    world
}

/// Box `seed` asks for identifier 1 by a code.
fn open(world: &mut World, seed: u8, typed: u8) -> Reply {
    let Command::OpenClaim(claim) = open_claim(seed, 1, typed) else {
        panic!()
    };
    world.apply(Command::OpenReset(OpenReset(claim)))
}

fn prove(seed: u8, typed: u8) -> Command {
    Command::ProveReset(ProveReset {
        identifier: identifier(1),
        box_id: box_id(seed),
        code: code(typed),
        delay_ms: DELAY_MS,
    })
}

fn note(owner: u8, serial: u64) -> Command {
    Command::NoteReset(NoteReset {
        box_id: box_id(owner),
        identifier: identifier(1),
        serial,
        delay_ms: DELAY_MS,
    })
}

fn start(seed: u8, serial: u64) -> Command {
    Command::StartReset(StartReset {
        identifier: identifier(1),
        box_id: box_id(seed),
        serial,
        delay_ms: DELAY_MS,
    })
}

fn veto(owner: u8, serial: u64) -> Command {
    Command::VetoReset(VetoReset {
        identifier: identifier(1),
        box_id: box_id(owner),
        serial,
        pause_ms: DELAY_MS,
    })
}

fn keep(seed: u8) -> Command {
    Command::AwaitReset(AwaitReset {
        box_id: box_id(seed),
        keep_ms: 2 * DELAY_MS,
    })
}

/// The serial of a reset that was proven, and when it can be completed.
fn waiting(reply: Reply) -> (u64, Option<Timestamp>) {
    match reply {
        Ok(Outcome::ResetWaits {
            serial,
            completes_at,
            ..
        }) => (serial, completes_at),
        other => panic!("{other:?}"),
    }
}

/// All steps up to the delay; the serial.
fn begin(world: &mut World, seed: u8, typed: u8) -> u64 {
    open(world, seed, typed).unwrap();
    let (serial, completes_at) = waiting(world.apply(prove(seed, typed)));
    assert_eq!(completes_at, None);
    world.apply(note(1, serial)).unwrap();
    world.apply(keep(seed)).unwrap();
    let (_, completes_at) = waiting(world.apply(start(seed, serial)));
    assert_eq!(completes_at, Some(world.now.plus_millis(DELAY_MS)));
    serial
}

fn owner(world: &World) -> Option<u8> {
    let Answer::VerifiedClaim(claim) = world.query(&Query::VerifiedClaim(identifier(1))) else {
        panic!()
    };
    let (owner, _) = claim?;
    (1..=4).find(|seed| box_id(*seed) == owner)
}

fn told(world: &World, seed: u8) -> Vec<u64> {
    let Answer::Resets(resets) = world.query(&Query::Resets(box_id(seed))) else {
        panic!()
    };
    resets.into_iter().map(|(_, note)| note.serial).collect()
}

fn listed(world: &World, seed: u8) -> usize {
    match world.query(&Query::Identifiers(box_id(seed))) {
        Answer::Identifiers(listed) => listed.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_identifier_goes_to_who_has_proven_it_once_its_owner_had_time_to_say_no() {
    let mut world = world();
    let serial = begin(&mut world, 3, 7);
    assert_eq!(told(&world, 1), [serial]);
    let status = world.page(address(1), 0, 1).unwrap().status;
    let completes_at = world.now.plus_millis(DELAY_MS);
    assert_eq!(status.reset_at, Some(completes_at));
    // Until then it is the owner's, whoever asks how often.
    world.wait(DELAY_MS - 1);
    assert_eq!(
        waiting(world.apply(prove(3, 7))),
        (serial, Some(completes_at))
    );
    assert_eq!(owner(&world), Some(1));
    assert_eq!(pending_boxes(&world).len(), 2, "the new box is kept");
    world.expire_all();
    world.wait(1);
    let Ok(Outcome::ClaimVerified { generation }) = world.apply(prove(3, 7)) else {
        panic!("not moved")
    };
    let again = world.apply(prove(3, 7));
    assert_eq!(again, Ok(Outcome::ClaimVerified { generation }));
    assert_eq!(owner(&world), Some(3));

    // The old box is found by it no more and does not list it; it stays readable.
    let asked = Query::FormerOwner {
        identifier: identifier(1),
        box_id: box_id(3),
    };
    let Answer::FormerOwner(Some(Former {
        box_id: old,
        generation: before,
    })) = world.query(&asked)
    else {
        panic!("nobody had it")
    };
    assert!(old == box_id(1) && before < generation);
    let lose = Command::LoseIdentifier(LoseIdentifier {
        box_id: old,
        identifier: identifier(1),
        generation: before,
    });
    for _ in 0..2 {
        let lost = world.apply(lose.clone());
        assert_eq!(lost, Ok(Outcome::IdentifierRemoved));
    }
    assert_eq!((listed(&world, 1), told(&world, 1)), (0, Vec::new()));
    let sent = letter(address(2), box_id(1), 1, "by those who know it");
    world.send(sent).unwrap();
    assert_eq!(world.inbox(address(1)).len(), 1);
    let activate = Command::ActivateBox(ActivateBox {
        box_id: box_id(3),
        device: device_id(3),
        identifier: identifier(1),
        generation,
    });
    let activated = world.apply(activate);
    assert!(matches!(activated, Ok(Outcome::BoxActivated { .. })));
    // What came of it undoes nothing that came later.
    assert_eq!(listed(&world, 3), 1);
    assert!(world.apply(lose).is_ok());
    assert_eq!(listed(&world, 3), 1);
}

#[test]
fn the_delay_does_not_run_before_the_owner_is_told_and_a_clock_that_jumped_shortens_it_not() {
    let mut world = world();
    open(&mut world, 3, 7).unwrap();
    let (serial, _) = waiting(world.apply(prove(3, 7)));
    world.wait(DELAY_MS + 1);
    // It broke off there: nobody was told, so nothing is over.
    assert_eq!(waiting(world.apply(prove(3, 7))), (serial, None));
    world.apply(note(1, serial)).unwrap();
    world.apply(start(3, serial)).unwrap();
    assert_eq!(owner(&world), Some(1));
    world.may_expire = false;
    world.wait(100 * DAY_MS);
    waiting(world.apply(prove(3, 7)));
    assert_eq!(owner(&world), Some(1));
    // Never completed, it lapses.
    world.may_expire = true;
    let lapsed = world.refused(prove(3, 7));
    assert_eq!(lapsed, Rejection::NoCodeRequested);
    assert_eq!(told(&world, 1), []);
}

#[test]
fn a_no_ends_it_and_each_one_makes_the_next_wait_longer() {
    let mut world = world();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let serial = begin(&mut world, 3, 7);
        assert_eq!(world.apply(veto(1, serial)), Ok(Outcome::ResetVetoed));
        let before = world.tables.clone();
        assert_eq!(world.apply(veto(1, serial)), Ok(Outcome::ResetVetoed));
        assert_eq!(world.tables, before, "the retry of a lost reply");
        let forget = Command::ForgetReset(ForgetReset {
            box_id: box_id(1),
            identifier: identifier(1),
            serial,
        });
        world.apply(forget).unwrap();
        assert_eq!(told(&world, 1), []);
        // It is told why, and another is not even begun.
        let Rejection::ResetVetoed { retry_at } = world.refused(prove(3, 7)) else {
            panic!("not told")
        };
        open(&mut world, 4, 8).unwrap();
        assert_eq!(
            world.refused(prove(4, 8)),
            Rejection::ResetVetoed { retry_at }
        );
        pauses.push(retry_at.millis_since(world.now) / DAY_MS);
        world.wait(retry_at.millis_since(world.now));
    }
    assert_eq!(pauses, [7, 14, 28, 56, 56]);
    assert_eq!(owner(&world), Some(1));
}

#[test]
fn one_reset_at_a_time_and_only_by_the_right_code_of_whoever_asked() {
    let mut world = world();
    assert_eq!(world.refused(prove(3, 7)), Rejection::NoCodeRequested);
    open(&mut world, 3, 7).unwrap();
    open(&mut world, 4, 8).unwrap();
    let wrong = world.apply(prove(3, 8));
    assert_eq!(wrong, Err(Rejection::WrongCode { attempts_left: 4 }));
    let (serial, _) = waiting(world.apply(prove(3, 7)));
    let under_way = world.refused(prove(4, 8));
    assert!(matches!(under_way, Rejection::ResetUnderWay { .. }));
    assert_eq!(world.refused(start(4, serial)), Rejection::NoCodeRequested);
    // Another code for the same box is not another reset.
    open(&mut world, 3, 9).unwrap();
    assert_eq!(waiting(world.apply(prove(3, 9))).0, serial);
    assert_eq!(world.refused(prove(3, 7)), Rejection::NoCodeRequested);
    // What nobody has, or the box itself, needs no reset.
    world.create_box(3, 5).unwrap();
    let Command::OpenClaim(claim) = open_claim(3, 5, 6) else {
        panic!()
    };
    let opened = Command::OpenReset(OpenReset(claim));
    world.apply(opened).unwrap();
    let prove = ProveReset {
        identifier: identifier(5),
        box_id: box_id(3),
        code: code(6),
        delay_ms: DELAY_MS,
    };
    let taken = world.apply(Command::ProveReset(prove));
    assert!(matches!(taken, Ok(Outcome::ClaimVerified { .. })));
    // Only the owner says no.
    let theirs = world.refused(veto(2, serial));
    assert_eq!(theirs, Rejection::IdentifierChanged);
}

/// A step of whoever wants the identifier, of its owner, or of time.
#[derive(Debug, Clone)]
enum Step {
    Open(u8, u8),
    /// And how far the service comes with what follows.
    Prove(u8, u8, u8),
    Veto(bool),
    Wait(u64),
    Trust(bool),
    Expire,
}

fn steps() -> impl Strategy<Value = Step> {
    let seed = || 3..=4_u8;
    prop_oneof![
        3 => (seed(), 7..9_u8).prop_map(|(seed, code)| Step::Open(seed, code)),
        8 => (seed(), 7..9_u8, 0..4_u8)
            .prop_map(|(seed, code, upto)| Step::Prove(seed, code, upto)),
        1 => any::<bool>().prop_map(Step::Veto),
        4 => prop_oneof![Just(1), Just(DAY_MS), Just(DELAY_MS), Just(3 * DELAY_MS)]
            .prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Trust),
        1 => Just(Step::Expire),
    ]
}

/// What was promised to the owner of the identifier.
#[derive(Debug, Default)]
struct Promise {
    /// The newest reset, and by when its delay is over, once it runs.
    reset: Option<(u64, Option<Timestamp>)>,
    /// By the clock that is trusted.
    trusted: Timestamp,
}

fn is_active(world: &World, seed: u8) -> bool {
    match world.query(&Query::BoxState(box_id(seed))) {
        Answer::BoxState(state) => state.is_some_and(|state| state.active),
        other => panic!("{other:?}"),
    }
}

/// What the service does once the identifier has moved, if the new box is still there.
fn move_in(world: &mut World, from: u8, to: u8) {
    let Answer::VerifiedClaim(Some((_, generation))) =
        world.query(&Query::VerifiedClaim(identifier(1)))
    else {
        panic!("nobody has it")
    };
    let lose = LoseIdentifier {
        box_id: box_id(from),
        identifier: identifier(1),
        generation: generation - 1,
    };
    world.apply(Command::LoseIdentifier(lose)).unwrap();
    assert_eq!(listed(world, from), 0);
    let activate = ActivateBox {
        box_id: box_id(to),
        device: device_id(to),
        identifier: identifier(1),
        generation,
    };
    let _ = world.apply(Command::ActivateBox(activate));
}

fn follow(steps: &[Step]) {
    let mut world = world();
    let mut promise = Promise::default();
    for step in steps {
        let before = owner(&world).unwrap();
        if world.may_expire {
            promise.trusted = promise.trusted.max(world.now);
        }
        match step {
            Step::Open(seed, typed) => drop(open(&mut world, *seed, *typed)),
            Step::Prove(seed, typed, upto) => {
                let reply = world.apply(prove(*seed, *typed));
                match reply {
                    Ok(Outcome::ResetWaits {
                        serial,
                        completes_at: None,
                        ..
                    }) => {
                        promise.reset = Some((serial, None));
                        let rest = [note(before, serial), keep(*seed), start(*seed, serial)];
                        for command in rest.into_iter().take((*upto).into()) {
                            if let Ok(Outcome::ResetWaits { completes_at, .. }) =
                                world.apply(command)
                            {
                                let is_told = told(&world, before) == [serial];
                                assert!(is_told || !is_active(&world, before));
                                promise.reset = Some((serial, completes_at));
                            }
                        }
                    }
                    Ok(Outcome::ResetWaits { serial, .. }) => {
                        assert_eq!(promise.reset.map(|(known, _)| known), Some(serial));
                    }
                    Ok(Outcome::ClaimVerified { .. }) if before != *seed => {
                        let (_, over) = promise.reset.take().unwrap();
                        assert!(over.unwrap() <= promise.trusted, "too early");
                        move_in(&mut world, before, *seed);
                    }
                    _ => {}
                }
            }
            Step::Veto(is_right) => {
                if let Some((serial, _)) = promise.reset {
                    let serial = serial + u64::from(!is_right);
                    let reply = world.apply(veto(before, serial));
                    assert_eq!(reply, Ok(Outcome::ResetVetoed));
                    if *is_right {
                        promise.reset = None;
                    }
                }
            }
            Step::Wait(millis) => world.wait(*millis),
            Step::Trust(trusted) => world.may_expire = *trusted,
            Step::Expire => drop(world.expire(100)),
        }
        // It has an owner, and no other than by a reset.
        let after = owner(&world).unwrap();
        assert!(after == before || matches!(step, Step::Prove(seed, _, _) if *seed == after));
    }
}

fn config() -> Config {
    let long = std::env::var_os("ROSSBY_LONG").is_some();
    Config {
        cases: if long { 20_000 } else { 300 },
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_taken_from_an_owner_who_was_not_told_in_time_or_said_no(
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        follow(&steps);
    }
}
