//! Random histories of a partition against a plain model of the promises (DESIGN 1):
//!
//! - P2: a retry never makes a second envelope, and is never answered for another text;
//! - P3: one order per box, the same for all its devices, keeping each sender's order;
//! - P5: an identifier belongs to at most one box;
//! - P6: a cursor never goes back, and nothing leaves before every device has acknowledged it or it
//!   expired;
//!
//! and that the same commands give the same tables, and that a rejection changes nothing.
//!
//! `ROSSBY_LONG=1` runs many more histories.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod common;

use bytes::Bytes;
use common::model::{Model, ModelBox};
use common::world::{
    DAY_MS, MINUTE_MS, World, address, box_id, identifier, open_claim, open_hidden_claim,
    verify_claim,
};
use common::{add, device_id, record};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;
use rossby_domain::command::{Acknowledge, Block, Enqueue, EnvelopeDigest, Expire};
use rossby_domain::ids::{Counter, DeviceAddress, EnvelopeId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::profile::DeviceState;
use rossby_domain::tables::{ReadTables as _, Tables as _};
use rossby_domain::{Answer, Command, Outcome, Query, Rejection, Reply};

/// Boxes 1 to 3 exist, with two devices each; a fourth does not.
const BOXES: std::ops::RangeInclusive<u8> = 1..=3;
const ANY_BOX: std::ops::RangeInclusive<u8> = 1..=4;

/// A device of a box: its first, or the second.
fn device(seed: u8, second: bool) -> DeviceAddress {
    let device = device_id(if second { seed + 50 } else { seed });
    DeviceAddress {
        box_id: box_id(seed),
        device,
    }
}

#[derive(Debug, Clone)]
struct Send {
    from: u8,
    second: bool,
    to: u8,
    /// Relative to the last counter that the recipient accepted from this device.
    step: i64,
    text: u8,
    length: usize,
    ttl_ms: Option<u64>,
    stale: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Send),
    /// The same letters, one after another.
    Burst(Send, u8),
    /// An earlier send, whatever became of it, word for word.
    Retry(Index),
    /// Up to this share of the queue, and this many beyond.
    Acknowledge {
        seed: u8,
        second: bool,
        upto: Index,
        beyond: u64,
    },
    Block {
        by: u8,
        other: u8,
        blocked: bool,
    },
    /// The box gets a new chain version.
    Extend {
        seed: u8,
    },
    OpenClaim {
        seed: u8,
        number: u8,
        code: u8,
        discoverable: bool,
    },
    VerifyClaim {
        seed: u8,
        number: u8,
        code: u8,
    },
    Wait {
        millis: u64,
    },
    Expire {
        limit: u32,
    },
}

