//! P1: a letter whose send was answered with success is on every page that covers its place, for each
//! device, until that device has asked to acknowledge it, its time may be over, or somebody asked to delete the box. When all faults are
//! over, each box must have been read to its end, by all devices that are not lost, or nothing was shown.

use std::collections::BTreeMap;

use rossby_domain::ids::{DeviceAddress, Sequence};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, Request, Response, Seen};
use crate::oracle::{BoxStory, Finished, Letter, Moment, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct NoSendLost {
    /// Up to where each device has read its box in calls that began after all faults were over.
    read_upto: BTreeMap<DeviceAddress, Sequence>,
}

/// A page and what it covers.
pub(super) struct Covered<'a> {
    finished: &'a Finished<'a>,
    device: &'a DeviceAddress,
    after: Sequence,
    upto: Sequence,
    envelopes: &'a [Seen],
}

impl<'a> Covered<'a> {
    /// The page that a call was answered with, if it was one.
    pub(super) fn of(finished: &'a Finished<'a>) -> Option<Self> {
        let Request::Fetch { device, after } = &finished.call.request else {
            return None;
        };
        let Ok(Response::Page {
            envelopes, more, ..
        }) = finished.result
        else {
            return None;
        };
        let last = envelopes.last().map_or(*after, |seen| seen.sequence);
        Some(Self {
            finished,
            device,
            after: *after,
            upto: if *more { last } else { Sequence(u64::MAX) },
            envelopes,
        })
    }

    /// The first letter that should be on the page and is not, of those that `since` says were known
    /// before the call began.
    pub(super) fn missing(
        &self,
        oracle: &Oracle,
        since: impl Fn(&Letter) -> Option<Moment>,
    ) -> Option<Sequence> {
        let mailbox = oracle.mailbox(&self.device.box_id)?;
        if mailbox.is_revoked(self.device) || mailbox.deleting {
            return None;
        }
        let from = self.after.max(mailbox.asked(self.device)).next();
        if from > self.upto {
            return None;
        }
        let mut due = mailbox.places.range(from..=self.upto);
        let missing = due.find(|(place, id)| {
            let Some(letter) = mailbox.letters.get(id) else {
                return false;
            };
            let known = since(letter).is_some_and(|since| since < self.finished.call.began);
            known
                && !oracle.may_have_expired(mailbox, letter, self.finished.ended_at)
                && !self.envelopes.iter().any(|seen| seen.sequence == **place)
        });
        missing.map(|(place, _)| *place)
    }
}

fn check(oracle: &Oracle, covered: &Covered<'_>) -> Result<(), String> {
    let delivered = |letter: &Letter| letter.delivered.map(|(.., since)| since);
    match covered.missing(oracle, delivered) {
        Some(at) => Err(format!(
            "letter {at} was answered \"delivered\", is not acknowledged and can not have \
             expired, but the page of device {} lacks it",
            covered.device.device
        )),
        None => Ok(()),
    }
}

impl NoSendLost {
    fn note_read(&mut self, oracle: &Oracle, covered: &Covered<'_>) {
        let healed = oracle.healed();
        if healed.is_none_or(|healed| covered.finished.call.began < healed) {
            return;
        }
        let Ok(Response::Page { status, .. }) = covered.finished.result else {
            return;
        };
        let read = self.read_upto.entry(*covered.device).or_default();
        if covered.after <= (*read).max(status.cursor) {
            *read = (*read).max(covered.upto.min(status.last));
        }
    }

    fn unread(&self, mailbox: &BoxStory) -> Option<String> {
        if mailbox.deleting {
            return None;
        }
        let letters = mailbox.letters.values();
        let delivered = letters.filter(|letter| letter.delivered.is_some());
        let last = delivered.filter_map(|letter| letter.place).max()?.0;
        if mailbox.devices.is_empty() {
            return Some(format!(
                "letters up to {last} were delivered to a box that nobody read"
            ));
        }
        let behind = mailbox.devices.iter().find(|(device, story)| {
            let read = self.read_upto.get(device).copied().unwrap_or_default();
            read < last && !story.revoked && !story.lost
        });
        behind.map(|(device, _)| {
            format!(
                "letters up to {last} were delivered, but device {} has not read that far since \
                 all faults were over",
                device.device
            )
        })
    }
}

