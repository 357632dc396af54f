//! Random histories of a partition against a plain model of the promises (DESIGN 1):
//!
//! - P2: a retry never makes a second envelope, and is never answered for another text;
//! - P3: one order per box, the same for all its devices, keeping each sender's order;
//! - P5: an identifier belongs to at most one box; what a box has proven it lists, and what it removes is free,
//!   wherever a change of its identifiers broke off;
//! - P6: a cursor never goes back, and nothing leaves before every device has acknowledged it or it
//!   expired, by a clock that its leader trusted; a device that joins gets all that comes from then on,
//!   and one that is revoked gets nothing and holds nothing back;
//!
//! and that the same commands give the same tables, and that a rejection changes nothing.
//!
//! `ROSSBY_LONG=1` runs many more histories.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;
use rossby_domain::chain::{Change, Signer};
use rossby_domain::command::{
    Accept, Acknowledge, ActivateBox, AddIdentifier, Block, DropIdentifier, Enqueue,
    EnvelopeDigest, Expire, ExtendChain, JoinBox, Recover, ReleaseClaim, RemoveIdentifier, SetTtl,
};
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::time::Timestamp;
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

use crate::common::model::{Model, ModelBox, Owner};
use crate::common::steps::{
    BOXES, DEVICES, NUMBERS, Send, Step, device, device_seed, devices, directory, identifiers,
    limits, mail, numbered,
};
use crate::common::world::{
    DAY_MS, World, address, box_id, identifier, open_claim, open_hidden_claim, pending_boxes,
    to_finish, verify_claim,
};
use crate::common::{self, kem, link, public_key};

/// The rules, twice, beside the model.
struct Run {
    world: World,
    twin: World,
    model: Model,
    sent: Vec<(u8, u8, Enqueue, bool)>,
}

impl Run {
    fn new(limits: Limits) -> Self {
        let mut world = World::new(limits);
        for seed in BOXES {
            world.register(seed);
        }
        let last_generation = world.tables.meta().unwrap().last_generation;
        let mut model = Model::new(limits, world.now, last_generation);
        for seed in BOXES {
            let first = BTreeMap::from([(numbered(seed, 0).device, 0)]);
            let generation = generation_of(&world, seed);
            let first = ModelBox {
                cursors: first,
                listed: BTreeMap::from([(seed, generation)]),
                ..ModelBox::default()
            };
            model.boxes.insert(seed, first);
            let owner = Owner::of_first(seed, generation);
            model.owners.insert(seed, owner);
        }
        let mut run = Self {
            twin: world.clone(),
            world,
            model,
            sent: Vec::new(),
        };
        for seed in BOXES {
            run.link(seed, 0, 1, true);
            run.join(seed, 1);
        }
        run
    }

    /// Applies to both; a rejection must have changed nothing but the clock.
    fn apply(&mut self, command: Command) -> Reply {
        self.carry_time();
        let mut before = self.world.tables.clone();
        let reply = self.world.apply(command.clone());
        assert_eq!(
            self.twin.apply(command),
            reply,
            "the twin answers otherwise"
        );
        if reply.is_err() && !matches!(reply, Err(Rejection::WrongCode { .. })) {
            let mut meta = before.meta().unwrap();
            meta.clock = meta.clock.max(self.world.now);
            meta.expiry_clock = self.model.expired_by;
            before.put_meta(&meta).unwrap();
            assert_eq!(self.world.tables, before, "a rejection changed something");
        }
        reply
    }

