//! What the clients did and know: the calls under way, the letters of each box with all their
//! tries, and what the devices have let go of. The invariants of the mailbox judge by it.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{BoxId, DeviceAddress, EnvelopeId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;

use crate::observe::{
    CallId, Digest, Failure, Observation, ReplicaEvent, Request, Response, SimTime, What, Who,
};

/// The place of an observation in the history. Finer than [`SimTime`]: no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub u64);

/// A call that has begun.
#[derive(Debug, Clone)]
pub struct Call {
    /// What was asked.
    pub request: Request,
    /// When it began.
    pub began: Moment,
    /// The same, as the world's time.
    pub began_at: SimTime,
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Finished<'a> {
    /// The call.
    pub call: &'a Call,
    /// How it ended.
    pub result: &'a Result<Response, Failure>,
    /// When it ended.
    pub ended: Moment,
    /// The same, as the world's time.
    pub ended_at: SimTime,
}

/// What one letter was sent as: a retry may carry another text only by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// The text.
    pub text: Digest,
    /// The time to live asked for.
    pub ttl_ms: Option<u64>,
    /// When the try began.
    pub began: Moment,
    /// The same, as the world's time.
    pub began_at: SimTime,
}

/// Everything known of one envelope id in one box.
#[derive(Debug, Clone, Default)]
pub struct Letter {
    /// All tries, in order.
    pub tries: Vec<Try>,
    /// Its place, once a reply or a page has shown it, and when that was.
    pub place: Option<(Sequence, Moment)>,
    /// The text and time to live that a try was told "delivered" for, and when first.
    pub delivered: Option<(Digest, Option<u64>, Moment)>,
    /// The text that a page showed.
    pub shown: Option<Digest>,
}

/// What a device of a box has asked to let go.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceStory {
    /// The highest sequence that it asked to acknowledge, whatever became of that; at first, where it joined.
    pub asked: Sequence,
    /// Whether its removal was asked for: it holds nothing any more, and nothing is kept for it.
    pub revoked: bool,
    /// Whether its owner has lost it: what is kept for it waits in vain.
    pub lost: bool,
}

/// Everything known of one box.
#[derive(Debug, Clone, Default)]
pub struct BoxStory {
    /// The letters to it.
    pub letters: BTreeMap<EnvelopeId, Letter>,
    /// Which letter stands where.
    pub places: BTreeMap<Sequence, EnvelopeId>,
    /// Its devices, as far as they have shown themselves.
    pub devices: BTreeMap<DeviceAddress, DeviceStory>,
    /// Whether its deletion was asked for: nothing needs to be there from then on.
    pub deleting: bool,
    /// When its deletion was first acknowledged.
    pub deleted: Option<Moment>,
}

/// What the clients did and know.
#[derive(Debug, Default)]
pub struct Oracle {
    now: Moment,
    open: BTreeMap<CallId, Call>,
    boxes: BTreeMap<BoxId, BoxStory>,
    clocks: Clocks,
    healed: Option<Moment>,
}

/// How far a clock may be from a quorum's and still stamp, in milliseconds.
const SKEW_MS: i64 = 10_000;

/// How far what a quorum's clocks agree on may ever have been from the world's time. One clock alone
/// expires nothing, however wrong it is, but where it is the only voter's. Two may: of three or five voters, two or three
/// that are heard are a quorum.
#[derive(Debug, Clone, Default)]
struct Clocks {
    wall: Timestamp,
    /// How long a letter waits at most; the design's limit if the world did not say.
    envelope_ttl_ms: Option<u64>,
    /// How long an identifier stays at least that another box has proven; as above.
    reset_delay_ms: Option<u64>,
    offsets: BTreeMap<Who, i64>,
    /// The nodes that have been the only voter of a group.
    alone: BTreeSet<Who>,
    lowest_ms: i64,
    highest_ms: i64,
    /// How far any clock ever was from the world's time.
    behind_ms: i64,
    ahead_ms: i64,
    /// What clocks have gained that ran fast. A leader goes on by that from the last time that was stamped.
    gained_ms: i64,
}

impl Clocks {
    /// Notes a node, and its offset if that is told.
    fn note(&mut self, node: Who, offset_ms: Option<i64>) {
        let offset = self.offsets.entry(node).or_default();
        *offset = offset_ms.unwrap_or(*offset);
        self.behind_ms = self.behind_ms.min(*offset);
        self.ahead_ms = self.ahead_ms.max(*offset);
        let mut offsets: Vec<i64> = self.offsets.values().copied().collect();
        offsets.sort_unstable();
        // At least so many clocks are below, or above, what a quorum shows.
        let outvoted = usize::from(offsets.len() > 1);
        let low = offsets.get(outvoted).copied().unwrap_or(0);
        let high = offsets.iter().rev().nth(outvoted).copied().unwrap_or(0);
        let alone = self.alone.iter().filter_map(|who| self.offsets.get(who));
        for offset in alone.copied().chain([low, high]) {
            self.lowest_ms = self.lowest_ms.min(offset - SKEW_MS);
            self.highest_ms = self.highest_ms.max(offset + SKEW_MS);
        }
    }

