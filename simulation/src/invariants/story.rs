//! Histories for tests: made up step by step, or drawn as legal ones from a model of one box.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rossby_domain::Rejection;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::{
    BoxId, Counter, DeviceAddress, DeviceId, EnvelopeId, GroupId, NodeId, PartitionId, ReplicaId,
    Sequence,
};
use rossby_domain::limits::Limits;
use rossby_domain::query::QueueStatus;
use rossby_domain::time::Timestamp;
use rossby_storage::LogPosition;

use super::{Invariant, Violation};
use crate::judge::Judge;
use crate::observe::{
    CallId, ClientId, Digest, Failure, Observation, Recovered, ReplicaEvent, Request, Response,
    Seen, SimTime, Vote, What, Who,
};

/// A made-up history. Letters go to box 1, whose devices are 1 and 2; the senders are others.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub observations: Vec<Observation>,
    now: u64,
    calls: u64,
    cursors: BTreeMap<u8, u64>,
    purged: u64,
}

/// What an invariant makes of a story.
pub fn caught(invariant: impl Invariant + 'static, story: &Story) -> Option<Violation> {
    story.judged_by(Judge::of(vec![Box::new(invariant)])).err()
}

pub fn box_id(number: u8) -> BoxId {
    BoxId::derive(PartitionId::new(3).unwrap(), &[number; 32])
}

/// A device: 1 and 2 of box 1; 11 and up are senders' of other boxes.
pub fn device(number: u8) -> DeviceAddress {
    DeviceAddress {
        box_id: box_id(if number > 10 { number } else { 1 }),
        device: DeviceId::of_key(&[number; 32]),
    }
}

pub fn node(number: u64) -> Who {
    Who::Node(NodeId(number))
}

pub fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

pub fn appended(term: u64, index: u64, entry: &str) -> ReplicaEvent {
    ReplicaEvent::Appended {
        position: at(term, index),
        entry: Digest::of(entry.as_bytes()),
    }
}

pub fn applied(term: u64, index: u64, entry: &str) -> ReplicaEvent {
    ReplicaEvent::Applied {
        position: at(term, index),
        entry: Digest::of(entry.as_bytes()),
    }
}

pub fn found(recovered: Recovered) -> ReplicaEvent {
    ReplicaEvent::Started(recovered)
}

pub fn vote(term: u64, candidate: u64) -> ReplicaEvent {
    let (candidate, won) = (ReplicaId(candidate), false);
    ReplicaEvent::Voted(Vote {
        term,
        candidate,
        won,
    })
}

pub fn won(term: u64, leader: u64) -> ReplicaEvent {
    let (candidate, won) = (ReplicaId(leader), true);
    ReplicaEvent::Voted(Vote {
        term,
        candidate,
        won,
    })
}

fn letter(sender: u8, counter: u64) -> EnvelopeId {
    EnvelopeId {
        sender: device(10 + sender),
        counter: Counter(counter),
    }
}

fn identifier(number: u8) -> IdentifierHash {
    IdentifierHash::from_bytes([number; 32])
}

impl Story {
    /// What a judge makes of it.
    pub fn judged_by(&self, mut judge: Judge) -> Result<(), Violation> {
        let mut observations = self.observations.iter();
        observations.try_for_each(|observation| judge.observe(observation))?;
        judge.finish()
    }

