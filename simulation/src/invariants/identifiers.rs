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

use std::collections::BTreeMap;

use rossby_domain::Rejection;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::BoxId;
use rossby_domain::time::{DAY_MS, Timestamp};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response, SimTime, What};
use crate::oracle::{Finished, Moment, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Identifiers(BTreeMap<IdentifierHash, Ownership>);

/// What is known of one identifier.
#[derive(Debug, Default)]
struct Ownership {
    /// The boxes that were asked to be verified for it.
    asked: BTreeMap<BoxId, Asked>,
    /// The boxes that were shown to have it, in their order.
    owners: Vec<Owner>,
    /// When the owner began to say the last "no" that was heard.
    kept: Option<Moment>,
    /// Whether a "no" may be under way.
    keeping: bool,
    /// What was told last of a reset that waits, unless somebody has tried for it since.
    waiting: Option<(Timestamp, Moment)>,
}

/// What a box did to get an identifier.
#[derive(Debug, Default)]
struct Asked {
    /// Its tries to get it from another box.
    proofs: Vec<Proof>,
    /// Until when it was told to wait.
    told: Option<Timestamp>,
}

/// A call that may have proven an identifier of another box.
#[derive(Debug)]
struct Proof {
    began: Moment,
    began_at: SimTime,
    /// When it was answered, if it was.
    ended: Option<Moment>,
}

/// A box that has or had an identifier.
#[derive(Debug)]
struct Owner {
    box_id: BoxId,
    generation: Option<u64>,
    /// The first reply that shows it.
    shown: Moment,
}

impl Owner {
    fn agree(&mut self, generation: Option<u64>) -> Result<(), String> {
        match (self.generation, generation) {
            (Some(known), Some(generation)) if known != generation => Err(format!(
                "one claim of box {} has generations {known} and {generation}",
                self.box_id
            )),
            (None, Some(_)) => {
                self.generation = generation;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Ownership {
    /// A call asks for the identifier.
    fn asks(&mut self, box_id: BoxId, reset: bool, (began, began_at): (Moment, SimTime)) {
        let asked = self.asked.entry(box_id).or_default();
        if reset {
            self.waiting = None;
            asked.proofs.push(Proof {
                began,
                began_at,
                ended: None,
            });
        }
    }

    /// A call that asked for it is answered.
    fn answered(&mut self, box_id: BoxId, finished: &Finished<'_>) {
        let proofs = self.asked.get_mut(&box_id).map(|asked| &mut asked.proofs);
        let mut proofs = proofs.into_iter().flatten();
        let proof = proofs.find(|proof| proof.began == finished.call.began);
        if let Some(proof) = proof.filter(|_| *finished.result != Err(Failure::Unknown)) {
            proof.ended = Some(finished.ended);
        }
    }

    /// When a box first tried to get it from another, of those tries that the owner's "no" has not undone.
    fn proven_at(&self, box_id: &BoxId) -> Option<SimTime> {
        let proofs = self.asked.get(box_id)?.proofs.iter();
        let stands = |proof: &&Proof| match (self.kept, proof.ended) {
            (Some(kept), Some(ended)) => ended > kept,
            _ => true,
        };
        proofs.filter(stands).map(|proof| proof.began_at).min()
    }

    /// Whether a box may have got it from another by now.
    fn may_have_passed(&self, oracle: &Oracle, box_id: &BoxId, now: SimTime) -> Result<(), String> {
        let Some(first) = self.proven_at(box_id) else {
            return Err("no reset of it stands".to_owned());
        };
        let (proven, _) = oracle.stamps(first);
        let (_, latest) = oracle.stamps(now);
        let due = proven.plus_millis(oracle.reset_delay_ms());
        let told = self.asked.get(box_id).and_then(|asked| asked.told);
        let due = due.max(told.unwrap_or_default());
        if latest < due {
            return Err(format!(
                "its reset can not be over before {}, and no clock shows more than {}",
                due.as_millis(),
                latest.as_millis()
            ));
        }
        Ok(())
    }

    /// Whether another box than this may have it by now, for all that was shown.
    fn may_be_another_s(&self, oracle: &Oracle, box_id: &BoxId, now: SimTime) -> bool {
        let mut others = self.asked.keys().filter(|other| *other != box_id);
        others.any(|other| self.may_have_passed(oracle, other, now).is_ok())
    }

    /// Its owner, if that was shown before a call began, and is not to be deleted.
    fn owner_before(&self, oracle: &Oracle, finished: &Finished<'_>) -> Option<&Owner> {
        let owner = self.owners.last();
        owner
            .filter(|owner| owner.shown < finished.call.began && !oracle.is_deleting(&owner.box_id))
    }

    /// A reply shows a box that has it.
    fn owned(
        &mut self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        (box_id, generation): (BoxId, Option<u64>),
    ) -> Result<(), String> {
        if !self.asked.contains_key(&box_id) {
            return Err(format!(
                "box {box_id} has an identifier that nobody verified for it"
            ));
        }
        let known = self.owners.iter().position(|owner| owner.box_id == box_id);
        if let Some(known) = known {
            let mut later = self.owners.iter().skip(known + 1);
            if let Some(later) = later.find(|later| later.shown < finished.call.began) {
                return Err(format!(
                    "an identifier belongs to box {box_id} after it belonged to box {}",
                    later.box_id
                ));
            }
            let owner = self.owners.get_mut(known);
            return owner.map_or(Ok(()), |owner| owner.agree(generation));
        }
        let mut place = self.owners.len();
        match self.owners.last() {
            // A late reply may show who had it before.
            Some(last) if finished.call.began < last.shown => place -= 1,
            Some(last) if oracle.is_deleting(&last.box_id) => {}
            Some(last) => {
                let passed = self.may_have_passed(oracle, &box_id, finished.ended_at);
                passed.map_err(|why| {
                    format!(
                        "one identifier belongs to box {} and to box {box_id}: {why}",
                        last.box_id
                    )
                })?;
            }
            None => {}
        }
        let owner = Owner {
            box_id,
            generation,
            shown: finished.ended,
        };
        self.owners.insert(place, owner);
        Ok(())
    }

    fn waits(
        &mut self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        (box_id, completes_at): (BoxId, Timestamp),
    ) -> Result<(), String> {
        let proven = self.proven_at(&box_id).unwrap_or(finished.call.began_at);
        let (earliest, _) = oracle.stamps(proven);
        if completes_at < earliest.plus_millis(oracle.reset_delay_ms()) {
            return Err(format!(
                "box {box_id} is told that it gets an identifier at {}, but proved it no earlier than {}",
                completes_at.as_millis(),
                earliest.as_millis()
            ));
        }
        if let Some(asked) = self.asked.get_mut(&box_id) {
            asked.told = Some(completes_at);
        }
        self.waiting = Some((completes_at, finished.ended));
        Ok(())
    }

    fn taken(
        &self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        box_id: &BoxId,
    ) -> Result<(), String> {
        let other = self.asked.keys().any(|id| id != box_id);
        let owner = self.owner_before(oracle, finished);
        let own = owner.is_some_and(|owner| owner.box_id == *box_id)
            && !self.may_be_another_s(oracle, box_id, finished.ended_at);
        if !other || own {
            return Err(format!(
                "box {box_id} is told that an identifier belongs to another box, which none can own"
            ));
        }
        Ok(())
    }

    fn not_found(&self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        match self.owner_before(oracle, finished) {
            Some(owner) if !self.may_be_another_s(oracle, &owner.box_id, finished.ended_at) => {
                Err(format!(
                    "nobody is found by an identifier that belongs to box {}",
                    owner.box_id
                ))
            }
            _ => Ok(()),
        }
    }

    /// The owner says no, and is heard: what was proven before it said so counts for nothing.
    fn kept(&mut self, began: Moment) {
        self.kept = self.kept.max(Some(began));
        self.waiting = None;
        for asked in self.asked.values_mut() {
            asked.told = None;
        }
    }

    /// Whether the owner is told of a reset that waits, of which somebody else has been told.
    fn tells(
        &self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        (reader, told): (&BoxId, Option<Timestamp>),
    ) -> Result<(), String> {
        let Some((completes_at, answered)) = self.waiting else {
            return Ok(());
        };
        let is_owner = |owner: &Owner| owner.box_id == *reader;
        let (_, latest) = oracle.stamps(finished.ended_at);
        let is_due = self.owner_before(oracle, finished).is_some_and(is_owner)
            && answered < finished.call.began
            && !self.keeping
            // What is told lapses some days later.
            && latest < completes_at.plus_millis(DAY_MS);
        if is_due && told != Some(completes_at) {
            return Err(format!(
                "another box gets an identifier of box {reader} at {}, and its device is told {told:?}",
                completes_at.as_millis()
            ));
        }
        Ok(())
    }
}

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
            (Request::Lookup { identifier }, Ok(Response::Found(found))) => {
                let ownership = self.of(identifier);
                match found {
                    Some(box_id) => ownership.owned(oracle, finished, (*box_id, None)),
                    None => ownership.not_found(oracle, finished),
                }
            }
            (Request::Keep { identifier, .. }, result) => {
                let ownership = self.of(identifier);
                ownership.keeping = *result == Err(Failure::Unknown);
                if result.is_ok() {
                    ownership.kept(finished.call.began);
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
        let mut kept = story;
        kept.keeps(1, 1, Err(Failure::Unknown));
        assert_eq!(page(&kept, None), None);
        assert_eq!(device(1).box_id, box_id(1));
    }
}
