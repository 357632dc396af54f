//! P2: an envelope id has one place in its box at most; "delivered" is said for one text only, the
//! one that is stored; and "not stored" is never said of what is.

use std::collections::BTreeSet;

use rossby_domain::Rejection;
use rossby_domain::ids::{BoxId, EnvelopeId, Sequence};

use super::Invariant;
use crate::known::Known;
use crate::observe::{Digest, Failure, Observation, Request, Response, Seen};
use crate::oracle::{Finished, Letter, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct EffectivelyOnce {
    /// Letters of which a reply said that they are not and never will be stored.
    ruled_out: BTreeSet<(BoxId, EnvelopeId)>,
}

impl EffectivelyOnce {
    fn shown(&self, oracle: &Oracle, to: &BoxId, seen: &Seen) -> Result<(), String> {
        let letter = oracle.letter(to, &seen.id);
        self.placed((to, &seen.id), letter, seen.sequence)?;
        let Some(letter) = letter else {
            return Ok(());
        };
        if let Some((delivered, ..)) = letter.delivered
            && delivered != seen.text
        {
            return Err(format!(
                "a page shows {seen}, but ({delivered}) was answered \"delivered\""
            ));
        }
        match letter.shown {
            Some(before) if before != seen.text => Err(format!(
                "a page shows {seen}, an earlier one showed ({before})"
            )),
            _ => Ok(()),
        }
    }

    fn placed(
        &self,
        (to, id): (&BoxId, &EnvelopeId),
        letter: Option<&Letter>,
        at: Sequence,
    ) -> Result<(), String> {
        let counter = id.counter;
        if self.ruled_out.contains(&(*to, *id)) {
            return Err(format!(
                "letter {counter} stands at {at}, after its sender was told that it never will"
            ));
        }
        match letter.and_then(|letter| letter.place) {
            Some((place, _)) if place != at => Err(format!(
                "letter {counter} of one sender stands at {place} and at {at}"
            )),
            _ => Ok(()),
        }
    }

    fn delivered(
        &self,
        oracle: &Oracle,
        (to, id): (&BoxId, &EnvelopeId),
        text: (Digest, Option<u64>),
        at: Sequence,
    ) -> Result<(), String> {
        let letter = oracle.letter(to, id);
        self.placed((to, id), letter, at)?;
        let Some(letter) = letter else {
            return Ok(());
        };
        if let Some((before, ttl_ms, _)) = letter.delivered
            && (before, ttl_ms) != text
        {
            return Err(format!(
                "\"delivered\" was said for ({before}) and now for ({}) under one id",
                text.0
            ));
        }
        match letter.shown {
            Some(shown) if shown != text.0 => Err(format!(
                "\"delivered\" is said for ({}), but ({shown}) is what a page showed",
                text.0
            )),
            _ => Ok(()),
        }
    }

    fn check(&mut self, oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
        match (&finished.call.request, finished.result) {
            (
                Request::Send {
                    to,
                    id,
                    text,
                    ttl_ms,
                },
                Ok(Response::Sent { sequence }),
            ) => self.delivered(oracle, (to, id), (*text, *ttl_ms), *sequence),
            (Request::Send { .. }, Err(Failure::Rejected(rejection))) => {
                self.ruled_out
                    .extend(rejected(oracle, finished, rejection)?);
                Ok(())
            }
            (Request::Fetch { device, .. }, Ok(Response::Page { envelopes, .. })) => {
                let mut seen = envelopes.iter();
                seen.try_for_each(|seen| self.shown(oracle, &device.box_id, seen))
            }
            _ => Ok(()),
        }
    }
}

/// A "no" to a letter which was known to be stored before the call began is wrong, unless it is
/// about another text. The letter that it rules out for ever, if it does.
fn rejected(
    oracle: &Oracle,
    finished: &Finished<'_>,
    rejection: &Rejection,
) -> Result<Option<(BoxId, EnvelopeId)>, String> {
    let Request::Send { to, id, text, .. } = &finished.call.request else {
        return Ok(None);
    };
    let Some(letter) = oracle.letter(to, id) else {
        return Ok(None);
    };
    let told = |what: &str| Err(format!("letter {} {what} is told: {rejection}", id.counter));
    let known_before = letter
        .place
        .is_some_and(|(_, since)| since < finished.call.began);
    match (rejection, letter.place) {
        (Rejection::NotAccepted { .. }, Some((at, _))) => {
            told(&format!("stands at {at}, but its sender"))
        }
        (Rejection::NotAccepted { .. }, None) => Ok(Some((*to, *id))),
        (Rejection::CounterReused { .. }, _) if is_stored_as(letter, *text) => {
            told("is stored, but a retry of the same")
        }
        (
            Rejection::EnvelopeTooLarge { .. }
            | Rejection::StaleKeyRecord { .. }
            | Rejection::SenderShareFull
            | Rejection::QueueFull,
            _,
        ) if known_before => told("was stored, but a retry of it"),
        _ => Ok(None),
    }
}

/// Whether every try of a letter asked for the same, and this text is what is stored.
fn is_stored_as(letter: &Letter, text: Digest) -> bool {
    let same = letter
        .tries
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if (a.text, a.ttl_ms) == (b.text, b.ttl_ms)));
    let delivered = letter.delivered.map(|(text, ..)| text);
    same && delivered.or(letter.shown) == Some(text)
}