    pub fn push(&mut self, who: Who, what: What) {
        self.now += 1;
        let at = SimTime(self.now);
        self.observations.push(Observation { at, who, what });
    }

    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
    }

    pub fn replica(&mut self, number: u64, event: ReplicaEvent) {
        let (group, replica) = (GroupId(1), ReplicaId(number));
        self.push(
            node(number),
            What::Replica {
                group,
                replica,
                event,
            },
        );
    }

    pub fn begin(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.push(Who::Client(ClientId(1)), What::Called { call, request });
        call
    }

    pub fn end(&mut self, call: CallId, result: Result<Response, Failure>) {
        self.push(Who::Client(ClientId(1)), What::Returned { call, result });
    }

    pub fn call(&mut self, request: Request, result: Result<Response, Failure>) {
        let call = self.begin(request);
        self.end(call, result);
    }

    pub fn begin_send(&mut self, sender: u8, counter: u64, text: &str) -> CallId {
        self.begin(send(sender, counter, text, None))
    }

    pub fn sent(&mut self, sender: u8, counter: u64, text: &str, at: u64) {
        self.sent_for(sender, counter, text, None, at);
    }

    pub fn sent_for(&mut self, sender: u8, counter: u64, text: &str, ttl: Option<u64>, at: u64) {
        let sequence = Sequence(at);
        let request = send(sender, counter, text, ttl);
        self.call(request, Ok(Response::Sent { sequence }));
    }

    pub fn refused(&mut self, sender: u8, counter: u64, text: &str, rejection: Rejection) {
        let no = Err(Failure::Rejected(rejection));
        self.call(send(sender, counter, text, None), no);
    }

    pub fn unknown(&mut self, sender: u8, counter: u64, text: &str) {
        self.call(send(sender, counter, text, None), Err(Failure::Unknown));
    }

    pub fn seen(&self, sender: u8, counter: u64, at: u64, text: &str) -> Seen {
        Seen {
            sequence: Sequence(at),
            id: letter(sender, counter),
            text: Digest::of(text.as_bytes()),
            expires_at: self
                .shown_now()
                .plus_millis(Limits::default().envelope_ttl_ms),
        }
    }

    /// What a right clock shows.
    pub fn shown_now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    pub fn sets_ttl(&mut self, by: u8, ttl_ms: Option<u64>, result: Result<Response, Failure>) {
        let device = device(by);
        self.call(Request::SetTtl { device, ttl_ms }, result);
    }

    pub fn page(&mut self, number: u8, after: u64, envelopes: Vec<Seen>, last: u64) {
        self.any_page(number, after, envelopes, (last, false));
    }

    pub fn part_of_page(&mut self, number: u8, after: u64, envelopes: Vec<Seen>, last: u64) {
        self.any_page(number, after, envelopes, (last, true));
    }

    fn any_page(&mut self, number: u8, after: u64, seen: Vec<Seen>, (last, more): (u64, bool)) {
        let status = QueueStatus {
            depth: last.saturating_sub(self.purged),
            cursor: Sequence(self.cursors.get(&number).copied().unwrap_or(0)),
            last: Sequence(last),
            ..QueueStatus::default()
        };
        let request = Request::Fetch {
            device: device(number),
            after: Sequence(after),
        };
        let envelopes = seen;
        let page = Response::Page {
            envelopes,
            more,
            status,
        };
        self.call(request, Ok(page));
    }

    pub fn acknowledges(&mut self, number: u8, upto: u64, cursor: u64, purged: u32) {
        let known = self.cursors.entry(number).or_default();
        *known = cursor.max(*known);
        self.purged += u64::from(purged);
        let request = Request::Acknowledge {
            device: device(number),
            upto: Sequence(upto),
        };
        let cursor = Sequence(cursor);
        self.call(request, Ok(Response::Acknowledged { cursor, purged }));
    }

    pub fn verifies(&mut self, number: u8, box_number: u8, result: Result<Response, Failure>) {
        let request = Request::Verify {
            identifier: identifier(number),
            box_id: box_id(box_number),
            reset: false,
        };
        self.call(request, result);
    }

    pub fn resets(&mut self, number: u8, box_number: u8, result: Result<Response, Failure>) {
        let request = Request::Verify {
            identifier: identifier(number),
            box_id: box_id(box_number),
            reset: true,
        };
        self.call(request, result);
    }

    pub fn keeps(&mut self, number: u8, by: u8, result: Result<Response, Failure>) {
        let request = Request::Keep {
            device: device(by),
            identifier: identifier(number),
        };
        self.call(request, result);
    }

    pub fn deletes(&mut self, by: u8, result: Result<Response, Failure>) {
        let device = device(by);
        self.call(Request::DeleteAccount { device }, result);
    }

    /// Box 11 looks an identifier up.
    pub fn lookup(&self, number: u8) -> Request {
        Request::Lookup {
            by: box_id(11),
            identifier: identifier(number),
        }
    }

    pub fn blocks(&mut self, by: u8, other: u8, blocked: bool, result: Result<Response, Failure>) {
        let request = Request::Block {
            device: device(by),
            other: box_id(other),
            blocked,
        };
        self.call(request, result);
    }

    pub fn suspends(&mut self, number: u8, suspended: bool, result: Result<Response, Failure>) {
        let box_id = box_id(number);
        self.call(Request::Suspend { box_id, suspended }, result);
    }

    pub fn looks_up(&mut self, number: u8, found: Option<BoxId>) {
        self.call(self.lookup(number), Ok(Response::Found(found)));
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn change_last_status(&mut self, change: impl Fn(&mut QueueStatus)) {
        let pages = self.observations.iter_mut().rev();
        let mut statuses = pages.filter_map(|observation| match &mut observation.what {
            What::Returned {
                result: Ok(Response::Page { status, .. }),
                ..
            } => Some(status),
            _ => None,
        });
        change(statuses.next().unwrap());
    }

    /// Goes on with another story, as if it came after this one.
    pub fn append(&mut self, other: &Self) {
        let (calls, now) = (self.calls, self.now);
        for observation in &other.observations {
            let mut later = observation.clone();
            later.at.0 += now;
            match &mut later.what {
                What::Called { call, .. } | What::Returned { call, .. } => call.0 += calls,
                _ => {}
            }
            self.observations.push(later);
        }
        self.calls += other.calls;
        self.now += other.now;
    }

    /// The highest place that a reply gave to a letter.
    pub fn last_sent(&self) -> u64 {
        let replies = self.observations.iter();
        let places = replies.filter_map(|observation| match &observation.what {
            What::Returned {
                result: Ok(Response::Sent { sequence }),
                ..
            } => Some(sequence.0),
            _ => None,
        });
        places.max().unwrap_or(0)
    }

    /// Whether a reply before this observation gave a place to a letter.
    pub fn delivered_before(&self, place: Sequence, position: usize) -> bool {
        self.observations[..position].iter().any(|observation| {
            matches!(&observation.what, What::Returned { result: Ok(Response::Sent { sequence }), .. }
                if *sequence == place)
        })
    }
}