fn send() -> impl Strategy<Value = Send> {
    let step = prop_oneof![6 => Just(1), 1 => 2..4_i64, 2 => -2..1_i64, 1 => -40..-2_i64];
    let length = prop_oneof![8 => 1..20_usize, 1 => 95..105_usize];
    let ttl_ms = prop_oneof![
        4 => Just(None),
        1 => Just(Some(0)),
        2 => Just(Some(MINUTE_MS)),
        1 => Just(Some(2 * DAY_MS)),
    ];
    let stale = prop::bool::weighted(0.1);
    (
        BOXES,
        any::<bool>(),
        ANY_BOX,
        step,
        0..3_u8,
        length,
        ttl_ms,
        stale,
    )
        .prop_map(
            |(from, second, to, step, text, length, ttl_ms, stale)| Send {
                from,
                second,
                to,
                step,
                text,
                length,
                ttl_ms,
                stale,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        3 => Just(1),
        3 => Just(MINUTE_MS),
        2 => Just(10 * MINUTE_MS),
        2 => Just(DAY_MS),
        1 => Just(31 * DAY_MS),
    ];
    let beyond = prop_oneof![9 => Just(0), 1 => 1..3_u64];
    prop_oneof![
        12 => send().prop_map(Step::Send),
        2 => (send(), 2..40_u8).prop_map(|(send, count)| Step::Burst(send, count)),
        6 => any::<Index>().prop_map(Step::Retry),
        6 => (ANY_BOX, any::<bool>(), any::<Index>(), beyond).prop_map(
            |(seed, second, upto, beyond)| Step::Acknowledge { seed, second, upto, beyond }
        ),
        1 => (BOXES, BOXES, any::<bool>())
            .prop_map(|(by, other, blocked)| Step::Block { by, other, blocked }),
        1 => BOXES.prop_map(|seed| Step::Extend { seed }),
        2 => (ANY_BOX, 1..4_u8, 1..4_u8, any::<bool>()).prop_map(
            |(seed, number, code, discoverable)| {
                Step::OpenClaim { seed, number, code, discoverable }
            }
        ),
        4 => (ANY_BOX, 1..4_u8, 1..4_u8)
            .prop_map(|(seed, number, code)| Step::VerifyClaim { seed, number, code }),
        4 => wait.prop_map(|millis| Step::Wait { millis }),
        3 => (0..20_u32).prop_map(|limit| Step::Expire { limit }),
    ]
}

/// Tight limits, so that queues are full most of the time, or wide ones, so that they never are.
/// Budgets of codes have tests of their own.
fn limits() -> impl Strategy<Value = Limits> {
    any::<bool>().prop_map(|tight| Limits {
        envelope_bytes: 100,
        queue_envelopes: if tight { 12 } else { 10_000 },
        queue_bytes: if tight { 400 } else { 1 << 20 },
        sender_share_percent: if tight { 50 } else { 100 },
        codes_per_day: 1000,
        code_pause_ms: 0,
        ..Limits::default()
    })
}

/// The rules, twice, beside the model.
struct Run {
    world: World,
    twin: World,
    model: Model,
    sent: Vec<(u8, u8, Enqueue)>,
}

impl Run {
    fn new(limits: Limits) -> Self {
        let mut world = World::new(limits);
        for seed in BOXES {
            world.register(seed);
            // Linking a device has no command yet.
            let mut profile = world.tables.profile(&box_id(seed)).unwrap().unwrap();
            let state = DeviceState {
                authorised: true,
                cursor: Sequence(0),
                token_generation: 1,
            };
            profile.devices.insert(device(seed, true).device, state);
            world.tables.put_profile(&box_id(seed), &profile).unwrap();
        }
        let last_generation = world.tables.meta().unwrap().last_generation;
        let mut model = Model::new(limits, world.now, last_generation);
        for seed in BOXES {
            let cursors = [false, true]
                .map(|second| (device(seed, second).device, 0))
                .into();
            model.boxes.insert(
                seed,
                ModelBox {
                    cursors,
                    ..ModelBox::default()
                },
            );
        }
        Self {
            twin: world.clone(),
            world,
            model,
            sent: Vec::new(),
        }
    }

    /// Applies to both; a rejection must have changed nothing but the clock.
    fn apply(&mut self, command: Command) -> Reply {
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
            before.put_meta(&meta).unwrap();
            assert_eq!(self.world.tables, before, "a rejection changed something");
        }
        reply
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(send) => self.send(send),
            Step::Burst(send, count) => (0..*count).for_each(|_| self.send(send)),
            Step::Retry(index) => {
                if !self.sent.is_empty() {
                    let (from, to, sent) = index.get(&self.sent).clone();
                    self.deliver(from, to, sent);
                }
            }
            Step::Acknowledge {
                seed,
                second,
                upto,
                beyond,
            } => {
                self.acknowledge(*seed, device(*seed, *second), upto, *beyond);
            }
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
            Step::Extend { seed } => self.extend(*seed),
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
                let reply = self.apply(open(*seed, 200 + number, *code));
                let expected = self.model.open_claim(*seed, *number, *code, *discoverable);
                assert_eq!(reply, expected);
            }
            Step::VerifyClaim { seed, number, code } => self.verify(*seed, *number, *code),
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
        self.sent.push((send.from, send.to, sent.clone()));
        self.deliver(send.from, send.to, sent);
    }

    fn deliver(&mut self, from: u8, to: u8, sent: Enqueue) {
        let expected = self.model.send(from, to, &sent);
        assert_eq!(self.apply(Command::Enqueue(sent)), expected);
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

    fn extend(&mut self, seed: u8) {
        let target = self.model.boxes.get_mut(&seed).unwrap();
        // Changing the chain has no command yet. Eight devices are enough.
        if target.chain_version < 7 {
            target.chain_version += 1;
            let added = 1..=target.chain_version as u8;
            let longer = added.fold(record(seed), |r, n| add(&r, seed + 10 * n, seed).unwrap());
            for world in [&mut self.world, &mut self.twin] {
                world
                    .tables
                    .update_key_record(&box_id(seed), &longer)
                    .unwrap();
            }
        }
    }

    fn verify(&mut self, seed: u8, number: u8, code: u8) {
        let reply = self.apply(verify_claim(seed, 200 + number, code));
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
        for (seed, target) in &self.model.boxes {
            for second in [false, true] {
                let device = device(*seed, second);
                let page = self.world.page(device, 0, u32::MAX).unwrap();
                let shown = page
                    .envelopes
                    .iter()
                    .map(|e| (e.sequence.0, e.id, e.body.clone()));
                let expected = target.shown_to(&device.device, self.model.now);
                let expected = expected
                    .into_iter()
                    .map(|(n, sent)| (n, sent.id, sent.body));
                assert!(shown.eq(expected), "box {seed}, second device: {second}");
                assert!(!page.more);
                assert_eq!(page.status.cursor.0, target.cursors[&device.device]);
                assert_eq!(page.status.last.0, target.log.len() as u64);
            }
        }
        for number in 1..4 {
            let query = Query::VerifiedClaim(identifier(200 + number));
            let owner = self.model.owners.get(&number);
            let expected = owner.map(|owner| (box_id(owner.seed), owner.generation));
            assert_eq!(self.world.query(&query), Answer::VerifiedClaim(expected));
        }
    }

    /// Once all time is over nothing may be left, and every count must be back at zero.
    fn check_the_end(&mut self) {
        assert_eq!(
            self.world.tables, self.twin.tables,
            "the twin's tables differ"
        );
        self.world.now = self.model.now.plus_millis(100 * DAY_MS);
        self.world.expire_all();
        for (seed, target) in &self.model.boxes {
            let state = self
                .world
                .tables
                .queue_state(&box_id(*seed))
                .unwrap()
                .unwrap_or_default();
            assert_eq!((state.depth, state.bytes), (0, 0));
            assert_eq!(state.last.0, target.log.len() as u64);
            assert!(state.expired_total <= state.last.0);
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
        assert_eq!(self.world.tables.outbox(1).unwrap(), []);
    }
}

fn config() -> Config {
    let cases = if std::env::var_os("ROSSBY_LONG").is_some() {
        20_000
    } else {
        300
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
    fn every_history_is_as_the_promises_say(
        limits in limits(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut run = Run::new(limits);
        for step in &steps {
            run.step(step);
            run.check();
        }
        run.check_the_end();
    }
}

#[test]
fn a_second_device_holds_back_the_purge() {
    let mut run = Run::new(Limits::default());
    run.world
        .send(common::world::letter(address(1), box_id(2), 1, "hello"))
        .unwrap();
    let purged = |reply| match reply {
        Ok(Outcome::Acknowledged { purged, .. }) => purged,
        other => panic!("{other:?}"),
    };
    assert_eq!(purged(run.world.acknowledge(device(2, false), 1)), 0);
    assert_eq!(run.world.inbox(device(2, true)), [(1, "hello".to_owned())]);
    assert_eq!(purged(run.world.acknowledge(device(2, true), 1)), 1);
}
