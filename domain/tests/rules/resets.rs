//! Resets: an identifier goes from a box whose devices are lost to a new one, and from no other box.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::Config;
use rossby_domain::command::{
    ActivateBox, Adopt, AwaitReset, Expire, ForgetReset, LoseIdentifier, NoteReset, OpenReset,
    ProveReset, ReleaseClaim, SetResetDelay, StartReset, VetoReset,
};
use rossby_domain::contest::{Former, Reset, ResetNote};
use rossby_domain::limits::Limits;
use rossby_domain::tables::{InboxKey, ReadTables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

use crate::common::device_id;
use crate::common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, code, create_box, identifier, letter, open_claim,
    pending_boxes, two_people,
};

const DELAY_MS: u64 = 7 * DAY_MS;
/// By when the owner must be told.
const TELLING_MS: u64 = 10 * MINUTE_MS;

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
    })
}

fn tell(owner: u8, note: ResetNote) -> Command {
    Command::NoteReset(NoteReset {
        box_id: box_id(owner),
        identifier: identifier(1),
        note,
    })
}

fn start(seed: u8, serial: u64) -> Command {
    Command::StartReset(StartReset {
        identifier: identifier(1),
        box_id: box_id(seed),
        serial,
    })
}

fn veto(owner: u8, serial: u64) -> Command {
    Command::VetoReset(VetoReset {
        identifier: identifier(1),
        box_id: box_id(owner),
        serial,
    })
}

fn keep(seed: u8, note: ResetNote) -> Command {
    Command::AwaitReset(AwaitReset {
        box_id: box_id(seed),
        until: note.stands_until(),
    })
}

fn release(seed: u8) -> Command {
    Command::ReleaseClaim(ReleaseClaim {
        identifier: identifier(1),
        box_id: box_id(seed),
        generation: 0,
    })
}

/// What is to be told of a reset that was proven, and whether it was.
fn waiting(reply: Reply) -> (ResetNote, bool) {
    match reply {
        Ok(Outcome::ResetWaits { note, started, .. }) => (note, started),
        other => panic!("{other:?}"),
    }
}

/// All steps up to the delay.
fn begin(world: &mut World, seed: u8, typed: u8) -> ResetNote {
    open(world, seed, typed).unwrap();
    let (note, started) = waiting(world.apply(prove(seed, typed)));
    assert!(!started);
    world.apply(tell(1, note)).unwrap();
    world.apply(keep(seed, note)).unwrap();
    assert_eq!(waiting(world.apply(start(seed, note.serial))), (note, true));
    let completes_at = world.now.plus_millis(TELLING_MS + DELAY_MS);
    assert_eq!(note.completes_at, completes_at);
    note
}

fn owner(world: &World) -> Option<u8> {
    let Answer::VerifiedClaim(claim) = world.query(&Query::VerifiedClaim(identifier(1))) else {
        panic!()
    };
    let (owner, _) = claim?;
    (1..=4).find(|seed| box_id(*seed) == owner)
}

