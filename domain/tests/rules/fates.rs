//! What befalls boxes and their identifiers, all at once: registrations, further identifiers, resets, removals and deletions, in any
//! order, each broken off anywhere and taken up by the leader. An identifier passes to another box by a reset or once it is let go, a
//! deleted box stays deleted, and in the end no identifier is with a box that does not have it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::Config;
use rossby_domain::command::{
    ActivateBox, AddIdentifier, AwaitReset, DeleteBox, LoseIdentifier, NoteReset, OpenReset,
    ProveReset, RemoveIdentifier, StartReset, VetoReset,
};
use rossby_domain::contest::{Reset, ResetNote};
use rossby_domain::limits::Limits;
use rossby_domain::profile::Profile;
use rossby_domain::tables::{InboxKey, ReadTables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query};

use crate::common::device_id;
use crate::common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, code, create_box, identifier, open_claim,
    pending_boxes, to_finish, two_people, verify_claim,
};

const DELAY_MS: u64 = 7 * DAY_MS;
const BOXES: std::ops::RangeInclusive<u8> = 1..=4;
const IDENTIFIERS: std::ops::RangeInclusive<u8> = 1..=3;

/// A step, by the box and the identifier that it is about.
#[derive(Debug, Clone)]
enum Step {
    /// A new box is made for the identifier.
    Create(u8, u8),
    /// A box lists one more.
    Add(u8, u8),
    /// It asks for a code.
    Code(u8, u8),
    /// It gives the code that it was sent; so many of the steps that follow are done.
    Prove(u8, u8, u8),
    /// Both, one after the other.
    Get(u8, u8, u8),
    /// A reset that broke off goes on.
    Start(u8, u8),
    /// The owner of an identifier says no.
    Veto(u8),
    Remove(u8, u8),
    Delete(u8),
    /// The leader does the first of what is to be finished.
    Finish(u8),
    Wait(u64),
    /// The leader finishes what it must, and removes what has expired.
    Expire,
}

fn steps() -> impl Strategy<Value = Step> {
    let pair = || (BOXES, IDENTIFIERS);
    let upto = || prop_oneof![1 => 0_u8..3, 3 => Just(3)];
    prop_oneof![
        2 => (3_u8..=4, IDENTIFIERS).prop_map(|(seed, number)| Step::Create(seed, number)),
        2 => pair().prop_map(|(seed, number)| Step::Add(seed, number)),
        // New boxes want what others have, mostly.
        10 => ((3_u8..=4, 1_u8..=2), upto()).prop_map(|((seed, number), upto)| Step::Get(seed, number, upto)),
        4 => (pair(), upto()).prop_map(|((seed, number), upto)| Step::Get(seed, number, upto)),
        4 => pair().prop_map(|(seed, number)| Step::Code(seed, number)),
        5 => (pair(), upto()).prop_map(|((seed, number), upto)| Step::Prove(seed, number, upto)),
        1 => pair().prop_map(|(seed, number)| Step::Start(seed, number)),
        1 => IDENTIFIERS.prop_map(Step::Veto),
        2 => pair().prop_map(|(seed, number)| Step::Remove(seed, number)),
        2 => BOXES.prop_map(Step::Delete),
        4 => (1_u8..4).prop_map(Step::Finish),
        4 => prop_oneof![Just(1), Just(11 * MINUTE_MS), Just(DAY_MS), Just(DELAY_MS + DAY_MS)].prop_map(Step::Wait),
        2 => Just(Step::Expire),
    ]
}

/// The world, and what is known of it.
struct Run {
    world: World,
    /// When the owner had the word of a reset.
    words: BTreeMap<u64, Timestamp>,
    deleted: BTreeSet<u8>,
}

impl Run {
    fn new() -> Self {
        let world = two_people(Limits {
            code_pause_ms: 0,
            codes_per_day: 1_000_000,
            ..Limits::default()
        });
        Self {
            world,
            words: BTreeMap::new(),
            deleted: BTreeSet::new(),
        }
    }

