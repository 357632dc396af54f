//! P8, second half: whatever happens to a disk, no page ever shows a letter that nobody sent, or
//! other bytes than those that were sent.

use super::Invariant;
use crate::known::Known;
use crate::observe::{Observation, Request, Response};
use crate::oracle::{Finished, Oracle};

/// See the file's head.
#[derive(Debug, Default)]
pub struct BytesAsWritten;

fn check(oracle: &Oracle, finished: &Finished<'_>) -> Result<(), String> {
    let (Request::Fetch { device, .. }, Ok(Response::Page { envelopes, .. })) =
        (&finished.call.request, finished.result)
    else {
        return Ok(());
    };
    for seen in envelopes {
        let letter = oracle.letter(&device.box_id, &seen.id);
        let Some(letter) = letter.filter(|letter| !letter.tries.is_empty()) else {
            return Err(format!("a page shows {seen}, which nobody sent"));
        };
        if !letter.tries.iter().any(|tried| tried.text == seen.text) {
            return Err(format!(
                "a page shows {seen}, but it was sent as ({})",
                letter.tries.first().map_or(seen.text, |tried| tried.text)
            ));
        }
    }
    Ok(())
}

impl Invariant for BytesAsWritten {
    fn name(&self) -> &'static str {
        "P8 bytes as written"
    }

    fn observe(&mut self, observation: &Observation, known: &Known) -> Result<(), String> {
        let finished = known.clients.finished(observation);
        finished.map_or(Ok(()), |finished| check(&known.clients, &finished))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::story::{Story, caught, legal, mutate_pages};
    use crate::observe::Digest;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn legal_histories_pass(story in legal()) {
            prop_assert_eq!(caught(BytesAsWritten, &story), None);
        }

        #[test]
        fn changed_bytes_on_a_page_are_caught(story in legal()) {
            let changed = mutate_pages(&story, |page| {
                page.first_mut().map(|seen| seen.text = Digest::of(b"forged"))
            });
            if let Some(changed) = changed {
                prop_assert!(caught(BytesAsWritten, &changed).is_some());
            }
        }
    }

    #[test]
    fn a_letter_that_nobody_sent_is_caught() {
        let mut story = Story::default();
        let seen = story.seen(1, 1, 1, "text");
        story.page(1, 0, vec![seen], 1);
        assert!(caught(BytesAsWritten, &story).is_some());
    }
}
