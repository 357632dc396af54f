//! P5: a verified identifier belongs to one box at a time, and only to one that somebody tried to verify it for. It passes to
//! another box only by a reset: that box proved it at least the delay earlier by the clocks of the cluster, and it is not sooner
//! than it was told, and no device of the owner has said no since. While a reset waits, the owner's devices are told of it. Once
//! somebody asked to delete the owner, it is free.
//!
//! P4, of the same: a box that had the identifier never has it again, and once a reply has shown an owner, no later call finds an
//! earlier one, or none.
//!
//! Lenient in this: of a proof whose answer was lost it is not known whether it came before the owner's "no" or after, and it counts
//! as if after.

mod ownership;

use std::collections::BTreeMap;

use rossby_domain::Rejection;
use rossby_domain::identifier::IdentifierHash;

use self::ownership::Ownership;
use super::Invariant;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response, SimTime, What};
use crate::oracle::{Finished, Moment, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Identifiers(BTreeMap<IdentifierHash, Ownership>);

impl Identifiers {
    fn called(&mut self, request: &Request, now: (Moment, SimTime)) {
        match request {
            Request::Verify {
                identifier,
                box_id,
                reset,
            } => self.of(identifier).asks(*box_id, *reset, now),
            Request::Keep { identifier, .. } => self.of(identifier).keeping = true,
            _ => {}
        }
    }

    fn of(&mut self, identifier: &IdentifierHash) -> &mut Ownership {
        self.0.entry(*identifier).or_default()
    }

    fn check(&mut self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        match (&finished.call.request, finished.result) {
            (
                Request::Verify {
                    identifier, box_id, ..
                },
                result,
            ) => {
                let ownership = self.of(identifier);
                ownership.answered(*box_id, finished);
                match result {
                    Ok(Response::Verified { generation }) => {
                        ownership.owned(oracle, finished, (*box_id, Some(*generation)))
                    }
                    Ok(Response::Waits { completes_at }) => {
                        ownership.waits(oracle, finished, (*box_id, *completes_at))
                    }
                    Err(Failure::Rejected(Rejection::IdentifierTaken)) => {
                        ownership.taken(oracle, finished, box_id)
                    }
                    _ => Ok(()),
                }
            }
            (Request::Lookup { identifier, by }, Ok(Response::Found(found))) => {
                let ownership = self.of(identifier);
                match found {
                    Some(box_id) => ownership.owned(oracle, finished, (*box_id, None)),
                    None => ownership.not_found(oracle, finished, by),
                }
            }
            (Request::Keep { identifier, .. }, result) => {
                let ownership = self.of(identifier);
                ownership.keeping = false;
                match result {
                    Ok(_) => ownership.kept(finished.call.began),
                    // It may have been heard, whatever comes of the next try.
                    Err(Failure::Unknown) => ownership.may_be_kept = true,
                    Err(_) => {}
                }
                Ok(())
            }
            (Request::Fetch { device, .. }, Ok(Response::Page { status, .. })) => {
                let told = (&device.box_id, status.reset_at);
                let mut all = self.0.values();
                all.try_for_each(|ownership| ownership.tells(oracle, finished, told))
            }
            _ => Ok(()),
        }
    }
}

impl Invariant for Identifiers {
    fn name(&self) -> &'static str {
        "P5 one box per identifier"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        if let What::Called { request, .. } = &observation.what {
            self.called(request, (known.clients.now(), observation.at));
        }
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| self.check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use rossby_domain::query::QueueStatus;
    use rossby_domain::time::{DAY_MS, Timestamp};

    use super::*;
    use crate::invariants::story::{Story, box_id, caught, device, node};
    use crate::observe::Who;

    const DELAY_MS: u64 = 10_000;

    fn taken() -> Result<Response, Failure> {
        Err(Failure::Rejected(Rejection::IdentifierTaken))
    }

    fn verified(generation: u64) -> Result<Response, Failure> {
        Ok(Response::Verified { generation })
    }

    /// Box 1 has the identifier, in a world whose clocks are right.
    fn story() -> Story {
        let mut story = Story::default();
        let began = What::Began {
            wall: Timestamp::from_millis(0),
            envelope_ttl_ms: DAY_MS,
            reset_delay_ms: DELAY_MS,
        };
        story.push(Who::World, began);
        story.verifies(1, 1, verified(7));
        story
    }

    /// And box 2 has proven it just now; until when it is to wait.
    fn contested() -> (Story, u64) {
        let mut story = story();
        let completes_at = story.now() + 2 * DELAY_MS;
        story.resets(1, 2, waits(completes_at));
        (story, completes_at)
    }

    fn waits(completes_at: u64) -> Result<Response, Failure> {
        let completes_at = Timestamp::from_millis(completes_at);
        Ok(Response::Waits { completes_at })
    }

    #[test]
    fn one_owner_and_others_refused_is_legal() {
        let mut story = Story::default();
        story.verifies(1, 1, Err(Failure::Unknown));
        story.looks_up(1, Some(box_id(1)));
        story.verifies(1, 2, taken());
        story.verifies(1, 1, verified(7));
        story.verifies(1, 1, verified(7));
        story.verifies(2, 2, verified(8));
        assert_eq!(caught(Identifiers::default(), &story), None);
    }

    #[test]
    fn two_owners_are_caught() {
        let mut story = Story::default();
        story.verifies(1, 1, verified(7));
        story.verifies(1, 2, verified(8));
        assert!(caught(Identifiers::default(), &story).is_some());
        let mut story = Story::default();
        story.verifies(1, 1, verified(7));
        story.verifies(1, 2, Err(Failure::Unknown));
        story.looks_up(1, Some(box_id(2)));
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn an_owner_that_never_asked_is_caught() {
        let mut story = Story::default();
        story.looks_up(1, Some(box_id(1)));
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn two_generations_of_one_claim_are_caught() {
        let mut story = Story::default();
        story.verifies(1, 1, verified(7));
        story.verifies(1, 1, verified(8));
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn a_claim_that_nobody_else_can_have_and_is_refused_is_caught() {
        let mut story = Story::default();
        story.verifies(1, 1, taken());
        assert!(caught(Identifiers::default(), &story).is_some());
        let mut story = Story::default();
        story.verifies(1, 1, verified(7));
        story.verifies(1, 2, taken());
        story.verifies(1, 1, taken());
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn an_owned_identifier_by_which_nobody_is_found_is_caught() {
        let mut story = Story::default();
        story.looks_up(1, None);
        story.verifies(1, 1, verified(1));
        story.looks_up(1, Some(box_id(1)));
        assert_eq!(caught(Identifiers::default(), &story), None);
        let mut blocked = story.clone();
        blocked.blocks(1, 11, true, Ok(Response::Done));
        blocked.looks_up(1, None);
        assert_eq!(caught(Identifiers::default(), &blocked), None);
        story.looks_up(1, None);
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn an_identifier_passes_when_the_delay_is_over_and_the_time_that_was_told_has_come() {
        let (mut story, completes_at) = contested();
        story.looks_up(1, Some(box_id(1)));
        let mut early = story.clone();
        early.wait(2 * DELAY_MS - 50);
        early.resets(1, 2, verified(9));
        assert!(caught(Identifiers::default(), &early).is_some());
        story.wait(completes_at);
        // It has moved, and the box is not there yet.
        story.resets(1, 2, Err(Failure::Unknown));
        story.looks_up(1, None);
        story.resets(1, 2, verified(9));
        story.looks_up(1, Some(box_id(2)));
        assert_eq!(caught(Identifiers::default(), &story), None);
        let mut back = story.clone();
        back.looks_up(1, Some(box_id(1)));
        assert!(caught(Identifiers::default(), &back).is_some());
        story.looks_up(1, None);
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn a_lookup_that_began_before_it_passed_may_show_who_had_it() {
        let (mut story, completes_at) = contested();
        story.wait(completes_at);
        let identifier = story.lookup(1);
        let looking = story.begin(identifier);
        story.resets(1, 2, verified(9));
        story.end(looking, Ok(Response::Found(Some(box_id(1)))));
        assert_eq!(caught(Identifiers::default(), &story), None);
    }

    #[test]
    fn a_reset_that_is_over_too_soon_is_caught_though_nothing_was_told() {
        let mut story = story();
        story.resets(1, 2, Err(Failure::Unknown));
        let mut in_time = story.clone();
        for (story, wait) in [(&mut story, DELAY_MS - 50), (&mut in_time, DELAY_MS)] {
            story.wait(wait);
            story.looks_up(1, Some(box_id(2)));
        }
        assert!(caught(Identifiers::default(), &story).is_some());
        assert_eq!(caught(Identifiers::default(), &in_time), None);
    }

    #[test]
    fn clocks_of_a_majority_that_were_ahead_may_have_ended_the_delay() {
        let mut story = story();
        for number in 1..=3 {
            story.push(node(number), What::ClockSet { offset_ms: 0 });
        }
        story.resets(1, 2, Err(Failure::Unknown));
        for number in 1..=2 {
            let offset_ms = 60_000;
            story.push(node(number), What::ClockSet { offset_ms });
        }
        story.looks_up(1, Some(box_id(2)));
        assert_eq!(caught(Identifiers::default(), &story), None);
    }

    #[test]
    fn to_be_told_less_than_the_delay_is_caught() {
        let mut story = story();
        let completes_at = story.now() + DELAY_MS - 50;
        story.resets(1, 2, waits(completes_at));
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn an_identifier_that_passes_after_the_owner_has_said_no_is_caught_unless_it_is_proven_again() {
        let (mut story, completes_at) = contested();
        story.keeps(1, 1, Ok(Response::Done));
        let mut again = story.clone();
        story.wait(completes_at);
        story.looks_up(1, Some(box_id(2)));
        assert!(caught(Identifiers::default(), &story).is_some());
        again.resets(1, 2, waits(again.now() + 2 * DELAY_MS));
        again.wait(3 * DELAY_MS);
        again.resets(1, 2, verified(9));
        assert_eq!(caught(Identifiers::default(), &again), None);
    }

    #[test]
    fn an_identifier_of_a_deleted_box_is_free() {
        let mut story = story();
        story.deletes(1, Err(Failure::Unknown));
        story.looks_up(1, None);
        story.verifies(1, 2, taken());
        story.verifies(1, 2, verified(8));
        assert_eq!(caught(Identifiers::default(), &story), None);
        story.looks_up(1, None);
        assert!(caught(Identifiers::default(), &story).is_some());
    }

    #[test]
    fn an_owner_that_is_not_told_of_a_reset_is_caught_but_one_that_has_said_no_need_not_be() {
        let (story, completes_at) = contested();
        let page = |story: &Story, told: Option<u64>| {
            let mut story = story.clone();
            story.page(1, 0, vec![], 0);
            let reset_at = told.map(Timestamp::from_millis);
            story.change_last_status(|status: &mut QueueStatus| status.reset_at = reset_at);
            caught(Identifiers::default(), &story)
        };
        assert_eq!(page(&story, Some(completes_at)), None);
        assert!(page(&story, None).is_some());
        assert!(page(&story, Some(completes_at + 1)).is_some());
        let mut kept = story.clone();
        kept.keeps(1, 1, Err(Failure::Unknown));
        assert_eq!(page(&kept, None), None);
        // That the next try came to nothing says nothing of this one.
        let unavailable = || Err(Failure::Refused("UNAVAILABLE".to_owned()));
        kept.keeps(1, 1, unavailable());
        assert_eq!(page(&kept, None), None);
        let mut refused = story;
        refused.keeps(1, 1, unavailable());
        assert!(page(&refused, None).is_some());
        assert_eq!(device(1).box_id, box_id(1));
    }
}
