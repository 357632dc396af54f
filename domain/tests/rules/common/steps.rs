//! Random steps of a history.

use proptest::prelude::*;
use proptest::sample::Index;
use rossby_domain::ids::DeviceAddress;
use rossby_domain::limits::Limits;

use super::device_id;
use super::world::{DAY_MS, MINUTE_MS, box_id};

/// Boxes 1 to 3 exist, with two devices each at first; a fourth does not.
pub const BOXES: std::ops::RangeInclusive<u8> = 1..=3;
pub const ANY_BOX: std::ops::RangeInclusive<u8> = 1..=4;

/// Identifiers that are fought for.
pub const NUMBERS: std::ops::RangeInclusive<u8> = 101..=102;

/// Devices of each box, by number. The first two are there from the beginning.
pub const DEVICES: std::ops::RangeInclusive<u8> = 0..=4;

/// The seed of a device of a box, by its number.
pub fn device_seed(seed: u8, number: u8) -> u8 {
    seed + 10 * number
}

/// A device of a box, by its number.
pub fn numbered(seed: u8, number: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(seed),
        device: device_id(device_seed(seed, number)),
    }
}

/// A device of a box: its first, or the second.
pub fn device(seed: u8, second: bool) -> DeviceAddress {
    numbered(seed, u8::from(second))
}

#[derive(Debug, Clone)]
pub struct Send {
    pub from: u8,
    pub second: bool,
    pub to: u8,
    /// Relative to the last counter that the recipient accepted from this device.
    pub step: i64,
    pub text: u8,
    pub length: usize,
    pub ttl_ms: Option<u64>,
    pub stale: bool,
    /// Whether the recipient has written to the sender, as the proposer says.
    pub written_to: bool,
}

#[derive(Debug, Clone)]
pub enum Step {
    Send(Send),
    /// The same letters, one after another.
    Burst(Send, u8),
    /// An earlier send, whatever became of it, word for word.
    Retry(Index),
    /// Up to this share of the queue, and this many beyond.
    Acknowledge {
        seed: u8,
        number: u8,
        upto: Index,
        beyond: u64,
    },
    /// A device signs a link that adds another one, or removes it.
    Link {
        seed: u8,
        by: u8,
        number: u8,
        added: bool,
    },
    /// A device asks for its place.
    Join {
        seed: u8,
        number: u8,
    },
    /// The recovery key lets a device in, and may take their place from all others.
    Recover {
        seed: u8,
        number: u8,
        alone: bool,
    },
    Block {
        by: u8,
        other: u8,
        blocked: bool,
    },
    /// Contacts only, anyone, or as before; one box more or less among the contacts.
    Accept {
        by: u8,
        contacts_only: Option<bool>,
        other: u8,
        allowed: bool,
    },
    /// How long letters may wait.
    SetTtl {
        by: u8,
        longest_ms: Option<u64>,
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
    /// A device adds an identifier (0: its box's first one) and, if nothing comes between, opens the claim.
    AddIdentifier {
        seed: u8,
        by: u8,
        number: u8,
        code: u8,
        opened: bool,
    },
    /// A device proves an identifier of its box and, if nothing comes between, tells the box.
    ProveIdentifier {
        seed: u8,
        by: u8,
        number: u8,
        code: u8,
        told: bool,
    },
    /// A device begins to remove an identifier, as its box lists it now or did before.
    RemoveIdentifier {
        seed: u8,
        by: u8,
        number: u8,
        stale: bool,
    },
    /// The leader finishes what is half-done.
    Finish,
    Wait {
        millis: u64,
    },
    Expire {
        limit: u32,
    },
    /// From now on the leader doubts its clock, or trusts it again.
    Trust {
        clock: bool,
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
        (stale, any::<bool>()),
    )
        .prop_map(
            |(from, second, to, step, text, length, ttl_ms, (stale, written_to))| Send {
                from,
                second,
                to,
                step,
                text,
                length,
                ttl_ms,
                stale,
                written_to,
            },
        )
}

/// Letters, with some time and some expiry between them.
pub fn mail() -> impl Strategy<Value = Step> {
    let beyond = prop_oneof![9 => Just(0), 1 => 1..3_u64];
    let count = prop_oneof![2..6_u8, 30..40_u8];
    prop_oneof![
        12 => send().prop_map(Step::Send),
        2 => (send(), count).prop_map(|(send, count)| {
            Step::Burst(Send { step: 1, stale: false, ..send }, count)
        }),
        6 => any::<Index>().prop_map(Step::Retry),
        6 => (ANY_BOX, DEVICES, any::<Index>(), beyond).prop_map(
            |(seed, number, upto, beyond)| Step::Acknowledge { seed, number, upto, beyond }
        ),
        1 => (BOXES, BOXES, any::<bool>())
            .prop_map(|(by, other, blocked)| Step::Block { by, other, blocked }),
        1 => (BOXES, prop_oneof![2 => Just(None), 1 => any::<bool>().prop_map(Some)], BOXES, any::<bool>())
            .prop_map(|(by, contacts_only, other, allowed)| Step::Accept {
                by,
                contacts_only,
                other,
                allowed
            }),
        1 => (BOXES, longest()).prop_map(|(by, longest_ms)| Step::SetTtl { by, longest_ms }),
        2 => devices(),
        6 => time(),
    ]
}

fn longest() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(MINUTE_MS)),
        1 => Just(Some(DAY_MS)),
        1 => Just(Some(100 * DAY_MS)),
    ]
}