impl Invariant for NoSendLost {
    fn name(&self) -> &'static str {
        "P1 no send lost"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        if let Some(covered) = finished.as_ref().and_then(Covered::of) {
            check(&known.clients, &covered)?;
            self.note_read(&known.clients, &covered);
        }
        Ok(())
    }

    fn finish(&mut self, known: &Known) -> Result<(), String> {
        if known.clients.healed().is_none() {
            return Ok(());
        }
        let mut boxes = known.clients.boxes();
        let unread = boxes.find_map(|(_, mailbox)| self.unread(mailbox));
        unread.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rossby_domain::ids::ReplicaId;

    use super::*;
    use crate::invariants::story::{Story, at, caught, device, legal, mutate_page, node};
    use crate::observe::{Failure, ReplicaEvent, What, Who};

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(NoSendLost::default(), &story), None);
        }

        #[test]
        fn a_page_that_lacks_a_delivered_letter_is_caught(story in legal(), which in 0..9_usize) {
            let removed = Cell::new(Sequence(0));
            let without = mutate_page(&story, |page, more| {
                // Without its last letter a page that is not the last ends earlier, no more.
                let count = page.len() - usize::from(more);
                (count > 0).then(|| removed.set(page.remove(which % count).sequence))
            });
            if let Some((without, position)) = without {
                let known = story.delivered_before(removed.get(), position);
                prop_assert_eq!(caught(NoSendLost::default(), &without).is_some(), known);
            }
        }
    }

    #[test]
    fn a_delivered_letter_that_is_gone_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        story.page(1, 0, vec![], 1);
        assert!(caught(NoSendLost::default(), &story).is_some());
    }

    #[test]
    fn what_was_acknowledged_or_expired_or_stands_behind_the_page_need_not_be_there() {
        let mut story = Story::default();
        story.sent(1, 1, "one", 1);
        story.sent_for(1, 2, "two", Some(20_000), 2);
        story.sent(1, 3, "three", 3);
        let (first, second, third) = (
            story.seen(1, 1, 1, "one"),
            story.seen(1, 2, 2, "two"),
            story.seen(1, 3, 3, "three"),
        );
        story.part_of_page(1, 0, vec![first], 3);
        story.page(1, 0, vec![first, second, third], 3);
        story.acknowledges(1, 1, 1, 1);
        story.page(1, 0, vec![second, third], 3);
        story.wait(30_000);
        story.page(1, 1, vec![third], 3);
        assert_eq!(caught(NoSendLost::default(), &story), None);
    }

    #[test]
    fn clocks_of_a_majority_that_were_ahead_may_have_expired_a_letter_but_not_one_alone() {
        let mut story = Story::default();
        for number in 1..=3 {
            story.push(node(number), What::ClockSet { offset_ms: 0 });
        }
        story.sent_for(1, 1, "text", Some(60_000), 1);
        let offset_ms = 60_000;
        story.push(node(1), What::ClockSet { offset_ms });
        let mut alone = story.clone();
        alone.page(1, 0, vec![], 1);
        assert!(caught(NoSendLost::default(), &alone).is_some());
        story.push(node(2), What::ClockSet { offset_ms });
        story.page(1, 0, vec![], 1);
        assert_eq!(caught(NoSendLost::default(), &story), None);
    }

    #[test]
    fn the_clock_of_a_group_s_only_voter_may_have_expired_a_letter() {
        let mut story = Story::default();
        for number in 1..=3 {
            story.push(node(number), What::ClockSet { offset_ms: 0 });
        }
        story.sent_for(1, 1, "text", Some(60_000), 1);
        let mut one_of_two = story.clone();
        for (story, voters) in [(&mut one_of_two, vec![1, 2]), (&mut story, vec![1])] {
            let voters = voters.into_iter().map(ReplicaId).collect();
            let members = ReplicaEvent::Members {
                at: at(1, 1),
                voters: vec![voters],
                learners: BTreeSet::new(),
            };
            story.replica(1, members);
            let offset_ms = 60_000;
            story.push(node(1), What::ClockSet { offset_ms });
            story.page(1, 0, vec![], 1);
        }
        assert!(caught(NoSendLost::default(), &one_of_two).is_some());
        assert_eq!(caught(NoSendLost::default(), &story), None);
    }

    #[test]
    fn what_waits_for_a_lost_device_need_not_be_read_but_must_be_there() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        let device = device(1);
        story.push(Who::World, What::DeviceLost { device });
        story.push(Who::World, What::Healed);
        assert_eq!(caught(NoSendLost::default(), &story), None);
        story.page(1, 0, vec![], 1);
        assert!(caught(NoSendLost::default(), &story).is_some());
    }

    #[test]
    fn a_device_that_has_joined_gets_what_comes_from_then_on() {
        let mut story = Story::default();
        story.sent(1, 1, "before", 1);
        let (new, cursor) = (device(2), Sequence(1));
        let request = Request::Join { device: new.device };
        let joined = Response::Joined {
            device: new,
            cursor,
        };
        story.call(request, Ok(joined));
        story.page(2, 0, vec![], 1);
        assert_eq!(caught(NoSendLost::default(), &story), None);
        story.sent(1, 2, "since", 2);
        story.page(2, 0, vec![], 2);
        assert!(caught(NoSendLost::default(), &story).is_some());
    }

    #[test]
    fn what_was_delivered_to_a_box_goes_with_it() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        let mut kept = story.clone();
        story.deletes(2, Err(Failure::Unknown));
        for story in [&mut story, &mut kept] {
            story.page(1, 0, vec![], 1);
            story.push(Who::World, What::Healed);
        }
        assert_eq!(caught(NoSendLost::default(), &story), None);
        assert!(caught(NoSendLost::default(), &kept).is_some());
    }

    #[test]
    fn a_letter_on_its_way_or_of_unknown_outcome_need_not_be_there() {
        let mut story = Story::default();
        story.unknown(1, 1, "text");
        story.page(1, 0, vec![], 0);
        assert_eq!(caught(NoSendLost::default(), &story), None);
    }

    #[test]
    fn a_world_that_ends_without_reading_what_was_delivered_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        let seen = story.seen(1, 1, 1, "text");
        story.page(1, 0, vec![seen], 1);
        story.push(Who::World, What::Healed);
        assert!(caught(NoSendLost::default(), &story).is_some());
        let mut read = story.clone();
        read.page(1, 0, vec![seen], 1);
        assert_eq!(caught(NoSendLost::default(), &read), None);
        // A page that begins in the middle shows nothing of what stands before.
        story.page(1, 1, vec![], 1);
        assert!(caught(NoSendLost::default(), &story).is_some());
    }
}