    /// A command carries the time, if its leader trusts it, to mail as well.
    fn carry_time(&mut self) {
        if self.world.may_expire {
            self.model.expired_by = self.model.now;
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(send) => self.send(send),
            Step::Burst(send, count) => (0..*count).for_each(|_| self.send(send)),
            Step::Retry(index) => {
                if !self.sent.is_empty() {
                    let (from, to, sent, written_to) = index.get(&self.sent).clone();
                    self.deliver(from, to, sent, written_to);
                }
            }
            Step::Acknowledge {
                seed,
                number,
                upto,
                beyond,
            } => {
                self.acknowledge(*seed, numbered(*seed, *number), upto, *beyond);
            }
            Step::Link {
                seed,
                by,
                number,
                added,
            } => self.link(*seed, *by, *number, *added),
            Step::Join { seed, number } => self.join(*seed, *number),
            Step::Recover {
                seed,
                number,
                alone,
            } => self.recover(*seed, *number, *alone),
            Step::Block { by, other, blocked } => {
                let (box_id, other_id) = (box_id(*by), box_id(*other));
                let block = Block {
                    box_id,
                    other: other_id,
                    blocked: *blocked,
                };
                assert_eq!(self.apply(Command::Block(block)), Ok(Outcome::BlockChanged));
                let list = &mut self.model.boxes.get_mut(by).unwrap().blocked;
                if *blocked {
                    list.insert(*other)
                } else {
                    list.remove(other)
                };
            }
            Step::Accept {
                by,
                contacts_only,
                other,
                allowed,
            } => {
                let target = self.model.boxes.get_mut(by).unwrap();
                let expected = target.accept(*contacts_only, *other, *allowed);
                let listed = |wanted: bool| match wanted {
                    true => vec![box_id(*other)],
                    false => Vec::new(),
                };
                let accept = Accept {
                    box_id: box_id(*by),
                    contacts_only: *contacts_only,
                    allow: listed(*allowed),
                    disallow: listed(!*allowed),
                };
                assert_eq!(self.apply(Command::Accept(accept)), expected);
            }
            Step::SetTtl { by, longest_ms } => {
                let target = self.model.boxes.get_mut(by).unwrap();
                target.longest_ttl_ms = *longest_ms;
                target.ttl_number += 1;
                let number = target.ttl_number;
                let limit_ms = self.model.limits.envelope_ttl_ms;
                let ttl_ms = longest_ms.unwrap_or(limit_ms).min(limit_ms);
                let set = SetTtl {
                    box_id: box_id(*by),
                    longest_ms: *longest_ms,
                    number,
                };
                let reply = self.apply(Command::SetTtl(set));
                assert_eq!(reply, Ok(Outcome::TtlSet { ttl_ms }));
            }
            Step::OpenClaim {
                seed,
                number,
                code,
                discoverable,
            } => {
                let open = if *discoverable {
                    open_claim
                } else {
                    open_hidden_claim
                };
                let reply = self.apply(open(*seed, *number, *code));
                let expected = self.model.open_claim(*seed, *number, *code, *discoverable);
                assert_eq!(reply, expected);
            }
            Step::VerifyClaim { seed, number, code } => self.verify(*seed, *number, *code),
            Step::AddIdentifier {
                seed,
                by,
                number,
                code,
                opened,
            } => self.add_identifier(*seed, *by, meant(*seed, *number), *code, *opened),
            Step::ProveIdentifier {
                seed,
                by,
                number,
                code,
                told,
            } => self.prove_identifier(*seed, *by, meant(*seed, *number), *code, *told),
            Step::RemoveIdentifier {
                seed,
                by,
                number,
                stale,
            } => self.remove_identifier(*seed, *by, meant(*seed, *number), *stale),
            Step::Finish => {
                for command in to_finish(&self.world) {
                    self.finish(command);
                }
            }
            Step::Wait { millis } => {
                self.model.now = self.model.now.plus_millis(*millis);
                self.world.now = self.model.now;
                self.twin.now = self.model.now;
            }
            Step::Expire { limit } => {
                let reply = self.apply(Command::Expire(Expire { limit: *limit }));
                let Ok(Outcome::Expired { removed, .. }) = reply else {
                    panic!("{reply:?}")
                };
                assert!(removed <= *limit);
                self.forget_unproven();
            }
            Step::Trust { clock } => {
                self.world.may_expire = *clock;
                self.twin.may_expire = *clock;
            }
        }
    }