    fn profile(&self, seed: u8) -> Option<Profile> {
        self.world.tables.profile(&box_id(seed)).unwrap()
    }

    fn owner(&self, number: u8) -> Option<(u8, u64)> {
        let query = Query::VerifiedClaim(identifier(number));
        let Answer::VerifiedClaim(claim) = self.world.query(&query) else {
            panic!()
        };
        let (owner, generation) = claim?;
        let seed = BOXES.clone().find(|seed| box_id(*seed) == owner);
        Some((seed.unwrap(), generation))
    }

    fn reset(&self, number: u8) -> Option<Reset> {
        let claim = self
            .world
            .tables
            .claim(&InboxKey::Identifier(identifier(number)));
        claim.unwrap()?.contest.reset
    }

    /// By the clock that mail expires by.
    fn trusted(&self) -> Timestamp {
        let stored = self.world.tables.meta().unwrap().expiry_clock;
        stored.max(self.world.now)
    }

    fn step(&mut self, step: &Step) {
        let world = &mut self.world;
        match *step {
            Step::Create(seed, number) => {
                if world.claim_device(seed, box_id(seed)).is_ok() {
                    let _ = world.apply(create_box(seed, number));
                }
            }
            Step::Add(seed, number) => {
                let _ = world.apply(adding(seed, number));
            }
            Step::Code(seed, number) => self.ask(seed, number),
            Step::Prove(seed, number, upto) => self.prove(seed, number, upto),
            Step::Get(seed, number, upto) => {
                self.ask(seed, number);
                self.prove(seed, number, upto);
            }
            Step::Start(seed, number) => {
                if let Some(reset) = self.reset(number)
                    && self.words.contains_key(&reset.serial)
                {
                    let _ = self.world.apply(start(seed, number, reset.serial));
                }
            }
            Step::Veto(number) => {
                if let (Some(reset), Some((owner, _))) = (self.reset(number), self.owner(number)) {
                    let veto = VetoReset {
                        identifier: identifier(number),
                        box_id: box_id(owner),
                        serial: reset.serial,
                    };
                    let _ = self.world.apply(Command::VetoReset(veto));
                }
            }
            Step::Remove(seed, number) => {
                let profile = self.profile(seed).unwrap_or_default();
                let listed = profile.identifier(&identifier(number));
                let generation = listed.map_or(0, |listed| listed.named_generation());
                let _ = self
                    .world
                    .apply(Command::RemoveIdentifier(RemoveIdentifier {
                        device: address(seed),
                        identifier: identifier(number),
                        generation,
                    }));
            }
            Step::Delete(seed) => {
                let device = address(seed);
                let deleted = world.apply(Command::DeleteBox(DeleteBox { device }));
                if deleted.is_ok() {
                    self.deleted.insert(seed);
                }
            }
            Step::Finish(count) => {
                for command in to_finish(&self.world).into_iter().take(count.into()) {
                    self.world.apply(command).unwrap();
                }
            }
            Step::Wait(millis) => world.wait(millis),
            Step::Expire => self.expire(),
        }
    }

    /// The box lists it, now at the latest, and a code is sent; a new box may want it from another.
    fn ask(&mut self, seed: u8, number: u8) {
        let again = match self.profile(seed) {
            Some(profile) if profile.active => adding(seed, number),
            _ => create_box(seed, number),
        };
        let _ = self.world.apply(again);
        let Some(profile) = self.profile(seed).filter(|profile| !profile.deleted) else {
            return;
        };
        let hash = identifier(number);
        if profile.identifier(&hash).is_none() || profile.leaving.contains(&hash) {
            return;
        }
        let open = open_claim(seed, number, seed);
        let open = match (open, profile.active) {
            (Command::OpenClaim(claim), false) => Command::OpenReset(OpenReset(claim)),
            (open, _) => open,
        };
        let _ = self.world.apply(open);
    }

