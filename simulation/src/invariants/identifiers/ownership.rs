//! Who has an identifier, who tries to get it, and what has been said to that.

use std::collections::BTreeMap;

use rossby_domain::ids::BoxId;
use rossby_domain::time::{DAY_MS, Timestamp};

use crate::observe::{Failure, SimTime};
use crate::oracle::{Finished, Moment, Oracle};

/// What is known of one identifier.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// The boxes that were asked to be verified for it.
    asked: BTreeMap<BoxId, Asked>,
    /// The boxes that were shown to have it, in their order.
    owners: Vec<Owner>,
    /// When the owner began to say the last "no" that was heard.
    kept: Option<Moment>,
    /// Whether a "no" may be under way.
    pub(super) keeping: bool,
    /// Whether a "no" to what waits may have been heard, and nobody knows.
    pub(super) may_be_kept: bool,
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
    pub(super) fn asks(
        &mut self,
        box_id: BoxId,
        reset: bool,
        (began, began_at): (Moment, SimTime),
    ) {
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
    pub(super) fn answered(&mut self, box_id: BoxId, finished: &Finished<'_>) {
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
    pub(super) fn owned(
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

    pub(super) fn waits(
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
        self.may_be_kept = false;
        Ok(())
    }

    pub(super) fn taken(
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

    pub(super) fn not_found(
        &self,
        oracle: &Oracle,
        finished: &Finished<'_>,
        by: &BoxId,
    ) -> Result<(), String> {
        match self.owner_before(oracle, finished) {
            Some(owner) if oracle.may_block(&owner.box_id, by, true, finished.call.began) => Ok(()),
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
    pub(super) fn kept(&mut self, began: Moment) {
        self.kept = self.kept.max(Some(began));
        self.waiting = None;
        for asked in self.asked.values_mut() {
            asked.told = None;
        }
    }

    /// Whether the owner is told of a reset that waits, of which somebody else has been told.
    pub(super) fn tells(
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
            && !self.may_be_kept
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
