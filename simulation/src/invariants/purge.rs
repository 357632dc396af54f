//! P6: a cursor never goes back and never runs ahead of what its device asked for; what was seen
//! once stays visible to a device until it asked to acknowledge it, or it expired; no more is purged
//! than all devices have acknowledged; nothing expires before its time.

use std::collections::BTreeMap;

use rossby_domain::ids::{BoxId, DeviceAddress, Sequence};
use rossby_domain::query::QueueStatus;

use super::Invariant;
use super::no_send_lost::Covered;
use crate::known::Known;
use crate::observe::{Observation, Request, Response};
use crate::oracle::{BoxStory, Finished, Letter, Moment, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Purge {
    /// The cursors that replies have shown, and when.
    cursors: BTreeMap<DeviceAddress, Vec<(Moment, Sequence)>>,
    /// What replies said was purged from each box, added up.
    purged: BTreeMap<BoxId, u64>,
}

impl Purge {
    fn cursor(
        &mut self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        device: &DeviceAddress,
        cursor: Sequence,
    ) -> Result<(), String> {
        let mailbox = oracle.mailbox(&device.box_id);
        let asked = mailbox.map_or(Sequence(0), |mailbox| mailbox.asked(device));
        if cursor > asked {
            return Err(format!(
                "the cursor of device {} is {cursor}, but it acknowledged no further than {asked}",
                device.device
            ));
        }
        let shown = self.cursors.entry(*device).or_default();
        let earlier = shown.iter().filter(|(at, _)| *at < finished.call.began);
        let highest = earlier.map(|(_, cursor)| *cursor).max();
        if let Some(highest) = highest.filter(|highest| *highest > cursor) {
            return Err(format!(
                "the cursor of device {} goes back from {highest} to {cursor}",
                device.device
            ));
        }
        shown.push((finished.ended, cursor));
        Ok(())
    }

    fn acknowledged(
        &mut self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        (device, upto): (&DeviceAddress, Sequence),
        (cursor, purged): (Sequence, u32),
    ) -> Result<(), String> {
        if cursor < upto {
            return Err(format!(
                "device {} acknowledged {upto} and was told that its cursor is {cursor}",
                device.device
            ));
        }
        self.cursor(oracle, finished, device, cursor)?;
        let total = self.purged.entry(device.box_id).or_default();
        *total += u64::from(purged);
        let mailbox = oracle.mailbox(&device.box_id);
        let lowest = mailbox.map_or(Sequence(0), BoxStory::lowest_asked);
        if *total > lowest.0 {
            return Err(format!(
                "{total} letters were purged, but not all devices acknowledged more than {lowest}"
            ));
        }
        Ok(())
    }

    fn check(&mut self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        match (&finished.call.request, finished.result) {
            (
                Request::Acknowledge { device, upto },
                Ok(Response::Acknowledged { cursor, purged }),
            ) => self.acknowledged(oracle, finished, (device, *upto), (*cursor, *purged)),
            (Request::Fetch { device, .. }, Ok(Response::Page { status, .. })) => {
                self.cursor(oracle, finished, device, status.cursor)?;
                queue(oracle, finished, device, status)?;
                let covered = Covered::of(finished);
                let missing = covered.and_then(|covered| covered.missing(oracle, known_since));
                missing.map_or(Ok(()), |at| {
                    Err(format!(
                        "letter {at} was there and is gone for device {}, which has not acknowledged \
                         it",
                        device.device
                    ))
                })
            }
            _ => Ok(()),
        }
    }
}

fn queue(
    oracle: &Oracle,
    finished: &Finished<'_>,
    device: &DeviceAddress,
    status: &QueueStatus,
) -> Result<(), String> {
    let Some(mailbox) = oracle.mailbox(&device.box_id) else {
        return Ok(());
    };
    if mailbox.deleting || oracle.any_may_have_expired(mailbox, finished.ended_at) {
        return Ok(());
    }
    if status.expired_total > 0 {
        return Err(format!(
            "{} letters are said to have expired, though the time of none is over",
            status.expired_total
        ));
    }
    let kept = mailbox.places.range(mailbox.lowest_asked().next()..);
    let known = kept.filter(|(_, id)| {
        let letter = mailbox.letters.get(id);
        let since = letter.and_then(known_since);
        since.is_some_and(|since| since < finished.call.began)
    });
    let known = known.count() as u64;
    if status.depth < known {
        return Err(format!(
            "the queue is said to hold {} letters, but {known} must be in it",
            status.depth
        ));
    }
    Ok(())
}

/// When it was first known that a letter is stored.
fn known_since(letter: &Letter) -> Option<Moment> {
    letter.place.map(|(_, since)| since)
}

impl Invariant for Purge {
    fn name(&self) -> &'static str {
        "P6 cursors and purges"
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
    use crate::invariants::story::{Story, caught, legal};

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(Purge::default(), &story), None);
        }
    }

    /// A box with two devices and three letters, of which device 1 has acknowledged two.
    fn story() -> Story {
        let mut story = Story::default();
        for counter in 1..=3 {
            story.sent(1, counter, "text", counter);
        }
        let page: Vec<_> = (1..=3).map(|n| story.seen(1, n, n, "text")).collect();
        story.page(1, 0, page.clone(), 3);
        story.page(2, 0, page, 3);
        story.acknowledges(1, 2, 2, 0);
        story
    }

    #[test]
    fn a_purge_after_the_last_device_is_legal() {
        let mut story = story();
        story.acknowledges(2, 3, 3, 2);
        story.acknowledges(1, 3, 3, 1);
        story.page(1, 0, vec![], 3);
        assert_eq!(caught(Purge::default(), &story), None);
    }

    #[test]
    fn a_cursor_that_goes_back_or_runs_ahead_or_stays_behind_is_caught() {
        for (upto, cursor) in [(1, 1), (2, 3), (3, 2)] {
            let mut story = story();
            story.acknowledges(1, upto, cursor, 0);
            assert!(
                caught(Purge::default(), &story).is_some(),
                "{upto} {cursor}"
            );
        }
    }

    #[test]
    fn a_purge_before_the_last_device_is_caught_by_its_count() {
        let mut story = story();
        story.acknowledges(2, 1, 1, 2);
        assert!(caught(Purge::default(), &story).is_some());
    }

    #[test]
    fn a_purge_before_the_last_device_is_caught_by_what_that_device_sees() {
        let mut story = story();
        let rest = story.seen(1, 3, 3, "text");
        story.page(2, 0, vec![rest], 3);
        assert!(caught(Purge::default(), &story).is_some());
    }

    #[test]
    fn a_queue_that_is_too_short_and_one_that_lost_by_expiry_are_caught() {
        for change in [
            (|status: &mut QueueStatus| status.depth = 2) as fn(&mut QueueStatus),
            |status| status.expired_total = 1,
        ] {
            let mut story = story();
            let page = (1..=3).map(|n| story.seen(1, n, n, "text")).collect();
            story.page(2, 0, page, 3);
            story.change_last_status(change);
            assert!(caught(Purge::default(), &story).is_some());
        }
    }
}