    fn prove(&mut self, seed: u8, number: u8, upto: u8) {
        let is_active = self.profile(seed).is_some_and(|profile| profile.active);
        let command = match is_active {
            true => verify_claim(seed, number, seed),
            false => Command::ProveReset(ProveReset {
                identifier: identifier(number),
                box_id: box_id(seed),
                code: code(seed),
            }),
        };
        let (before, running) = (self.owner(number), self.reset(number));
        match self.world.apply(command) {
            Ok(Outcome::ResetWaits {
                note,
                started: false,
                ..
            }) => self.follow((seed, number), before.unwrap().0, note, upto),
            Ok(Outcome::ClaimVerified { generation }) => {
                if let Some((owner, old)) = before.filter(|(owner, _)| *owner != seed) {
                    let done = running.unwrap();
                    assert!(done.started && done.box_id == box_id(seed));
                    let word = self.words[&done.serial];
                    let due = word.plus_millis(DELAY_MS);
                    assert!(due <= self.trusted(), "too early for the owner");
                    if upto > 1 {
                        self.lose(owner, number, old);
                    }
                }
                if upto > 0 {
                    let _ = self.world.apply(Command::ActivateBox(ActivateBox {
                        box_id: box_id(seed),
                        device: device_id(seed),
                        identifier: identifier(number),
                        generation,
                    }));
                }
            }
            _ => {}
        }
    }

    fn lose(&mut self, owner: u8, number: u8, generation: u64) {
        let lose = LoseIdentifier {
            box_id: box_id(owner),
            identifier: identifier(number),
            generation,
        };
        self.world.apply(Command::LoseIdentifier(lose)).unwrap();
    }

    /// What the service does once a reset is proven, as far as it comes.
    fn follow(&mut self, (seed, number): (u8, u8), owner: u8, note: ResetNote, upto: u8) {
        let rest = [
            Command::NoteReset(NoteReset {
                box_id: box_id(owner),
                identifier: identifier(number),
                note,
            }),
            Command::AwaitReset(AwaitReset {
                box_id: box_id(seed),
                until: note.stands_until(),
            }),
            start(seed, number, note.serial),
        ];
        for (place, command) in rest.into_iter().take(upto.into()).enumerate() {
            if self.world.apply(command).is_err() {
                return;
            }
            if place == 0 {
                let now = self.trusted();
                self.words.entry(note.serial).or_insert(now);
            }
        }
    }

    /// Finishes all that can be.
    fn finish(&mut self) {
        for _ in 0..20 {
            let commands = to_finish(&self.world);
            if commands.is_empty() {
                return;
            }
            for command in commands {
                let _ = self.world.apply(command);
            }
        }
    }

    /// As the leader does: what is verified is finished before anything expires.
    fn expire(&mut self) {
        self.finish();
        self.world.expire_all();
    }

    fn check(&self, before: &[Option<(u8, u64)>], letting_go: &[bool], step: &Step) {
        for (number, (before, letting_go)) in IDENTIFIERS.zip(before.iter().zip(letting_go)) {
            let after = self.owner(number);
            let owners = (before.map(|(seed, _)| seed), after.map(|(seed, _)| seed));
            match owners {
                (before, after) if before == after => {}
                (_, Some(new)) => {
                    assert!(
                        matches!(step, Step::Prove(seed, proven, _) | Step::Get(seed, proven, _) if (*seed, *proven) == (new, number))
                    );
                }
                (Some(_), None) => assert!(*letting_go, "{number} was taken away"),
                (None, None) => {}
            }
            let (Some((owner, _)), Some(reset)) = (after, self.reset(number)) else {
                continue;
            };
            if reset.started && reset.is_alive(self.trusted()) && !self.deleted.contains(&owner) {
                let Answer::Resets(told) = self.world.query(&Query::Resets(box_id(owner))) else {
                    panic!()
                };
                assert!(
                    told.contains(&(identifier(number), reset.note())),
                    "not told"
                );
            }
        }
        for seed in &self.deleted {
            let profile = self.profile(*seed).unwrap();
            assert!(profile.deleted && !profile.active && profile.devices.is_empty());
            assert!(self.world.page(address(*seed), 0, 1).is_none());
            let state = self.world.query(&Query::BoxState(box_id(*seed)));
            assert_eq!(state, Answer::BoxState(None));
        }
    }

