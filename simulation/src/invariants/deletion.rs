//! A box whose deletion was acknowledged is gone for good: no call that begins later stores anything in it, reads anything of it,
//! finds it or gives it anything. And a box that was registered is never said to be unknown before somebody asks for its deletion, but
//! to those whom it blocks.

use std::collections::BTreeMap;

use rossby_domain::Rejection;
use rossby_domain::ids::BoxId;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response};
use crate::oracle::{Finished, Moment, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct Deletion {
    /// When it was first known of each box that it is registered.
    registered: BTreeMap<BoxId, Moment>,
}

/// The box that an answer shows to be there, if it shows one.
fn shown(request: &Request, response: &Response) -> Option<BoxId> {
    match (request, response) {
        (Request::Send { to, .. }, Response::Sent { .. }) => Some(*to),
        (Request::Fetch { device, .. }, Response::Page { .. })
        | (Request::Acknowledge { device, .. }, Response::Acknowledged { .. })
        | (_, Response::Joined { device, .. }) => Some(device.box_id),
        (Request::KeyRecord { box_id, .. }, Response::KeyRecord { found: Some(_) })
        | (Request::Verify { box_id, .. }, Response::Verified { .. } | Response::Waits { .. }) => {
            Some(*box_id)
        }
        (_, Response::Found(found)) => *found,
        _ => None,
    }
}

/// The box that is said not to be there, if one is, and to whom.
fn denied(request: &Request, result: &Result<Response, Failure>) -> Option<(BoxId, BoxId)> {
    match (request, result) {
        (Request::Send { to, id, .. }, Err(Failure::Rejected(Rejection::UnknownBox))) => {
            Some((*to, id.sender.box_id))
        }
        (Request::KeyRecord { box_id, sender }, Ok(Response::KeyRecord { found: None })) => {
            Some((*box_id, sender.box_id))
        }
        _ => None,
    }
}

impl Deletion {
    fn check(&mut self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        let request = &finished.call.request;
        let began = finished.call.began;
        if let Some((box_id, to)) = denied(request, finished.result)
            && !oracle.is_deleting(&box_id)
            && !oracle.may_block(&box_id, &to, true, began)
            && self.registered.get(&box_id).is_some_and(|at| *at < began)
        {
            return Err(format!(
                "box {box_id} is said not to be there, and nobody asked to delete it or to block who asks"
            ));
        }
        let Ok(response) = finished.result else {
            return Ok(());
        };
        let Some(box_id) = shown(request, response) else {
            return Ok(());
        };
        let deleted = oracle.mailbox(&box_id).and_then(|mailbox| mailbox.deleted);
        if deleted.is_some_and(|deleted| deleted < began) {
            return Err(format!(
                "box {box_id} was deleted before this was asked, and is answered for: {response}"
            ));
        }
        if let Response::Verified { .. } = response {
            self.registered.entry(box_id).or_insert(finished.ended);
        }
        Ok(())
    }
}

impl Invariant for Deletion {
    fn name(&self) -> &'static str {
        "deleted boxes are gone, others are there"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| self.check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::{Counter, Sequence};

    use super::*;
    use crate::invariants::story::{Story, box_id, caught, device, legal};

    fn story() -> Story {
        let mut story = Story::default();
        story.verifies(1, 1, Ok(Response::Verified { generation: 7 }));
        story.sent(1, 1, "text", 1);
        story
    }

    fn deleted() -> Story {
        let mut story = story();
        story.deletes(1, Ok(Response::Done));
        story
    }

    fn record(story: &mut Story, version: Option<u64>) {
        let request = Request::KeyRecord {
            box_id: box_id(1),
            sender: device(11),
        };
        let found = version.map(|version| (version, Counter(2)));
        story.call(request, Ok(Response::KeyRecord { found }));
    }

    /// Each shows that box 1 is there.
    fn signs_of_life() -> Vec<fn(&mut Story)> {
        vec![
            |story| story.sent(1, 2, "text", 2),
            |story| story.page(1, 0, vec![], 1),
            |story| story.acknowledges(1, 1, 1, 0),
            |story| story.looks_up(1, Some(box_id(1))),
            |story| story.verifies(2, 1, Ok(Response::Verified { generation: 8 })),
            |story| record(story, Some(1)),
            |story| {
                let (device, cursor) = (device(2), Sequence(1));
                let request = Request::Join {
                    device: device.device,
                };
                story.call(request, Ok(Response::Joined { device, cursor }));
            },
        ]
    }

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(Deletion::default(), &story), None);
        }
    }

    #[test]
    fn a_box_is_there_until_it_is_deleted_and_never_again() {
        for sign in signs_of_life() {
            let mut before = story();
            sign(&mut before);
            assert_eq!(caught(Deletion::default(), &before), None);
            let mut after = deleted();
            sign(&mut after);
            assert!(caught(Deletion::default(), &after).is_some());
        }
    }

    #[test]
    fn a_deletion_of_unknown_outcome_or_at_the_same_time_may_have_come_later() {
        let mut story = story();
        story.deletes(1, Err(Failure::Unknown));
        for sign in signs_of_life() {
            sign(&mut story);
        }
        let sending = story.begin_send(2, 1, "text");
        story.deletes(1, Ok(Response::Done));
        let sequence = Sequence(3);
        story.end(sending, Ok(Response::Sent { sequence }));
        assert_eq!(caught(Deletion::default(), &story), None);
    }

    #[test]
    fn a_registered_box_that_is_said_not_to_be_there_is_caught_unless_it_is_deleted() {
        let no: [fn(&mut Story); 2] = [
            |story| story.refused(1, 2, "text", Rejection::UnknownBox),
            |story| record(story, None),
        ];
        for no in no {
            let mut there = story();
            no(&mut there);
            assert!(caught(Deletion::default(), &there).is_some());
            let mut gone = deleted();
            no(&mut gone);
            assert_eq!(caught(Deletion::default(), &gone), None);
            let mut blocked = story();
            blocked.blocks(1, 11, true, Err(Failure::Unknown));
            no(&mut blocked);
            assert_eq!(caught(Deletion::default(), &blocked), None);
            let mut unknown = Story::default();
            no(&mut unknown);
            assert_eq!(caught(Deletion::default(), &unknown), None);
        }
    }
}
