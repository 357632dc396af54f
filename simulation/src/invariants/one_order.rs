//! P3: a box has one order, the same for all its devices, and the letters of one sender device stand
//! in it in the order of their counters.

use std::collections::BTreeMap;

use rossby_domain::ids::{BoxId, Counter, DeviceAddress, EnvelopeId, Sequence};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, Request, Response, Seen, SimTime};
use crate::oracle::{BoxStory, Finished, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct OneOrder {
    /// Where the letters of each sender stand.
    senders: BTreeMap<(BoxId, DeviceAddress), BTreeMap<Counter, Sequence>>,
}

impl OneOrder {
    fn stands(
        &mut self,
        oracle: &Oracle,
        (to, id): (&BoxId, &EnvelopeId),
        at: Sequence,
    ) -> Result<(), String> {
        let mailbox = oracle.mailbox(to);
        if let Some(other) = mailbox.and_then(|mailbox| mailbox.places.get(&at))
            && other != id
        {
            return Err(format!(
                "two letters stand at {at} of one box: {} of {} and {} of {}",
                other.counter, other.sender.device, id.counter, id.sender.device
            ));
        }
        let places = self.senders.entry((*to, id.sender)).or_default();
        places.insert(id.counter, at);
        let before = places.range(..id.counter).next_back();
        let after = places.range(id.counter.next()..).next();
        match (before, after) {
            (Some((counter, place)), _) if *place >= at => Err(format!(
                "a sender's letter {} stands at {at}, its earlier letter {counter} at {place}",
                id.counter
            )),
            (_, Some((counter, place))) if *place <= at => Err(format!(
                "a sender's letter {} stands at {at}, its later letter {counter} at {place}",
                id.counter
            )),
            _ => Ok(()),
        }
    }

    fn page(
        &mut self,
        oracle: &Oracle,
        (device, after): (&DeviceAddress, Sequence),
        envelopes: &[Seen],
        now: SimTime,
    ) -> Result<(), String> {
        let mut last = after;
        for seen in envelopes {
            if seen.sequence <= last {
                return Err(format!("a page shows {seen} behind {last}"));
            }
            last = seen.sequence;
            self.stands(oracle, (&device.box_id, &seen.id), seen.sequence)?;
        }
        let empty = BoxStory::default();
        let mailbox = oracle.mailbox(&device.box_id).unwrap_or(&empty);
        if oracle.any_may_have_expired(mailbox, now) {
            return Ok(());
        }
        // Purged is only what all devices have acknowledged, and that is always a beginning.
        for pair in envelopes.windows(2) {
            if let [first, second] = pair
                && second.sequence != first.sequence.next()
            {
                return Err(format!(
                    "a page goes from {} to {} though nothing has expired",
                    first.sequence, second.sequence
                ));
            }
        }
        Ok(())
    }

    fn check(&mut self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        match (&finished.call.request, finished.result) {
            (Request::Send { to, id, .. }, Ok(Response::Sent { sequence })) => {
                self.stands(oracle, (to, id), *sequence)
            }
            (Request::Fetch { device, after }, Ok(Response::Page { envelopes, .. })) => {
                self.page(oracle, (device, *after), envelopes, finished.ended_at)
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for OneOrder {
    fn name(&self) -> &'static str {
        "P3 one order"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| self.check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invariants::story::{Story, caught, legal, mutate_pages};

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(OneOrder::default(), &story), None);
        }

        #[test]
        fn a_page_in_another_order_is_caught(story in legal()) {
            let swapped = mutate_pages(&story, |page| {
                let count = page.len();
                (count > 1).then(|| page.swap(0, count - 1))
            });
            if let Some(swapped) = swapped {
                prop_assert!(caught(OneOrder::default(), &swapped).is_some());
            }
        }

        #[test]
        fn two_pages_that_place_letters_differently_are_caught(story in legal()) {
            let swapped = mutate_pages(&story, |page| {
                let [first, second, ..] = page.as_mut_slice() else { return None };
                std::mem::swap(&mut first.id, &mut second.id);
                Some(())
            });
            if let Some(swapped) = swapped {
                let mut both = story.clone();
                both.append(&swapped);
                prop_assert!(caught(OneOrder::default(), &both).is_some());
            }
        }

        #[test]
        fn a_page_with_a_hole_is_caught(story in legal()) {
            let hole = mutate_pages(&story, |page| {
                (page.len() > 2).then(|| { page.remove(1); })
            });
            if let Some(hole) = hole {
                prop_assert!(caught(OneOrder::default(), &hole).is_some());
            }
        }
    }

    #[test]
    fn a_hole_is_legal_where_a_letter_has_expired() {
        let mut story = Story::default();
        story.sent_for(1, 1, "one", Some(1000), 2);
        story.wait(2000);
        let page = vec![story.seen(2, 1, 1, "zero"), story.seen(2, 2, 3, "two")];
        story.page(1, 0, page, 3);
        assert_eq!(caught(OneOrder::default(), &story), None);
    }

    #[test]
    fn a_sender_whose_letters_change_places_is_caught() {
        for (first, second) in [(1, 2), (2, 1)] {
            let mut story = Story::default();
            story.sent(1, first, "one", 3 - first);
            story.sent(1, second, "two", 3 - second);
            assert!(caught(OneOrder::default(), &story).is_some());
        }
    }

    #[test]
    fn two_letters_at_one_place_are_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "one", 1);
        story.sent(2, 1, "two", 1);
        assert!(caught(OneOrder::default(), &story).is_some());
    }
}
