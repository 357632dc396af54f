//! P5: a verified identifier belongs to one box at most, for good (nothing releases it yet), and only
//! to one that somebody tried to verify it for.

use std::collections::{BTreeMap, BTreeSet};

use rossby_domain::Rejection;
use rossby_domain::identifier::IdentifierHash;
use rossby_domain::ids::BoxId;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response, What};
use crate::oracle::Finished;

/// See the file's head.
#[derive(Debug, Default)]
pub struct Identifiers {
    /// The boxes that were asked to be verified for each.
    asked: BTreeMap<IdentifierHash, BTreeSet<BoxId>>,
    owners: BTreeMap<IdentifierHash, (BoxId, Option<u64>)>,
}

impl Identifiers {
    fn owned(
        &mut self,
        identifier: &IdentifierHash,
        box_id: BoxId,
        generation: Option<u64>,
    ) -> Result<(), String> {
        let asked = self.asked.get(identifier);
        if !asked.is_some_and(|asked| asked.contains(&box_id)) {
            return Err(format!(
                "box {box_id} has an identifier that nobody verified for it"
            ));
        }
        let (owner, known) = self
            .owners
            .entry(*identifier)
            .or_insert((box_id, generation));
        if *owner != box_id {
            return Err(format!(
                "one identifier belongs to box {owner} and to box {box_id}"
            ));
        }
        match (*known, generation) {
            (Some(known), Some(generation)) if known != generation => Err(format!(
                "one claim of box {box_id} has generations {known} and {generation}"
            )),
            (None, Some(_)) => {
                *known = generation;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check(&mut self, finished: &Finished<'_>) -> Result<(), String> {
        match (&finished.call.request, finished.result) {
            (Request::Verify { identifier, box_id }, Ok(Response::Verified { generation })) => {
                self.owned(identifier, *box_id, Some(*generation))
            }
            (
                Request::Verify { identifier, box_id },
                Err(Failure::Rejected(Rejection::IdentifierTaken)),
            ) => {
                let others = self.asked.get(identifier);
                let other = others.is_some_and(|asked| asked.iter().any(|id| id != box_id));
                let own = self.owners.get(identifier).map(|(owner, _)| owner);
                if !other || own == Some(box_id) {
                    return Err(format!(
                        "box {box_id} is told that an identifier belongs to another box, which none \
                         can own"
                    ));
                }
                Ok(())
            }
            (Request::Lookup { identifier }, Ok(Response::Found(Some(box_id)))) => {
                self.owned(identifier, *box_id, None)
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
        if let What::Called {
            request: Request::Verify { identifier, box_id },
            ..
        } = &observation.what
        {
            self.asked.entry(*identifier).or_default().insert(*box_id);
        }
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| self.check(&finished))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, box_id, caught};

    fn taken() -> Result<Response, Failure> {
        Err(Failure::Rejected(Rejection::IdentifierTaken))
    }

    fn verified(generation: u64) -> Result<Response, Failure> {
        Ok(Response::Verified { generation })
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
}