    fn send(&mut self, send: &Send) {
        let sender = device(send.from, send.second);
        let target = self.model.boxes.get(&send.to);
        let log = target.map_or(&[][..], |target| &target.log);
        let last = log
            .iter()
            .rev()
            .find(|letter| letter.sent.id.sender == sender);
        let last = last.map_or(0, |letter| letter.sent.id.counter.0);
        let current = target.map_or(0, |target| target.chain_version);
        let recipient = box_id(send.to);
        let chain_version = if send.stale { current + 1 } else { current };
        let body = Bytes::from(vec![send.text; send.length]);
        let sent = Enqueue {
            recipient,
            id: EnvelopeId {
                sender,
                counter: Counter(last.saturating_add_signed(send.step)),
            },
            chain_version,
            ttl_ms: send.ttl_ms,
            digest: EnvelopeDigest::of(&recipient, chain_version, send.ttl_ms, &body),
            body,
        };
        let again = (send.from, send.to, sent.clone(), send.written_to);
        self.sent.push(again);
        self.deliver(send.from, send.to, sent, send.written_to);
    }

    fn deliver(&mut self, from: u8, to: u8, sent: Enqueue, written_to: bool) {
        self.carry_time();
        let expected = self.model.send(from, to, &sent, written_to);
        let command = match written_to {
            true => Command::EnqueueOfContact(sent),
            false => Command::Enqueue(sent),
        };
        assert_eq!(self.apply(command), expected);
    }

    fn acknowledge(&mut self, seed: u8, device: DeviceAddress, upto: &Index, beyond: u64) {
        let length = self
            .model
            .boxes
            .get(&seed)
            .map_or(0, |target| target.log.len());
        let upto = upto.index(length + 1) as u64 + beyond;
        let expected = self.model.acknowledge(seed, &device, upto);
        let command = Acknowledge {
            device,
            upto: Sequence(upto),
        };
        let reply = self
            .apply(Command::Acknowledge(command))
            .map(|outcome| match outcome {
                Outcome::Acknowledged { cursor, .. } => cursor.0,
                other => panic!("{other:?}"),
            });
        assert_eq!(reply, expected);
    }

    /// The device `by` signs a link over the chain as it is.
    fn link(&mut self, seed: u8, by: u8, number: u8, added: bool) {
        let (signer, other) = (numbered(seed, by).device, numbered(seed, number).device);
        let (by, other_seed) = (device_seed(seed, by), device_seed(seed, number));
        let change = if added {
            let key = public_key(other_seed);
            Change::AddDevice { key }
        } else {
            Change::RemoveDevice { device: other }
        };
        let record = self.world.tables.key_record(&box_id(seed)).unwrap();
        let link = link(&record.unwrap(), change, Signer::Device(signer), by);
        let target = self.model.boxes.get_mut(&seed).unwrap();
        let expected = match added {
            true => target.add(&signer, other),
            false => target.remove(&signer, other),
        };
        let box_id = box_id(seed);
        let extend = ExtendChain { box_id, link };
        let reply = self.apply(Command::ExtendChain(extend));
        assert_eq!(reply, expected);
        if reply.is_ok() {
            let again = self.apply(Command::ExtendChain(extend));
            assert_eq!(again, reply, "the retry of a lost reply");
        }
    }

    fn join(&mut self, seed: u8, number: u8) {
        let expected = self.model.boxes.get_mut(&seed).unwrap();
        let expected = expected.join(numbered(seed, number).device);
        let join = JoinBox {
            device: numbered(seed, number),
            kem: kem(device_seed(seed, number), 1),
        };
        assert_eq!(self.apply(Command::JoinBox(join)), expected);
    }

    fn recover(&mut self, seed: u8, number: u8, alone: bool) {
        let device = numbered(seed, number);
        let record = self.world.tables.key_record(&box_id(seed)).unwrap();
        let record = record.unwrap();
        let links = common::recovering(&record, device_seed(seed, number), alone, seed + 100);
        let expected = self.model.boxes.get_mut(&seed).unwrap();
        let expected = expected.recover(device.device, alone);
        let kem = kem(device_seed(seed, number), 1);
        let recover = Command::Recover(Recover { device, links, kem });
        assert_eq!(self.apply(recover.clone()), expected);
        if expected.is_ok() {
            let again = self.apply(recover);
            assert_eq!(again, expected, "the retry of a lost reply");
        }
    }