/// Devices that come and go.
pub fn devices() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (BOXES, DEVICES, DEVICES, any::<bool>()).prop_map(
            |(seed, by, number, added)| Step::Link { seed, by, number, added }
        ),
        4 => (BOXES, DEVICES).prop_map(|(seed, number)| Step::Join { seed, number }),
        1 => (BOXES, DEVICES, any::<bool>())
            .prop_map(|(seed, number, alone)| Step::Recover { seed, number, alone }),
    ]
}

/// Boxes that fight for two identifiers with good and bad codes.
pub fn directory() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (BOXES, NUMBERS, 1..3_u8, any::<bool>()).prop_map(
            |(seed, number, code, discoverable)| {
                Step::OpenClaim { seed, number, code, discoverable }
            }
        ),
        8 => (BOXES, NUMBERS, 1..3_u8)
            .prop_map(|(seed, number, code)| Step::VerifyClaim { seed, number, code }),
        2 => time(),
    ]
}

/// Boxes that add, prove and remove identifiers, each step of which may be the last one.
pub fn identifiers() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![Just(0), NUMBERS];
    let often = || prop::bool::weighted(0.7);
    prop_oneof![
        4 => (BOXES, 0..3_u8, number(), 1..3_u8, often()).prop_map(
            |(seed, by, number, code, opened)| {
                Step::AddIdentifier { seed, by, number, code, opened }
            }
        ),
        6 => (BOXES, 0..3_u8, number(), 1..3_u8, often()).prop_map(
            |(seed, by, number, code, told)| {
                Step::ProveIdentifier { seed, by, number, code, told }
            }
        ),
        3 => (BOXES, 0..3_u8, number(), prop::bool::weighted(0.1)).prop_map(
            |(seed, by, number, stale)| Step::RemoveIdentifier { seed, by, number, stale }
        ),
        2 => Just(Step::Finish),
        2 => time(),
    ]
}

fn time() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![
        3 => Just(1),
        3 => Just(MINUTE_MS),
        2 => Just(10 * MINUTE_MS),
        2 => Just(DAY_MS),
        1 => Just(31 * DAY_MS),
    ];
    prop_oneof![
        wait.prop_map(|millis| Step::Wait { millis }),
        (0..20_u32).prop_map(|limit| Step::Expire { limit }),
        any::<bool>().prop_map(|clock| Step::Trust { clock }),
    ]
}

/// Tight limits, so that queues are full most of the time, or wide ones, so that they never are.
/// Budgets of codes have tests of their own.
pub fn limits() -> impl Strategy<Value = Limits> {
    any::<bool>().prop_map(|tight| Limits {
        envelope_bytes: 100,
        queue_envelopes: if tight { 12 } else { 10_000 },
        queue_bytes: if tight { 400 } else { 1 << 20 },
        sender_share_percent: if tight { 50 } else { 100 },
        codes_per_day: 1000,
        code_pause_ms: 0,
        code_attempts: 2,
        ..Limits::default()
    })
}
