//! P4: per key, the end of a queue, a device's cursor and a sender's counter are linearizable: each
//! reply can be explained by one point in time between the call's beginning and its end. The owner of an
//! identifier is judged in `identifiers.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rossby_domain::Rejection;
use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId};

use super::Invariant;
use super::versions::Versions;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response, What};
use crate::oracle::{Finished, Moment};

/// Something whose level only goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The last sequence of a box.
    Queue(BoxId),
    /// What a device has acknowledged.
    Cursor(DeviceAddress),
    /// The last counter that a box accepted from a sender.
    Counter(BoxId, DeviceAddress),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(id) => write!(f, "the last sequence of box {id}"),
            Self::Cursor(device) => write!(f, "the cursor of device {device}"),
            Self::Counter(id, sender) => {
                write!(f, "the last counter of device {sender} in box {id}")
            }
        }
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Linearizable {
    objects: BTreeMap<Key, Versions>,
    /// The letters that were ever sent to each box.
    sent: BTreeMap<BoxId, BTreeSet<EnvelopeId>>,
}

impl Linearizable {
    fn called(&mut self, request: &Request, now: Moment) {
        let (key, level) = match request {
            Request::Send { to, id, .. } => {
                self.sent.entry(*to).or_default().insert(*id);
                (Key::Counter(*to, id.sender), id.counter.0)
            }
            Request::Acknowledge { device, upto } => (Key::Cursor(*device), upto.0),
            _ => return,
        };
        self.objects.entry(key).or_default().asks(level, now);
    }

    fn reached(&mut self, finished: &Finished<'_>, key: Key, level: u64) {
        let object = self.objects.entry(key).or_default();
        object.reached(level, finished.ended);
    }

    fn read(&mut self, finished: &Finished<'_>, key: Key, level: u64) -> Result<(), String> {
        let object = self.objects.entry(key).or_default();
        let read = object.read(level, finished.call.began, finished.ended);
        read.map_err(|floor| {
            format!("{key} is read as {level}, but was known to be {floor} before the call began")
        })
    }

    fn last(&mut self, finished: &Finished<'_>, id: &BoxId, last: u64) -> Result<(), String> {
        let sent = self.sent.get(id).map_or(0, BTreeSet::len) as u64;
        if last > sent {
            return Err(format!(
                "box {id} is said to have had {last} letters, but only {sent} were ever sent to it"
            ));
        }
        self.read(finished, Key::Queue(*id), last)
    }

    fn answered(&mut self, finished: &Finished<'_>, response: &Response) -> Result<(), String> {
        match (&finished.call.request, response) {
            (Request::Send { to, id, .. }, Response::Sent { sequence }) => {
                self.reached(finished, Key::Queue(*to), sequence.0);
                self.reached(finished, Key::Counter(*to, id.sender), id.counter.0);
                Ok(())
            }
            (Request::Fetch { device, .. }, Response::Page { status, .. }) => {
                self.last(finished, &device.box_id, status.last.0)?;
                self.read(finished, Key::Cursor(*device), status.cursor.0)
            }
            (Request::Acknowledge { device, .. }, Response::Acknowledged { cursor, .. }) => {
                self.read(finished, Key::Cursor(*device), cursor.0)
            }
            (Request::Join { .. }, Response::Joined { device, cursor }) => {
                let object = self.objects.entry(Key::Cursor(*device)).or_default();
                object.asks(cursor.0, finished.call.began);
                self.read(finished, Key::Cursor(*device), cursor.0)
            }
            (Request::KeyRecord { box_id, sender }, Response::KeyRecord { found }) => found
                .map_or(Ok(()), |(_, next)| {
                    self.counter(finished, (box_id, sender), next)
                }),
            _ => Ok(()),
        }
    }

    fn counter(
        &mut self,
        finished: &Finished<'_>,
        (to, sender): (&BoxId, &DeviceAddress),
        next: Counter,
    ) -> Result<(), String> {
        let last = next.0.saturating_sub(1);
        self.read(finished, Key::Counter(*to, *sender), last)
    }