fn send(sender: u8, counter: u64, text: &str, ttl_ms: Option<u64>) -> Request {
    Request::Send {
        to: box_id(1),
        id: letter(sender, counter),
        text: Digest::of(text.as_bytes()),
        ttl_ms,
    }
}

/// The story with its last page changed that the change fits, and where that stands.
pub fn mutate_page(
    story: &Story,
    change: impl Fn(&mut Vec<Seen>, bool) -> Option<()>,
) -> Option<(Story, usize)> {
    for position in (0..story.observations.len()).rev() {
        let mut changed = story.clone();
        if let What::Returned {
            result: Ok(Response::Page {
                envelopes, more, ..
            }),
            ..
        } = &mut changed.observations[position].what
            && change(envelopes, *more).is_some()
        {
            return Some((changed, position));
        }
    }
    None
}

/// The same, for a change that does not mind whether there are more pages.
pub fn mutate_pages(story: &Story, change: impl Fn(&mut Vec<Seen>) -> Option<()>) -> Option<Story> {
    mutate_page(story, |page, _| change(page)).map(|(story, _)| story)
}

/// A step of a legal history.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A new letter, or the last one of this sender again.
    Send {
        sender: u8,
        again: bool,
        fate: u8,
    },
    Fetch {
        device: u8,
        again: bool,
        limit: usize,
    },
    Acknowledge {
        device: u8,
        upto: u64,
        known: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_u8, any::<bool>(), 0..4_u8)
            .prop_map(|(sender, again, fate)| Step::Send { sender, again, fate }),
        3 => (1..3_u8, any::<bool>(), prop_oneof![Just(3_usize), Just(1000)])
            .prop_map(|(device, again, limit)| Step::Fetch { device, again, limit }),
        2 => (1..3_u8, 0..20_u64, any::<bool>())
            .prop_map(|(device, upto, known)| Step::Acknowledge { device, upto, known }),
    ]
}

