//! To whom a box blocks it is not there: once a block was acknowledged, nothing that is sent later by who is blocked is
//! acknowledged, and nothing of it shows in the queue, until somebody asks to lift the block. And a box that was suspended sends nothing
//! to others until somebody asks to let it; none that was not is told that it is.

use rossby_domain::ids::{BoxId, DeviceAddress};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Failure, Observation, Request, Response, Seen};
use crate::oracle::{Finished, Oracle};

/// What a box is told that must not send.
const SUSPENDED: &str = "SUSPENDED";

/// See the file's head.
#[derive(Debug, Default)]
pub struct Blocks;

fn sent(oracle: &Oracle, finished: &Finished<'_>, to: &BoxId, from: &BoxId) -> Result<(), String> {
    let began = finished.call.began;
    match finished.result {
        Ok(Response::Sent { .. }) if to != from => {
            if !oracle.may_block(to, from, false, began) {
                return Err(format!(
                    "a letter of box {from} is delivered to box {to}, which blocks it"
                ));
            }
            if !oracle.may_be_suspended(from, false, began) {
                return Err(format!(
                    "a letter of box {from} is delivered, which is suspended"
                ));
            }
            Ok(())
        }
        Err(Failure::Refused(why))
            if why == SUSPENDED && !oracle.may_be_suspended(from, true, began) =>
        {
            Err(format!(
                "box {from} is told that it is suspended, and nobody has done that"
            ))
        }
        _ => Ok(()),
    }
}

/// A letter that is shown, all of whose tries were made while its sender was blocked.
fn shown(oracle: &Oracle, reader: &DeviceAddress, seen: &Seen) -> Result<(), String> {
    let (to, from) = (&reader.box_id, &seen.id.sender.box_id);
    let Some(letter) = oracle.letter(to, &seen.id) else {
        return Ok(());
    };
    let mut tries = letter.tries.iter();
    let is_blocked = !letter.tries.is_empty()
        && tries.all(|tried| !oracle.may_block(to, from, false, tried.began));
    if is_blocked {
        return Err(format!(
            "letter {} shows in box {to}, which blocked box {from} before it was sent",
            seen.sequence
        ));
    }
    Ok(())
}

fn check(oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
    match (&finished.call.request, finished.result) {
        (Request::Send { to, id, .. }, _) => sent(oracle, finished, to, &id.sender.box_id),
        (Request::Fetch { device, .. }, Ok(Response::Page { envelopes, .. })) => {
            let mut seen = envelopes.iter();
            seen.try_for_each(|seen| shown(oracle, device, seen))
        }
        _ => Ok(()),
    }
}

impl Invariant for Blocks {
    fn name(&self) -> &'static str {
        "blocks and suspensions hold"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::Sequence;

    use super::*;
    use crate::invariants::story::{Story, caught, legal};

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(Blocks, &story), None);
        }
    }

    fn done() -> Result<Response, Failure> {
        Ok(Response::Done)
    }

    /// Box 1 has blocked box 11, whose device is sender 1.
    fn blocked() -> Story {
        let mut story = Story::default();
        story.sent(1, 1, "before", 1);
        story.blocks(1, 11, true, done());
        story
    }

    #[test]
    fn a_letter_of_who_is_blocked_is_caught_by_its_answer_and_by_the_page_that_shows_it() {
        let mut story = blocked();
        story.sent(2, 1, "of another", 2);
        let before = story.seen(1, 1, 1, "before");
        story.page(1, 0, vec![before], 2);
        assert_eq!(caught(Blocks, &story), None);
        let mut answered = story.clone();
        answered.sent(1, 2, "text", 3);
        assert!(caught(Blocks, &answered).is_some());
        story.unknown(1, 2, "text");
        let seen = story.seen(1, 2, 3, "text");
        story.page(1, 0, vec![seen], 3);
        assert!(caught(Blocks, &story).is_some());
    }

    #[test]
    fn a_letter_that_was_sent_at_the_same_time_or_after_the_block_may_be_lifted_is_legal() {
        let mut story = Story::default();
        let sending = story.begin_send(1, 1, "text");
        story.blocks(1, 11, true, done());
        let sequence = Sequence(1);
        story.end(sending, Ok(Response::Sent { sequence }));
        story.blocks(1, 11, false, Err(Failure::Unknown));
        story.sent(1, 2, "text", 2);
        story.blocks(1, 11, true, done());
        // What nobody knows the outcome of may come late.
        story.sent(1, 3, "text", 3);
        assert_eq!(caught(Blocks, &story), None);
    }

    #[test]
    fn a_block_of_unknown_outcome_and_one_that_was_lifted_are_none() {
        let mut story = Story::default();
        story.blocks(1, 11, true, Err(Failure::Unknown));
        story.sent(1, 1, "text", 1);
        story.blocks(1, 11, true, done());
        story.blocks(1, 11, false, done());
        story.sent(1, 2, "text", 2);
        assert_eq!(caught(Blocks, &story), None);
    }

    #[test]
    fn a_suspended_box_that_sends_is_caught_and_so_is_one_that_is_refused_and_was_not() {
        let mut story = Story::default();
        story.suspends(11, true, done());
        let mut sends = story.clone();
        sends.sent(1, 1, "text", 1);
        assert!(caught(Blocks, &sends).is_some());
        let refused = || Err(Failure::Refused(SUSPENDED.to_owned()));
        let sending = story.begin_send(1, 1, "text");
        story.end(sending, refused());
        story.suspends(11, false, done());
        let mut late = story.clone();
        story.sent(1, 1, "text", 1);
        assert_eq!(caught(Blocks, &story), None);
        let sending = late.begin_send(1, 1, "text");
        late.end(sending, refused());
        assert!(caught(Blocks, &late).is_some());
    }
}