    /// As the service does it: the box lists the identifier, then the claim is opened.
    fn add_identifier(&mut self, seed: u8, by: u8, number: u8, code: u8, opened: bool) {
        let device = numbered(seed, by);
        let until = self.asked_until();
        let target = self.model.boxes.get_mut(&seed).unwrap();
        let expected = target.add_identifier(&device.device, number, until);
        let add = AddIdentifier {
            device,
            identifier: identifier(number),
            sealed_identifier: Bytes::from_static(b"sealed"),
            discoverable: true,
        };
        let reply = self.apply(Command::AddIdentifier(add));
        assert_eq!(reply, expected);
        if opened && reply == Ok(Outcome::IdentifierAdded) {
            let reply = self.apply(open_claim(seed, number, code));
            assert_eq!(reply, self.model.open_claim(seed, number, code, true));
        }
    }

    fn prove_identifier(&mut self, seed: u8, by: u8, number: u8, code: u8, told: bool) {
        let target = &self.model.boxes[&seed];
        if !target.staying().contains_key(&number) {
            return;
        }
        self.verify(seed, number, code);
        let owner = self.model.owners.get(&number).copied();
        let Some(owner) = owner.filter(|owner| told && owner.seed == seed) else {
            return;
        };
        let device = numbered(seed, by).device;
        let activate = ActivateBox {
            box_id: box_id(seed),
            device,
            identifier: identifier(number),
            generation: owner.generation,
        };
        let reply = self.apply(Command::ActivateBox(activate));
        let target = self.model.boxes.get_mut(&seed).unwrap();
        if !target.cursors.contains_key(&device) {
            assert_eq!(reply, Err(Rejection::UnknownDevice));
            return;
        }
        let token_generation = 1;
        assert_eq!(reply, Ok(Outcome::BoxActivated { token_generation }));
        target.listed.insert(number, owner.generation);
    }

    fn remove_identifier(&mut self, seed: u8, by: u8, number: u8, stale: bool) {
        let device = numbered(seed, by);
        let until = self.asked_until();
        let target = self.model.boxes.get_mut(&seed).unwrap();
        let generation = target.listed.get(&number).copied().unwrap_or_default();
        let generation = generation + u64::from(stale);
        let expected = target.remove_identifier(&device.device, number, generation, until);
        let remove = RemoveIdentifier {
            device,
            identifier: identifier(number),
            generation,
        };
        assert_eq!(self.apply(Command::RemoveIdentifier(remove)), expected);
    }

    fn finish(&mut self, command: Command) {
        let reply = self.apply(command.clone());
        match command {
            Command::ActivateBox(ActivateBox {
                box_id,
                identifier,
                generation,
                ..
            }) => {
                let token_generation = 1;
                assert_eq!(reply, Ok(Outcome::BoxActivated { token_generation }));
                let number = identifier.as_bytes()[0];
                self.model_of(box_id).listed.insert(number, generation);
            }
            Command::ReleaseClaim(ReleaseClaim {
                box_id: released_by,
                identifier,
                generation,
            }) => {
                let mut seeds = BOXES;
                let seed = seeds.find(|seed| box_id(*seed) == released_by).unwrap();
                let number = identifier.as_bytes()[0];
                assert_eq!(reply, self.model.release(seed, number, generation));
            }
            Command::DropIdentifier(DropIdentifier {
                box_id, identifier, ..
            }) => {
                assert_eq!(reply, Ok(Outcome::IdentifierRemoved));
                let number = identifier.as_bytes()[0];
                let target = self.model_of(box_id);
                assert!(target.leaving.remove(&number));
                target.listed.remove(&number);
            }
            other => panic!("{other:?}"),
        }
    }

    fn model_of(&mut self, meant: BoxId) -> &mut ModelBox {
        let mut boxes = self.model.boxes.iter_mut();
        boxes.find(|(seed, _)| box_id(**seed) == meant).unwrap().1
    }

    fn asked_until(&self) -> Timestamp {
        let limits = &self.model.limits;
        self.model.now.plus_millis(limits.pending_box_ttl_ms)
    }

    /// What is not proven may be forgotten once its time is over, and not before.
    fn forget_unproven(&mut self) {
        for seed in BOXES {
            let shown = listed(&self.world, seed);
            let (now, target) = (
                self.model.expired_by,
                self.model.boxes.get_mut(&seed).unwrap(),
            );
            for (number, generation) in target.staying() {
                if !shown.contains_key(&number) {
                    assert!(generation == 0 && target.asked_until <= now);
                    target.leaving.insert(number);
                }
            }
        }
    }