    /// A "no" tells something of the state too.
    fn rejected(&mut self, finished: &Finished<'_>, rejection: &Rejection) -> Result<(), String> {
        match (&finished.call.request, rejection) {
            (
                Request::Send { to, id, .. },
                Rejection::CounterReused { next }
                | Rejection::NotAccepted { next }
                | Rejection::CounterForgotten { next },
            ) => self.counter(finished, (to, &id.sender), *next),
            (Request::Acknowledge { device, .. }, Rejection::BeyondQueue { last }) => {
                self.last(finished, &device.box_id, last.0)
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for Linearizable {
    fn name(&self) -> &'static str {
        "P4 linearizable"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        if let What::Called { request, .. } = &observation.what {
            self.called(request, known.clients.now());
        }
        let Some(finished) = known.clients.finished(observation) else {
            return Ok(());
        };
        match finished.result {
            Ok(response) => self.answered(&finished, response),
            Err(Failure::Rejected(rejection)) => self.rejected(&finished, rejection),
            Err(_) => Ok(()),
        }
    }

    fn finish(&mut self, known: &Known) -> Result<(), String> {
        // Which letter made which end of the queue is known only now.
        for (id, mailbox) in known.clients.boxes() {
            let queue = self.objects.entry(Key::Queue(*id)).or_default();
            for letter in mailbox.letters.values() {
                if let (Some((place, _)), Some(first)) = (letter.place, letter.tries.first()) {
                    queue.asks(place.0, first.began);
                }
            }
        }
        let mut objects = self.objects.iter();
        objects.try_for_each(|(key, object)| {
            let explained = object.check();
            explained
                .map_err(|level| format!("no points in time explain when {key} became {level}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::Sequence;

    use super::*;
    use crate::invariants::story::{Story, box_id, caught, device, legal};

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(Linearizable::default(), &story), None);
        }

        #[test]
        fn a_page_from_the_past_is_caught(story in legal()) {
            let last = story.last_sent();
            prop_assume!(last > 0);
            let mut stale = story.clone();
            stale.page(1, 0, vec![], last - 1);
            prop_assert!(caught(Linearizable::default(), &stale).is_some());
        }
    }

    #[test]
    fn concurrent_calls_may_see_a_send_or_not() {
        let mut story = Story::default();
        let send = story.begin_send(1, 1, "text");
        story.page(1, 0, vec![], 0);
        let seen = story.seen(1, 1, 1, "text");
        story.page(1, 0, vec![seen], 1);
        story.end(
            send,
            Ok(Response::Sent {
                sequence: Sequence(1),
            }),
        );
        assert_eq!(caught(Linearizable::default(), &story), None);
    }

    #[test]
    fn a_send_seen_and_then_not_is_caught() {
        let mut story = Story::default();
        let send = story.begin_send(1, 1, "text");
        let seen = story.seen(1, 1, 1, "text");
        story.page(1, 0, vec![seen], 1);
        story.page(1, 0, vec![], 0);
        story.end(
            send,
            Ok(Response::Sent {
                sequence: Sequence(1),
            }),
        );
        assert!(caught(Linearizable::default(), &story).is_some());
    }

    #[test]
    fn more_letters_than_were_sent_are_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        story.page(1, 0, vec![], 2);
        assert!(caught(Linearizable::default(), &story).is_some());
    }

    #[test]
    fn sends_placed_against_the_order_of_their_calls_are_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "one", 2);
        story.sent(2, 1, "two", 1);
        assert!(caught(Linearizable::default(), &story).is_some());
    }

    #[test]
    fn a_stale_cursor_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        story.acknowledges(1, 1, 1, 0);
        story.page(1, 1, vec![], 1);
        story.change_last_status(|status| status.cursor = Sequence(0));
        assert!(caught(Linearizable::default(), &story).is_some());
    }

    #[test]
    fn a_stale_counter_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        let sender = device(11);
        let request = Request::KeyRecord {
            box_id: box_id(1),
            sender,
        };
        let record = |next| {
            let found = Some((0, Counter(next)));
            Ok(Response::KeyRecord { found })
        };
        let mut fresh = story.clone();
        fresh.call(request.clone(), record(2));
        assert_eq!(caught(Linearizable::default(), &fresh), None);
        story.call(request, record(1));
        assert!(caught(Linearizable::default(), &story).is_some());
    }
}