/// One box as it should be.
#[derive(Debug, Default)]
struct Model {
    queue: Vec<(u8, u64)>,
    counters: BTreeMap<u8, u64>,
    cursors: BTreeMap<u8, u64>,
    purged: u64,
}

impl Model {
    fn place(&self, letter: (u8, u64)) -> Option<u64> {
        let at = self.queue.iter().position(|known| *known == letter)?;
        Some(at as u64 + 1)
    }

    fn text((sender, counter): (u8, u64)) -> String {
        format!("text {counter} of {sender}")
    }

    fn take(&mut self, story: &mut Story, step: Step) {
        match step {
            Step::Send {
                sender,
                again,
                fate,
            } => self.send(story, sender, again, fate),
            Step::Fetch {
                device,
                again,
                limit,
            } => self.fetch(story, device, again, limit),
            Step::Acknowledge {
                device,
                upto,
                known,
            } => self.acknowledge(story, device, upto, known),
        }
    }

    /// Fate 0: lost on the way; 1: stored, but nobody hears of it; else stored.
    fn send(&mut self, story: &mut Story, sender: u8, again: bool, fate: u8) {
        let counter = self.counters.entry(sender).or_default();
        *counter += u64::from(!again || *counter == 0);
        let letter = (sender, *counter);
        let text = Self::text(letter);
        if fate > 0 && self.place(letter).is_none() {
            self.queue.push(letter);
        }
        match self.place(letter) {
            Some(place) if fate > 1 => story.sent(sender, letter.1, &text, place),
            _ => story.unknown(sender, letter.1, &text),
        }
    }

    fn fetch(&self, story: &mut Story, device: u8, again: bool, limit: usize) {
        let cursor = self.cursors.get(&device).copied().unwrap_or(0);
        let after = if again { 0 } else { cursor };
        let from = after.max(cursor) as usize;
        let rest = self.queue.get(from..).unwrap_or_default();
        let page = rest.iter().zip(from as u64 + 1..).take(limit);
        let page: Vec<_> = page
            .map(|(letter, place)| story.seen(letter.0, letter.1, place, &Self::text(*letter)))
            .collect();
        let last = self.queue.len() as u64;
        if rest.len() > limit {
            story.part_of_page(device, after, page, last);
        } else {
            story.page(device, after, page, last);
        }
    }

    fn acknowledge(&mut self, story: &mut Story, number: u8, upto: u64, known: bool) {
        let upto = upto.min(self.queue.len() as u64);
        let cursor = self.cursors.entry(number).or_default();
        *cursor = upto.max(*cursor);
        let cursor = *cursor;
        let both = [1, 2].map(|device| self.cursors.get(&device).copied().unwrap_or(0));
        let purged = both[0].min(both[1]) - self.purged;
        self.purged += purged;
        story.acknowledges(number, upto, cursor, purged as u32);
        if !known && let Some(last) = story.observations.last_mut() {
            let call = CallId(story.calls);
            let result = Err(Failure::Unknown);
            last.what = What::Returned { call, result };
        }
    }
}

/// Histories that break nothing: retries, lost replies, two devices that read, acknowledge and purge.
pub fn legal() -> impl Strategy<Value = Story> {
    proptest::collection::vec(step(), 0..40).prop_map(|steps| {
        let mut story = Story::default();
        let mut model = Model::default();
        for step in steps {
            model.take(&mut story, step);
        }
        story
    })
}