    fn verify(&mut self, seed: u8, number: u8, code: u8) {
        let reply = self.apply(verify_claim(seed, number, code));
        let expected = self.model.verify_claim(seed, number, code);
        // An expired code is forgotten some time later.
        let forgotten = (Err(Rejection::NoCodeRequested), Err(Rejection::CodeExpired));
        assert!(
            reply == expected || (reply.clone(), expected.clone()) == forgotten,
            "{reply:?} instead of {expected:?}"
        );
    }

    /// All that can be seen must be as the model says.
    fn check(&self) {
        let expired_by = if self.world.may_expire {
            self.model.now
        } else {
            self.model.expired_by
        };
        for (seed, target) in &self.model.boxes {
            let state = self.world.tables.queue_state(&box_id(*seed)).unwrap();
            // One acknowledgement purges no more at a time.
            if target.log.len() <= 1024 {
                let depth = state.unwrap_or_default().depth;
                assert!(depth <= target.held(), "box {seed} holds {depth}");
            }
            for number in DEVICES {
                let device = numbered(*seed, number);
                let page = self.world.page(device, 0, u32::MAX);
                let expected = target.shown_to(&device.device, expired_by);
                assert_eq!(page.is_some(), expected.is_some(), "{seed}, {number}");
                let (Some(page), Some(expected)) = (page, expected) else {
                    continue;
                };
                let shown = page
                    .envelopes
                    .iter()
                    .map(|e| (e.sequence.0, e.id, e.body.clone()));
                let expected = expected
                    .into_iter()
                    .map(|(n, sent)| (n, sent.id, sent.body));
                assert!(shown.eq(expected), "box {seed}, device {number}");
                assert!(!page.more);
                assert_eq!(page.status.cursor.0, target.cursors[&device.device]);
                assert_eq!(page.status.last.0, target.log.len() as u64);
            }
        }
        for number in NUMBERS.chain(BOXES) {
            let query = Query::VerifiedClaim(identifier(number));
            let owner = self.model.owners.get(&number);
            let expected = owner.map(|owner| (box_id(owner.seed), owner.generation));
            assert_eq!(self.world.query(&query), Answer::VerifiedClaim(expected));
        }
        for seed in BOXES {
            let staying = self.model.boxes[&seed].staying();
            assert_eq!(listed(&self.world, seed), staying, "box {seed}");
        }
    }

    /// Once nothing is half-done, boxes list what they have and nothing else.
    fn check_what_boxes_have(&self) {
        assert_eq!(pending_boxes(&self.world), []);
        for number in NUMBERS.chain(BOXES) {
            let generation = generation_of(&self.world, number);
            let owners = BOXES.filter(|seed| listed(&self.world, *seed).contains_key(&number));
            let owners: Vec<u8> = owners.collect();
            match generation {
                0 => assert_eq!(owners, [], "{number}"),
                _ => assert_eq!(owners.len(), 1, "{number}"),
            }
            for seed in owners {
                assert_eq!(listed(&self.world, seed)[&number], generation);
            }
        }
    }

    /// Once all time is over nothing may be left, and every count must be back at zero.
    fn check_the_end(&mut self) {
        assert_eq!(
            self.world.tables, self.twin.tables,
            "the twin's tables differ"
        );
        self.world.now = self.model.now.plus_millis(100 * DAY_MS);
        self.world.may_expire = true;
        self.world.expire_all();
        for command in to_finish(&self.world) {
            self.world.apply(command).unwrap();
        }
        for (seed, target) in &self.model.boxes {
            let state = self
                .world
                .tables
                .queue_state(&box_id(*seed))
                .unwrap()
                .unwrap_or_default();
            assert_eq!((state.depth, state.bytes), (0, 0));
            assert_eq!(state.last.0, target.log.len() as u64);
            // One acknowledgement purges, and counts, no more at a time.
            if target.log.len() <= 1024 {
                let expired = target.expired + state.last.0 - target.left_upto;
                assert_eq!(state.expired_total, expired, "box {seed}");
            }
            let left = self
                .world
                .tables
                .envelopes(&box_id(*seed), Sequence(0), 1, 0)
                .unwrap();
            assert_eq!(left, []);
            for sender in BOXES {
                let rows = self
                    .world
                    .tables
                    .senders_of(&box_id(*seed), &box_id(sender))
                    .unwrap();
                assert!(
                    rows.iter()
                        .all(|(_, row)| (row.waiting, row.waiting_bytes) == (0, 0))
                );
            }
        }
        assert_eq!(self.world.tables.due(self.world.now, 1).unwrap(), []);
        assert_eq!(self.world.tables.outbox(None, 1).unwrap(), []);
        for number in NUMBERS.map(identifier) {
            assert_eq!(self.world.tables.pending_claims(&number, 1).unwrap(), []);
            assert_eq!(self.world.tables.code_budget(&number).unwrap(), None);
        }
    }
}