    fn owners(&self) -> Vec<Option<(u8, u64)>> {
        IDENTIFIERS.map(|number| self.owner(number)).collect()
    }

    /// Whether the owner of each lets go of it.
    fn letting_go(&self) -> Vec<bool> {
        let lets_go = |number| {
            let owner = self.owner(number).and_then(|(seed, _)| self.profile(seed));
            owner.is_none_or(|owner| owner.leaving.contains(&identifier(number)))
        };
        IDENTIFIERS.map(lets_go).collect()
    }

    /// Nothing more is begun, and the leader does what is left: nobody is kept from an identifier by a box that does not have it.
    fn check_the_end(&mut self) {
        for _ in 0..4 {
            self.expire();
            self.world.wait(30 * DAY_MS);
        }
        self.expire();
        assert_eq!(pending_boxes(&self.world), []);
        for number in IDENTIFIERS {
            let Some((owner, generation)) = self.owner(number) else {
                continue;
            };
            let profile = self.profile(owner).unwrap();
            assert!(profile.active && !profile.deleted, "held by box {owner}");
            let hash = identifier(number);
            let listed = profile.identifier(&hash).unwrap();
            assert_eq!(listed.generation, Some(generation));
            assert!(!profile.leaving.contains(&hash));
        }
        for seed in &self.deleted {
            let only_that_it_was = Profile {
                deleted: true,
                ..Profile::default()
            };
            assert_eq!(self.profile(*seed), Some(only_that_it_was));
        }
    }
}

fn adding(seed: u8, number: u8) -> Command {
    Command::AddIdentifier(AddIdentifier {
        device: address(seed),
        identifier: identifier(number),
        sealed_identifier: Bytes::from_static(b"sealed"),
        discoverable: true,
    })
}

fn start(seed: u8, number: u8, serial: u64) -> Command {
    Command::StartReset(StartReset {
        identifier: identifier(number),
        box_id: box_id(seed),
        serial,
    })
}

fn config() -> Config {
    let long = std::env::var_os("ROSSBY_LONG").is_some();
    Config {
        cases: if long { 20_000 } else { 400 },
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_befalls_boxes_at_once_an_identifier_is_with_who_has_it(
        steps in prop::collection::vec(steps(), 1..60),
    ) {
        live(&steps);
    }
}

fn live(steps: &[Step]) {
    let mut run = Run::new();
    for step in steps {
        let (owners, letting_go) = (run.owners(), run.letting_go());
        run.step(step);
        run.check(&owners, &letting_go, step);
    }
    run.check_the_end();
}

#[test]
fn what_broke_off_is_finished_though_the_box_has_come_to_life_by_another_identifier() {
    live(&[Step::Create(3, 3), Step::Get(3, 3, 0), Step::Get(3, 4, 3)]);
}

#[test]
fn a_code_that_a_box_has_left_for_what_it_has_lost_gets_it_nothing() {
    let delay = || Step::Wait(DELAY_MS + DAY_MS);
    live(&[
        Step::Get(4, 2, 3),
        delay(),
        Step::Get(4, 2, 0),
        Step::Get(3, 2, 3),
        delay(),
        Step::Get(4, 2, 1),
        Step::Get(3, 2, 3),
        Step::Delete(3),
        Step::Expire,
        Step::Prove(4, 2, 0),
    ]);
}