    /// Notes a node whose clock will have run so far.
    fn note_drift(&mut self, node: Who, upto_ms: i64) {
        let before = self.offsets.get(&node).copied().unwrap_or_default();
        self.gained_ms += (upto_ms - before).max(0);
        self.note(node, Some(upto_ms));
    }

    /// The earliest and the latest time that a command may have been stamped with. Who stamps shows its own clock, or the last
    /// stamp and the time since.
    fn stamps(&self, at: SimTime) -> (u64, u64) {
        let earliest = self.lowest_ms.max(self.behind_ms);
        let latest = self.highest_ms.min(self.ahead_ms + self.gained_ms);
        (self.shown(at, earliest), self.shown(at, latest))
    }

    /// Notes a node that is the only voter of a group.
    fn note_alone(&mut self, node: Who) {
        self.alone.insert(node);
        self.note(node, None);
    }

    fn shown(&self, at: SimTime, offset_ms: i64) -> u64 {
        let wall = self.wall.as_millis().saturating_add(at.0);
        wall.saturating_add_signed(offset_ms)
    }
}

impl Letter {
    /// Whether some clock of the cluster may say that its time is over.
    fn may_have_expired(&self, clocks: &Clocks, now: SimTime) -> bool {
        let limit = clocks.envelope_ttl_ms;
        let limit = limit.unwrap_or_else(|| Limits::default().envelope_ttl_ms);
        let (_, latest) = clocks.stamps(now);
        self.tries.iter().any(|tried| {
            let ttl = tried.ttl_ms.unwrap_or(limit).min(limit);
            let (since, _) = clocks.stamps(tried.began_at);
            since.saturating_add(ttl) <= latest
        })
    }
}

impl BoxStory {
    /// The highest sequence that each device that is known has asked to acknowledge: above the
    /// lowest of them nothing may be purged.
    #[must_use]
    pub fn lowest_asked(&self) -> Sequence {
        let kept = self.devices.values().filter(|device| !device.revoked);
        kept.map(|device| device.asked).min().unwrap_or_default()
    }

    /// Whether a device's removal was asked for.
    #[must_use]
    pub fn is_revoked(&self, device: &DeviceAddress) -> bool {
        let device = self.devices.get(device);
        device.is_some_and(|device| device.revoked)
    }

    /// What a device has asked to acknowledge.
    #[must_use]
    pub fn asked(&self, device: &DeviceAddress) -> Sequence {
        self.devices
            .get(device)
            .map(|device| device.asked)
            .unwrap_or_default()
    }
}

impl Oracle {
    /// The call that an observation ends, if it does.
    #[must_use]
    pub fn finished<'a>(&'a self, observation: &'a Observation) -> Option<Finished<'a>> {
        let What::Returned { call, result } = &observation.what else {
            return None;
        };
        Some(Finished {
            call: self.open.get(call)?,
            result,
            ended: self.now,
            ended_at: observation.at,
        })
    }