fn told(world: &World, seed: u8) -> Vec<ResetNote> {
    let Answer::Resets(resets) = world.query(&Query::Resets(box_id(seed))) else {
        panic!()
    };
    resets.into_iter().map(|(_, note)| note).collect()
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
    let note = begin(&mut world, 3, 7);
    assert_eq!(told(&world, 1), [note]);
    let status = world.page(address(1), 0, 1).unwrap().status;
    assert_eq!(status.reset_at, Some(note.completes_at));
    // Until then it is the owner's, whoever asks how often, and with another code.
    world.wait(TELLING_MS + DELAY_MS - 1);
    assert_eq!(waiting(world.apply(prove(3, 7))), (note, true));
    open(&mut world, 3, 8).unwrap();
    assert_eq!(waiting(world.apply(prove(3, 8))), (note, true));
    assert_eq!(owner(&world), Some(1));
    assert_eq!(pending_boxes(&world).len(), 2, "the new box is kept");
    world.expire_all();
    world.wait(1);
    // Not by what was read once.
    for typed in [7, 8] {
        let refused = world.refused(prove(3, typed));
        assert_eq!(refused, Rejection::NoCodeRequested);
    }
    open(&mut world, 3, 7).unwrap();
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
fn what_the_owner_was_told_too_late_is_over_and_is_begun_anew() {
    let mut world = world();
    open(&mut world, 3, 7).unwrap();
    let (first, _) = waiting(world.apply(prove(3, 7)));
    world.apply(tell(1, first)).unwrap();
    world.wait(TELLING_MS - 1);
    // It broke off there, and goes on by the same code.
    assert_eq!(waiting(world.apply(prove(3, 7))), (first, false));
    world.wait(1);
    let late = world.refused(start(3, first.serial));
    assert_eq!(late, Rejection::NoCodeRequested);
    assert_eq!(world.refused(prove(3, 7)), Rejection::NoCodeRequested);
    let second = begin(&mut world, 3, 8);
    assert!(second.serial > first.serial && second.completes_at > first.completes_at);
    assert_eq!(told(&world, 1), [second]);
    // What comes late of the first changes nothing.
    world.apply(tell(1, first)).unwrap();
    assert_eq!(told(&world, 1), [second]);
}

#[test]
fn a_clock_that_jumped_shortens_nothing_hides_nothing_and_begins_nothing() {
    let mut world = world();
    let year = 365 * DAY_MS;
    let note = begin(&mut world, 3, 7);
    let jump = |world: &mut World, command: Command| {
        (world.now, world.may_expire) = (world.now.plus_millis(year), false);
        let reply = world.apply(command);
        let seen = told(world, 1);
        let now = world.now.as_millis() - year;
        (world.now, world.may_expire) = (Timestamp::from_millis(now), true);
        (reply, seen)
    };
    let (reply, seen) = jump(&mut world, prove(3, 7));
    assert_eq!(waiting(reply), (note, true));
    assert_eq!(seen, [note]);
    assert_eq!(told(&world, 1), [note], "also once it is set right");
    assert_eq!(owner(&world), Some(1));
    // What begins after it has the dates of the time that is trusted.
    open(&mut world, 4, 8).unwrap();
    let (later, _) = waiting(world.apply(prove(4, 8)));
    assert_eq!(later.completes_at, note.completes_at);

    let mut world = self::world();
    open(&mut world, 3, 7).unwrap();
    let before = world.tables.clone();
    world.may_expire = false;
    assert_eq!(world.apply(prove(3, 7)), Err(Rejection::ClockInDoubt));
    assert_eq!(world.tables, before);
    world.may_expire = true;
    let (note, _) = waiting(world.apply(prove(3, 7)));
    world.apply(tell(1, note)).unwrap();
    world.may_expire = false;
    let doubted = world.apply(start(3, note.serial));
    assert_eq!(doubted, Err(Rejection::ClockInDoubt));
    world.may_expire = true;
    assert!(waiting(world.apply(start(3, note.serial))).1);
    // A jump ends no pause: it is counted, and compared, by the clock that is trusted.
    let (vetoed, _) = jump(&mut world, veto(1, note.serial));
    assert_eq!(vetoed, Ok(Outcome::ResetVetoed));
    let Err(Rejection::ResetVetoed { retry_at }) = world.apply(prove(3, 7)) else {
        panic!("begun again")
    };
    assert_eq!(retry_at, world.now.plus_millis(DELAY_MS));
}

#[test]
fn an_active_box_a_deleted_one_and_one_that_lets_go_wait_for_nothing() {
    let mut world = world();
    let note = begin(&mut world, 3, 7);
    let active = world.refused(keep(2, note));
    assert_eq!(active, Rejection::IdentifierTaken);
    let nobody = Command::AwaitReset(AwaitReset {
        box_id: box_id(9),
        until: note.stands_until(),
    });
    assert_eq!(world.refused(nobody), Rejection::UnknownBox);
    // Neither a code that it has nor one that it was given lets it go on.
    world.wait(TELLING_MS + DELAY_MS);
    open(&mut world, 3, 8).unwrap();
    let released = world.apply(release(3));
    assert!(matches!(released, Ok(Outcome::ClaimReleased { .. })));
    for typed in [7, 8] {
        let refused = world.refused(prove(3, typed));
        assert_eq!(refused, Rejection::NoCodeRequested);
    }
    assert_eq!(reset(&world), None);
    assert_eq!(owner(&world), Some(1));
}

#[test]
fn who_does_not_list_the_identifier_can_not_be_told_and_who_is_not_active_yet_is() {
    let mut world = world();
    open(&mut world, 3, 7).unwrap();
    let (note, _) = waiting(world.apply(prove(3, 7)));
    for nobody in [2, 9] {
        let refused = world.refused(tell(nobody, note));
        assert_eq!(refused, Rejection::OwnerNotTold);
    }
    // Its claim was verified, and the rest broke off.
    assert!(!is_active(&world, 4));
    assert_eq!(world.apply(tell(4, note)), Ok(Outcome::ResetNoted));
    assert_eq!(told(&world, 4), [note]);
}

#[test]
fn the_delay_is_that_of_the_partition_and_adopting_it_anew_sets_the_default() {
    let mut world = world();
    let set = Command::SetResetDelay(SetResetDelay {
        reset_delay_ms: DAY_MS,
    });
    assert_eq!(world.apply(set), Ok(Outcome::ResetDelaySet));
    let limits = world.tables.meta().unwrap().limits;
    assert_eq!(limits.reset_delay_ms, DAY_MS);
    // A retry of the adoption, whose bytes say nothing of it.
    let again = Command::Adopt(Adopt {
        limits: Limits {
            reset_delay_ms: DELAY_MS,
            ..limits
        },
    });
    world.apply(again).unwrap();
    assert_eq!(world.tables.meta().unwrap().limits, limits);
    open(&mut world, 3, 7).unwrap();
    let (note, _) = waiting(world.apply(prove(3, 7)));
    let completes_at = world.now.plus_millis(TELLING_MS + DAY_MS);
    assert_eq!(note.completes_at, completes_at);
}

#[test]
fn a_no_ends_it_and_each_one_makes_the_next_wait_longer() {
    let mut world = world();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let serial = begin(&mut world, 3, 7).serial;
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
fn one_reset_at_a_time_the_last_that_was_proven_and_only_by_the_right_code_of_whoever_asked() {
    let mut world = world();
    assert_eq!(world.refused(prove(3, 7)), Rejection::NoCodeRequested);
    open(&mut world, 4, 8).unwrap();
    let first = begin(&mut world, 3, 7);
    let wrong = world.apply(prove(4, 7));
    assert_eq!(wrong, Err(Rejection::WrongCode { attempts_left: 4 }));
    assert_eq!(told(&world, 1), [first]);
    // Whoever reads the phone now is as good as who read it first: the delay begins anew, and the owner is told.
    world.wait(MINUTE_MS);
    let (second, started) = waiting(world.apply(prove(4, 8)));
    assert!(!started && second.serial > first.serial);
    assert_eq!(
        second.completes_at.millis_since(first.completes_at),
        MINUTE_MS
    );
    for over in [start(3, first.serial), start(4, first.serial), prove(3, 7)] {
        assert_eq!(world.refused(over), Rejection::NoCodeRequested);
    }
    world.apply(tell(1, second)).unwrap();
    world.apply(start(4, second.serial)).unwrap();
    assert_eq!(told(&world, 1), [second]);
    // Another code for the same box is not another reset.
    open(&mut world, 4, 9).unwrap();
    assert_eq!(waiting(world.apply(prove(4, 9))), (second, true));
    assert_eq!(world.refused(prove(4, 8)), Rejection::NoCodeRequested);
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
    };
    let taken = world.apply(Command::ProveReset(prove));
    assert!(matches!(taken, Ok(Outcome::ClaimVerified { .. })));
    // Only the owner says no.
    let theirs = world.refused(veto(2, second.serial));
    assert_eq!(theirs, Rejection::IdentifierChanged);
}

/// A step of whoever wants the identifier, of its owner, or of time.
#[derive(Debug, Clone)]
enum Step {
    Open(u8, u8),
    /// And how far the service comes with what follows.
    Prove(u8, u8, u8),
    /// The last of those steps, by who was held up.
    Start(u8),
    Veto(bool),
    Release(u8),
    Wait(u64),
    Trust(bool),
    /// A clock is ahead for one command, by so much, and that is seen.
    Jump(u64),
    Expire,
}

fn steps() -> impl Strategy<Value = Step> {
    let seed = || 3..=4_u8;
    prop_oneof![
        3 => (seed(), 7..9_u8).prop_map(|(seed, code)| Step::Open(seed, code)),
        8 => (seed(), 7..9_u8, 0..4_u8)
            .prop_map(|(seed, code, upto)| Step::Prove(seed, code, upto)),
        1 => seed().prop_map(Step::Start),
        1 => any::<bool>().prop_map(Step::Veto),
        1 => seed().prop_map(Step::Release),
        6 => prop_oneof![
            Just(1),
            Just(TELLING_MS),
            Just(DAY_MS),
            Just(DELAY_MS),
            Just(3 * DELAY_MS),
        ]
        .prop_map(Step::Wait),
        1 => prop::bool::weighted(0.8).prop_map(Step::Trust),
        1 => prop_oneof![Just(DAY_MS), Just(20 * DAY_MS)].prop_map(Step::Jump),
        1 => Just(Step::Expire),
    ]
}

/// The reset that the directory knows of.
fn reset(world: &World) -> Option<Reset> {
    let claim = world.tables.claim(&InboxKey::Identifier(identifier(1)));
    claim.unwrap()?.contest.reset
}

/// By the clock that is trusted.
fn trusted(world: &World) -> Timestamp {
    let stored = world.tables.meta().unwrap().expiry_clock;
    match world.may_expire {
        true => stored.max(world.now),
        false => stored,
    }
}

/// While a delay runs, and as long as it can be completed, its owner is told so, by its date, and can say no.
fn check_promise(world: &World) {
    let running = reset(world).filter(|it| it.started && it.is_alive(trusted(world)));
    let Some(running) = running else {
        return;
    };
    let owner = owner(world).unwrap();
    assert_eq!(told(world, owner), [running.note()]);
    if is_active(world, owner) {
        let page = world.page(address(owner), 0, 1).unwrap();
        assert_eq!(page.status.reset_at, Some(running.completes_at));
    }
    let mut kept = world.clone();
    let vetoed = kept.apply(veto(owner, running.serial));
    assert_eq!(vetoed, Ok(Outcome::ResetVetoed));
    assert_eq!(reset(&kept), None);
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

/// What the service does once a reset is proven, as far as it comes; when the owner has the word.
fn follow_proof(world: &mut World, owner: u8, seed: u8, note: ResetNote, upto: u8) -> bool {
    let rest = [
        tell(owner, note),
        keep(seed, note),
        start(seed, note.serial),
    ];
    let done = rest.into_iter().take(upto.into());
    let done = done.take_while(|command| world.apply(command.clone()).is_ok());
    done.count() > 0
}

fn follow(steps: &[Step]) {
    let mut world = world();
    // When the owner had the word of each reset, by the clock that is trusted.
    let mut words: BTreeMap<u64, Timestamp> = BTreeMap::new();
    for step in steps {
        let before = owner(&world).unwrap();
        let running = reset(&world);
        match step {
            Step::Open(seed, typed) => drop(open(&mut world, *seed, *typed)),
            Step::Prove(seed, typed, upto) => match world.apply(prove(*seed, *typed)) {
                Ok(Outcome::ResetWaits {
                    note,
                    started: false,
                    ..
                }) if follow_proof(&mut world, before, *seed, note, *upto) => {
                    words.entry(note.serial).or_insert(trusted(&world));
                }
                Ok(Outcome::ClaimVerified { .. }) if before != *seed => {
                    let done = running.unwrap();
                    assert!(world.may_expire && done.started && done.box_id == box_id(*seed));
                    let word = words[&done.serial];
                    assert!(word.plus_millis(DELAY_MS) <= trusted(&world), "too early");
                    assert_eq!(told(&world, before), [done.note()]);
                    move_in(&mut world, before, *seed);
                }
                _ => {}
            },
            Step::Start(seed) => {
                if let Some(reset) = running.filter(|reset| words.contains_key(&reset.serial)) {
                    let _ = world.apply(start(*seed, reset.serial));
                }
            }
            Step::Veto(is_right) => {
                if let Some(reset) = running {
                    let serial = reset.serial + u64::from(!is_right);
                    let reply = world.apply(veto(before, serial));
                    assert_eq!(reply, Ok(Outcome::ResetVetoed));
                }
            }
            // The owner does not let go.
            Step::Release(seed) if *seed == before => {}
            Step::Release(seed) => drop(world.apply(release(*seed))),
            Step::Wait(millis) => world.wait(*millis),
            Step::Trust(trusted) => world.may_expire = *trusted,
            Step::Jump(millis) => {
                let (now, may_expire) = (world.now, world.may_expire);
                (world.now, world.may_expire) = (now.plus_millis(*millis), false);
                let _ = world.apply(Command::Expire(Expire { limit: 100 }));
                check_promise(&world);
                (world.now, world.may_expire) = (now, may_expire);
            }
            Step::Expire => drop(world.expire(100)),
        }
        // It has an owner, and no other than by a reset.
        let after = owner(&world).unwrap();
        assert!(after == before || matches!(step, Step::Prove(seed, _, _) if *seed == after));
        check_promise(&world);
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
