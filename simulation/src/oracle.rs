//! What the clients did and know: the calls under way, the letters of each box with all their
//! tries, and what the devices have let go of. The invariants of the mailbox judge by it.

mod clocks;
mod said;

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::ids::{BoxId, DeviceAddress, EnvelopeId, Sequence};
use rossby_domain::limits::Limits;
use rossby_domain::time::Timestamp;

use self::clocks::Clocks;
use self::said::{Switch, TtlSet};
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
    /// How long letters may wait in it, as its devices have said.
    ttls: Vec<TtlSet>,
    /// For which boxes it is not to be there.
    blocks: BTreeMap<BoxId, Switch>,
    /// Whether it must not send.
    suspended: Switch,
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

impl Letter {
    /// Whether some clock of the cluster may say that its time is over.
    fn may_have_expired(&self, clocks: &Clocks, mailbox: &BoxStory, now: SimTime) -> bool {
        let (_, latest) = clocks.stamps(now);
        self.tries.iter().any(|tried| {
            let (ttl, _) = self.ttls(tried, mailbox, clocks.limit_ms());
            let (since, _) = clocks.stamps(tried.began_at);
            since.saturating_add(ttl) <= latest
        })
    }

    /// The shortest and the longest that it may wait by a try that stored it, in milliseconds.
    fn ttls(&self, tried: &Try, mailbox: &BoxStory, limit_ms: u64) -> (u64, u64) {
        let stored_by = self.delivered.map(|(.., at)| at);
        let stored_by = stored_by.unwrap_or(Moment(u64::MAX));
        let (shortest, longest) = mailbox.ttls(tried.began, stored_by, limit_ms);
        let asked = tried.ttl_ms.unwrap_or(limit_ms);
        (shortest.min(asked), longest.min(asked))
    }
}

impl BoxStory {
    /// The shortest and the longest that the box may have let letters wait between two moments, in milliseconds.
    fn ttls(&self, from: Moment, upto: Moment, limit_ms: u64) -> (u64, u64) {
        let is_past = |at: Option<Moment>| {
            let mut later = self.ttls.iter().filter(|later| Some(later.began) > at);
            later.any(|later| later.ended.is_some_and(|ended| ended < from))
        };
        let sets = self.ttls.iter();
        let sets = sets.filter(|set| set.began < upto && !is_past(Some(set.began)));
        let sets = sets.map(|set| set.ttl_ms.unwrap_or(limit_ms).min(limit_ms));
        // At first it is as long as may be.
        let first = (!is_past(None)).then_some(limit_ms);
        let all: Vec<u64> = sets.chain(first).collect();
        let shortest = all.iter().min().copied().unwrap_or(limit_ms);
        (shortest, all.iter().max().copied().unwrap_or(limit_ms))
    }

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

    /// Whether a box may block another, or not block it, at some point from then till now.
    #[must_use]
    pub fn may_block(&self, id: &BoxId, other: &BoxId, blocked: bool, from: Moment) -> bool {
        let blocks = self.mailbox(id).and_then(|it| it.blocks.get(other));
        blocks.map_or(!blocked, |blocks| blocks.may_be(blocked, from, self.now))
    }

    /// The same of a box that may be suspended.
    #[must_use]
    pub fn may_be_suspended(&self, id: &BoxId, suspended: bool, from: Moment) -> bool {
        let known = self.mailbox(id).map(|mailbox| &mailbox.suspended);
        known.map_or(!suspended, |known| known.may_be(suspended, from, self.now))
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
    pub fn may_have_expired(&self, mailbox: &BoxStory, letter: &Letter, now: SimTime) -> bool {
        letter.may_have_expired(&self.clocks, mailbox, now)
    }

    /// When a letter that is shown now may expire: at the earliest and at the latest. `None` if nobody is known to have sent
    /// it.
    #[must_use]
    pub fn expires(
        &self,
        mailbox: &BoxStory,
        letter: &Letter,
        now: SimTime,
    ) -> Option<(Timestamp, Timestamp)> {
        let limit_ms = self.clocks.limit_ms();
        let (_, latest) = self.stamps(now);
        let of_tries = letter.tries.iter().map(|tried| {
            let (shortest, longest) = letter.ttls(tried, mailbox, limit_ms);
            let (since, _) = self.stamps(tried.began_at);
            (since.plus_millis(shortest), latest.plus_millis(longest))
        });
        of_tries.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// The shortest and the longest that a box may have let letters wait between a call's beginning and now, in milliseconds.
    #[must_use]
    pub fn box_ttls(&self, mailbox: &BoxStory, began: Moment) -> (u64, u64) {
        mailbox.ttls(began, self.now, self.clocks.limit_ms())
    }

    /// Whether the time of any letter to this box may be over.
    #[must_use]
    pub fn any_may_have_expired(&self, mailbox: &BoxStory, now: SimTime) -> bool {
        let mut letters = mailbox.letters.values();
        letters.any(|letter| self.may_have_expired(mailbox, letter, now))
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
            Request::Block {
                device,
                other,
                blocked,
            } => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                let block = mailbox.blocks.entry(*other).or_default();
                block.says(*blocked, self.now);
            }
            Request::Suspend { box_id, suspended } => {
                let mailbox = self.boxes.entry(*box_id).or_default();
                mailbox.suspended.says(*suspended, self.now);
            }
            Request::SetTtl { device, ttl_ms } => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                mailbox.ttls.push(TtlSet {
                    ttl_ms: *ttl_ms,
                    began: self.now,
                    ended: None,
                });
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
            (Request::Block { device, other, .. }, result) => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                let block = mailbox.blocks.entry(*other).or_default();
                block.ends(call.began, result, now);
            }
            (Request::Suspend { box_id, .. }, result) => {
                let mailbox = self.boxes.entry(*box_id).or_default();
                mailbox.suspended.ends(call.began, result, now);
            }
            (Request::SetTtl { device, .. }, result) => {
                let mailbox = self.boxes.entry(device.box_id).or_default();
                let set = mailbox.ttls.iter_mut().find(|set| set.began == call.began);
                match (set, result) {
                    (Some(set), Ok(_)) => set.ended = Some(now),
                    (_, Err(Failure::Unknown)) => {}
                    // Nothing happened.
                    _ => mailbox.ttls.retain(|set| set.began != call.began),
                }
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