    /// Takes in an observation. The invariants look at it before this.
    pub fn learn(&mut self, observation: &Observation) {
        if let Who::Node(_) = observation.who
            && !self.clocks.offsets.contains_key(&observation.who)
        {
            self.clocks.note(observation.who, None);
        }
        match &observation.what {
            What::Called { call, request } => self.begin(*call, request, observation.at),
            What::Returned { call, result } => {
                if let Some(begun) = self.open.remove(call) {
                    self.end(&begun, result);
                }
            }
            What::Began {
                wall,
                envelope_ttl_ms,
                reset_delay_ms,
            } => {
                self.clocks.wall = *wall;
                self.clocks.envelope_ttl_ms = Some(*envelope_ttl_ms);
                self.clocks.reset_delay_ms = Some(*reset_delay_ms);
            }
            What::DeviceLost { device } => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                mailbox.devices.entry(*device).or_default().lost = true;
            }
            What::ClockDrifts { upto_ms, .. } => {
                self.clocks.note_drift(observation.who, *upto_ms);
            }
            What::ClockSet { offset_ms } => {
                self.clocks.note(observation.who, Some(*offset_ms));
            }
            What::Replica {
                replica,
                event: ReplicaEvent::Members { voters, .. },
                ..
            } if *voters == [BTreeSet::from([*replica])] => self.clocks.note_alone(observation.who),
            What::Healed => self.healed = Some(self.now),
            _ => {}
        }
        self.now.0 += 1;
    }

    /// The moment of the next observation.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.now
    }

    /// When all faults were over, if they are.
    #[must_use]
    pub fn healed(&self) -> Option<Moment> {
        self.healed
    }

    /// A box, if anybody has had to do with it.
    #[must_use]
    pub fn mailbox(&self, id: &BoxId) -> Option<&BoxStory> {
        self.boxes.get(id)
    }

    /// Whether a box's deletion was asked for.
    #[must_use]
    pub fn is_deleting(&self, id: &BoxId) -> bool {
        self.mailbox(id).is_some_and(|mailbox| mailbox.deleting)
    }

    /// A letter, if anybody has had to do with it.
    #[must_use]
    pub fn letter(&self, to: &BoxId, id: &EnvelopeId) -> Option<&Letter> {
        self.mailbox(to)?.letters.get(id)
    }

    /// All boxes.
    pub fn boxes(&self) -> impl Iterator<Item = (&BoxId, &BoxStory)> {
        self.boxes.iter()
    }

    /// The calls under way.
    pub fn open(&self) -> impl Iterator<Item = (&CallId, &Call)> {
        self.open.iter()
    }

    /// Whether a letter's time may be over by some clock of the cluster.
    #[must_use]
    pub fn may_have_expired(&self, letter: &Letter, now: SimTime) -> bool {
        letter.may_have_expired(&self.clocks, now)
    }

    /// Whether the time of any letter to this box may be over.
    #[must_use]
    pub fn any_may_have_expired(&self, mailbox: &BoxStory, now: SimTime) -> bool {
        let mut letters = mailbox.letters.values();
        letters.any(|letter| self.may_have_expired(letter, now))
    }

    /// The earliest and the latest time that a command may have been stamped with.
    #[must_use]
    pub fn stamps(&self, at: SimTime) -> (Timestamp, Timestamp) {
        let (earliest, latest) = self.clocks.stamps(at);
        (
            Timestamp::from_millis(earliest),
            Timestamp::from_millis(latest),
        )
    }

    /// How long an identifier stays at least that another box has proven, in milliseconds.
    #[must_use]
    pub fn reset_delay_ms(&self) -> u64 {
        let limit = self.clocks.reset_delay_ms;
        limit.unwrap_or_else(|| Limits::default().reset_delay_ms)
    }

    fn begin(&mut self, call: CallId, request: &Request, at: SimTime) {
        match request {
            Request::Send {
                to,
                id,
                text,
                ttl_ms,
            } => {
                let mailbox = self.boxes.entry(*to).or_default();
                mailbox.letters.entry(*id).or_default().tries.push(Try {
                    text: *text,
                    ttl_ms: *ttl_ms,
                    began: self.now,
                    began_at: at,
                });
            }
            Request::Acknowledge { device, upto } => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                let device = mailbox.devices.entry(*device).or_default();
                device.asked = device.asked.max(*upto);
            }
            Request::Revoke { device } => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                mailbox.devices.entry(*device).or_default().revoked = true;
            }
            Request::DeleteAccount { device } => {
                self.boxes.entry(device.box_id).or_default().deleting = true;
            }
            _ => {}
        }
        let begun = Call {
            request: request.clone(),
            began: self.now,
            began_at: at,
        };
        self.open.insert(call, begun);
    }

    fn end(&mut self, call: &Call, result: &Result<Response, Failure>) {
        let now = self.now;
        match (&call.request, result) {
            (
                Request::Send {
                    to,
                    id,
                    text,
                    ttl_ms,
                },
                Ok(Response::Sent { sequence }),
            ) => {
                let mailbox = self.boxes.entry(*to).or_default();
                let letter = mailbox.letters.entry(*id).or_default();
                letter.place.get_or_insert((*sequence, now));
                letter.delivered.get_or_insert((*text, *ttl_ms, now));
                mailbox.places.entry(*sequence).or_insert(*id);
            }
            (Request::DeleteAccount { device }, Ok(_)) => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                mailbox.deleted.get_or_insert(now);
            }
            (Request::Join { .. }, Ok(Response::Joined { device, cursor })) => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                let device = mailbox.devices.entry(*device).or_default();
                device.asked = device.asked.max(*cursor);
            }
            (Request::Fetch { device, .. }, Ok(Response::Page { envelopes, .. })) => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                mailbox.devices.entry(*device).or_default();
                for seen in envelopes {
                    let letter = mailbox.letters.entry(seen.id).or_default();
                    letter.place.get_or_insert((seen.sequence, now));
                    letter.shown.get_or_insert(seen.text);
                    mailbox.places.entry(seen.sequence).or_insert(seen.id);
                }
            }
            _ => {}
        }
    }
}