/// The identifier that a step means.
fn meant(seed: u8, number: u8) -> u8 {
    if number == 0 { seed } else { number }
}

/// The generation under which somebody has an identifier, or 0.
fn generation_of(world: &World, number: u8) -> u64 {
    match world.query(&Query::VerifiedClaim(identifier(number))) {
        Answer::VerifiedClaim(claim) => claim.map_or(0, |(_, generation)| generation),
        other => panic!("{other:?}"),
    }
}

/// What a box shows as its identifiers.
fn listed(world: &World, seed: u8) -> BTreeMap<u8, u64> {
    let Answer::Identifiers(listed) = world.query(&Query::Identifiers(box_id(seed))) else {
        panic!()
    };
    let listed = listed.into_iter();
    let listed = listed.map(|known| (known.hash.as_bytes()[0], known.named_generation()));
    listed.collect()
}

fn config() -> Config {
    let cases = if std::env::var_os("ROSSBY_LONG").is_some() {
        5_000
    } else {
        120
    };
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_of_letters_is_as_the_promises_say(
        limits in limits(),
        steps in prop::collection::vec(mail(), 1..60),
    ) {
        let _ = follow(limits, &steps);
    }

    #[test]
    fn every_history_of_claims_is_as_the_promises_say(
        limits in limits(),
        steps in prop::collection::vec(directory(), 1..60),
    ) {
        let _ = follow(limits, &steps);
    }

    #[test]
    fn identifiers_come_and_go_as_the_promises_say(
        limits in limits(),
        steps in prop::collection::vec(
            prop_oneof![8 => identifiers(), 1 => devices()], 1..80
        ),
    ) {
        let run = follow(limits, &steps);
        run.check_what_boxes_have();
    }

    #[test]
    fn devices_come_and_go_during_sends_as_the_promises_say(
        limits in limits(),
        steps in prop::collection::vec(prop_oneof![3 => mail(), 2 => devices()], 1..60),
    ) {
        let _ = follow(limits, &steps);
    }

    #[test]
    fn letters_and_claims_do_not_disturb_each_other(
        limits in limits(),
        steps in prop::collection::vec(prop_oneof![3 => mail(), 2 => directory()], 1..100),
    ) {
        let _ = follow(limits, &steps);
    }
}

fn follow(limits: Limits, steps: &[Step]) -> Run {
    let mut run = Run::new(limits);
    for step in steps {
        run.step(step);
        let expired_by = run.model.expired_by;
        for target in run.model.boxes.values_mut() {
            target.count_expired(expired_by);
        }
        run.check();
    }
    run.check_the_end();
    run
}

#[test]
fn a_second_device_holds_back_the_purge() {
    let mut run = Run::new(Limits::default());
    let mut letter = common::world::letter(address(1), box_id(2), 1, "hello");
    letter.chain_version = 1;
    run.world.send(letter).unwrap();
    let purged = |reply| match reply {
        Ok(Outcome::Acknowledged { purged, .. }) => purged,
        other => panic!("{other:?}"),
    };
    assert_eq!(purged(run.world.acknowledge(device(2, false), 1)), 0);
    assert_eq!(run.world.inbox(device(2, true)), [(1, "hello".to_owned())]);
    assert_eq!(purged(run.world.acknowledge(device(2, true), 1)), 1);
}