impl Invariant for EffectivelyOnce {
    fn name(&self) -> &'static str {
        "P2 effectively once"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| self.check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rossby_domain::ids::Counter;

    use super::*;
    use crate::invariants::story::{Story, caught, legal, mutate_pages};

    const NEXT: Counter = Counter(9);

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(EffectivelyOnce::default(), &story), None);
        }

        #[test]
        fn a_letter_shown_at_two_places_is_caught(story in legal()) {
            let twice = mutate_pages(&story, |page| {
                let mut again = *page.first()?;
                again.sequence = Sequence(page.last()?.sequence.0 + 1);
                page.push(again);
                Some(())
            });
            if let Some(twice) = twice {
                // Only what the first page says of a letter is taken for granted.
                let mut known = story.clone();
                known.append(&twice);
                prop_assert!(caught(EffectivelyOnce::default(), &known).is_some());
            }
        }
    }

    #[test]
    fn a_retry_with_the_same_answer_is_legal() {
        let mut story = Story::default();
        for _ in 0..2 {
            story.sent(1, 1, "text", 1);
        }
        story.refused(1, 1, "other text", Rejection::CounterReused { next: NEXT });
        assert_eq!(caught(EffectivelyOnce::default(), &story), None);
    }

    #[test]
    fn a_retry_that_makes_a_second_envelope_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        story.sent(1, 1, "text", 2);
        assert!(caught(EffectivelyOnce::default(), &story).is_some());
    }

    #[test]
    fn delivered_for_two_texts_is_caught() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        story.sent(1, 1, "other text", 1);
        assert!(caught(EffectivelyOnce::default(), &story).is_some());
    }

    #[test]
    fn delivered_for_one_text_and_another_shown_is_caught_in_either_order() {
        let mut story = Story::default();
        story.sent(1, 1, "text", 1);
        let seen = story.seen(1, 1, 1, "other text");
        story.page(1, 0, vec![seen], 1);
        assert!(caught(EffectivelyOnce::default(), &story).is_some());

        let mut story = Story::default();
        story.page(1, 0, vec![seen], 1);
        story.sent(1, 1, "text", 1);
        assert!(caught(EffectivelyOnce::default(), &story).is_some());
    }

    #[test]
    fn a_wrong_no_to_a_stored_letter_is_caught() {
        for no in [
            Rejection::NotAccepted { next: NEXT },
            Rejection::CounterReused { next: NEXT },
            Rejection::StaleKeyRecord { current: 2 },
            Rejection::QueueFull,
        ] {
            let mut story = Story::default();
            story.sent(1, 1, "text", 1);
            story.refused(1, 1, "text", no);
            assert!(caught(EffectivelyOnce::default(), &story).is_some());
        }
    }

    #[test]
    fn a_letter_that_shows_up_after_it_was_ruled_out_is_caught() {
        let mut story = Story::default();
        story.refused(1, 1, "text", Rejection::NotAccepted { next: NEXT });
        story.sent(1, 1, "text", 1);
        assert!(caught(EffectivelyOnce::default(), &story).is_some());
    }
}
